"""The loop of pre-training written out: the order of lines is the order of events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from refinenet.batch_size_finder import is_out_of_memory
from refinenet.interruption import Interruption
from refinenet.learner import Learner
from refinenet.loader import Part
from refinenet.metric_loggers import MetricLoggers
from refinenet.pretrain.classifier import write_encoder
from refinenet.pretrain.config import PretrainConfig
from refinenet.pretrain.loader import ImageLoader
from refinenet.run_folder import POSITION, RunFolder
from refinenet.schedules import rate_factor
from refinenet.terminal import print_note, progress_bar
from refinenet.train_loop import BAD_STEPS, StoppedEarlyError

BEST, LAST = "encoder.safetensors", "last.safetensors"
"""The encoders of the epoch with the best accuracy and of the last one."""
_STEPS_ARE_DONE = 1000
"""A reason to stop that is no number of a signal."""
FEW = 5
"""So many guesses are allowed in the second accuracy, where there are more classes."""


class Accuracy(NamedTuple):
    """Shares of the validation images, in [0, 1], whose class is among the likeliest."""

    top1: float
    """It is the likeliest."""
    top5: float | None
    """It is one of the likeliest five; None where there are no more than five classes."""


@dataclass(kw_only=True)
class PretrainPosition:
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
    best_accuracy: float | None = None
    is_over: bool = False
    """Whether nothing is left to do."""


class PretrainLoop:
    """Trains to the last epoch, or until it is asked to stop.

    Args:
        encoder: The name of what is trained.
        learner: Its classifier and what moves it.
        loader: Gives the batches.
        classes: Names of the classes.
        config: How to train.
        folder: Where results and checkpoints go.
        loggers: What else is told of each epoch.
        interruption: Says when to stop.
        position: Where to begin; it is moved on.
        steps: How many to train before it stops, for now.
        show: Whether to show progress.
    """

    def __init__(
        self,
        encoder: str,
        learner: Learner,
        loader: ImageLoader,
        classes: Sequence[str],
        config: PretrainConfig,
        folder: RunFolder,
        loggers: MetricLoggers,
        interruption: Interruption,
        position: PretrainPosition,
        *,
        steps: float = math.inf,
        show: bool = True,
    ) -> None:
        self.encoder, self.learner, self.loader = encoder, learner, loader
        self.classes, self.config = tuple(classes), config
        self.folder, self.loggers, self.interruption, self.position = folder, loggers, interruption, position
        self.processes, self.show = learner.processes, show
        self._left = steps
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train until `position.is_over`.

        Raises:
            ValueError: an image cannot be used, memory does not suffice, or training diverged.
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
            title = f"Epoch {position.epoch + 1}/{self.config.epochs}"
            task = bar.add_task(title, total=steps, completed=position.step, status="")
            started = time.perf_counter()
            for parts in self.loader.epoch(position.epoch, first_step=position.step):
                self._count(self._learn(parts), parts)
                now = time.perf_counter()
                position.seconds, started = position.seconds + now - started, now
                speed = position.step * self.loader.batch_size / position.seconds
                bar.update(task, advance=1, status=f"loss {self._mean_loss():.3f}, {speed:.1f} images/s")
                self._save_or_stop()

    def _learn(self, parts: Sequence[Part]) -> float:
        number = self.position.epoch * self.loader.steps_per_epoch + self.position.step
        try:
            return self.learner.step(parts, self._rate_factor(number), number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"Memory does not suffice for a batch of {self.loader.batch_size} in {self.config.accumulation} parts. "
                f"Begin a new run with a smaller batch_size or crop_size, or more accumulation. ({error})"
            ) from error

    def _rate_factor(self, number: int) -> float:
        steps = self.loader.steps_per_epoch
        return rate_factor(number, steps * self.config.epochs, steps, self.config)

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
            raise _divergence(f"the loss of {BAD_STEPS} steps in a row was no finite number; the last batch: {names}")
        print_note(f"Warning: the loss became {loss}; this step changes nothing. Its batch: {names}.")

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

    def _save(self) -> None:
        files = {**self.learner.state(), POSITION: json.dumps(asdict(self.position)).encode()}
        step = self.position.epoch * self.loader.steps_per_epoch + self.position.step
        if self.processes.is_first:
            self.folder.attempt("a checkpoint", lambda: self.folder.checkpoints.save(step, files))
        self.processes.wait()  # nobody leaves, and has all ended, while the first one writes
        self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        position = self.position
        epoch, accuracy = position.epoch + 1, self._measure()
        facts = {"accuracy": accuracy._asdict(), "epoch": epoch}
        if position.best_accuracy is None or accuracy.top1 > position.best_accuracy:
            is_kept = self.processes.largest(int(self._keep(BEST, facts)))
            if is_kept:  # else the disk is full, and a later epoch may become the best
                position.best_accuracy = accuracy.top1
        self._keep(LAST, facts)
        self._record(epoch, accuracy)
        position.epoch, position.step, position.loss, position.seconds, position.bad_losses = epoch, 0, 0.0, 0.0, 0
        position.is_over = epoch == self.config.epochs
        self._save()
        reason = self._reason_to_stop()
        if reason and not position.is_over:
            self._stop(reason)

    @torch.no_grad()
    def _measure(self) -> Accuracy:
        self.learner.share_buffers()
        classifier = self.learner.measured.eval()
        found = torch.zeros(3, dtype=torch.int64)
        for part in self.loader.validation():
            if part.names:
                found += self._count_found(classifier(part.images).flatten(1), part.labels.flatten())
            reason = self._reason_to_stop() if self._left > 0 else 0
            if reason:  # the epoch is measured anew when the run goes on
                self._save()
                self._stop(reason)
        first, few, images = self.processes.add_up(found).tolist()
        return Accuracy(first / images, few / images if len(self.classes) > FEW else None)

    def _count_found(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of logits `(n, K)`: how many are highest at the label, how many are among the highest, and n."""
        if not bool(logits.isfinite().all()):
            raise _divergence("the network's answer is not finite")
        is_label = logits.topk(min(FEW, len(self.classes)), dim=1).indices == labels[:, None]
        return torch.tensor([int(is_label[:, 0].sum()), int(is_label.sum()), len(labels)])

    def _keep(self, name: str, facts: Mapping[str, Any]) -> bool:
        """Keep the encoder in a file; returns whether this process has done so."""
        told = {"classes": list(self.classes), "recipe": asdict(self.config), **facts}
        write = partial(write_encoder, self.folder.path / name, self.encoder, self.learner.measured.encoder, told)
        return self.processes.is_first and self.folder.attempt(name, write)

    def _record(self, epoch: int, accuracy: Accuracy) -> None:
        if not self.processes.is_first:
            return
        row = self._row(epoch, accuracy)
        told = ", ".join(f"{name} {value}" for name, value in row.items() if value and name != "epoch")
        print_note(f"epoch {epoch}/{self.config.epochs}: {told}", enabled=self.show)
        figures = {name: float(value) for name, value in row.items() if value and name != "epoch"}
        self.folder.attempt("the log", lambda: self.folder.log(row, epoch))
        self.folder.attempt("the loggers' files", lambda: self.loggers.log(figures, epoch))

    def _row(self, epoch: int, accuracy: Accuracy) -> dict[str, str]:
        """A row of log.csv."""
        position, steps = self.position, self.loader.steps_per_epoch
        rate = self._rate_factor(epoch * steps - 1) * self.learner.highest_rates[0]
        return {
            "epoch": str(epoch),
            "loss": f"{self._mean_loss():.4f}",
            "learning_rate": f"{rate:.3g}",
            "val_top1": f"{accuracy.top1:.4f}",
            "val_top5": "" if accuracy.top5 is None else f"{accuracy.top5:.4f}",
            "images_per_second": f"{steps * self.loader.batch_size / max(position.seconds, 1e-9):.2f}",
            "seconds": f"{position.seconds:.1f}",
        }

    def _mean_loss(self) -> float:
        return self.position.loss / max(1, self.position.step - self.position.bad_losses)


def _divergence(sign: str) -> ValueError:
    return ValueError(
        f"Training diverged: {sign}. Begin a new run with a smaller learning_rate, with gradient_clipping=1, or with "
        "precision='float32'."
    )
