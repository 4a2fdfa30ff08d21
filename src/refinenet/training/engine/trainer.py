"""The training loop, for any task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol

from refinenet.distributed import Processes, is_lost_process
from refinenet.inference.segmenter import NotFiniteError
from refinenet.io.console import format_speed, print_note, progress_bar
from refinenet.io.images.sample_values import first_of_each_kind
from refinenet.io.processes.signals import StopRequest
from refinenet.training.engine.learner import Learner, is_out_of_memory
from refinenet.training.engine.remaining_time import RunClock
from refinenet.training.engine.state import TrainState, state_files
from refinenet.training.loading.loader import Part
from refinenet.training.loggers import LoggerConfig, MetricLoggers, open_loggers, read_number
from refinenet.training.records.folder import RunFolder
from refinenet.training.schedule import rate_factor


class Batches(Protocol):
    """Training batches of one process, as from `Loader`."""

    batch_size: int
    """Images per step over all training processes."""
    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """Yield the parts of each step of an epoch, from a step on; both are counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How good a network is on the validation data."""

    score: float
    """Score by which the best epoch is chosen, in [0, 1]; higher is better."""
    columns: Mapping[str, float | None]
    """Metrics by column of the log; None if there was nothing to measure."""
    summary: Mapping[str, Any]
    """Scores in the model's file, JSON-ready."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the columns that have one."""


class Task(Protocol):
    """Task-specific parts of training: validation, saved models and drawings.

    A full or failing disk is reported by its methods, and training continues.
    """

    goal: str
    """Name of the score of a measurement."""
    columns: tuple[str, ...]
    """Columns of the log, in order: the metrics, and any of "epoch", "loss", "learning_rate", "encoder_learning_rate",
    "images_per_second" and "seconds"."""
    printed: tuple[str, ...]
    """Columns that are printed."""

    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Measure the network, all processes together.

        Args:
            after_each: To be called after each image or batch, equally often on all processes; it may end the work by
                an exception.

        Raises:
            NotFiniteError: The network's output is not finite.
        """

    def save_best(self, epoch: int, measurement: Measurement) -> bool:
        """Save the network as the best model so far, and return whether it was saved. First process only."""

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Save the network as the last model, and draw what there is to draw. First process only."""


_STEPS_ARE_DONE = 1000
"""Reason to stop that is not the number of a signal."""

BAD_STEPS = 3
"""Consecutive steps without a finite loss after which training stops."""


class DivergenceError(ValueError):
    """The loss or the weights are not finite any more; resuming would lead to the same."""


class _StoppedEarlyError(Exception):
    """The requested number of steps is done."""


@contextmanager
def _hint_at_resuming(folder: RunFolder, *, show: bool) -> Iterator[None]:
    """Say how to resume a run that ends early, and from which step; not if resuming would change nothing."""
    try:
        yield
    except DivergenceError:
        raise
    except BaseException:
        if show and folder.is_started:
            print_note(folder.stop_message)
        raise


@dataclass(frozen=True, kw_only=True)
class Session:
    """Part of a run from its start, or from where it is resumed, until it ends or is stopped."""

    folder: RunFolder
    """Folder for checkpoints, log and loggers."""
    config: LoggerConfig
    """All settings of the run; loggers show them."""
    stop_request: StopRequest
    """Signals to stop."""
    steps: int | None
    """Number of steps after which to stop, for now; None trains to the end."""
    show: bool
    """Whether to show progress."""


