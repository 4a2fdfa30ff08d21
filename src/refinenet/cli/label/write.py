"""The command `refinenet label write`."""

from pathlib import Path
from typing import Annotated, Any

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
from refinenet.cli.options import AsJson, Backend, Device, Precision
from refinenet.io.console import say


def write(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, folders, quoted glob patterns, or @FILE (a text file that lists images)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Model whose predictions become the drafts, as for `refinenet deploy`."),
    ] = "camvid",
    masks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of PNG masks (class ids) and a classes.yaml, instead of a model."),
    ] = None,
    file_format: Format = "cvat",
    shapes: Shapes = None,
    simplify: Simplify = 1.0,
    min_area: MinArea = 20,
    min_confidence: MinConfidence = 0.0,
    first_id: FirstId = 1,
    image_prefix: ImagePrefix = None,
    recursive: Recursive = False,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
    as_json: AsJson = False,
) -> None:
    """Write draft labels, for you to correct in an annotation tool."""
    from refinenet.deployment.image_search import refuse_missing
    from refinenet.labelling import describe_drafts, write_labels

    refuse_missing(images)
    drafts = write_labels(
        images,
        output,
        model=None if masks is not None else _open_model(context, model, device, backend, precision),
        masks=masks,
        file_format=file_format,
        shapes=shapes,
        simplify=simplify,
        min_area=min_area,
        min_confidence=min_confidence,
        first_id=first_id,
        image_prefix=image_prefix,
        recursive=recursive,
        progress=not as_json,
    )
    if as_json:
        say(describe_drafts(drafts))
    else:
        say(f"{len(drafts.images)} drafts in {drafts.folder}. Next: {drafts.advice}")
        say(f"Or, without a tool, in the browser: refinenet label correct {drafts.folder}")
        say(f"Then: refinenet label take EXPORT --drafts {drafts.folder} --into DATASET")
        for name, reason in drafts.failed.items():
            typer.echo(f"No draft for {name}: {reason}", err=True)
    if drafts.failed:
        raise typer.Exit(1)


def _open_model(context: typer.Context, model: str, device: Any, backend: Any, precision: Any) -> Any:
    from refinenet.api import RefineNet
    from refinenet.cli.options import default_model_notice

    network = RefineNet(model=model, device=device, backend=backend, precision=precision)
    default_model_notice(context, model)()
    return network
