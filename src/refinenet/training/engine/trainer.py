"""The training loop written out, whatever is trained: the order of lines is the order of events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from refinenet.distributed import is_lost_process
from refinenet.inference.segmenter import NotFiniteError
from refinenet.io.console import print_note, progress_bar
from refinenet.io.signals import StopRequest
from refinenet.training.engine.learner import Learner, is_out_of_memory
from refinenet.training.engine.state import TrainState, state_files
from refinenet.training.loading.loader import Part
from refinenet.training.loggers import MetricLoggers
from refinenet.training.optimisation import rate_factor
from refinenet.training.records.folder import RunFolder


class Batches(Protocol):
    """Gives a process its share of the training batches, as `Loader` does."""

    batch_size: int
    """Images of a step over all training processes."""
    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """The parts of each step of an epoch, from a step on; both are counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How good a network was found to be."""

    score: float
    """What the best epoch is chosen by: the higher, the better; in [0, 1]."""
    columns: Mapping[str, float | None]
    """Figures by the columns of the log that they go to; None where there was nothing to measure."""
    facts: Mapping[str, Any]
    """What a model's file says of it, JSON-ready."""


class Task(Protocol):
    """What differs between trainings: how a network is measured, and what is kept and shown of it.

    Where the disk is full or fails while something is kept, that is said and training goes on.
    """

    goal: str
    """What the score of a measurement is called."""
    columns: tuple[str, ...]
    """Of the log, in order: what is measured, and of "epoch", "loss", "learning_rate", "encoder_learning_rate",
    "images_per_second" and "seconds" as many as are of interest."""
    told: tuple[str, ...]
    """Those that are said on the terminal."""

    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Measure the network, all processes together.

        Args:
            after_each: To be called after each image or batch, on all processes equally often; it may end the work by
                an exception.

        Raises:
            NotFiniteError: the network's answer is no finite numbers.
        """

    def keep_best(self, epoch: int, measurement: Measurement) -> bool:
        """Keep the network as the best model so far; returns whether that is done. Only the first process is asked."""

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Keep the network as the last model, and show what else there is to show. Only the first process is asked."""


_STEPS_ARE_DONE = 1000
"""A reason to stop that is no number of a signal."""

BAD_STEPS = 3
"""Steps in a row with a loss that is no finite number, after which training stops."""


class DivergenceError(ValueError):
    """Training came to numbers that are none; to go on from there would come to the same."""


class _StoppedEarlyError(Exception):
    """The steps that were asked for are done."""


@contextmanager
def telling_how_it_goes_on(folder: RunFolder, *, show: bool) -> Iterator[None]:
    """Where a run ends before its time, say from which step and how it goes on; not where that would change nothing."""
    try:
        yield
    except DivergenceError:
        raise
    except BaseException:
        if show and folder.is_begun:
            print_note(folder.kept)
        raise


