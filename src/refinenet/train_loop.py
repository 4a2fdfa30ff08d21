"""The training loop written out: the order of lines is the order of events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from refinenet.backends.pytorch import PyTorchBackend
from refinenet.batch_size_finder import is_out_of_memory
from refinenet.datasets import Dataset
from refinenet.evaluate import evaluate
from refinenet.interruption import Interruption
from refinenet.learner import Learner
from refinenet.loader import Loader, Part
from refinenet.metrics import Scores
from refinenet.run_folder import POSITION, RunFolder
from refinenet.run_keeper import RunKeeper
from refinenet.run_record import CLASS_IOU
from refinenet.schedules import rate_factor
from refinenet.segmenter import NotFiniteError, Segmenter
from refinenet.terminal import print_note, progress_bar

_STEPS_ARE_DONE = 1000
"""A reason to stop that is no number of a signal."""

BAD_STEPS = 3
"""Steps in a row with a loss that is no finite number, after which training stops."""


class DivergenceError(ValueError):
    """Training came to numbers that are none; to go on from there would come to the same."""


class StoppedEarlyError(Exception):
    """Training stopped, for now, after the number of steps that it was asked for."""


@dataclass(kw_only=True)
class Position:
    """How far a run has come; a checkpoint keeps it."""

    epoch: int = 0
    """Whole epochs trained and measured."""
    step: int = 0
    """Steps done in the current epoch."""
    loss: float = 0.0
    """Sum of the losses of these steps, as far as they were finite."""
    bad_losses: int = 0
    """How many of them were not."""
    bad_steps: int = 0
    """Steps in a row, up to now, whose loss was not finite."""
    seconds: float = 0.0
    """What these steps took."""
    best_miou: float | None = None
    best_epoch: int = 0
    is_over: bool = False
    """Whether nothing is left to do."""


class TrainLoop:
    """Trains to the end, or until it is asked to stop.

    Args:
        learner: The network and what moves it.
        loader: Gives the batches.
        val_set: What to choose the best epoch by.
        folder: Where checkpoints go.
        keeper: Writes what the run shows of itself, and its models.
        interruption: Says when to stop.
        position: Where to begin; it is moved on.
        steps: How many to train before it stops, for now.
        show: Whether to show progress.
    """

    def __init__(
        self,
        learner: Learner,
        loader: Loader,
        val_set: Dataset,
        folder: RunFolder,
        keeper: RunKeeper,
        interruption: Interruption,
        position: Position,
        *,
        steps: float = math.inf,
        show: bool = True,
    ) -> None:
        self.learner, self.loader, self.val_set = learner, loader, val_set
        self.folder, self.keeper, self.interruption, self.position = folder, keeper, interruption, position
        self.config, self.processes = learner.config, learner.processes
        self.show = show
        self._left = steps
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train until `position.is_over`.

        Raises:
            ValueError: an image or mask cannot be used, or training diverged.
            StoppedEarlyError: the steps are done; what was reached is kept.
            KeyboardInterrupt, SystemExit: the user or the system stopped it; what was reached is kept.
        """
        while not self.position.is_over:
            if self.position.step < self.loader.steps_per_epoch:
                self._train_epoch()
            self._end_epoch()

    def _train_epoch(self) -> None:
        position, steps = self.position, self.loader.steps_per_epoch
        with progress_bar(self.show) as bar:
            task = bar.add_task(self._title(), total=steps, completed=position.step, status="")
            started = time.perf_counter()
            for parts in self.loader.epoch(position.epoch, first_step=position.step):
                loss = self._learn(parts)
                self._count(loss, parts)
                now = time.perf_counter()
                position.seconds, started = position.seconds + now - started, now
                bar.update(task, advance=1, status=self._status())
                self._save_or_stop()

    def _learn(self, parts: Sequence[Part]) -> float:
        steps = self.loader.steps_per_epoch
        number = self.position.epoch * steps + self.position.step
        factor = rate_factor(number, steps * self.config.epochs, steps, self.config)
        try:
            return self.learner.step(parts, factor, number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(
                f"Memory does not suffice for a batch of {self.loader.batch_size} in {self.config.accumulation} parts. "
                f"Begin a new run with a smaller batch_size or crop_size, or with more accumulation. ({error})"
            ) from error

    def _count(self, loss: float, parts: Sequence[Part]) -> None:
        position = self.position
        position.step += 1
        if math.isfinite(loss):
            position.loss += loss
            position.bad_steps = 0
            return
        position.bad_losses += 1
        position.bad_steps += 1
        names = ", ".join(name for part in parts for name in part.names)
        if position.bad_steps == BAD_STEPS:
            sign = f"the loss of {BAD_STEPS} steps in a row was no finite number; the last batch: {names}"
            raise self._divergence(sign)
        print_note(f"Warning: the loss became {loss}; this step changes nothing. Its batch: {names}.")

    def _divergence(self, sign: str) -> DivergenceError:
        best = f"The best model is kept in {self.folder.best_model}. " if self.folder.best_model.exists() else ""
        return DivergenceError(
            f"Training diverged: {sign}. {best}Begin a new run with a smaller learning_rate, with "
            "gradient_clipping=1, or with precision='float32'."
        )

    def _save_or_stop(self) -> None:
        self._left -= 1
        is_due = time.monotonic() - self._saved_at >= 60 * self.config.checkpoint_minutes
        reason = self._reason_to_stop()
        if reason or self.processes.largest(int(is_due)):
            self._save()
        if reason:
            self._stop(reason)

    def _reason_to_stop(self) -> int:
        """The number of the signal that asked any process to stop, `_STEPS_ARE_DONE`, or 0; the same on all."""
        own = self.interruption.asked_by or (_STEPS_ARE_DONE if self._left <= 0 else 0)
        return self.processes.largest(int(own))

    def _stop(self, reason: int) -> None:
        if reason == _STEPS_ARE_DONE:
            raise StoppedEarlyError
        self.interruption.stop(reason)

    def _stop_if_asked(self) -> None:
        """Stop in the middle of measuring; the epoch is measured anew when the run goes on."""
        reason = self._reason_to_stop() if self._left > 0 else 0
        if reason:
            self._save()
            self._stop(reason)

    def _save(self) -> None:
        files = {**self.learner.state(), POSITION: json.dumps(asdict(self.position)).encode()}
        step = self.position.epoch * self.loader.steps_per_epoch + self.position.step
        if self.processes.is_first:
            self.folder.attempt("a checkpoint", lambda: self.folder.checkpoints.save(step, files))
        self.processes.wait()  # nobody leaves, and has all ended, while the first one writes
        self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        position, config = self.position, self.config
        epoch = position.epoch + 1
        is_last = epoch == config.epochs
        scores = self._measure() if is_last or epoch % config.validate_every == 0 else None
        if scores is not None and (position.best_miou is None or (scores.miou or 0.0) > position.best_miou):
            is_kept = self.processes.largest(int(self.keeper.keep_best(epoch, scores)))
            if is_kept:  # else the disk is full, and a later epoch may become the best
                position.best_miou, position.best_epoch = scores.miou or 0.0, epoch
        has_stalled = config.patience is not None and epoch - position.best_epoch >= config.patience
        if has_stalled and scores is not None and not is_last:
            print_note(f"No better mIoU since epoch {position.best_epoch}: training ends here.", enabled=self.show)
        self.keeper.record_epoch(epoch, self._row(epoch, scores), scores)
        position.is_over = is_last or (has_stalled and scores is not None)
        position.epoch, position.step, position.loss, position.seconds, position.bad_losses = epoch, 0, 0.0, 0.0, 0
        self._save()
        reason = self._reason_to_stop()
        # Of a training in stages the next one would begin.
        if reason and (not position.is_over or self.folder.part_of is not None):
            self._stop(reason)

    def _measure(self) -> Scores:
        self.learner.share_buffers()
        segmenter = Segmenter(PyTorchBackend(self.learner.measured), self.val_set.label_set)
        try:
            return evaluate(
                segmenter,
                self.val_set,
                progress=self.show,
                processes=self.processes,
                after_image=self._stop_if_asked,
            )[0]
        except NotFiniteError as error:
            raise self._divergence("the network's answer is not finite") from error

    def _title(self) -> str:
        best = self.position.best_miou
        told = "" if best is None else f", best mIoU {100 * best:.1f}"
        return f"Epoch {self.position.epoch + 1}/{self.config.epochs}{told}"

    def _status(self) -> str:
        position = self.position
        return f"loss {self._mean_loss():.3f}, {position.step * self.loader.batch_size / position.seconds:.1f} images/s"

    def _mean_loss(self) -> float:
        return self.position.loss / max(1, self.position.step - self.position.bad_losses)

    def _row(self, epoch: int, scores: Scores | None) -> dict[str, str]:
        """A row of log.csv."""
        position, steps = self.position, self.loader.steps_per_epoch
        factor = rate_factor(epoch * steps - 1, steps * self.config.epochs, steps, self.config)
        row = {
            "epoch": str(epoch),
            "loss": f"{self._mean_loss():.4f}",
            "learning_rate": f"{factor * self.learner.highest_rates[1]:.3g}",
            "encoder_learning_rate": f"{factor * self.learner.highest_rates[0]:.3g}",
            "val_miou": _figure(None if scores is None else scores.miou),
            "val_pixel_accuracy": _figure(None if scores is None else scores.pixel_accuracy),
            "images_per_second": f"{steps * self.loader.batch_size / max(position.seconds, 1e-9):.2f}",
            "seconds": f"{position.seconds:.1f}",
        }
        ious = [None] * len(self.val_set.label_set) if scores is None else scores.class_iou
        names = self.val_set.label_set.names
        return row | {f"{CLASS_IOU}{name}": _figure(iou) for name, iou in zip(names, ious, strict=True)}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
