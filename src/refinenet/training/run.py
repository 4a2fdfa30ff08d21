"""A training run in its folder: begun, carried out, and taken up again."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.class_statistics import ClassCounts, count_classes, log_weights, median_frequency_weights
from refinenet.distributed import Engine
from refinenet.inference.backends.pytorch import keep_freed_memory
from refinenet.io.console import print_note
from refinenet.io.sample_values import first_of_each_kind
from refinenet.io.signals import StopRequest
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network
from refinenet.training.augmentation.mixing import rare_classes
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.state import Beginning, restore_state
from refinenet.training.engine.trainer import Trainer, telling_how_it_goes_on
from refinenet.training.loading.loader import Loader
from refinenet.training.loading.sample_cache import cache_samples
from refinenet.training.loggers import open_loggers
from refinenet.training.records.folder import RunFolder
from refinenet.training.segmentation_task import SegmentationTask


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run left."""

    folder: Path
    """Holds all that the run left; see `RunFolder`."""
    model: Path
    """The model of the epoch with the best validation mIoU."""
    best_miou: float | None
    """Validation mIoU of that model, in [0, 1]; None where none was measured before the run was stopped."""
    epochs: int
    """Epochs trained in all."""
    is_over: bool
    """Whether the run is over; False where `stop_after` stopped it before its end."""


FREQUENCY_SAMPLES = 1000
"""Images, spread over the dataset, that class frequencies are counted on."""


class TrainRun:
    """One training run in its folder; it can be stopped at any time and taken up again where it was.

    Args:
        network: Trained in place.
        card: What to say of the model; its recipe is replaced by this run's.
        train_set: What to learn from.
        val_set: What to choose the best epoch by.
        config: How to train.
        folder: Where to put the results.
        engine: What spreads the work over devices and processes.
        beginning: What is kept of a new run; without one, the run that the folder keeps is taken up.
        teacher: A network whose probabilities are soft targets.
        stop_after: Steps after which to stop, for now.
        progress: Whether to show progress.
    """

    def __init__(
        self,
        network: Network,
        card: ModelCard,
        train_set: Dataset,
        val_set: Dataset,
        config: TrainConfig,
        folder: RunFolder,
        *,
        engine: Engine,
        beginning: Beginning | None = None,
        teacher: Network | None = None,
        stop_after: int | None = None,
        progress: bool = True,
    ) -> None:
        self.network, self.card, self.config, self.folder = network, card, config, folder
        self.train_set, self.val_set, self.teacher, self.beginning = train_set, val_set, teacher, beginning
        self.engine, self.processes = engine, engine.processes
        self.show = progress and self.processes.is_first
        self.stop_after = stop_after

    def run(self) -> TrainResult:
        """Train to the last epoch.

        Raises:
            ValueError: an image or mask cannot be used, training diverged, what the folder keeps is of another run, or
                another process trains there.
            OSError: a file cannot be read, or a new run cannot be written.
            KeyboardInterrupt, SystemExit: the user or the system stopped it; what was reached is kept.
        """
        keep_freed_memory()
        folder, config, show = self.folder, self.config, self.show
        with ExitStack() as stack:
            stack.enter_context(first_of_each_kind())
            interruption = stack.enter_context(StopRequest())
            if self.processes.is_first:
                stack.enter_context(folder.lock())
            self.processes.wait()  # none empties a cache in the folder of a run that others are training
            stack.enter_context(telling_how_it_goes_on(folder, show=show))
            counts = self._count_classes()
            loader = stack.enter_context(self._open_loader(stack, counts))
            self._tell_of_batches(loader)
            learner = self._make_learner(counts)
            position = restore_state(folder, learner, self.beginning, show=show)
            names = config.loggers if self.processes.is_first else ()
            loggers = open_loggers(names, folder.path, asdict(config), first_step=position.epoch + 1)
            stack.callback(folder.attempt, "the loggers' last figures", loggers.close, is_last=True)
            keeper = SegmentationTask(folder, self.card, learner, self.train_set, self.val_set, show=show)
            loop = Trainer(
                learner, loader, keeper, folder, loggers, interruption, position, steps=self.stop_after, show=show
            )
            loop.run()
            if self.processes.is_first and not position.is_over:
                keeper.keep_last(position.epoch)
            self.processes.wait()
        return TrainResult(
            folder=folder.path,
            model=folder.model,
            best_miou=position.best_score,
            epochs=position.epoch,
            is_over=position.is_over,
        )

    def _tell_of_batches(self, loader: Loader) -> None:
        """Say where batches are smaller than asked for, or leave out much of each epoch."""
        size, images = loader.batch_size, len(self.train_set)
        if size != self.config.batch_size:
            told = f"Batches have {size} instead of {self.config.batch_size} images"
            print_note(f"{told}: of the {images} that there are, so many can be shared evenly.", enabled=self.show)
        left_out = images - loader.steps_per_epoch * size
        if left_out > images / 10:
            told = f"Each epoch leaves out {left_out} of {images} images, each time others"
            print_note(f"{told}: its batches are whole.", enabled=self.show)

    def _open_loader(self, stack: ExitStack, counts: ClassCounts | None) -> Loader:
        """The loader, whose processes are forked before threads and memory have grown; datasets are cached first."""
        kind, place = self.config.cache, self.folder.path
        rank = self.processes.rank
        self.train_set = stack.enter_context(cache_samples(self.train_set, kind, place / f"cached-train-{rank}"))
        self.val_set = stack.enter_context(cache_samples(self.val_set, kind, place / f"cached-val-{rank}"))
        return Loader(
            self.train_set,
            self.config,
            self.network.mean.device,
            rank=rank,
            processes=self.processes.count,
            rare=() if counts is None else rare_classes(counts.shares, self.config.rare_below),
        )

    def _count_classes(self) -> ClassCounts | None:
        """How often classes occur, where a setting asks for it."""
        if self.config.class_weights == "none" and not self.config.paste_rare:
            return None
        indices = np.unique(np.linspace(0, len(self.train_set) - 1, FREQUENCY_SAMPLES).round().astype(int)).tolist()
        return count_classes(self.train_set, indices=indices, workers=self.config.workers, progress=self.show)

    def _tell_of_unseen(self, counts: ClassCounts) -> None:
        """Say which classes were in none of the images that were counted, where these were not all."""
        names = self.train_set.label_set.names
        unseen = [name for name, pixels in zip(names, counts.pixels, strict=True) if not pixels]
        if unseen and len(self.train_set) > FREQUENCY_SAMPLES:
            print_note(
                f"Warning: of {len(self.train_set)} images {FREQUENCY_SAMPLES} were counted for class_weights, and "
                f"none has {', '.join(unseen)}: the largest weight is taken.",
                enabled=self.show,
            )

    def _make_learner(self, counts: ClassCounts | None) -> Learner:
        weights = None
        if counts is not None and self.config.class_weights != "none":
            by_log = self.config.class_weights == "log"
            weights = log_weights(counts.pixels) if by_log else median_frequency_weights(counts)
            self._tell_of_unseen(counts)
        return Learner(
            self.network,
            self.config,
            self.engine,
            ignore_index=self.train_set.label_set.ignore_index,
            class_weights=None if weights is None else torch.tensor(weights, device=self.network.mean.device),
            teacher=self.teacher,
        )
