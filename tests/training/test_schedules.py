"""Schedules against PyTorch's own and against values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from refinenet.training.schedule import ScheduleConfig, rate_factor

STEPS, STEPS_PER_EPOCH = 120, 12


def factors(**settings: Any) -> list[float]:
    config = ScheduleConfig(**settings)
    return [rate_factor(step, STEPS, STEPS_PER_EPOCH, config) for step in range(STEPS)]


def torch_factors(build: Any, *, warm_up_steps: int = 0) -> list[float]:
    """Return the rates of a PyTorch scheduler with a highest rate of 1, after a linear warm-up."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimiser)
    if warm_up_steps:
        rise = lr_scheduler.LinearLR(optimiser, start_factor=1 / (warm_up_steps + 1), total_iters=warm_up_steps)
        scheduler = lr_scheduler.SequentialLR(optimiser, [rise, scheduler], milestones=[warm_up_steps])
    rates = []
    for _ in range(STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("power", [0.9, 2.0])
@pytest.mark.parametrize("warm_up_steps", [0, 12])
def test_polynomial_is_that_of_pytorch(power: float, warm_up_steps: int) -> None:
    expected = torch_factors(
        lambda optimiser: lr_scheduler.PolynomialLR(optimiser, total_iters=STEPS - warm_up_steps, power=power),
        warm_up_steps=warm_up_steps,
    )
    assert factors(polynomial_power=power, warm_up=warm_up_steps / STEPS) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("lowest", [0.0, 0.05])
@pytest.mark.parametrize("warm_up_steps", [0, 12])
def test_cosine_is_that_of_pytorch(lowest: float, warm_up_steps: int) -> None:
    expected = torch_factors(
        lambda optimiser: lr_scheduler.CosineAnnealingLR(optimiser, T_max=STEPS - warm_up_steps, eta_min=lowest),
        warm_up_steps=warm_up_steps,
    )
    found = factors(schedule="cosine", lowest_rate=lowest, warm_up=warm_up_steps / STEPS)
    assert found == pytest.approx(expected, abs=1e-9)


def test_steps_are_those_of_pytorch_counted_in_epochs() -> None:
    milestones = [3 * STEPS_PER_EPOCH, 7 * STEPS_PER_EPOCH]
    expected = torch_factors(lambda optimiser: lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.3))
    found = factors(schedule="steps", step_epochs=(3, 7), step_factor=0.3, warm_up=0.0)
    assert found == pytest.approx(expected, abs=1e-12)


def test_steps_fall_at_fractions_of_epochs_and_after_warm_up() -> None:
    found = factors(schedule="steps", step_epochs=(0.5, 9.75), warm_up=0.025)
    assert found[:7] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 0.1])
    assert found[116:118] == pytest.approx([0.1, 0.01])


def test_constant_is_constant_after_warm_up() -> None:
    assert factors(schedule="constant", warm_up=0.0) == [1.0] * STEPS
    assert factors(schedule="constant", warm_up=4 / STEPS)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_polynomial_ends_at_its_lowest_rate() -> None:
    """By hand: of the fall from 1 to 0.2, half is over at half of the steps, all of it but a 120th at the last."""
    found = factors(polynomial_power=1.0, lowest_rate=0.2, warm_up=0.0)
    assert [found[0], found[60], found[119]] == pytest.approx([1.0, 0.6, 0.2 + 0.8 / 120])


def test_a_step_that_the_run_does_not_have_is_refused() -> None:
    for step in (-1, STEPS):
        with pytest.raises(ValueError, match=f"has the steps 0 to 119, not {step}"):
            rate_factor(step, STEPS, STEPS_PER_EPOCH, ScheduleConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "linear"}, "schedule must be one of polynomial, cosine, steps, constant, not 'linear'"),
        ({"warm_up": 1.0}, "warm_up must be a number from 0 to 0.99, not 1.0"),
        ({"warm_up": True}, "warm_up must be a number"),
        ({"lowest_rate": float("nan")}, "lowest_rate must be a number from 0 to 1, not nan"),
        ({"polynomial_power": -1}, "polynomial_power must be a number"),
        ({"schedule": "steps"}, "needs step_epochs"),
        ({"schedule": "steps", "step_epochs": (3, 3)}, r"each larger than the last, not \(3, 3\)"),
        ({"schedule": "steps", "step_epochs": (0, 3)}, "numbers above 0"),
        ({"schedule": "steps", "step_epochs": ("3",)}, "step_epochs must be numbers"),
        (
            {"schedule": "steps", "step_epochs": 3},
            "step_epochs must be numbers above 0, each larger than the last, not 3",
        ),
        ({"schedule": "steps", "step_epochs": (3,), "step_factor": 2}, "step_factor must be a number"),
        ({"step_epochs": (3,)}, 'step_epochs is for schedule="steps"; with "polynomial" leave it out'),
        ({"schedule": "cosine", "step_factor": 0.5}, 'step_factor is for schedule="steps"'),
        ({"schedule": "cosine", "polynomial_power": 2}, 'polynomial_power is for schedule="polynomial"'),
        ({"schedule": "constant", "lowest_rate": 0.1}, 'is for schedule="polynomial" or schedule="cosine"'),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**settings)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"warm_up must be .*; polynomial_power must be .*; step_factor must be"):
        ScheduleConfig(warm_up=2, polynomial_power=-1, step_factor=0)
