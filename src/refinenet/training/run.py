"""One training run in its folder: `TrainRun.run` assembles its components and trains to the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.class_statistics import ClassCounts, count_classes, log_weights, median_frequency_weights
from refinenet.datasets.dataset import spread
from refinenet.distributed import Engine
from refinenet.evaluation.comparison import EvaluationComparison
from refinenet.inference.backends.pytorch import keep_freed_memory
from refinenet.io.console import print_note
from refinenet.models.files.model_card import ModelCard
from refinenet.models.network import Network
from refinenet.training.augmentation.mixing import rare_classes
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.state import TrainState, restore_state, start_state
from refinenet.training.engine.trainer import Trainer, hold
from refinenet.training.loading.loader import Loader
from refinenet.training.loading.sample_cache import cache_samples
from refinenet.training.losses import Objective
from refinenet.training.records.folder import RunFolder
from refinenet.training.records.run_record import RunRecord
from refinenet.training.segmentation_task import MIOU, SegmentationTask, choose_goal
from refinenet.training.start_comparison import compare_with_start
from refinenet.training.targets import make_objective


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Result of a training run."""

    folder: Path
    """Folder of the run, with everything it wrote; see `RunFolder`."""
    model: Path
    """Model of the epoch with the best score on the validation data."""
    best_score: float | None
    """Score of that model, in [0, 1]; None if none was measured before the run was stopped."""
    goal: str
    """Name of the score: "mIoU", or for networks with other outputs than classes "mean score of the outputs"."""
    epochs: int
    """Number of epochs trained in all."""
    is_over: bool
    """Whether the run is finished; False if `stop_after` stopped it before its end."""
    comparison: EvaluationComparison | None = None
    """Of a run that continued another one: the models before and after on the validation split."""

    @property
    def best_miou(self) -> float | None:
        """The best score if it is an mIoU, otherwise None."""
        return self.best_score if self.goal == MIOU else None


FREQUENCY_SAMPLES = 1000
"""Number of images, spread over the dataset, on which class frequencies are counted."""


