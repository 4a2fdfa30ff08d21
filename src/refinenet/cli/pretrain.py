"""The command `refinenet pretrain`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.options import AsJson, Device, RunOutput, StopAfter, join_settings
from refinenet.io.console import say


def pretrain(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with train/CLASS/IMAGE and val/CLASS/IMAGE, or just CLASS/IMAGE, in which case every tenth "
            "image is held out for validation.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="The timm encoder to train, such as mobilenetv2_100.")] = None,
    output: RunOutput = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder of an interrupted run to resume, instead of starting a new run.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. Default: 90.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step. Default: 128.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate. Default: 0.001.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting, with a JSON value: crop_size=160; --show-settings lists them all. May be "
            "repeated.",
        ),
    ] = None,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--show-settings",
            help="List all settings with their defaults and meanings (with --json, also the allowed values), and exit.",
        ),
    ] = False,
    stop_after: StopAfter = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Pretrain an encoder by image classification, for use with train --encoder-weights."""
    if show_settings:
        from refinenet.cli.training_lists import show_settings_of
        from refinenet.training.pretraining.config import PretrainConfig

        show_settings_of(PretrainConfig, "--set crop_size=160 --set optimiser=sgd", as_json)
        return
    named = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen = join_settings(named, settings)
    if resume is None and (folder is None or encoder is None):
        raise typer.BadParameter("pass a folder of images and --encoder, or a run to resume (--resume).")
    if resume is None:
        _refuse_early(folder, output)
    from refinenet.training.pretraining.run import pretrain_encoder

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


def _refuse_early(folder: Path | None, output: Path | None) -> None:
    """Refuse what the names of folders show, before PyTorch is imported, which takes seconds."""
    from refinenet.distributed.environment import require_pytorch
    from refinenet.training.records.folder import RunFolder

    require_pytorch("Pre-training")
    if output is not None:
        RunFolder(output).refuse_started()
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
