"""Metrics of normals, against values worked out by hand and other formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from target_images import NAN, Image, draw, measure, seeds, vectors

from refinenet.evaluation.metrics import (
    NormalAccumulator,
    NormalMetrics,
)


def normals_of(images: list[Image]) -> NormalMetrics:
    accumulator = NormalAccumulator()
    measure(accumulator, images)
    return accumulator.result()


# Normals


def test_angles_by_hand() -> None:
    """0, 10, 25, 90 and 180 degrees, of vectors of several lengths."""
    ten, more = math.radians(10), math.radians(25)
    tilted = (math.sin(ten), 0, -math.cos(ten)), (0, 3 * math.sin(more), -3 * math.cos(more))
    predicted = vectors((0, 0, -2), *tilted, (1, 0, 0), (0, 0, 5), (1, 1, 1))
    truth = vectors(*[(0, 0, -1)] * 5, (0, NAN, 1))
    scores = normals_of([(predicted, truth)])
    assert scores.pixels == 5
    assert scores.mean == pytest.approx((0 + 10 + 25 + 90 + 180) / 5)
    assert scores.rmse == pytest.approx(math.sqrt((100 + 625 + 8100 + 32400) / 5))
    assert scores.median == pytest.approx(25, abs=0.0051)
    assert (scores.within_11_25, scores.within_22_5, scores.within_30) == (2 / 5, 2 / 5, 3 / 5)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1e-4, 3), st.integers(1, 12), st.integers(1, 12))
def test_angles_are_those_of_other_formulas(seed: int, spread: float, height: int, width: int) -> None:
    """By Kahan's formula, 2 atan(|p - t| / |p + t|) of unit vectors, and by the arccosine where it is accurate."""
    random = np.random.default_rng(seed)
    images = [
        (np.nan_to_num(truth + spread * random.normal(0, 1, truth.shape), nan=1).astype(np.float32), truth)
        for _, truth in draw(seed, "normals", size=(height, width))
    ]
    angles = []
    for predicted, truth in images:
        known = ~np.isnan(truth).any(0)
        p, t = (one[:, known].astype(np.float64) for one in (predicted, truth))
        p, t = p / np.linalg.norm(p, axis=0), t / np.linalg.norm(t, axis=0)
        exact = np.degrees(2 * np.arctan2(np.linalg.norm(p - t, axis=0), np.linalg.norm(p + t, axis=0)))
        assert np.allclose(exact, np.degrees(np.arccos((p * t).sum(0).clip(-1, 1))), atol=1e-4)
        angles.append(exact)
    found, expected = normals_of(images), np.concatenate(angles)
    assert found.pixels == expected.size
    assert found.mean == pytest.approx(expected.mean(), rel=1e-9)
    assert found.rmse == pytest.approx(np.sqrt((expected**2).mean()), rel=1e-9)
    assert found.median == pytest.approx(np.median(expected), abs=0.005 + 1e-9)
    shares = (found.within_11_25, found.within_22_5, found.within_30)
    assert shares == tuple(float(np.mean(expected < limit)) for limit in (11.25, 22.5, 30))


def test_limits_and_the_median_of_an_even_number_by_hand() -> None:
    """The middle two of six angles are 22.4 and 22.6 degrees."""
    angles = [math.radians(angle) for angle in (11.2, 11.3, 22.4, 22.6, 29.9, 30.1)]
    predicted = vectors(*[(math.sin(angle), 0, math.cos(angle)) for angle in angles])
    scores = normals_of([(predicted, vectors(*[(0, 0, 1)] * 6))])
    assert (scores.within_11_25, scores.within_22_5, scores.within_30) == (1 / 6, 3 / 6, 5 / 6)
    assert scores.median == pytest.approx(22.5, abs=0.0051)


def test_small_angles_keep_their_digits() -> None:
    """The cosine of a microradian is 1 - 5e-13."""
    scores = normals_of([(vectors((1e-6, 0, 1)), vectors((0, 0, 1)))])
    assert scores.mean == pytest.approx(math.degrees(1e-6), rel=1e-6)


def test_predictions_without_a_direction_are_90_degrees_off() -> None:
    assert normals_of([(vectors((0, 0, 0)), vectors((0, 0, 1)))]).mean == 90
    tiny, huge = vectors((0, 1e-38, 1e-38)), vectors((0, 0, 1e38))
    assert normals_of([(tiny, huge)]).mean == pytest.approx(45)
    with pytest.raises(ValueError, match="longer than 0"):
        normals_of([(vectors((0, 0, 1)), vectors((0, 0, 0)))])