@contextmanager
def hold(
    folder: RunFolder, config: LoggerConfig, processes: Processes, *, steps: int | None, show: bool
) -> Iterator[Session]:
    """Hold the folder of a run while it trains.

    Signals only ask to stop; no other process trains there; a run that ends early says how to resume it; warnings that
    images have in common are shown once.

    Args:
        folder: Folder of the run.
        config: All settings of the run.
        processes: Processes that train it.
        steps: Number of steps after which to stop, for now; None trains to the end.
        show: Whether this process shows progress.
    """
    with ExitStack() as stack:
        stack.enter_context(first_of_each_kind())
        stop_request = stack.enter_context(StopRequest())
        if processes.is_first:
            stack.enter_context(folder.lock())
        processes.wait()  # until the lock is held: no process may empty the cache of a run that others train
        stack.enter_context(_hint_at_resuming(folder, show=show))
        yield Session(folder=folder, config=config, stop_request=stop_request, steps=steps, show=show)


class Trainer:
    """Trains to the end, or until it is asked to stop.

    Args:
        learner: Network and optimiser.
        batches: Training batches.
        task: Measures the network, and saves the best and the last model.
        session: From `hold`.
        state: Where to begin; updated in place.
    """

    def __init__(
        self, learner: Learner[Any], batches: Batches, task: Task, session: Session, state: TrainState
    ) -> None:
        self.learner, self.batches, self.task, self.session, self.state = learner, batches, task, session, state
        self.config, self.processes = learner.config, learner.processes
        self.folder, self.show = session.folder, session.show
        self._loggers = MetricLoggers([])
        self._left = math.inf if session.steps is None else session.steps
        self._saved_at = time.monotonic()
        self._clock = RunClock(
            self.config.epochs, batches.steps_per_epoch, self.config.validate_every, self._find_earlier_step()
        )

    def run(self) -> None:
        """Train until `state.is_finished`, or until the requested steps are done.

        Raises:
            ValueError: An image or mask cannot be used, memory does not suffice, or training diverged.
            KeyboardInterrupt, SystemExit: The user or the system stopped it; the state reached is kept.
        """
        with self._open_loggers():
            self._train()

    @contextmanager
    def _open_loggers(self) -> Iterator[None]:
        """Open the loggers in the first process, and close them however training ends."""
        config = self.session.config
        names = config.loggers if self.processes.is_first else ()
        # A resumed epoch is logged again: what the loggers have of it is dropped.
        self._loggers = open_loggers(names, self.folder.path, asdict(config), first_step=self.state.epoch + 1)
        try:
            yield
        finally:
            self.folder.attempt("the loggers' last metrics", self._loggers.close, is_last=True)

    def _train(self) -> None:
        try:
            while not self.state.is_finished:
                # Stopped while its end was measured, an epoch is resumed with all its steps done.
                if self.state.step < self.batches.steps_per_epoch:
                    self._train_epoch()
                self._end_epoch()
        except _StoppedEarlyError:
            is_told_whole = self.folder.is_behind or not self.folder.can_resume
            hint = self.folder.stop_message if is_told_whole else self.folder.resume_hint
            print_note(f"Stopped after {self.session.steps} steps, as requested. {hint}", enabled=self.show)
        except RuntimeError as error:
            if not is_lost_process(error):
                raise
            raise ChildProcessError(
                "Another process of this training run has exited: torchrun reports which one, and its own output "
                "above may say why."
            ) from error
        else:
            print_note(f"Warning: {self.folder.stop_message}", enabled=self.show and self.folder.is_behind)

    def _find_earlier_step(self) -> float | None:
        """Return the seconds that a step took before the run was resumed, by its log and state; None for a new run."""
        steps = self.batches.steps_per_epoch
        logged = [read_number(row.get("seconds", "")) for row in self.folder.read_log()]
        times = [seconds / steps for seconds in logged if seconds is not None]
        times += [self.state.seconds / self.state.step] if self.state.step else []
        return median(times) if times else None

    def _train_epoch(self) -> None:
        state, steps = self.state, self.batches.steps_per_epoch
        with progress_bar(self.show) as bar:
            each = self.batches.batch_size
            task = bar.add_task(self._title(), total=steps, completed=state.step, status="", unit="images", each=each)
            started = time.perf_counter()
            for parts in self._load():
                self._count(self._learn(parts), parts)
                now = time.perf_counter()
                self._clock.add_step(now - started)
                state.seconds, started = state.seconds + now - started, now
                whole = self._clock.remaining(state.epoch, state.step)
                # The bar itself has the time of the epoch.
                run, left = ("", "") if whole is None else (whole.shorten(), whole.summarise())
                bar.update(task, advance=1, status=self._status(), run=run, left=left)
                self._save_or_stop()

    def _status(self) -> str:
        state = self.state
        speed = state.step * self.batches.batch_size / state.seconds
        return f"loss {state.mean_loss:.3f}, {format_speed(speed)} images/s"

    def _load(self) -> Iterator[list[Part]]:
        """Yield the remaining batches of the epoch."""
        try:
            yield from self.batches.epoch(self.state.epoch, first_step=self.state.step)
        except (OSError, ValueError):
            self._save_before_failing()
            raise

    def _save_before_failing(self) -> None:
        """Save the state when data cannot be read: the step before is complete.

        With several processes the others would have to take part, and do not know.
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
                f"Out of memory for a batch of {self.batches.batch_size} in {self.config.accumulation} "
                f"parts. Start a new run with a smaller batch_size or crop_size, or with more accumulation. ({error})"
            ) from error

    def _steps_done(self) -> int:
        return self.state.epoch * self.batches.steps_per_epoch + self.state.step

    def _rate_factor(self, number: int) -> float:
        """Return the share of their highest values that the learning rates have in a step, counted over all epochs."""
        steps = self.batches.steps_per_epoch
        return rate_factor(number, steps * self.config.epochs, steps, self.config)

    def _count(self, loss: float, parts: Sequence[Part]) -> None:
        state = self.state
        state.step += 1
        if math.isfinite(loss):
            state.loss += loss
            state.bad_steps = 0
            return
        state.bad_losses += 1
        state.bad_steps += 1
        names = ", ".join(name for part in parts for name in part.names)
        if state.bad_steps == BAD_STEPS:
            symptom = f"the loss of {BAD_STEPS} steps in a row was not finite; the last batch: {names}"
            raise self._divergence(symptom)
        print_note(f"Warning: the loss became {loss}; this step is skipped. Its batch: {names}.")

    def _divergence(self, symptom: str) -> DivergenceError:
        last_good = f"The last good model is {self.folder.model}. " if self.folder.model.exists() else ""
        return DivergenceError(
            f"Training diverged in epoch {self.state.epoch + 1}: {symptom}. {last_good}Start a new run with a smaller "
            "learning_rate, with gradient_clipping=1, or with precision='float32'."
        )

    def _save_or_stop(self) -> None:
        self._left -= 1
        is_due = time.monotonic() - self._saved_at >= 60 * self.config.checkpoint_minutes
        reason = self._reason_to_stop()
        # A save is collective, and clocks differ: all processes save if one of them is due.
        if reason or self.processes.largest(int(is_due)):
            self._save()
        if reason:
            self._stop(reason)

    def _reason_to_stop(self) -> int:
        """Return the signal that asked any process to stop, `_STEPS_ARE_DONE`, or 0; the same on all processes."""
        reason = self.session.stop_request.asked_by or (_STEPS_ARE_DONE if self._left <= 0 else 0)
        return self.processes.largest(int(reason))

    def _stop(self, reason: int) -> None:
        if reason == _STEPS_ARE_DONE:
            raise _StoppedEarlyError
        self.session.stop_request.stop(reason)

    def _stop_if_asked(self) -> None:
        """Stop in the middle of measuring; the epoch is measured again when the run is resumed."""
        reason = self._reason_to_stop() if self._left > 0 else 0
        if reason:
            self._save()
            self._stop(reason)

    def _save(self) -> None:
        files = state_files(self.learner, self.state)
        if self.processes.is_first:
            self.folder.save_checkpoint(self._steps_done(), files)
        self.processes.wait()  # if another process ended now, torchrun would kill the first one while it writes
        self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        state, config, started = self.state, self.config, time.perf_counter()
        epoch = state.epoch + 1
        is_last = epoch == config.epochs
        measurement = self._measure() if is_last or epoch % config.validate_every == 0 else None
        if measurement is not None and (state.best_score is None or measurement.score > state.best_score):
            is_saved = self.processes.is_first and self.task.save_best(epoch, measurement)
            if self.processes.largest(int(is_saved)):  # else the disk is full, and a later epoch may become the best
                state.best_score, state.best_epoch = measurement.score, epoch
        if measurement is not None:
            self._clock.add_validation(time.perf_counter() - started)
        has_stalled = (
            config.patience is not None
            and measurement is not None
            and state.best_score is not None
            and epoch - state.best_epoch >= config.patience
            and not is_last
        )
        if has_stalled:
            message = f"No better {self.task.goal} since epoch {state.best_epoch}: training ends here."
            print_note(message, enabled=self.show)
        if self.processes.is_first:
            self._record(epoch, measurement, is_last=is_last or has_stalled)
        state.is_finished = is_last or has_stalled
        state.epoch, state.step, state.loss, state.seconds, state.bad_losses = epoch, 0, 0.0, 0.0, 0
        # After models and log: a kill before this point repeats the end of the epoch, and loses nothing.
        self._save()
        reason = self._reason_to_stop()
        # A multi-stage run would start its next stage.
        if reason and (not state.is_finished or self.folder.part_of is not None):
            self._stop(reason)

    def _measure(self) -> Measurement:
        self.learner.share_buffers()
        try:
            return self.task.measure(self._stop_if_asked)
        except NotFiniteError as error:
            raise self._divergence("the network's output is not finite") from error
        except (OSError, ValueError):
            self._save_before_failing()
            raise

    def _title(self) -> str:
        best = self.state.best_score
        suffix = "" if best is None else f", best {self.task.goal} {100 * best:.1f}"
        return f"Epoch {self.state.epoch + 1}/{self.config.epochs}{suffix}"

    def _record(self, epoch: int, measurement: Measurement | None, *, is_last: bool) -> None:
        """Log and print an epoch, and let the task save and draw what belongs to it."""
        row = self._row(epoch, measurement)
        units = {} if measurement is None else measurement.units
        summary = ", ".join(
            f"{name} {row[name]} {units.get(name, '')}".rstrip() for name in self.task.printed if row[name]
        )
        left = None if is_last else self._clock.remaining(epoch, 0)
        rest = "" if left is None else f"; {left.describe()}"
        print_note(f"epoch {epoch}/{self.config.epochs}: {summary}{rest}", enabled=self.show)
        advice = None if is_last else self._clock.advise(epoch)
        print_note(advice or "", enabled=self.show and advice is not None)
        metrics = {name: value for name, value in row.items() if name != "epoch"}
        self.folder.attempt("the log", lambda: self.folder.log(row, epoch))
        self.folder.attempt("the loggers' files", lambda: self._loggers.log(metrics, epoch))
        self.task.end_epoch(epoch, measurement)

    def _row(self, epoch: int, measurement: Measurement | None) -> dict[str, str]:
        """Return a row of log.csv."""
        state, steps = self.state, self.batches.steps_per_epoch
        factor, (encoder_rate, rate) = self._rate_factor(epoch * steps - 1), self.learner.highest_rates
        values = {
            "epoch": str(epoch),
            "loss": f"{state.mean_loss:.4f}",
            "learning_rate": f"{factor * rate:.3g}",
            "encoder_learning_rate": f"{factor * encoder_rate:.3g}",
            "images_per_second": f"{steps * self.batches.batch_size / max(state.seconds, 1e-9):.2f}",
            "seconds": f"{state.seconds:.1f}",
        }
        measured = {} if measurement is None else measurement.columns
        values |= {name: f"{value:.4f}" for name, value in measured.items() if value is not None}
        return {name: values.get(name, "") for name in self.task.columns}
