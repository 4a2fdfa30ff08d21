"""A pre-training run in its folder, new or resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from refinenet.distributed import Engine, describe_run, launch
from refinenet.inference.backends.pytorch import keep_freed_memory
from refinenet.io.console import print_note
from refinenet.models.encoders.encoder import feature_info
from refinenet.models.factory import choose_device
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.state import restore_state, start_state
from refinenet.training.engine.trainer import Trainer, hold
from refinenet.training.losses import Objective
from refinenet.training.optimisation import choose_precision
from refinenet.training.pretraining.classification_task import ClassificationTask
from refinenet.training.pretraining.classifier import ImageClassifier
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.image_folder import ImageFolder, open_image_folder
from refinenet.training.pretraining.loader import ImageLoader
from refinenet.training.records.folder import RunFolder, next_folder

IGNORED = -100
"""Ignore index that no image has as its label: in pre-training all images count."""


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """Result of a pre-training run."""

    folder: Path
    """Folder of the run, with everything it wrote."""
    encoder: Path | None
    """Encoder of the epoch with the best accuracy, for `RefineNet(encoder_weights=...)`; None if the run was stopped
    before there was one."""
    best_accuracy: float | None
    """Share of the validation images, in [0, 1], that it classifies correctly."""
    epochs: int
    """Number of epochs trained in all."""
    is_over: bool
    """Whether the run is finished; False if `stop_after` stopped it before its end."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Encoder, data and settings of a run."""

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
    """Train an encoder, from random weights, to classify images.

    Args:
        folder: Folder of images, `train/CLASS/IMAGE` and `val/CLASS/IMAGE` or `CLASS/IMAGE`; see `open_image_folder`.
        encoder: A timm model name, such as "mobilenetv2_100".
        output: Folder for the results; by default a new one below `runs/`.
        resume: Folder of a stopped run to resume as it was started, instead of all the above.
        device: "cpu", "cuda", "cuda:1", ...; by default a GPU if there is one.
        stop_after: Number of steps after which to stop, for now.
        progress: Whether to show progress.
        **settings: Fields of `PretrainConfig`.

    Returns:
        The encoder's file and its accuracy.

    Raises:
        FileNotFoundError: The images or the run are missing.
        ValueError: An argument or setting is not allowed, the folder's classes cannot be learned, an image cannot be
            used, training diverged, or the files of a run are damaged.
        OSError: A file cannot be read, or a new run cannot be written.
        KeyboardInterrupt, SystemExit: The user or the system stopped it; the state reached is kept.
    """
    if resume is not None and (folder is not None or encoder is not None or output is not None or settings):
        raise ValueError("A run resumes with its original settings: leave folder, encoder, output and settings out.")
    if stop_after is not None and (type(stop_after) is not int or stop_after < 1):
        raise ValueError(f"stop_after must be a whole number of at least 1, in steps, not {stop_after!r}.")
    plan = _make_plan(folder, encoder, settings) if resume is None else _read_plan(_run_folder(resume))
    chosen = choose_device(device)
    engine = launch(chosen, choose_precision(plan.config.precision, chosen))
    show = progress and engine.processes.is_first
    run = _new_run(output, plan, engine) if resume is None else _run_folder(resume)
    return _train(plan, run, engine, chosen, is_new=resume is None, steps=stop_after, show=show)


def _make_plan(folder: str | os.PathLike[str] | None, encoder: str | None, settings: Mapping[str, Any]) -> _Plan:
    if folder is None or encoder is None:
        raise ValueError("Pass a folder of images and an encoder, or a run to resume.")
    config = PretrainConfig.from_dict(settings)
    feature_info(encoder)
    return _Plan(encoder=encoder, images=open_image_folder(folder), config=config)


def _new_run(output: str | os.PathLike[str] | None, plan: _Plan, engine: Engine) -> RunFolder:
    path = Path(output) if output is not None else next_folder(f"{plan.encoder}-encoder")
    run = _run_folder(engine.processes.tell(str(path)))
    run.refuse_started()
    engine.processes.wait()  # no process makes the folder before all have seen that it is free
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
        raise ValueError(f"{run.path} holds no pre-training run. Continue it with `refinenet train --resume`.")
    try:
        encoder, classes = description["pretrained"], description["classes"]
        counts = description["train_images"], description["val_images"]
        folder, config = Path(description["images"]), PretrainConfig.from_dict(description["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.path / 'run.json'} is damaged: {error!r}") from error
    images = open_image_folder(folder)
    if list(images.classes) != classes or (len(images.train), len(images.val)) != counts:
        raise ValueError(
            f"The images of the run in {run.path} have changed: it was started with {counts[0]} for training and "
            f"{counts[1]} for validation of {len(classes)} classes, and {folder} now holds {len(images.train)} and "
            f"{len(images.val)} of {len(images.classes)}."
        )
    if description.get("images_sha256", images.fingerprint()) != images.fingerprint():
        raise ValueError(
            f"The images of the run in {run.path} have changed: {folder} holds as many as it was started with, but "
            "with other names or sizes. Its results would not be comparable: start a new run."
        )
    return _Plan(encoder=encoder, images=images, config=config)


def _train(
    plan: _Plan, folder: RunFolder, engine: Engine, device: torch.device, *, is_new: bool, steps: int | None, show: bool
) -> PretrainResult:
    """Train to the end: a new run, or the one in the folder."""
    keep_freed_memory()
    config, processes = plan.config, engine.processes
    with ExitStack() as stack:
        session = stack.enter_context(hold(folder, config, processes, steps=steps, show=show))
        loader = stack.enter_context(ImageLoader(plan.images, config, device, processes.rank, processes.count))
        if loader.batch_size != config.batch_size:
            message = f"Batches have {loader.batch_size} instead of {config.batch_size} images: there are no more."
            print_note(message, enabled=show)
        learner = _make_learner(plan, engine, device)
        if is_new:
            state = start_state(folder, learner, _describe(plan), show=show)
        else:
            state = restore_state(folder, learner, show=show)
        task = ClassificationTask(folder, plan.encoder, plan.images.classes, config, learner, loader)
        Trainer(learner, loader, task, session, state).run()
        processes.wait()
    return PretrainResult(
        folder=folder.path,
        encoder=folder.best_model if folder.best_model.exists() else None,
        best_accuracy=state.best_score,
        epochs=state.epoch,
        is_over=state.is_finished,
    )


def _make_learner(plan: _Plan, engine: Engine, device: torch.device) -> Learner[ImageClassifier]:
    seed = plan.config.seed
    torch.manual_seed(seed)
    classifier = ImageClassifier(plan.encoder, len(plan.images.classes)).to(device)
    torch.manual_seed(seed + engine.processes.rank)  # dropout differs between processes
    config = plan.config.learning
    return Learner(classifier, config, engine, Objective(config=config, ignore_index=IGNORED))
