"""A run of pre-training in its folder: begun, carried out, and taken up again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from refinenet.distributed import Engine, launch
from refinenet.environment import describe_run
from refinenet.inference.backends.pytorch import keep_freed_memory
from refinenet.io.console import print_note
from refinenet.io.signals import StopRequest
from refinenet.models.encoders.encoder import feature_info
from refinenet.models.factory import choose_device
from refinenet.models.network import Network
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.state import Beginning, restore_state
from refinenet.training.engine.trainer import Trainer, telling_how_it_goes_on
from refinenet.training.loggers import open_loggers
from refinenet.training.optimisation import choose_precision
from refinenet.training.pretraining.classification_task import ClassificationTask
from refinenet.training.pretraining.classifier import ImageClassifier
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.image_folder import ImageFolder, open_image_folder
from refinenet.training.pretraining.loader import ImageLoader
from refinenet.training.records.folder import RunFolder, next_folder

IGNORED = -100
"""A label that no image has: in pre-training all count."""


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """What a run of pre-training left."""

    folder: Path
    """Holds all that the run left."""
    encoder: Path | None
    """The encoder of the epoch with the best accuracy, for `RefineNet(encoder_weights=...)`; None where the run was
    stopped before there was one."""
    best_accuracy: float | None
    """Share of the validation images, in [0, 1], that it classifies rightly."""
    epochs: int
    """Epochs trained in all."""
    is_over: bool
    """Whether the run is over; False where `stop_after` stopped it before its end."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is trained, on what, and how."""

    encoder: str
    images: ImageFolder
    config: PretrainConfig


