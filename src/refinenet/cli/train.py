"""The command `refinenet train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinenet.cli.options import (
    DATA,
    DATASET_HELP,
    NETWORK,
    SETTINGS,
    AsJson,
    ClassSet,
    Device,
    Root,
    RunOutput,
    StopAfter,
    join_settings,
    read_value,
    refuse_early,
)
from refinenet.io.console import say
from refinenet.models.decoder_config import DECODER_PRESETS

if TYPE_CHECKING:
    from refinenet.training.run import TrainResult


def train(
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="DATASET",
            help=f"{DATASET_HELP} May be repeated to train on several datasets; the first one is used for validation.",
        ),
    ] = None,
    root: Root = None,
    output: RunOutput = None,
    classes: ClassSet = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder of an interrupted training run to resume, instead of --dataset.")
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            help="Run folder of a finished training run to continue: starts a new, shorter run from its last model, at "
            "lower learning rates, on a --dataset that has grown, and compares both models.",
        ),
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with a list of training stages (under the key stages), instead of --dataset.",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe to use: a name or a TOML file; other options override it."),
    ] = None,
    list_recipes: Annotated[
        bool,
        typer.Option(
            "--list-recipes", help="List the bundled recipes and what each sets, and exit.", rich_help_panel=SETTINGS
        ),
    ] = False,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--show-settings",
            help="List all settings with their defaults and meanings (with --json, also the allowed values), and exit.",
            rich_help_panel=SETTINGS,
        ),
    ] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model to fine-tune.")] = None,
    model_type: Annotated[
        Literal["full", "lightweight"] | None,
        typer.Option(
            metavar="TYPE",
            help="Type of a new network: full, or lightweight (default with --encoder).",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    num_layers: Annotated[
        int | None, typer.Option(help="ResNet depth of a new network: 50, 101 or 152.", rich_help_panel=NETWORK)
    ] = None,
    size: Annotated[
        Literal["tiny", "small", "medium", "large"] | None,
        typer.Option(
            metavar="SIZE",
            help="Size of a new light-weight network, instead of --encoder: tiny, small, medium or large.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="timm encoder to use instead of a ResNet, such as mobilenetv2_100.", rich_help_panel=NETWORK),
    ] = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the encoder: a model file with this encoder (or camvid), a weights file, imagenet "
            "(from an installed package, or downloaded from timm), or random.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="What the network predicts: classes (default), depth:0.5:80 (metres), normals, "
            "NAME=regression\\[height:m,moisture:%], separated by commas. Outputs that the --model lacks are "
            "added to it.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            help="Band names of the images, each optionally followed by the stored values that map to 0 and 1: "
            "red,green,blue,nir:0:4095. A --model with other bands is adapted. Default: 8-bit RGB.",
            rich_help_panel=DATA,
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help=f"Decoder of a new network: {', '.join(DECODER_PRESETS)} (variants from the papers), or decoder "
            "options as JSON.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. Default: 50.")] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="N|auto", help="Images per step. Default: 8.")] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Peak learning rate of the decoder and the classifier. Default: 0.001."),
    ] = None,
    encoder_learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate of the encoder. Default: same as --learning-rate.", rich_help_panel=SETTINGS
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting, with a JSON value: 'crop_size=\\[360,480]'; --show-settings lists them all. May "
            "be repeated.",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check a sample of the data first.", rich_help_panel=DATA)
    ] = True,
    stop_after: StopAfter = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train a network on a dataset."""
    if list_recipes or show_settings:
        from refinenet.cli.training_lists import show_recipes, show_training_settings

        if list_recipes and show_settings:
            raise typer.BadParameter("pass one of the two lists at a time.", param_hint="--list-recipes")
        if show_settings and recipe is not None:
            raise typer.BadParameter(
                "it lists the defaults of all settings; --list-recipes lists what each recipe sets.",
                param_hint="--show-settings",
            )
        (show_recipes if list_recipes else show_training_settings)(as_json)
        return
    named = {
        "epochs": epochs,
        "batch_size": None if batch_size is None else read_value(batch_size),
        "learning_rate": None if learning_rate is None else read_value(learning_rate),
        "encoder_learning_rate": encoder_learning_rate,
    }
    chosen = join_settings(named, settings)
    start = {
        "model": model,
        "model_type": model_type,
        "size": size,
        "num_layers": num_layers,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
        "outputs": outputs,
        "bands": bands,
        "decoder": None if decoder is None else read_value(decoder),
    }
    if continue_from is None:
        _check_usage(dataset, resume, stages, recipe, start)
    else:
        _check_continued(start, {"--resume": resume, "--stages": stages, "--recipe": recipe})
    if resume is not None and not check:
        raise typer.BadParameter("the data of a resumed run were checked when it started.", param_hint="--no-check")
    # What a continued run changes has to fit its old settings, which are not known yet.
    is_partial = stages is not None or continue_from is not None
    chosen_start = _choose_start(start, recipe, chosen, is_staged=is_partial)
    _refuse_run(dataset or [], recipe, {"root": root, "classes": classes}, output, resume or continue_from)
    if check:
        _refuse_unmatched(dataset or [])
    from refinenet.api import RefineNet

    result = RefineNet(**chosen_start, device=device).train(
        dataset[0] if dataset and len(dataset) == 1 else dataset,
        root=root,
        output=output,
        resume=resume,
        stages=stages,
        recipe=recipe,
        classes=classes,
        check=check,
        stop_after=stop_after,
        progress=not as_json,
        continue_from=continue_from,
        **chosen,
    )
    _report(result, as_json)


