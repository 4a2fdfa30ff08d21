"""Metrics of quantities, against values worked out by hand and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from target_images import NAN, draw, measure, row, seeds
from torchmetrics.functional.regression import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)

from refinenet.evaluation.metrics import (
    RegressionAccumulator,
)

# Regression


def test_quantities_by_hand() -> None:
    """Height: truths 1, 3 and 5 with errors 1, 0 and -2. Wetness: one truth, with an error of 4."""
    accumulator = RegressionAccumulator(("height", "wetness"), ("m", "%"))
    accumulator.add(np.concatenate([row(2, 3), row(9, 9)]), np.concatenate([row(1, 3), row(5, NAN)]))
    accumulator.add(np.concatenate([row(3), row(9)]), np.concatenate([row(5), row(NAN)]))
    height, wetness = accumulator.result().quantities
    assert (height.name, height.unit, height.pixels) == ("height", "m", 3)
    assert (height.mae, height.bias, height.rmse) == pytest.approx((1, -1 / 3, math.sqrt(5 / 3)))
    assert height.r2 == pytest.approx(1 - 5 / 8)
    assert (wetness.pixels, wetness.mae, wetness.bias, wetness.rmse, wetness.r2) == (1, 4, 4, 4, None)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(2, 12))
def test_quantities_are_those_of_torchmetrics(seed: int, height: int, width: int) -> None:
    images = draw(seed, "regression", size=(height, width))
    accumulator = RegressionAccumulator(("height", "wetness"))
    measure(accumulator, images)
    for channel, found in enumerate(accumulator.result().quantities):
        pairs = [(p[channel].astype(np.float64), t[channel].astype(np.float64)) for p, t in images]
        p = torch.from_numpy(np.concatenate([p[~np.isnan(t)] for p, t in pairs]))
        t = torch.from_numpy(np.concatenate([t[~np.isnan(t)] for _, t in pairs]))
        assert found.pixels == len(t)
        if not len(t):
            assert (found.mae, found.rmse, found.bias, found.r2) == (None,) * 4
            continue
        assert found.mae == pytest.approx(float(mean_absolute_error(p, t)))
        assert found.rmse == pytest.approx(float(mean_squared_error(p, t, squared=False)))
        assert found.bias == pytest.approx(float((p - t).mean()), abs=1e-9)
        assert found.r2 == (pytest.approx(float(r2_score(p, t)), rel=1e-6) if len(t) > 1 else None)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_r2_is_undefined_if_the_truth_does_not_vary(value: float) -> None:
    accumulator = RegressionAccumulator(("height",))
    for _ in range(3):
        accumulator.add(np.zeros((1, 30, 30), np.float32), np.full((1, 30, 30), value, np.float32))
    assert accumulator.result().quantities[0].r2 is None


def test_r2_of_values_far_from_zero_and_of_very_large_and_small_ones() -> None:
    random = np.random.default_rng(0)
    for offset, scale in ((300, 0.1), (0, 1e-12), (0, 1e18)):
        truth = (offset + scale * random.normal(0, 1, (1, 20, 20))).astype(np.float32)
        predicted = (truth + 0.5 * scale * random.normal(0, 1, truth.shape)).astype(np.float32)
        accumulator = RegressionAccumulator(("height",))
        accumulator.add(predicted, truth)
        p, t = predicted.astype(np.float64), truth.astype(np.float64)
        expected = 1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum()
        assert accumulator.result().quantities[0].r2 == pytest.approx(expected, rel=1e-5)


def test_quantities_need_names_and_units() -> None:
    for names, units in (((), ()), (("height",), ("m", "%"))):
        with pytest.raises(ValueError, match="each with a unit"):
            RegressionAccumulator(names, units)
