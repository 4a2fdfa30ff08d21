"""Calibration and coverage: torchmetrics, brute force, and values on the edges of bins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCalibrationError

from refinenet.evaluation.metrics.calibration import BINS, COVERAGE_AT, ConfidenceCounts

Floats = npt.NDArray[np.float32]


def counted(confidence: Floats, is_right: npt.NDArray[np.bool_]) -> ConfidenceCounts:
    counts = ConfidenceCounts()
    counts.add(confidence, is_right)
    return counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 3000), st.floats(0.1, 8))
def test_the_error_is_that_of_torchmetrics(seed: int, classes: int, pixels: int, sharpness: float) -> None:
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, sharpness, (pixels, classes)).astype(np.float32))
    probabilities = logits.softmax(1)
    truth = torch.from_numpy(random.integers(0, classes, pixels))
    confidence, predicted = probabilities.max(1)
    theirs = MulticlassCalibrationError(classes, n_bins=BINS, norm="l1")(probabilities, truth)
    ours = counted(confidence.numpy(), (predicted == truth).numpy()).error()
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_four_pixels_by_hand() -> None:
    """0.9 and 0.92 share the bin from 13/15 to 14/15, one of two right: |0.5 - 0.91|; 0.5 is in that from 7/15, right:
    0.5; 0.1 in that from 1/15, wrong: 0.1. Weighted by 2, 1, 1 of 4 pixels: (0.82 + 0.5 + 0.1) / 4.
    """
    counts = counted(np.array([0.9, 0.92, 0.5, 0.1], np.float32), np.array([True, False, True, False]))
    assert counts.error() == pytest.approx((2 * 0.41 + 0.5 + 0.1) / 4, abs=1e-6)
    bins = counts.reliability()
    assert [found.pixels for found in bins] == [0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0]
    assert bins[13].confidence == pytest.approx(0.91, abs=1e-6)
    assert (bins[13].accuracy, bins[7].accuracy, bins[1].accuracy, bins[0].accuracy) == (0.5, 1, 0, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=60), st.integers(0, 5))
def test_bins_by_brute_force(pixels: list[tuple[float, bool]], withheld: int) -> None:
    counts = counted(np.array([c for c, _ in pixels], np.float32), np.array([r for _, r in pixels], bool))
    for index, found in enumerate(counts.reliability()):
        # The product in float32 decides, as it does for who draws the curve from the same confidences.
        inside = [(c, r) for c, r in pixels if min(int(np.float32(c) * np.float32(1500)) // 100, 14) == index]
        assert found.pixels == len(inside)
        if inside:
            assert found.accuracy == pytest.approx(np.mean([r for _, r in inside]))
            assert found.confidence == pytest.approx(np.mean([c for c, _ in inside]), abs=1e-6)
    for at in counts.coverage(len(pixels) + withheld):
        kept = [r for c, r in pixels if np.float32(c) * np.float32(1500) >= round(at.threshold * 1500)]
        total = len(pixels) + withheld
        assert at.coverage == (pytest.approx(len(kept) / total) if total else None)
        assert at.accuracy == (pytest.approx(np.mean(kept)) if kept else None)


@pytest.mark.parametrize("threshold", COVERAGE_AT)
def test_a_confidence_that_is_the_threshold_reaches_it(threshold: float) -> None:
    below = np.nextafter(np.float32(threshold), np.float32(-1)) - np.float32(1e-4)
    confidence = np.array([threshold, max(below, 0)], np.float32)
    counts = counted(confidence, np.array([True, False]))
    (found,) = [one for one in counts.coverage(2) if one.threshold == threshold]
    assert (found.coverage, found.accuracy) == ((0.5, 1) if threshold else (1, 0.5))


def test_bins_begin_where_they_should() -> None:
    """A confidence of k / 15 is the first of bin k, one just below the last of the bin before; 1 is in the last."""
    edges = np.arange(BINS, dtype=np.float32) / BINS
    counts = counted((edges + 1e-5).astype(np.float32), np.ones(BINS, bool))
    assert [found.pixels for found in counts.reliability()] == [1] * BINS
    counts = counted((edges[1:] - 1e-5).astype(np.float32), np.ones(BINS - 1, bool))
    assert [found.pixels for found in counts.reliability()] == [1] * (BINS - 1) + [0]
    assert counted(np.ones(3, np.float32), np.ones(3, bool)).reliability()[-1].pixels == 3


def test_nothing_counted_gives_no_figure() -> None:
    counts = counted(np.zeros(0, np.float32), np.zeros(0, bool))
    assert counts.error() is None
    assert all(found.confidence is None and found.pixels == 0 for found in counts.reliability())
    assert all(found.coverage is None and found.accuracy is None for found in counts.coverage(0))


def test_sums_do_not_depend_on_the_order() -> None:
    random = np.random.default_rng(0)
    confidence, is_right = random.random(10_000, np.float32), random.random(10_000) < 0.5
    together = counted(confidence, is_right)
    parts = ConfidenceCounts()
    for chosen in np.array_split(random.permutation(10_000), 7):
        parts.add(confidence[chosen], is_right[chosen])
    assert (parts.pixels == together.pixels).all()
    assert (parts.confidence == together.confidence).all()