def _choose_start(
    start: Mapping[str, Any], recipe: str | None, chosen: Mapping[str, Any], *, is_staged: bool
) -> dict[str, Any]:
    """Return the arguments of `RefineNet` after validating the settings.

    The training seed also seeds the weights of a new network, unless the recipe sets another seed for them.
    """
    from refinenet.training.config import TrainConfig
    from refinenet.training.records.recipes import merge, read_recipe

    settings = chosen
    if recipe is not None:
        written = merge(read_recipe(recipe), network=start, train=chosen)
        start, settings = written.network, written.train
        is_staged = bool(written.stages)
    if not is_staged:  # the settings that stages share need not be a valid training by themselves
        TrainConfig.from_dict(settings)
    is_new = start.get("model") is None
    return {"seed": settings.get("seed", TrainConfig.seed), **start} if is_new else dict(start)


def _refuse_run(
    datasets: list[str], recipe: str | None, options: Mapping[str, Any], output: Path | None, started: Path | None
) -> None:
    """Refuse a run by the names of its folders and datasets, before PyTorch is imported."""
    from refinenet.training.records.folder import RunFolder
    from refinenet.training.records.recipes import merge, read_recipe

    if recipe is not None:
        merge(read_recipe(recipe), dataset=datasets or None, root=options["root"])
    if started is not None:
        RunFolder(started).refuse_missing()
    if output is not None:
        RunFolder(output).refuse_started()
    for number, name in enumerate(datasets):
        refuse_early("Training", name, **(options if number == 0 else {}))


def _refuse_unmatched(datasets: list[str]) -> None:
    """Refuse folders with missing files, which training would report, before PyTorch is imported."""
    from refinenet.datasets import doctor
    from refinenet.datasets.catalog import PUBLISHED, is_folder_dataset

    for name in datasets:
        if name not in PUBLISHED and is_folder_dataset(name):
            doctor.refuse_unmatched(name)


def _check_usage(
    dataset: list[str] | None, resume: Path | None, stages: Path | None, recipe: str | None, start: Mapping[str, Any]
) -> None:
    if resume is None and stages is None and recipe is None and not dataset:
        raise typer.BadParameter(
            "pass a dataset, a recipe (--recipe), or a run to resume (--resume).", param_hint="--dataset"
        )
    if resume is not None and any(value is not None for value in start.values()):
        raise typer.BadParameter(
            "a resumed run already has a network: omit the options for a new one.", param_hint="--resume"
        )
    if recipe is not None and (resume is not None or stages is not None):
        other = "a resumed run keeps its settings" if stages is None else "a recipe has its own stages"
        raise typer.BadParameter(f"{other}: omit one of the two options.", param_hint="--recipe")


def _check_continued(start: Mapping[str, Any], others: Mapping[str, object]) -> None:
    if any(value is not None for value in start.values()):
        raise typer.BadParameter(
            "a continued run already has a network: omit the options for a new one.", param_hint="--continue"
        )
    for name, value in others.items():
        if value is not None:
            raise typer.BadParameter(
                "a continued run is a new one with the settings of the old one; --resume continues an interrupted run "
                "itself. Pass one of the options.",
                param_hint=name,
            )


def _report(result: "TrainResult", as_json: bool) -> None:
    found: dict[str, Any] = {
        "folder": str(result.folder),
        "model": str(result.model),
        "best_miou": result.best_miou,
        "best_score": result.best_score,
        "goal": result.goal,
        "epochs": result.epochs,
        "is_over": result.is_over,
    }
    if result.comparison is not None:
        found["comparison"] = result.comparison.to_dict()
    best = "none yet" if result.best_score is None else f"{100 * result.best_score:.2f} %"
    say(found if as_json else f"Best validation {result.goal}: {best}. Model: {result.model}")
