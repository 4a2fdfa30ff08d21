"""`refinenet train`, the command with the most options."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinenet.cli.options import DATASET_HELP, AsJson, ClassSet, Device, Root, parse_settings, read_value
from refinenet.io.console import say

if TYPE_CHECKING:
    from refinenet.training.run import TrainResult


def train(
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", "-d", help=f"{DATASET_HELP} Several train together, and the first one validates."),
    ] = None,
    root: Root = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results; by default a new one in runs/."),
    ] = None,
    classes: ClassSet = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a stopped run to go on with, instead of --dataset.")
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(help="A YAML file of trainings after each other (a list below the key stages), for --dataset."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe by name, or its TOML file; what other options say takes the place of its words."),
    ] = None,
    list_recipes: Annotated[bool, typer.Option("--list-recipes", help="Show the recipes there are, and stop.")] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A model to go on from.")] = None,
    model_type: Annotated[
        Literal["full", "lightweight"] | None,
        typer.Option(help="Family of a new network; full where no encoder is named."),
    ] = None,
    num_layers: Annotated[int | None, typer.Option(help="Depth of a new network's ResNet: 50, 101 or 152.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Instead of a ResNet, a timm network, such as mobilenetv2_100.")
    ] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help='A file of encoder weights, or "imagenet" to fetch timm\'s.')
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. [default: 50]")] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="NUMBER|auto", help="Images in a step. [default: 8]")
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|auto", help="Of decoder and classifier, at its highest. [default: 0.001]"),
    ] = None,
    encoder_learning_rate: Annotated[float | None, typer.Option(help="Of the encoder; by default the same.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other field of TrainConfig, as KEY=VALUE in JSON: --set 'crop_size=[360,480]'. May be repeated.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Let the doctor look at the data first, quickly.")
    ] = True,
    stop_after: Annotated[
        int | None,
        typer.Option(min=1, metavar="STEPS", help="Stop for now after so many steps; --resume goes on."),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train a network on a dataset."""
    if list_recipes:
        _show_recipes(as_json)
        return
    named = {
        "epochs": epochs,
        "batch_size": None if batch_size is None else read_value(batch_size),
        "learning_rate": None if learning_rate is None else read_value(learning_rate),
        "encoder_learning_rate": encoder_learning_rate,
    }
    chosen: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    chosen |= parse_settings(settings or [], taken=set(chosen))
    start = {
        "model": model,
        "model_type": model_type,
        "num_layers": num_layers,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
    }
    _check_usage(dataset, resume, stages, recipe, start)
    if resume is not None and not check:
        raise typer.BadParameter("a resumed run's data were looked at when it was begun.", param_hint="--no-check")
    from refinenet.api import RefineNet

    result = RefineNet(**_choose_start(start, recipe, chosen, is_staged=stages is not None), device=device).train(
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
        **chosen,
    )
    _report(result, as_json)


def _choose_start(
    start: Mapping[str, Any], recipe: str | None, chosen: Mapping[str, Any], *, is_staged: bool
) -> dict[str, Any]:
    """The arguments of `RefineNet`, once it is sure that the settings are allowed.

    The seed of the training is that of a new network's weights, too, unless the recipe says another one for them.
    """
    from refinenet.training.config import TrainConfig
    from refinenet.training.records.recipes import merge, read_recipe

    settings = chosen
    if recipe is not None:
        written = merge(read_recipe(recipe), network=start, train=chosen)
        start, settings = written.network, written.train
        is_staged = bool(written.stages)
    if not is_staged:  # what all stages share need not do for a training of its own
        TrainConfig.from_dict(settings)
    is_new = start.get("model") is None
    return {"seed": settings.get("seed", TrainConfig.seed), **start} if is_new else dict(start)


def _show_recipes(as_json: bool) -> None:
    from refinenet.training.records.recipes import recipe_descriptions

    found = recipe_descriptions()
    say(found if as_json else "\n\n".join(f"{name}\n{_indent(told)}" for name, told in found.items()))


def _indent(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="    ")


def _check_usage(
    dataset: list[str] | None, resume: Path | None, stages: Path | None, recipe: str | None, start: Mapping[str, Any]
) -> None:
    if resume is None and stages is None and recipe is None and not dataset:
        raise typer.BadParameter(
            "name a dataset, a recipe by --recipe, or a run to go on with by --resume.", param_hint="--dataset"
        )
    if resume is not None and any(value is not None for value in start.values()):
        raise typer.BadParameter(
            "a resumed run has its network: leave the options of a new one out.", param_hint="--resume"
        )
    if recipe is not None and (resume is not None or stages is not None):
        other = "a resumed run goes on as it was begun" if stages is None else "a recipe has stages of its own"
        raise typer.BadParameter(f"{other}: leave one of the two out.", param_hint="--recipe")


def _report(result: TrainResult, as_json: bool) -> None:
    found = {
        "folder": str(result.folder),
        "model": str(result.model),
        "best_miou": result.best_miou,
        "epochs": result.epochs,
        "is_over": result.is_over,
    }
    best = "none yet" if result.best_miou is None else f"{100 * result.best_miou:.2f} %"
    say(found if as_json else f"Best validation mIoU: {best}. Model: {result.model}")


def pretrain(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="train/CLASS/IMAGE and val/CLASS/IMAGE, or CLASS/IMAGE with every tenth image kept for validation.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="A timm network, such as mobilenetv2_100.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; by default a new one in runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a stopped run to go on with, instead of all the above.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. [default: 90]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step. [default: 128]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest. [default: 0.001]")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other field of PretrainConfig, as KEY=VALUE in JSON: --set crop_size=160. May be repeated.",
        ),
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(min=1, metavar="STEPS", help="Stop for now after so many steps; --resume goes on."),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on a folder of classified images, for --encoder-weights."""
    named = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    chosen |= parse_settings(settings or [], taken=set(chosen))
    if resume is None and (folder is None or encoder is None):
        raise typer.BadParameter("name a folder of images and --encoder, or a run to go on with by --resume.")
    from refinenet.training.pretraining import pretrain_encoder

    result = pretrain_encoder(
        folder,
        encoder=encoder,
        output=output,
        resume=resume,
        device=device,
        stop_after=stop_after,
        progress=not as_json,
        **chosen,
    )
    if as_json:
        encoder_file = None if result.encoder is None else str(result.encoder)
        say({**asdict(result), "folder": str(result.folder), "encoder": encoder_file})
    elif result.encoder is None or result.best_accuracy is None:
        say(f"No epoch was finished. Folder: {result.folder}")
    else:
        say(f"Best validation accuracy: {100 * result.best_accuracy:.2f} %. Encoder: {result.encoder}")
