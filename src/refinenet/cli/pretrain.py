"""`refinenet pretrain`: an encoder from a folder of classified images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from refinenet.cli.options import AsJson, Device, parse_settings
from refinenet.io.console import say


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