def pretrain_encoder(
    folder: str | os.PathLike[str] | None = None,
    *,
    encoder: str | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    stop_after: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> PretrainResult:
    """Train an encoder, from random weights, to tell the classes of images apart.

    Args:
        folder: The images, `train/CLASS/IMAGE` and `val/CLASS/IMAGE` or `CLASS/IMAGE`; see `open_image_folder`.
        encoder: A timm model name, such as "mobilenetv2_100".
        output: Folder for the results; by default a new one below `runs/`.
        resume: Folder of a stopped run to go on with, as it was begun, instead of all the above.
        device: "cpu", "cuda", "cuda:1", ...; by default a GPU where there is one.
        stop_after: Steps after which to stop, for now.
        progress: Whether to show progress.
        **settings: Fields of `PretrainConfig`.

    Returns:
        Where the encoder is, and how good.

    Raises:
        FileNotFoundError: the images or the run are not there.
        ValueError: an argument or setting is not allowed, the folder's classes cannot be learned, an image cannot be
            used, training diverged, or what a run keeps is damaged.
        OSError: a file cannot be read, or a new run cannot be written.
        KeyboardInterrupt, SystemExit: the user or the system stopped it; what was reached is kept.
    """
    if resume is not None and (folder is not None or encoder is not None or output is not None or settings):
        raise ValueError("A stopped run goes on as it was begun: leave folder, encoder, output and settings out.")
    if stop_after is not None and (type(stop_after) is not int or stop_after < 1):
        raise ValueError(f"stop_after is a number of steps, a whole number from 1 up, not {stop_after!r}.")
    plan = _make_plan(folder, encoder, settings) if resume is None else _read_plan(_run_folder(resume))
    chosen = choose_device(device)
    engine = launch(chosen, choose_precision(plan.config.precision, chosen))
    show = progress and engine.processes.is_first
    run = _new_run(output, plan, engine) if resume is None else _run_folder(resume)
    return _carry_out(plan, run, engine, chosen, is_new=resume is None, steps=stop_after, show=show)


def _make_plan(folder: str | os.PathLike[str] | None, encoder: str | None, settings: Mapping[str, Any]) -> _Plan:
    if folder is None or encoder is None:
        raise ValueError("Name a folder of images and an encoder, or a run to resume.")
    config = PretrainConfig.from_dict(settings)
    feature_info(encoder)
    return _Plan(encoder=encoder, images=open_image_folder(folder), config=config)


def _new_run(output: str | os.PathLike[str] | None, plan: _Plan, engine: Engine) -> RunFolder:
    place = Path(output) if output is not None else next_folder(f"{plan.encoder}-encoder")
    run = _run_folder(engine.processes.tell(str(place)))
    run.refuse_begun()
    engine.processes.wait()  # nobody makes the folder before all have seen that it is free
    return run


def _run_folder(path: str | os.PathLike[str]) -> RunFolder:
    return RunFolder(Path(path), best_name="encoder.safetensors")


def _describe(plan: _Plan) -> dict[str, Any]:
    return {
        "pretrained": plan.encoder,
        "images": str(plan.images.path.resolve()),
        "classes": list(plan.images.classes),
        "train_images": len(plan.images.train),
        "val_images": len(plan.images.val),
        "images_sha256": plan.images.fingerprint(),
        "config": asdict(plan.config),
        **describe_run(),
    }


def _read_plan(run: RunFolder) -> _Plan:
    description = run.read_description()
    if "pretrained" not in description:
        raise ValueError(f"{run.path} holds no run of pre-training. Go on with it by `refinenet train --resume`.")
    try:
        encoder, classes = description["pretrained"], description["classes"]
        counts = description["train_images"], description["val_images"]
        place, config = Path(description["images"]), PretrainConfig.from_dict(description["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.path / 'run.json'} is damaged: {error!r}") from error
    images = open_image_folder(place)
    if list(images.classes) != classes or (len(images.train), len(images.val)) != counts:
        raise ValueError(
            f"The images of the run in {run.path} have changed: it was begun with {counts[0]} for training and "
            f"{counts[1]} for validation of {len(classes)} classes, and {place} now holds {len(images.train)} and "
            f"{len(images.val)} of {len(images.classes)}."
        )
    if description.get("images_sha256", images.fingerprint()) != images.fingerprint():
        raise ValueError(
            f"The images of the run in {run.path} have changed: {place} holds as many as it was begun with, but "
            "others, by names or sizes. What it has measured would not be comparable: begin a new run."
        )
    return _Plan(encoder=encoder, images=images, config=config)


def _carry_out(
    plan: _Plan, folder: RunFolder, engine: Engine, device: torch.device, *, is_new: bool, steps: int | None, show: bool
) -> PretrainResult:
    """Train to the end, a new run or the one that the folder keeps."""
    keep_freed_memory()
    config, processes = plan.config, engine.processes
    with ExitStack() as stack:
        interruption = stack.enter_context(StopRequest())
        if processes.is_first:
            stack.enter_context(folder.lock())
        stack.enter_context(telling_how_it_goes_on(folder, show=show))
        loader = stack.enter_context(ImageLoader(plan.images, config, device, processes.rank, processes.count))
        if loader.batch_size != config.batch_size:
            told = f"Batches have {loader.batch_size} instead of {config.batch_size} images: there are no more."
            print_note(told, enabled=show)
        learner = _make_learner(plan, engine, device)
        beginning = Beginning(description=_describe(plan)) if is_new else None
        position = restore_state(folder, learner, beginning, show=show)
        names = config.loggers if processes.is_first else ()
        loggers = open_loggers(names, folder.path, asdict(config), first_step=position.epoch + 1)
        stack.callback(folder.attempt, "the loggers' last figures", loggers.close, is_last=True)
        keeper = ClassificationTask(folder, plan.encoder, plan.images.classes, config, learner, loader)
        loop = Trainer(learner, loader, keeper, folder, loggers, interruption, position, steps=steps, show=show)
        loop.run()
        processes.wait()
    return PretrainResult(
        folder=folder.path,
        encoder=folder.best_model if folder.best_model.exists() else None,
        best_accuracy=position.best_score,
        epochs=position.epoch,
        is_over=position.is_over,
    )


def _make_learner(plan: _Plan, engine: Engine, device: torch.device) -> Learner:
    seed = plan.config.seed
    torch.manual_seed(seed)
    classifier = ImageClassifier(plan.encoder, len(plan.images.classes)).to(device)
    torch.manual_seed(seed + engine.processes.rank)  # each process drops out values of its own
    # Of a network the learner needs an encoder and buffers, which a classifier has, too.
    network = cast(Network, classifier)
    return Learner(network, plan.config.learning, engine, ignore_index=IGNORED)
