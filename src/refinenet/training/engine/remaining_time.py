"""Remaining time of a run, for training and validation, from what its recent steps and validations have taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

from refinenet.io.console import in_words
from refinenet.io.recent_times import WARM_UP, RecentTimes

LARGE_SHARE = 1 / 3
"""Share of the time above which validation is reported."""
USUAL_SHARE = 1 / 5
"""Share of the time that validation takes with the advised setting, at most."""
FEWEST_STEPS = 2 * WARM_UP
"""Steps before the first estimate, or those of an epoch if it has fewer."""
RECENT_STEPS = (50, 1000)
"""Number of recent steps that count, at least and at most; between them, an epoch: its first step may be slow."""
RECENT_VALIDATIONS = 10
LONG = 30.0
"""Seconds of training after which there is an estimate even with fewer steps."""
SHORT = 60.0
"""Seconds of a run below which no advice is worth reading."""


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """Remaining seconds of a run."""

    training: float
    validation: float | None
    """None before the first validation."""

    @property
    def seconds(self) -> float:
        """Both together, or training alone."""
        return self.training + (self.validation or 0.0)

    def summarise(self) -> str:
        """Return the time in words: "2 h 5 min left"."""
        return f"{in_words(self.seconds)} left{' plus validation' if self.validation is None else ''}"

    def shorten(self) -> str:
        """Return the time in few words: "2 h 5 min", "> 2 h" without that of validation."""
        return f"{'> ' if self.validation is None else ''}{in_words(self.seconds)}"

    def describe(self) -> str:
        """Return the time in words, with its parts: "2 h 5 min left (training 2 h, validation 5 min)"."""
        if self.validation is None:
            return self.summarise()
        parts = f"training {in_words(self.training)}, validation {in_words(self.validation)}"
        return f"{self.summarise()} ({parts})"


class RunClock:
    """Times of the steps and validations of this session; until there are enough of them, of the sessions before.

    Args:
        epochs: Number of epochs of the run.
        steps_per_epoch: Steps in each of them.
        validate_every: Epochs between validations; the last epoch always has one.
        earlier_step: Seconds that a step took before the run was resumed; None if unknown.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, validate_every: int, earlier_step: float | None = None
    ) -> None:
        self._epochs, self._steps_per_epoch, self._validate_every = epochs, steps_per_epoch, validate_every
        self._earlier_step = earlier_step
        fewest, most = RECENT_STEPS
        # Whole epochs, so that the slow starts of epochs have their share in the mean.
        self._steps = RecentTimes(min(steps_per_epoch * math.ceil(fewest / steps_per_epoch), most))
        self._validations = RecentTimes(RECENT_VALIDATIONS)
        self._has_advised = False

    def add_step(self, seconds: float) -> None:
        """Add the time of a step, from waiting for its images to the new weights."""
        self._steps.add(seconds)

    def add_validation(self, seconds: float) -> None:
        """Add the time of a validation, with that of saving the best model."""
        self._validations.add(seconds)

    def remaining(self, epoch: int, step: int) -> Remaining | None:
        """Return the remaining time; None while it is unknown.

        Args:
            epoch: Number of epochs that are over, with their validation.
            step: Number of steps of the next epoch that are done.
        """
        steps, validations = self._steps, self._validations
        is_measured = steps.count >= min(FEWEST_STEPS, self._steps_per_epoch) or steps.total >= LONG
        each = steps.mean if is_measured else self._earlier_step
        if each is None:
            return None
        training = each * ((self._epochs - epoch) * self._steps_per_epoch - step)
        if not validations.count:
            return Remaining(training=training, validation=None)
        return Remaining(training=training, validation=validations.mean * self._count_left(epoch))

    def _count_left(self, epoch: int) -> int:
        """Return the number of validations after an epoch."""
        every = self._validate_every
        is_extra = self._epochs % every != 0  # the last epoch
        return 0 if epoch >= self._epochs else self._epochs // every - epoch // every + is_extra

    def advise(self, epoch: int) -> str | None:
        """Return, once, what to set if validation takes more than a third of the time; None otherwise.

        Args:
            epoch: Number of epochs that are over.
        """
        left = self.remaining(epoch, 0)
        if self._has_advised or left is None or left.validation is None or not self._steps.count:
            return None
        if left.seconds < SHORT:
            return None
        share = left.validation / left.seconds
        if share <= LARGE_SHARE:
            return None
        self._has_advised = True
        once, per_epoch = self._validations.mean, self._steps.mean * self._steps_per_epoch
        # Of n epochs with one validation, it takes v / (n t + v) of the time.
        every = min(math.ceil(once / per_epoch * (1 / USUAL_SHARE - 1)), self._epochs)
        advice = f"validate_every={every}"
        return (
            f"Validation takes {100 * share:.0f} % of the time. A new run with {advice} (--set {advice}), or with "
            "fewer images in the validation split, is faster."
        )
