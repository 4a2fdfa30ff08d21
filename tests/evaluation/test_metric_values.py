"""All figures of an evaluation: a 4 x 4 image by hand, formulas written differently, naive loops, scipy's bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from significance import WAYS, Population

from refinenet.evaluation.metrics import CONFIDENT, MetricAccumulator, Metrics, compute_metrics
from refinenet.evaluation.metrics.confusion import ious, mean
from refinenet.evaluation.metrics.significance import DRAWS, draw_times, interval, resample
from refinenet.labels import LabelMap

V = 255


def test_four_by_four_pixels_by_hand() -> None:
    """Two halves and a void corner; the prediction's edge is a column too far right in row 0, and it abstains once.

    truth      prediction
    0 0 1 1    0 0 0 1    Class 0: 8 pixels in the truth; 7 of them are found, the abstention is missed; 8 predicted.
    0 0 1 1    0 0 1 1    Class 1: 7 in the truth; 6 of them are found; 6 predicted.
    0 0 1 1    0 0 1 1    Class 2: predicted only where the truth is void, so that it is absent.
    0 0 1 V    V 0 1 2
    """
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, V]], np.uint8)
    prediction = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [V, 0, 1, 2]], np.uint8)
    confidence = np.full((4, 4), 0.75, np.float32)
    confidence[0, 2] = 0.95  # the only mistake with a class, and a confident one
    tally = MetricAccumulator(3, V, 1)
    tally.add(0, truth, prediction, confidence)
    found = compute_metrics(tally, has_confidence=True)
    assert found.scores.class_iou == (7 / 9, 6 / 7, None)
    assert found.scores.miou == pytest.approx((7 / 9 + 6 / 7) / 2)
    assert found.scores.pixel_accuracy == 13 / 15
    assert found.scores.mean_accuracy == pytest.approx((7 / 8 + 6 / 7) / 2)
    assert found.frequency_weighted_iou == pytest.approx((8 * 7 / 9 + 7 * 6 / 7) / 15)
    assert [c.precision for c in found.classes] == [7 / 8, 1, None]
    assert [c.recall for c in found.classes] == [7 / 8, 6 / 7, None]
    assert [c.dice for c in found.classes] == [14 / 16, 12 / 13, None]
    assert found.mean_dice == pytest.approx((14 / 16 + 12 / 13) / 2)
    assert [c.pixels for c in found.classes] == [8, 7, 0]
    assert found.abstained == 1 / 15
    # Diagonal 5.7, so that both distances are 1 pixel. Of the four inner pixels each has the other class beside it, in
    # truth and in prediction, and the others are at the border: boundary regions are all pixels.
    assert [c.boundary_iou for c in found.classes] == [7 / 9, 6 / 7, None]
    # Within 1 pixel of an outline are columns 1 and 2, and (2, 3), beside the void. Class 0: all four found, (0, 2) too
    # many; class 1: four of five found. Within 2 pixels is all that has a truth.
    assert found.trimap_miou[1] == pytest.approx((4 / 5 + 4 / 5) / 2)
    assert found.trimap_miou[2] == found.trimap_miou[32] == pytest.approx((7 / 9 + 6 / 7) / 2)
    # Outlines. Class 0: true column 1 (4); predicted (0, 2), (1, 1), (2, 0) by the abstention below, (2, 1), (3, 1):
    # met within 1 of the truth all five, (0, 2) by (0, 1), (2, 0) by (2, 1); of the truth all four: F = 1. Class 1:
    # true column 2 (4) and (2, 3); predicted (0, 3), (1, 2), (2, 2), (3, 2), (2, 3): all met, (0, 3) by (0, 2): F = 1.
    assert [c.boundary_f for c in found.classes] == [1, 1, None]
    assert found.confusion.tolist() == [[7, 0, 0], [1, 6, 0], [0, 0, 0]]
    # 13 right ones with 0.75 in one bin, a wrong one with 0.95 in another; the abstention has no confidence.
    assert found.calibration is not None
    assert found.calibration.error == pytest.approx((13 * 0.25 + 0.95) / 14, abs=1e-6)
    assert [c.coverage for c in found.calibration.coverage if c.threshold in (0.0, 0.8)] == [14 / 15, 1 / 15]
    (image,) = found.images
    assert (image.miou, image.pixel_accuracy, image.boundary_miou) == (
        found.scores.miou,
        found.scores.pixel_accuracy,
        found.boundary_miou,
    )
    assert image.confident_mistakes == 1 / 15
    assert image.regions.tolist() == [[7, 6, 0], [8, 7, 0], [8, 6, 0]]


@dataclass(frozen=True)
class Pictures:
    """Images of one dataset, and what was said of them."""

    classes: int
    void: int
    truths: list[LabelMap]
    predictions: list[LabelMap]
    confidences: list[npt.NDArray[np.float32]]

    def tally(self, start: int = 0, step: int = 1) -> MetricAccumulator:
        tally = MetricAccumulator(self.classes, self.void, len(self.truths))
        for index in range(start, len(self.truths), step):
            tally.add(index, self.truths[index], self.predictions[index], self.confidences[index])
        return tally


@st.composite
def pictures(draw: st.DrawFn) -> Pictures:
    classes, void, dtype = draw(
        st.sampled_from([(1, 255, np.uint8), (4, 255, np.uint8), (255, 255, np.uint8), (300, 65_535, np.uint16)])
    )
    ids = st.sampled_from(sorted({0, classes // 3, classes // 2, classes - 1}))
    labels = st.one_of(ids, ids, st.just(void))
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4))
    sure = st.sampled_from([0.0, 0.25, 0.5, 0.875, 0.9375, 1.0])
    return Pictures(
        classes,
        void,
        [draw(hnp.arrays(dtype, shape, elements=labels)) for shape in shapes],
        [draw(hnp.arrays(dtype, shape, elements=labels)) for shape in shapes],
        [draw(hnp.arrays(np.float32, shape, elements=sure)) for shape in shapes],
    )


def average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def close(ours: float | None, theirs: float | None) -> bool:
    return ours is None if theirs is None else ours == pytest.approx(theirs)


def by_sets(pairs: list[tuple[int, int]], label: int) -> dict[str, float | None]:
    """Figures of a class from pairs of true and predicted ids, pixel by pixel."""
    true = {index for index, (t, _) in enumerate(pairs) if t == label}
    found = {index for index, (_, p) in enumerate(pairs) if p == label}
    both, union = len(true & found), len(true | found)
    return {
        "iou": both / union if union else None,
        "precision": both / len(found) if found else None,
        "recall": both / len(true) if true else None,
        "dice": both / ((len(true) + len(found)) / 2) if union else None,
    }


NO_TRUTH = Pictures(
    2, 255, [np.full((1, 3), 255, np.uint8)], [np.ones((1, 3), np.uint8)], [np.ones((1, 3), np.float32)]
)


@settings(max_examples=40, deadline=None)
@given(pictures())
@example(NO_TRUTH)
def test_figures_are_those_of_sets_of_pixels(case: Pictures) -> None:
    found = compute_metrics(case.tally(), has_confidence=True)
    pairs = [
        (t, p)
        for truth, prediction in zip(case.truths, case.predictions, strict=True)
        for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
        if t != case.void
    ]
    expected = [by_sets(pairs, label) for label in range(case.classes)]
    for ours, theirs in zip(found.classes, expected, strict=True):
        assert all(close(getattr(ours, name), value) for name, value in theirs.items())
    share = 1 / len(pairs) if pairs else None
    weighted = [(expected[t]["iou"] or 0.0) * share for t, _ in pairs] if share else []
    assert close(found.frequency_weighted_iou, sum(weighted) if share else None)
    assert close(found.scores.miou, average([one["iou"] for one in expected]))
    assert close(found.mean_dice, average([one["dice"] for one in expected]))
    assert close(found.scores.mean_accuracy, average([one["recall"] for one in expected]))
    assert close(found.scores.pixel_accuracy, average([float(t == p) for t, p in pairs]))
    assert close(found.abstained, average([float(p == case.void) for _, p in pairs]))
    assert close(found.boundary_miou, average([one.boundary_iou for one in found.classes]))
    assert close(found.boundary_f, average([one.boundary_f for one in found.classes]))
    for t, p in set(pairs):
        assert p == case.void or found.confusion[t, p] == pairs.count((t, p))
    assert found.confusion.sum() == sum(p != case.void for _, p in pairs)


@settings(max_examples=30, deadline=None)
@given(pictures())
@example(NO_TRUTH)
def test_an_image_has_the_figures_that_it_would_have_alone(case: Pictures) -> None:
    found = compute_metrics(case.tally(), has_confidence=True)
    for index, image in enumerate(found.images):
        alone = MetricAccumulator(case.classes, case.void, 1)
        truth, prediction, confidence = case.truths[index], case.predictions[index], case.confidences[index]
        alone.add(0, truth, prediction, confidence)
        figures = compute_metrics(alone, has_confidence=True)
        assert close(image.miou, figures.scores.miou)
        assert close(image.pixel_accuracy, figures.scores.pixel_accuracy)
        assert close(image.boundary_miou, figures.boundary_miou)
        counts = truth != case.void
        wrong = (prediction != truth) & (prediction != case.void) & (confidence >= CONFIDENT) & counts
        assert close(image.confident_mistakes, wrong.sum() / counts.sum() if counts.any() else None)
    assert all(one.confident_mistakes is None for one in compute_metrics(case.tally(), has_confidence=False).images)


@settings(max_examples=20, deadline=None)
@given(pictures())
def test_two_tallies_add_up_to_one(case: Pictures) -> None:
    """As two processes share the images."""
    parts = [case.tally(start, 2) for start in (0, 1)]
    total = MetricAccumulator(case.classes, case.void, len(case.truths))
    for part in parts:
        for sums, counts in zip(total.arrays(), part.arrays(), strict=True):
            sums += counts
    assert_same(compute_metrics(total, has_confidence=True), compute_metrics(case.tally(), has_confidence=True))


def assert_same(one: Metrics, other: Metrics) -> None:
    for name in Metrics.__dataclass_fields__:
        if name not in ("confusion", "images"):
            assert getattr(one, name) == getattr(other, name)
    assert (one.confusion == other.confusion).all()
    for ours, theirs in zip(one.images, other.images, strict=True):
        assert (ours.regions == theirs.regions).all()
        assert (ours.miou, ours.boundary_miou, ours.confident_mistakes) == (
            theirs.miou,
            theirs.boundary_miou,
            theirs.confident_mistakes,
        )


def test_draws_are_those_of_a_naive_loop() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (9, 3, 4))
    counts[:, 0] = counts.min(1)
    times = np.concatenate(list(draw_times(9, 120))).astype(int)
    assert (times.sum(1) == 9).all()
    expected = []
    for drawn in times:
        sums = sum(counts[index] for index in np.repeat(np.arange(9), drawn))
        expected.append([h / (t + p - h) for h, t, p in np.asarray(sums).T])
    assert resample(counts, ious, 120) == pytest.approx(np.array(expected))


def test_intervals_are_those_of_scipy() -> None:
    counts = Population(150).segment(WAYS["alike"], 0.0)[:, 0]

    def miou(chosen: npt.NDArray[np.int64]) -> float:
        return float(mean(ious(counts[chosen].sum(0))))

    theirs = stats.bootstrap(
        (np.arange(len(counts)),), miou, n_resamples=2000, method="percentile", vectorized=False, rng=1
    ).confidence_interval
    ours = interval(resample(counts, lambda sums: mean(ious(sums)), DRAWS))
    assert ours is not None
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)


def test_intervals_without_figures() -> None:
    assert interval(np.full(5, np.nan)) is None
    assert interval(np.array([np.nan, 0.25, 0.25])) == (0.25, 0.25)