@dataclass(kw_only=True)
class TrainRun:
    """One training run in its folder; it can be stopped at any time and resumed where it was."""

    network: Network
    """Trained in place."""
    record: RunRecord
    """How the run was started; its card describes the model, its config the training."""
    train_set: Dataset
    val_set: Dataset
    """Dataset by which the best epoch is chosen."""
    folder: RunFolder
    engine: Engine
    """Spreads the work over devices and processes."""
    recipe: str | None = None
    """Text of the recipe file of a new run; None resumes the run in the folder."""
    teacher: Network | None = None
    """Network whose probabilities are soft targets."""
    stop_after: int | None = None
    """Number of steps after which to stop, for now."""
    progress: bool = True

    @property
    def card(self) -> ModelCard:
        """Metadata of the network that is trained."""
        return self.record.card

    @property
    def config(self) -> TrainConfig:
        """Settings of the run."""
        return self.record.config

    @property
    def show(self) -> bool:
        """Whether this process shows progress."""
        return self.progress and self.engine.processes.is_first

    def run(self) -> TrainResult:
        """Train to the last epoch.

        Raises:
            ValueError: An image or mask cannot be used, training diverged, the folder holds another run, or another
                process trains there.
            OSError: A file cannot be read, or a new run cannot be written.
            KeyboardInterrupt, SystemExit: The user or the system stopped it; the state reached is kept.
        """
        keep_freed_memory()
        folder, processes = self.folder, self.engine.processes
        val_set = self.val_set  # while it trains, the run may read it from a cache
        with ExitStack() as stack:
            held = hold(folder, self.config, processes, steps=self.stop_after, show=self.show)
            session = stack.enter_context(held)
            counts = self._count_classes()
            # The loader forks its processes, before the learner puts threads and much memory into this one.
            loader = stack.enter_context(self._open_loader(stack, counts))
            self._report_batches(loader)
            learner = self._make_learner(counts)
            state = self._start_or_restore(learner)
            task = SegmentationTask(folder, self.card, learner, self.train_set, self.val_set, show=self.show)
            try:
                Trainer(learner, loader, task, session, state).run()
            finally:
                task.finish_curves(is_last=True)
            if processes.is_first and not state.is_finished:
                task.save_last(state.epoch)
            processes.wait()  # where another process ends first, torchrun may kill this one while it writes
        compared = compare_with_start(folder, val_set, processes, progress=self.show) if state.is_finished else None
        return TrainResult(
            folder=folder.path,
            model=folder.model,
            best_score=state.best_score,
            goal=choose_goal(self.network.architecture),
            epochs=state.epoch,
            is_over=state.is_finished,
            comparison=compared,
        )

    def _start_or_restore(self, learner: Learner[Network]) -> TrainState:
        if self.recipe is None:
            advice = f"To train its model further, start another run with --continue {self.folder.path}."
            return restore_state(self.folder, learner, advice=advice, show=self.show)
        return start_state(self.folder, learner, self.record.to_dict(), self.recipe, show=self.show)

    def _report_batches(self, loader: Loader) -> None:
        """Report batches that are smaller than configured, or leave out much of each epoch."""
        size, images = loader.batch_size, len(self.train_set)
        if size != self.config.batch_size:
            print_note(
                f"Batches have {size} instead of {self.config.batch_size} images: the {images} training images do "
                "not fill larger batches evenly.",
                enabled=self.show,
            )
        left_out = images - loader.steps_per_epoch * size
        if left_out > images / 10:
            message = f"Each epoch leaves out {left_out} of {images} images, different ones each time"
            print_note(f"{message}, because only full batches are used.", enabled=self.show)

    def _open_loader(self, stack: ExitStack, counts: ClassCounts | None) -> Loader:
        """Open the loader, and the caches of the datasets before it.

        Its processes are forked here, before this process has threads and much memory, which a fork would copy.
        """
        kind, path = self.config.cache, self.folder.path
        rank = self.engine.processes.rank
        self.train_set = stack.enter_context(cache_samples(self.train_set, kind, path / f"cached-train-{rank}"))
        self.val_set = stack.enter_context(cache_samples(self.val_set, kind, path / f"cached-val-{rank}"))
        return Loader(
            self.train_set,
            self.config,
            self.network.mean.device,
            rank=rank,
            processes=self.engine.processes.count,
            rare=() if counts is None else rare_classes(counts.shares, self.config.rare_below),
            # Of a resumed run the network has its means only when its weights are restored, below.
            means=self.record.means or self.network.mean.flatten().tolist(),
        )

    def _count_classes(self) -> ClassCounts | None:
        """Count the pixels of each class, if a setting needs it."""
        if self.config.class_weights == "none" and not self.config.paste_rare:
            return None
        indices = spread(len(self.train_set), FREQUENCY_SAMPLES)
        return count_classes(self.train_set, indices=indices, workers=self.config.workers, progress=self.show)

    def _report_unseen(self, counts: ClassCounts) -> None:
        """Report the classes that were in none of the images counted, if these were not all."""
        names = self.train_set.label_set.names
        unseen = [name for name, pixels in zip(names, counts.pixels, strict=True) if not pixels]
        if unseen and len(self.train_set) > FREQUENCY_SAMPLES:
            print_note(
                f"Warning: of {len(self.train_set)} images {FREQUENCY_SAMPLES} were counted for class_weights, and "
                f"none has {', '.join(unseen)}: they get the largest weight.",
                enabled=self.show,
            )

    def _make_learner(self, counts: ClassCounts | None) -> Learner[Network]:
        weights = None
        if counts is not None and self.config.class_weights != "none":
            by_log = self.config.class_weights == "log"
            weights = log_weights(counts.pixels) if by_log else median_frequency_weights(counts)
            self._report_unseen(counts)
        objective = Objective(
            config=self.config,
            ignore_index=self.train_set.label_set.ignore_index,
            class_weights=None if weights is None else torch.tensor(weights, device=self.network.mean.device),
        )
        dense = make_objective(objective, self.network, self.config)
        return Learner(self.network, self.config, self.engine, dense, teacher=self.teacher)
