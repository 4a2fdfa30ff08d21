"""A run of pre-training in its folder: begun, carried out, and taken up again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from refinenet.distributed import Engine, launch
from refinenet.encoder import describe_taps
from refinenet.image_folder import ImageFolder, open_image_folder
from refinenet.interruption import Interruption
from refinenet.learner import Learner
from refinenet.memory import keep_freed_memory
from refinenet.metric_loggers import open_loggers
from refinenet.model_source import choose_device
from refinenet.network import Network
from refinenet.optimisation import choose_precision
from refinenet.pretrain.classifier import ImageClassifier
from refinenet.pretrain.config import PretrainConfig
from refinenet.pretrain.loader import ImageLoader
from refinenet.pretrain.loop import BEST, PretrainLoop, PretrainPosition
from refinenet.run_folder import POSITION, RunFolder
from refinenet.run_record import describe_run
from refinenet.run_start import next_folder
from refinenet.tensors import CORRUPT_FILE_ERRORS
from refinenet.terminal import print_note
from refinenet.train_loop import StoppedEarlyError

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
    plan = _make_plan(folder, encoder, settings) if resume is None else _read_plan(RunFolder(Path(resume)))
    chosen = choose_device(device)
    engine = launch(chosen, choose_precision(plan.config.precision, chosen))
    show = progress and engine.processes.is_first
    run = _new_run(output, plan, engine) if resume is None else RunFolder(Path(resume))
    told = f"Results go to {run.path}. A stopped run goes on with --resume {run.path}."
    print_note(told, enabled=show and resume is None)
    pretraining = _Pretraining(plan, run, engine, chosen, stop_after=stop_after, show=show)
    return pretraining.carry_out(is_new=resume is None)


def _make_plan(folder: str | os.PathLike[str] | None, encoder: str | None, settings: Mapping[str, Any]) -> _Plan:
    if folder is None or encoder is None:
        raise ValueError("Name a folder of images and an encoder, or a run to resume.")
    config = PretrainConfig.from_dict(settings)
    describe_taps(encoder)
    return _Plan(encoder=encoder, images=open_image_folder(folder), config=config)


def _new_run(output: str | os.PathLike[str] | None, plan: _Plan, engine: Engine) -> RunFolder:
    place = Path(output) if output is not None else next_folder(f"{plan.encoder}-encoder")
    run = RunFolder(Path(engine.processes.tell(str(place))))
    run.refuse_begun()
    engine.processes.wait()  # nobody makes the folder before all have seen that it is free
    return run


def _describe(plan: _Plan, engine: Engine) -> dict[str, Any]:
    return {
        "pretrained": plan.encoder,
        "images": str(plan.images.path.resolve()),
        "classes": list(plan.images.classes),
        "train_images": len(plan.images.train),
        "val_images": len(plan.images.val),
        "config": asdict(plan.config),
        **describe_run(),
        "processes": engine.processes.count,
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
    return _Plan(encoder=encoder, images=images, config=config)


class _Pretraining:
    def __init__(
        self, plan: _Plan, run: RunFolder, engine: Engine, device: torch.device, *, stop_after: int | None, show: bool
    ) -> None:
        self.plan, self.run, self.engine, self.device = plan, run, engine, device
        self.stop_after, self.show = stop_after, show

    def carry_out(self, *, is_new: bool) -> PretrainResult:
        """Train to the end, a new run or the one that the folder keeps."""
        keep_freed_memory()
        config, processes = self.plan.config, self.engine.processes
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption())
            if processes.is_first:
                stack.enter_context(self.run.lock())
            loader = ImageLoader(self.plan.images, config, self.device, processes.rank, processes.count)
            stack.enter_context(loader)
            learner = self._make_learner()
            position = self._begin(learner) if is_new else self._find(learner)
            names = config.loggers if processes.is_first else ()
            loggers = open_loggers(names, self.run.path, asdict(config), first_step=position.epoch + 1)
            stack.callback(self.run.attempt, "the loggers' last figures", loggers.close)
            loop = PretrainLoop(
                self.plan.encoder,
                learner,
                loader,
                self.plan.images.classes,
                config,
                self.run,
                loggers,
                interruption,
                position,
                steps=math.inf if self.stop_after is None else self.stop_after,
                show=self.show,
            )
            try:
                loop.run()
            except StoppedEarlyError:
                told = f"Stopped after {self.stop_after} steps, as asked. Go on with --resume {self.run.path}."
                print_note(told, enabled=self.show)
            processes.wait()
        best = self.run.path / BEST
        return PretrainResult(
            folder=self.run.path,
            encoder=best if best.exists() else None,
            best_accuracy=position.best_accuracy,
            epochs=position.epoch,
            is_over=position.is_over,
        )

    def _make_learner(self) -> Learner:
        seed = self.plan.config.seed
        torch.manual_seed(seed)
        classifier = ImageClassifier(self.plan.encoder, len(self.plan.images.classes)).to(self.device)
        torch.manual_seed(seed + self.engine.processes.rank)  # each process drops out values of its own
        # Of a network the learner needs an encoder and buffers, which a classifier has, too.
        network = cast(Network, classifier)
        return Learner(network, self.plan.config.learning, self.engine, ignore_index=IGNORED)

    def _begin(self, learner: Learner) -> PretrainPosition:
        """Keep where a new run starts from."""
        position = PretrainPosition()
        state = learner.state()
        if self.engine.processes.is_first:
            self.run.refuse_begun()  # another one may have begun since this was looked at first
            self.run.checkpoints.save(0, {**state, POSITION: json.dumps(asdict(position)).encode()})
            self.run.begin(_describe(self.plan, self.engine))
        self.engine.processes.wait()
        return position

    def _find(self, learner: Learner) -> PretrainPosition:
        """Where the newest good checkpoint is."""
        processes = self.engine.processes
        # The first process puts broken checkpoints aside; the others then find the same one as it.
        checkpoint = self.run.newest_checkpoint() if processes.is_first else None
        processes.wait()
        checkpoint = checkpoint or self.run.newest_checkpoint()
        for message in checkpoint.set_aside:
            print_note(f"Warning: {message}", enabled=processes.is_first)
        try:
            learner.load_state(checkpoint.files)
            position = PretrainPosition(**json.loads(checkpoint.files[POSITION]))
        except (RuntimeError, KeyError, ValueError, TypeError, *CORRUPT_FILE_ERRORS) as error:
            raise ValueError(f"{checkpoint.folder} is of another run: {error}") from error
        where = f"step {position.step} of epoch {position.epoch + 1}" if not position.is_over else "its end"
        print_note(f"Going on in {self.run.path} from {where}.", enabled=self.show)
        return position