class Trainer:
    """Trains to the end, or until it is asked to stop.

    Args:
        learner: The network and what moves it.
        batches: What it learns from.
        keeper: Measures it, and keeps the best model and the last.
        folder: Where checkpoints and the log go.
        loggers: What else is told of each epoch.
        interruption: Says when to stop.
        position: Where to begin; it is moved on.
        steps: How many to train before it stops, for now; by default all.
        show: Whether to show progress.
    """

    def __init__(
        self,
        learner: Learner,
        batches: Batches,
        keeper: Task,
        folder: RunFolder,
        loggers: MetricLoggers,
        interruption: StopRequest,
        position: TrainState,
        *,
        steps: int | None = None,
        show: bool = True,
    ) -> None:
        self.learner, self.batches, self.keeper = learner, batches, keeper
        self.folder, self.loggers, self.interruption, self.position = folder, loggers, interruption, position
        self.config, self.processes = learner.config, learner.processes
        self.steps, self.show = steps, show
        self._left = math.inf if steps is None else steps
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train until `position.is_over`, or until the steps are done that it was asked for.

        Raises:
            ValueError: an image or mask cannot be used, memory does not suffice, or training diverged.
            KeyboardInterrupt, SystemExit: the user or the system stopped it; what was reached is kept.
        """
        try:
            while not self.position.is_over:
                if self.position.step < self.batches.steps_per_epoch:
                    self._train_epoch()
                self._end_epoch()
        except _StoppedEarlyError:
            is_told_whole = self.folder.is_behind or not self.folder.can_resume
            way = self.folder.kept if is_told_whole else self.folder.way_on
            print_note(f"Stopped after {self.steps} steps, as asked. {way}", enabled=self.show)
        except RuntimeError as error:
            if not is_lost_process(error):
                raise
            raise ChildProcessError(
                "Another process of this training has ended: what torchrun prints says which one, and what that one "
                "said before, why."
            ) from error
        else:
            print_note(f"Warning: {self.folder.kept}", enabled=self.show and self.folder.is_behind)

    def _train_epoch(self) -> None:
        position, steps = self.position, self.batches.steps_per_epoch
        with progress_bar(self.show) as bar:
            task = bar.add_task(self._title(), total=steps, completed=position.step, status="")
            started = time.perf_counter()
            for parts in self._read():
                self._count(self._learn(parts), parts)
                now = time.perf_counter()
                position.seconds, started = position.seconds + now - started, now
                speed = position.step * self.batches.batch_size / position.seconds
                bar.update(task, advance=1, status=f"loss {position.mean_loss:.3f}, {speed:.1f} images/s")
                self._save_or_stop()

    def _read(self) -> Iterator[list[Part]]:
        """The batches that are left of the epoch."""
        try:
            yield from self.batches.epoch(self.position.epoch, first_step=self.position.step)
        except (OSError, ValueError):
            self._save_before_failing()
            raise

    def _save_before_failing(self) -> None:
        """Keep the state where data cannot be read: the step before is whole.

        With several processes the others would have to be there, too, and do not know.
        """
        if self.processes.count == 1:
            self._save()

    def _learn(self, parts: Sequence[Part]) -> float:
        number = self._steps_done()
        try:
            return self.learner.step(parts, self._rate_factor(number), number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"Memory does not suffice for a batch of {self.batches.batch_size} in {self.config.accumulation} "
                f"parts. Begin a new run with a smaller batch_size or crop_size, or with more accumulation. ({error})"
            ) from error

    def _steps_done(self) -> int:
        return self.position.epoch * self.batches.steps_per_epoch + self.position.step

    def _rate_factor(self, number: int) -> float:
        """What share of their highest values the learning rates have in a step, counted from 0 over all epochs."""
        steps = self.batches.steps_per_epoch
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
            sign = f"the loss of {BAD_STEPS} steps in a row was no finite number; the last batch: {names}"
            raise self._divergence(sign)
        print_note(f"Warning: the loss became {loss}; this step changes nothing. Its batch: {names}.")

    def _divergence(self, sign: str) -> DivergenceError:
        good = f"The last good model is kept in {self.folder.model}. " if self.folder.model.exists() else ""
        return DivergenceError(
            f"Training diverged in epoch {self.position.epoch + 1}: {sign}. {good}Begin a new run with a smaller "
            "learning_rate, with gradient_clipping=1, or with precision='float32'."
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
            raise _StoppedEarlyError
        self.interruption.stop(reason)

    def _stop_if_asked(self) -> None:
        """Stop in the middle of measuring; the epoch is measured anew when the run goes on."""
        reason = self._reason_to_stop() if self._left > 0 else 0
        if reason:
            self._save()
            self._stop(reason)

    def _save(self) -> None:
        files = state_files(self.learner, self.position)
        if self.processes.is_first:
            self.folder.keep_state(self._steps_done(), files)
        self.processes.wait()  # nobody leaves, and has all ended, while the first one writes
        self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        position, config = self.position, self.config
        epoch = position.epoch + 1
        is_last = epoch == config.epochs
        measurement = self._measure() if is_last or epoch % config.validate_every == 0 else None
        if measurement is not None and (position.best_score is None or measurement.score > position.best_score):
            is_kept = self.processes.is_first and self.keeper.keep_best(epoch, measurement)
            if self.processes.largest(int(is_kept)):  # else the disk is full, and a later epoch may become the best
                position.best_score, position.best_epoch = measurement.score, epoch
        has_stalled = (
            config.patience is not None
            and measurement is not None
            and position.best_score is not None
            and epoch - position.best_epoch >= config.patience
            and not is_last
        )
        if has_stalled:
            told = f"No better {self.keeper.goal} since epoch {position.best_epoch}: training ends here."
            print_note(told, enabled=self.show)
        if self.processes.is_first:
            self._record(epoch, measurement)
        position.is_over = is_last or has_stalled
        position.epoch, position.step, position.loss, position.seconds, position.bad_losses = epoch, 0, 0.0, 0.0, 0
        self._save()
        reason = self._reason_to_stop()
        # Of a training in stages the next one would begin.
        if reason and (not position.is_over or self.folder.part_of is not None):
            self._stop(reason)

    def _measure(self) -> Measurement:
        self.learner.share_buffers()
        try:
            return self.keeper.measure(self._stop_if_asked)
        except NotFiniteError as error:
            raise self._divergence("the network's answer is not finite") from error
        except (OSError, ValueError):
            self._save_before_failing()
            raise

    def _title(self) -> str:
        best = self.position.best_score
        told = "" if best is None else f", best {self.keeper.goal} {100 * best:.1f}"
        return f"Epoch {self.position.epoch + 1}/{self.config.epochs}{told}"

    def _record(self, epoch: int, measurement: Measurement | None) -> None:
        """Log an epoch, say it, and keep and show what there is of it."""
        row = self._row(epoch, measurement)
        told = ", ".join(f"{name} {row[name]}" for name in self.keeper.told if row[name])
        print_note(f"epoch {epoch}/{self.config.epochs}: {told}", enabled=self.show)
        figures = {name: value for name, value in row.items() if name != "epoch"}
        self.folder.attempt("the log", lambda: self.folder.log(row, epoch))
        self.folder.attempt("the loggers' files", lambda: self.loggers.log(figures, epoch))
        self.keeper.end_epoch(epoch, measurement)

    def _row(self, epoch: int, measurement: Measurement | None) -> dict[str, str]:
        """A row of log.csv."""
        position, steps = self.position, self.batches.steps_per_epoch
        factor, (encoder_rate, rate) = self._rate_factor(epoch * steps - 1), self.learner.highest_rates
        figures = {
            "epoch": str(epoch),
            "loss": f"{position.mean_loss:.4f}",
            "learning_rate": f"{factor * rate:.3g}",
            "encoder_learning_rate": f"{factor * encoder_rate:.3g}",
            "images_per_second": f"{steps * self.batches.batch_size / max(position.seconds, 1e-9):.2f}",
            "seconds": f"{position.seconds:.1f}",
        }
        measured = {} if measurement is None else measurement.columns
        figures |= {name: f"{value:.4f}" for name, value in measured.items() if value is not None}
        return {name: figures.get(name, "") for name in self.keeper.columns}
