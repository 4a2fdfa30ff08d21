"""Metrics of depth, against values worked out by hand and the formulas written again."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress
from target_images import NAN, Floats, Image, draw, measure, row, seeds
from torchmetrics.functional.regression import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_log_error,
)

from refinenet.evaluation.metrics import (
    DepthAccumulator,
    DepthMetrics,
    DepthProtocol,
)
from refinenet.evaluation.metrics.depth import ALIGNMENT_RULES, CROP_RULES, find_window


def depths_of(images: list[Image], **protocol: Any) -> DepthMetrics:
    accumulator = DepthAccumulator(DepthProtocol(**protocol))
    measure(accumulator, images)
    return accumulator.result()


# Depth


def test_depths_by_hand() -> None:
    """Truths 1 and 2 with predictions 2 and 2, and in a second image 4 with 2: log errors ln 2, 0 and -ln 2."""
    scores = depths_of([(row(2, 2, 7), row(1, 2, NAN)), (row(2, 7), row(4, NAN))])
    assert (scores.pixels, scores.images) == (3, 2)
    two = math.log(2)
    assert asdict(scores.pooled) == pytest.approx(
        {
            "rmse": math.sqrt((1 + 0 + 4) / 3),
            "rmse_log": math.sqrt(2 * two**2 / 3),
            "abs_rel": (1 + 0 + 0.5) / 3,
            "sq_rel": (1 + 0 + 1) / 3,
            "log10": 2 * math.log10(2) / 3,
            "silog": 100 * math.sqrt(2 * two**2 / 3),
            "mae": (1 + 0 + 2) / 3,
            "delta_1": 1 / 3,
            "delta_2": 1 / 3,
            "delta_3": 1 / 3,
        }
    )
    assert asdict(scores.image_mean) == pytest.approx(
        {
            "rmse": (math.sqrt(1 / 2) + 2) / 2,
            "rmse_log": (math.sqrt(two**2 / 2) + two) / 2,
            "abs_rel": (0.5 + 0.5) / 2,
            "sq_rel": (0.5 + 1) / 2,
            "log10": (math.log10(2) / 2 + math.log10(2)) / 2,
            "silog": 100 * (math.sqrt(two**2 / 2 - two**2 / 4) + 0) / 2,
            "mae": (0.5 + 2) / 2,
            "delta_1": (0.5 + 0) / 2,
            "delta_2": (0.5 + 0) / 2,
            "delta_3": (0.5 + 0) / 2,
        },
        abs=1e-6,
    )


def test_deltas_by_hand() -> None:
    """Ratios 1.25, 1.5, 1.6, 2 and 1 / 1.2: a ratio of exactly 1.25 is not below it."""
    scores = depths_of([(row(1.25, 1.5, 1.6, 2, 5), row(1, 1, 1, 1, 6))]).pooled
    assert (scores.delta_1, scores.delta_2, scores.delta_3) == (1 / 5, 3 / 5, 4 / 5)


def test_a_wrong_scale_alone_has_no_scale_invariant_error() -> None:
    """Rounding of the sums must not make its square negative."""
    for seed in range(20):
        truth = np.random.default_rng(seed).uniform(1, 9, (1, 5, 7)).astype(np.float32)
        assert depths_of([(2 * truth, truth)]).pooled.silog == pytest.approx(0, abs=1e-5)


def apply_crop(crop: str, truth: Floats) -> npt.NDArray[np.bool_]:
    """The crops as in the evaluation of KITTI and NYU by others."""
    height, width = truth.shape
    shares = {
        "kitti_garg": [0.40810811 * height, 0.99189189 * height, 0.03594771 * width, 0.96405229 * width],
        "kitti_eigen": [0.3324324 * height, 0.91351351 * height, 0.0359477 * width, 0.96405229 * width],
        "none": [0, height, 0, width],
    }
    top, bottom, left, right = np.array(shares[crop]).astype(np.int32)
    mask = np.zeros(truth.shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def errors_of(p: npt.NDArray[np.float64], t: npt.NDArray[np.float64]) -> list[float]:
    """The metrics of depths `(n,)`, by PyTorch, SciPy and NumPy."""
    a, b = torch.from_numpy(p), torch.from_numpy(t)
    d = np.log(p) - np.log(t)
    ratio = np.maximum(p / t, t / p)
    return [
        float(mean_squared_error(a, b, squared=False)),
        math.sqrt(float(mean_squared_log_error(a - 1, b - 1))),  # theirs are logarithms of 1 + x
        float(mean_absolute_percentage_error(a, b)),
        float(np.mean((p - t) ** 2 / t)),
        float(np.mean(np.abs(np.log10(p / t)))),
        float(100 * np.std(d)),
        float(mean_absolute_error(a, b)),
        *(float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)),
    ]


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.sampled_from(["none", "kitti_eigen", "kitti_garg"]),
    st.sampled_from(["none", "median", "affine"]),
    st.integers(1, 30),
    st.integers(1, 40),
)
def test_depths_are_those_of_other_programs(seed: int, crop: str, alignment: str, height: int, width: int) -> None:
    images, low, high = draw(seed, "depth", size=(height, width)), 0.1, 20.0
    chosen = []
    for (predicted,), (truth,) in images:
        counts = (truth > low) & (truth < high) & apply_crop(crop, truth)
        p, t = predicted[counts].astype(np.float64), truth[counts].astype(np.float64)
        if not t.size:
            continue
        if alignment == "median":
            p = p * np.median(t) / np.median(p)
        if alignment == "affine":
            fit = linregress(p, t) if t.size > 1 else None
            p = p * fit.slope + fit.intercept if fit else t
        chosen.append((p.clip(low, high), t))
    scores = depths_of(images, range=(low, high), crop=crop, alignment=alignment)
    assert (scores.images, scores.pixels) == (len(chosen), sum(t.size for _, t in chosen))
    if not chosen:
        assert set(asdict(scores.pooled).values()) == set(asdict(scores.image_mean).values()) == {None}
        return
    pooled = errors_of(*(np.concatenate(side) for side in zip(*chosen, strict=True)))
    means = np.mean([errors_of(p, t) for p, t in chosen], axis=0).tolist()
    assert list(asdict(scores.pooled).values()) == pytest.approx(pooled, rel=1e-6, abs=1e-5)
    assert list(asdict(scores.image_mean).values()) == pytest.approx(means, rel=1e-6, abs=1e-5)


def test_the_crop_of_nyu_is_for_its_size_only() -> None:
    window = find_window("nyu_eigen", (480, 640))
    expected = np.zeros((480, 640), bool)
    expected[45:471, 41:601] = True
    assert np.array_equal(window, expected)
    with pytest.raises(ValueError, match="480 x 640"):
        depths_of([(np.ones((1, 240, 320), np.float32),) * 2], crop="nyu_eigen")


def test_alignments_by_hand() -> None:
    """Half of the truth, and minus twice the truth plus 30: aligned, both are perfect."""
    truth = row(2, 4, 6, 8, 60)
    half = (truth / 2).astype(np.float32)
    turned = (30 - 2 * truth).astype(np.float32)
    for predicted, alignment in ((half, "median"), (turned, "affine"), (half, "affine")):
        assert depths_of([(predicted, truth)], alignment=alignment).pooled.rmse == pytest.approx(0, abs=1e-6)
    assert depths_of([(half, truth)]).pooled.abs_rel == pytest.approx(0.5)


@pytest.mark.parametrize("value", [-3.0, 0.0, 5.0])
def test_alignments_of_equal_predictions_are_finite(value: float) -> None:
    truth = row(2, 4, 6)
    equal = depths_of([(np.full_like(truth, value), truth)], alignment="affine")
    assert equal.pooled.mae == pytest.approx(4 / 3)  # all are the mean, 4
    median = depths_of([(np.full_like(truth, value), truth)], alignment="median", range=(1, 10)).pooled.mae
    assert median == pytest.approx(4 / 3 if value > 0 else (1 + 3 + 5) / 3)


def test_the_range_is_strict_and_predictions_are_clipped_to_it() -> None:
    """Of truths 1, 2, 10 and infinity, only 2 lies between 1 and 10; its prediction of 50 becomes 10."""
    scores = depths_of([(row(3, 50, 3, 3), row(1, 2, 10, np.inf))], range=(1, 10))
    assert (scores.pixels, scores.pooled.mae) == (1, 8)


def test_the_alignment_is_always_stated() -> None:
    for alignment in ALIGNMENT_RULES:
        for crop in CROP_RULES:
            protocol = DepthProtocol(range=(0.5, 80), crop=crop, alignment=alignment)
            text = DepthAccumulator(protocol).result().protocol
            assert "alignment" in text
            assert ALIGNMENT_RULES[alignment] in text
            assert CROP_RULES[crop] in text
            assert "above 0.5 m and below 80 m" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"range": (0, 80)}, "0 < low < high"),
        ({"range": (5, 5)}, "0 < low < high"),
        ({"range": (1, math.inf)}, "0 < low < high"),
        ({"crop": "eigen"}, "kitti_eigen.*not 'eigen'"),
        ({"alignment": "mean"}, "none, median, affine, not 'mean'"),
    ],
)
def test_wrong_protocols_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DepthProtocol(**values)
