"""Figures of outlines: worked out by hand, and by scipy's morphology and distance transforms, class by class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from refinenet.evaluation.metrics.boundary import BANDS, DILATION_RATIO, TOLERANCE_RATIO, BoundaryCounts, reach
from refinenet.labels import LabelMap

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """Truth and prediction `(H, W)` of some classes."""

    classes: int
    void: int
    truth: LabelMap
    prediction: LabelMap

    @property
    def seen(self) -> LabelMap:
        return np.where(self.truth == self.void, self.truth, self.prediction)


def blocks(labels: LabelMap, factor: int, height: int, width: int) -> LabelMap:
    """Labels enlarged, so that there are areas and not only specks, and cut to a size."""
    return np.kron(labels, np.ones((factor, factor), labels.dtype))[:height, :width]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    classes, void, dtype = draw(
        st.sampled_from([(1, 255, np.uint8), (2, 255, np.uint8), (5, 255, np.uint8), (300, 65_535, np.uint16)])
    )
    height, width = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    factor = draw(st.integers(1, 9))
    small = (-(-height // factor), -(-width // factor))
    # Few ids of many, the last one among them, so that classes meet and most are absent.
    ids = st.sampled_from(sorted({0, classes // 2, classes - 1}))
    truth, prediction = (
        blocks(draw(hnp.arrays(dtype, small, elements=st.one_of(ids, ids, st.just(void)))), factor, height, width)
        for _ in range(2)
    )
    shift = draw(st.integers(-2, 2))
    if draw(st.booleans()):  # outlines that nearly meet
        prediction = np.roll(truth, shift, axis=draw(st.integers(0, 1)))
    return Case(classes, void, truth, prediction)


def counted(case: Case) -> BoundaryCounts:
    counts = BoundaryCounts(case.classes, case.void)
    counts.add(case.truth, case.prediction)
    return counts


def boundary(mask: Mask, distance: int) -> Mask:
    """The reference code of boundary IoU: a ring of zeros, eroded, taken away (Cheng et al., `mask_to_boundary`)."""
    eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=distance)[1:-1, 1:-1]
    return np.asarray(mask & ~eroded)


@settings(max_examples=80, deadline=None)
@given(cases())
@example(Case(2, 255, np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8)))
@example(Case(2, 255, np.full((3, 4), 255, np.uint8), np.ones((3, 4), np.uint8)))
@example(Case(2, 255, np.zeros((80, 120), np.uint8), np.zeros((80, 120), np.uint8)))
def test_boundary_iou_is_that_of_erosion(case: Case) -> None:
    counts = counted(case)
    height, width = case.truth.shape
    distance = max(1, round(0.02 * (height**2 + width**2) ** 0.5))
    for label in {0, case.classes // 2, case.classes - 1}:
        true, found = boundary(case.truth == label, distance), boundary(case.seen == label, distance)
        assert counts.regions[:, label].tolist() == [(true & found).sum(), true.sum(), found.sum()]
        union = (true | found).sum()
        expected = (true & found).sum() / union if union else np.nan
        assert counts.boundary_iou()[label] == pytest.approx(expected, nan_ok=True)


def band_mask(truth: LabelMap, width: int) -> Mask:
    """Pixels within a chessboard distance of another label: label by label, void too."""
    near = np.zeros(truth.shape, bool)
    for label in np.unique(truth):
        own = truth == label
        if not own.all():
            near |= own & (ndimage.distance_transform_cdt(own, metric="chessboard") <= width)
    return near


@settings(max_examples=80, deadline=None)
@given(cases())
@example(Case(2, 255, np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8)))
@example(Case(2, 255, np.full((3, 4), 255, np.uint8), np.ones((3, 4), np.uint8)))
def test_trimap_miou_is_that_of_a_distance_transform(case: Case) -> None:
    found = counted(case).trimap_miou()
    for width, value in zip(BANDS, found, strict=True):
        chosen = band_mask(case.truth, width) & (case.truth != case.void)
        truth, prediction = case.truth[chosen], case.prediction[chosen]
        ious = []
        for label in set(truth.tolist()) | set(prediction.tolist()) - {case.void}:
            hits = np.sum((truth == label) & (prediction == label))
            ious.append(hits / np.sum((truth == label) | (prediction == label)))
        assert value == pytest.approx(np.mean(ious) if ious else np.nan, nan_ok=True)


def outline(labels: LabelMap, label: int) -> Mask:
    """Pixels of a class with another label above, below, left or right: what a cross erodes, the border aside."""
    own = labels == label
    return np.asarray(own & ~ndimage.binary_erosion(own, ndimage.generate_binary_structure(2, 1), border_value=1))


def met(of: Mask, other: Mask, distance: int) -> float:
    """The share of outline pixels that have one of the other within a Euclidean distance; 0 where there are none."""
    if not of.any() or not other.any():
        return 0.0
    return float((ndimage.distance_transform_edt(~other)[of] <= distance).mean())


@settings(max_examples=80, deadline=None)
@given(cases(), st.integers(0, 6))
@example(Case(2, 255, np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8)), 0)
@example(Case(2, 255, np.full((3, 4), 255, np.uint8), np.ones((3, 4), np.uint8)), 0)
def test_boundary_f_is_that_of_a_distance_transform(case: Case, distance: int) -> None:
    """With the tolerance as it is (1 pixel for images as small as these) and with wider ones."""
    counts = BoundaryCounts(case.classes, case.void)
    with pytest.MonkeyPatch.context() as patch:
        if distance:
            ratio = distance / math.hypot(*case.truth.shape)
            patch.setattr("refinenet.evaluation.metrics.boundary.TOLERANCE_RATIO", ratio)
        counts.add(case.truth, case.prediction)
    for label in {0, case.classes // 2, case.classes - 1}:
        true, found = outline(case.truth, label), outline(case.seen, label)
        precision, recall = met(found, true, max(distance, 1)), met(true, found, max(distance, 1))
        total = precision + recall
        expected = 2 * precision * recall / total if total else 0.0
        if not (true.any() or found.any()):
            expected = np.nan
        assert counts.boundary_f()[label] == pytest.approx(expected, nan_ok=True)


def test_more_classes_than_bits_meet_their_own_outlines_only() -> None:
    """150 stripes, two pixels wide: one pixel to the right every outline is met, 75 stripes to the right none."""
    truth = np.repeat(np.arange(150, dtype=np.uint8), 2)[None].repeat(4, axis=0)
    prediction = np.roll(truth, 1, axis=1)
    prediction[:, 0] = 0
    counts = BoundaryCounts(150, 255)
    counts.add(truth, prediction)
    assert (counts.outlines[:, 0] == counts.outlines[:, 1]).all()
    met_before = counts.outlines[:, 0].copy()
    counts.add(truth, (truth + 75) % 150)
    assert (counts.outlines[:, 0] == met_before).all()


def test_distances_grow_with_the_image() -> None:
    """CamVid's 360 x 480 has a diagonal of 600: 2 % of it are 12 pixels, 0.75 % are 4.5, rounded to the even 4."""
    assert (reach(DILATION_RATIO, 360, 480), reach(TOLERANCE_RATIO, 360, 480)) == (12, 4)
    assert reach(DILATION_RATIO, 1, 1) == 1


def test_images_add_up() -> None:
    random = np.random.default_rng(0)
    pairs = [random.integers(0, 3, (2, 9, 11)).astype(np.uint8) for _ in range(3)]
    together, alone = BoundaryCounts(3, 255), [BoundaryCounts(3, 255) for _ in pairs]
    regions = [together.add(*pair) for pair in pairs]
    for counts, pair in zip(alone, pairs, strict=True):
        counts.add(*pair)
    assert (together.regions == sum(regions)).all()
    for name in ("regions", "bands", "outlines"):
        assert (getattr(together, name) == sum(getattr(counts, name) for counts in alone)).all()
