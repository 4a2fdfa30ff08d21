"""The command `refinenet label next`."""

from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.label.options import (
    FirstId,
    Format,
    ImagePrefix,
    MinArea,
    MinConfidence,
    Recursive,
    Shapes,
    Simplify,
)
from refinenet.cli.options import DATA, DATASET_HELP, AsJson, Device, Model, Root, default_model_notice
from refinenet.io.console import say


def next_images(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Image files, folders, quoted glob patterns, or @FILE (a text file that lists images).",
        ),
    ],
    model: Model = "camvid",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of images to choose.")] = 50,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the list, the sheet and the drafts.")] = (
        Path("todo")
    ),
    labelled: Annotated[
        str | None,
        typer.Option(
            "--labelled",
            "-d",
            metavar="DATASET",
            help=f"Dataset of images already labelled; images unlike them are preferred. {DATASET_HELP}",
            rich_help_panel=DATA,
        ),
    ] = None,
    root: Root = None,
    file_format: Format = "cvat",
    shapes: Shapes = None,
    simplify: Simplify = 1.0,
    min_area: MinArea = 20,
    min_confidence: MinConfidence = 0.0,
    first_id: FirstId = 1,
    image_prefix: ImagePrefix = None,
    recursive: Recursive = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Choose the images to label next: those whose labels should improve a model most.

    Writes todo.csv and todo.json (the chosen images, with the reason for each),
    todo.txt (to pass to other commands as @todo/todo.txt), sheet.jpg (a contact
    sheet) and drafts/ (the predictions, for an annotation tool). Rerun the same
    command to resume an interrupted run.
    """
    announce = default_model_notice(context, model)
    from refinenet.deployment.image_search import refuse_missing

    refuse_missing(sources)
    from refinenet.api import RefineNet
    from refinenet.labelling import rank_images

    opened = RefineNet(model=model, device=device, backend="pytorch")
    announce()
    found = rank_images(
        opened,
        sources,
        output,
        count=count,
        labelled=labelled,
        root=root,
        recursive=recursive,
        progress=not as_json,
        file_format=file_format,
        shapes=shapes,
        simplify=simplify,
        min_area=min_area,
        min_confidence=min_confidence,
        first_id=first_id,
        image_prefix=image_prefix,
    )
    say(found.to_dict() if as_json else found.describe())
