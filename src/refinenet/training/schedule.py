"""Learning rate schedule of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from refinenet.settings import Range, Rule, Settings

Schedule = Literal["polynomial", "cosine", "steps", "constant"]


def _are_rising(epochs: tuple[float, ...]) -> bool:
    return all(earlier < later for earlier, later in pairwise((0, *epochs)))


_ONLY_WITH: dict[str, tuple[Schedule, ...]] = {
    "polynomial_power": ("polynomial",),
    "lowest_rate": ("polynomial", "cosine"),
    "step_epochs": ("steps",),
    "step_factor": ("steps",),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Settings):
    """Settings of the learning rate schedule.

    Raises:
        ValueError: A value is out of its range, or the chosen schedule does not use it; all problems are reported
            together.
    """

    schedule: Schedule = "polynomial"
    """Schedule after warm-up: "polynomial" or "cosine" decay, a drop at each of `step_epochs` ("steps"), or
    "constant"."""
    warm_up: Annotated[float, Range(0, 0.99)] = 0.02
    """Share of all steps in which the learning rates rise from zero."""
    polynomial_power: Annotated[float, Range(0, 100)] = 0.9
    """Power of a polynomial schedule: the rate falls as (1 - share of steps done after warm-up) to this power."""
    lowest_rate: Annotated[float, Range(0, 1)] = 0.0
    """Final learning rate of a polynomial or cosine schedule, as a share of the peak."""
    step_epochs: Annotated[tuple[float, ...], Rule(_are_rising, "numbers above 0, each larger than the last")] = ()
    """Numbers of epochs, counted from the start of the run, after which the rates are multiplied by `step_factor`;
    fractions are allowed."""
    step_factor: Annotated[float, Range(1e-12, 1)] = 0.1
    """Factor by which the rates are multiplied at each of `step_epochs`."""

    def _conflicts(self) -> list[str]:
        conflicts = []
        if self.schedule == "steps" and self.step_epochs == ():
            conflicts.append('schedule="steps" needs step_epochs, such as (30, 60)')
        for name, schedules in _ONLY_WITH.items():
            if getattr(self, name) != getattr(ScheduleConfig, name) and self.schedule not in schedules:
                supported = " or ".join(f'schedule="{schedule}"' for schedule in schedules)
                conflicts.append(f'{name} is for {supported}; with "{self.schedule}" leave it out')
        return [*conflicts, *super()._conflicts()]


def rate_factor(step: int, steps: int, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """Return the learning rate of a step as a share, in [0, 1], of its highest value.

    Polynomial decay is that of DeepLab (Chen et al., 2017), cosine that of SGDR without restarts (Loshchilov and
    Hutter, 2017); both reach `lowest_rate` at the end of the last step.

    Args:
        step: Step of the optimiser, counted from 0 over the whole run.
        steps: Number of steps of the run, at least 1.
        steps_per_epoch: Number of steps of an epoch.
        config: Settings of the schedule.

    Raises:
        ValueError: The run has no such step.
    """
    if not 0 <= step < steps:
        raise ValueError(f"A run of {steps} steps has the steps 0 to {steps - 1}, not {step}.")
    warm_up_steps = config.warm_up * steps
    if step < warm_up_steps:
        # Shifted by one step, so that the first one already learns and the rate is whole right after the warm-up.
        warmth, done = (step + 1) / (warm_up_steps + 1), 0.0
    else:
        warmth, done = 1.0, (step - warm_up_steps) / (steps - warm_up_steps)
    return warmth * _decay(done, step / steps_per_epoch, config)


def _decay(done: float, epochs: float, config: ScheduleConfig) -> float:
    """Return the remaining share of the rate after a share `done` of the steps past warm-up, or a number of epochs."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "steps":
        return float(config.step_factor ** sum(epochs >= epoch for epoch in config.step_epochs))
    is_cosine = config.schedule == "cosine"
    left = (1 + math.cos(math.pi * done)) / 2 if is_cosine else (1 - done) ** config.polynomial_power
    return config.lowest_rate + (1 - config.lowest_rate) * left
