"""Schedules: how the learning rates rise and fall over a training run.

A schedule is a pure function of the step, so a run that is taken up again has no state of it to restore.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from refinenet.settings import find_outside, is_number

Schedule = Literal["polynomial", "cosine", "steps", "constant"]

_RANGES = {
    "warm_up": (0, 0.99),
    "polynomial_power": (0, 100),
    "lowest_rate": (0, 1),
    "step_factor": (1e-12, 1),
}
_ONLY_WITH: dict[str, tuple[Schedule, ...]] = {
    "polynomial_power": ("polynomial",),
    "lowest_rate": ("polynomial", "cosine"),
    "step_epochs": ("steps",),
    "step_factor": ("steps",),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rates move over a run.

    Raises:
        ValueError: a value out of its range, or one that the chosen schedule has no use for.
    """

    schedule: Schedule = "polynomial"
    """After warm-up: "polynomial" or "cosine" decline, a drop at each of `step_epochs` ("steps"), or "constant"."""
    warm_up: float = 0.02
    """Share of all steps in which the learning rates rise from zero."""
    polynomial_power: float = 0.9
    """A polynomial rate falls as (1 - share of steps done after warm-up) to this power."""
    lowest_rate: float = 0.0
    """Share of its highest value that a polynomial or cosine rate falls to."""
    step_epochs: tuple[float, ...] = ()
    """Each time that so many epochs are done, counted from the run's beginning, the rates are multiplied by
    `step_factor`; fractions are allowed."""
    step_factor: float = 0.1
    """What the rates are multiplied by at `step_epochs`."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = []
        if self.schedule not in get_args(Schedule):
            found.append(f"schedule is one of {', '.join(get_args(Schedule))}, not {self.schedule!r}")
        found += find_outside(self, _RANGES)
        if not _are_rising(self.step_epochs):
            found.append(f"step_epochs are numbers above 0, each larger than the last, not {self.step_epochs!r}")
        return [*found, *self._useless_settings()]

    def _useless_settings(self) -> list[str]:
        found = []
        if self.schedule == "steps" and self.step_epochs == ():
            found.append('schedule="steps" needs step_epochs, such as (30, 60)')
        for name, schedules in _ONLY_WITH.items():
            is_set = getattr(self, name) != getattr(ScheduleConfig, name)
            if is_set and self.schedule in get_args(Schedule) and self.schedule not in schedules:
                meant = " or ".join(f'schedule="{schedule}"' for schedule in schedules)
                found.append(f'{name} is for {meant}; with "{self.schedule}" leave it out')
        return found


def _are_rising(epochs: object) -> bool:
    if not isinstance(epochs, tuple) or not all(is_number(epoch) for epoch in epochs):
        return False
    return all(earlier < later for earlier, later in pairwise((0, *epochs)))


def rate_factor(step: int, steps: int, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """The share of its highest value, in [0, 1], that a learning rate has in a step.

    Polynomial decline is that of DeepLab (Chen et al., 2017), cosine that of SGDR without restarts (Loshchilov and
    Hutter, 2017); both reach `lowest_rate` at the end of the last step.

    Args:
        step: Counted from 0 over the whole run; a step of the optimiser, whatever gradients it gathers.
        steps: How many the run has, from 1 up.
        steps_per_epoch: How many an epoch has.
        config: How the rates move.

    Raises:
        ValueError: the run has no such step.
    """
    if not 0 <= step < steps:
        raise ValueError(f"A run of {steps} steps has the steps 0 to {steps - 1}, not {step}.")
    warm_up_steps = config.warm_up * steps
    if step < warm_up_steps:
        risen, done = (step + 1) / (warm_up_steps + 1), 0.0
    else:
        risen, done = 1.0, (step - warm_up_steps) / (steps - warm_up_steps)
    return risen * _decline(done, step / steps_per_epoch, config)


def _decline(done: float, epochs: float, config: ScheduleConfig) -> float:
    """What is left of the rate after a share `done` of the steps that follow warm-up, and after so many epochs."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "steps":
        return float(config.step_factor ** sum(epochs >= epoch for epoch in config.step_epochs))
    is_cosine = config.schedule == "cosine"
    left = (1 + math.cos(math.pi * done)) / 2 if is_cosine else (1 - done) ** config.polynomial_power
    return config.lowest_rate + (1 - config.lowest_rate) * left
