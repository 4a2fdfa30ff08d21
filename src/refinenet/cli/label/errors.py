"""The command `refinenet label errors`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from refinenet.cli.label.options import Format
from refinenet.cli.options import DATA, NETWORK, SETTINGS, AsJson, Device, Root, join_settings, refuse_early
from refinenet.io.console import say


def errors(
    dataset: Annotated[str, typer.Argument(help="A dataset's name, or your own folder or YAML file.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Model or run folder to check the labels with, instead of --folds. May be repeated; each image is "
            "checked by the models that were not trained on it.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Number of models to train; each checks the images that it was not trained on."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("suspects"),
    first: Annotated[int, typer.Option("--first", "-n", min=1, help="Number of suspects to list.")] = 200,
    file_format: Format = "cvat",
    root: Root = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split to check; may be repeated. Default: all labelled splits.", rich_help_panel=DATA),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; images whose names have the same text in its first capture group share a fold. "
            "By default, images whose names differ only in the last number share a fold.",
            rich_help_panel=DATA,
        ),
    ] = None,
    unseen: Annotated[
        bool,
        typer.Option(
            "--unseen",
            help="Confirm that models without a record of their training images were not trained on these images.",
        ),
    ] = False,
    size: Annotated[
        Literal["tiny", "small", "medium", "large"] | None,
        typer.Option(
            metavar="SIZE",
            help="Size of the networks that --folds trains: tiny, small (default), medium or large.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Model, such as camvid, from which --folds starts training, instead of --size; it must not have been "
            "trained on these images.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs for each model that --folds trains. Default: 50.", rich_help_panel=SETTINGS),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting of these training runs, as for `refinenet train`. May be repeated.",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find labels that are likely wrong, using models that were not trained on those images.

    Writes suspects.html (a page for reviewing them), suspects.csv, suspects.json,
    regions/ (masks of the suspect regions) and proposals/ (the labels with the
    suspect regions replaced by predictions; also in an annotation tool's format).
    Rerun the same command to resume an interrupted run.
    """
    chosen = join_settings({"epochs": epochs}, settings)
    _check_usage(model, folds, {"--size": size, "--start": start, "--group": group, "--epochs": epochs}, settings)
    if size is not None and start is not None:
        raise typer.BadParameter("a network has either a size or a model to start from.", param_hint="--start")
    from refinenet.labelling import check_fold_settings

    check_fold_settings(chosen)  # before PyTorch is imported
    refuse_early("Finding label errors", dataset, root)
    from refinenet.labelling import Folds, find_label_errors

    network: dict[str, Any] = {"model": start} if start is not None else {"size": size or "small"}
    found = find_label_errors(
        dataset,
        output,
        models=model or (),
        folds=None if folds is None else Folds(count=folds, network=network, settings=chosen, group=group),
        root=root,
        splits=split or (),
        unseen=unseen,
        first=first,
        file_format=file_format,
        device=device,
        progress=not as_json,
    )
    say(found.to_dict() if as_json else found.describe())


def _check_usage(
    model: list[str] | None, folds: int | None, of_folds: dict[str, Any], settings: list[str] | None
) -> None:
    if bool(model) == (folds is not None):
        raise typer.BadParameter(
            "pass either models that have not seen the images (--model), or --folds 5, which trains such models.",
            param_hint="--model",
        )
    idle = [name for name, value in {**of_folds, "--set": settings}.items() if value is not None]
    if model and idle:
        raise typer.BadParameter(f"{', '.join(idle)} would have no effect without --folds.", param_hint="--model")
