"""Figures of merit: a confusion matrix worked out by hand, and torchmetrics on random label maps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from refinenet.evaluation.metrics import ConfusionMatrix, SegmentationScores

TRUTH = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 1, 1]]
PREDICTION = [[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 0, 3], [2, 0, 1, 1]]


def scores_of(truth: object, prediction: object, num_classes: int) -> SegmentationScores:
    matrix = ConfusionMatrix(num_classes, 255)
    matrix.add(np.array(truth, np.uint8), np.array(prediction, np.uint8))
    return matrix.scores()


def test_four_by_four_pixels_by_hand() -> None:
    """Class 3 is predicted only where the truth is void, class 4 nowhere: both are absent."""
    matrix = ConfusionMatrix(5, 255)
    matrix.add(np.array(TRUTH, np.uint8), np.array(PREDICTION, np.uint8))
    expected = np.zeros((5, 5), int)
    expected[0, :2], expected[1, 1], expected[2, :3] = (3, 1), 6, (1, 0, 3)
    assert matrix.counts.tolist() == expected.tolist()
    scores = matrix.scores()
    assert scores.class_iou == (3 / 5, 6 / 7, 3 / 4, None, None)
    assert scores.miou == pytest.approx((3 / 5 + 6 / 7 + 3 / 4) / 3, abs=1e-15)
    assert scores.pixel_accuracy == 12 / 14
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 1 + 3 / 4) / 3, abs=1e-15)
    assert scores.classes_averaged == 3


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    scores = scores_of([[0, 0, 0, 0]], [[0, 0, 1, 1]], 3)
    assert scores.class_iou == (0.5, 0.0, None)
    assert (scores.miou, scores.classes_averaged) == (0.25, 2)
    assert scores.mean_accuracy == 0.5


def test_a_class_that_is_never_found_counts_as_zero() -> None:
    scores = scores_of([[0, 1]], [[0, 0]], 2)
    assert (scores.class_iou, scores.miou, scores.mean_accuracy) == ((0.5, 0.0), 0.25, 0.5)


def test_nothing_counted_gives_no_figure() -> None:
    nothing = SegmentationScores(
        miou=None, pixel_accuracy=None, mean_accuracy=None, class_iou=(None, None), classes_averaged=0
    )
    assert ConfusionMatrix(2, 255).scores() == nothing
    assert scores_of([[255, 255]], [[0, 1]], 2) == nothing


def test_images_add_up_pixel_by_pixel() -> None:
    """One matrix over all images, not a mean of images: 100 right pixels and 2 wrong ones."""
    matrix = ConfusionMatrix(2, 255)
    matrix.add(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8))
    matrix.add(np.zeros((1, 2), np.uint8), np.ones((1, 2), np.uint8))
    assert matrix.scores().pixel_accuracy == 100 / 102


def test_counts_are_exact_beyond_what_floats_hold() -> None:
    matrix = ConfusionMatrix(2, 255)
    matrix.counts[0, 0] = 2**60
    matrix.add(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    assert matrix.counts.dtype == np.int64
    assert int(matrix.counts[0, 0]) == 2**60 + 1


@pytest.mark.parametrize(("dtype", "num_classes", "void"), [(np.uint8, 255, 255), (np.uint16, 300, 65_535)])
def test_large_ids_do_not_overflow(dtype: type, num_classes: int, void: int) -> None:
    matrix = ConfusionMatrix(num_classes, void)
    last = num_classes - 1
    matrix.add(np.array([[last, last, void]], dtype), np.array([[last, last - 1, 0]], dtype))
    assert np.argwhere(matrix.counts).tolist() == [[last, last - 1], [last, last]]


@pytest.mark.parametrize(
    ("truth", "prediction", "pattern"),
    [
        ([[0, 3]], [[0, 0]], "truth has the id 3, .* number of classes, 3"),
        ([[0, 0]], [[0, 3]], "prediction has the id 3"),
        ([[0, 0]], [[0, 255]], "prediction has the id 255"),
        ([[0, 0]], [[1, -1]], "prediction has the id -1"),
        ([[0, -1]], [[0, 0]], "truth has the id -1"),
        ([[0, 0]], [[0], [0]], r"\(1, 2\), but the prediction has \(2, 1\)"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_not_half_counted(
    truth: list[list[int]], prediction: list[list[int]], pattern: str
) -> None:
    matrix = ConfusionMatrix(3, 255)
    # Signed ids are no label map, but arithmetic on them would count them in a wrong place.
    signed: list[Any] = [np.array(ids, np.int16) for ids in (truth, prediction)]
    with pytest.raises(ValueError, match=pattern):
        matrix.add(*signed)
    assert matrix.counts.sum() == 0


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    num_classes = draw(st.integers(2, 12))
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    ids = st.integers(0, num_classes - 1)
    truth = draw(hnp.arrays(np.uint8, shape, elements=st.one_of(ids, st.just(255))))
    return num_classes, truth, draw(hnp.arrays(np.uint8, shape, elements=ids))


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_figures_are_those_of_torchmetrics(case: tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]) -> None:
    num_classes, truth, prediction = case
    matrix = ConfusionMatrix(num_classes, 255)
    matrix.add(truth, prediction)
    ours = matrix.scores()
    pair = torch.from_numpy(prediction).long()[None], torch.from_numpy(truth).long()[None]
    options: dict[str, Any] = {"num_classes": num_classes, "ignore_index": 255}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns of maps without a pixel that counts.
        counts = MulticlassConfusionMatrix(**options)(*pair)
        assert matrix.counts.tolist() == counts.tolist()
        if not counts.sum():
            assert ours.miou is None
            return
        miou = float(MulticlassJaccardIndex(average="macro", **options)(*pair))
        class_iou = MulticlassJaccardIndex(average="none", **options)(*pair).tolist()
        accuracy = float(MulticlassAccuracy(average="micro", **options)(*pair))
        class_accuracy = MulticlassAccuracy(average="none", **options)(*pair)
    assert ours.miou == pytest.approx(miou, abs=1e-6)
    assert ours.pixel_accuracy == pytest.approx(accuracy, abs=1e-6)
    in_truth = torch.from_numpy(np.unique(truth[truth != 255])).long()
    assert ours.mean_accuracy == pytest.approx(float(class_accuracy[in_truth].mean()), abs=1e-6)
    for value, theirs in zip(ours.class_iou, class_iou, strict=True):
        assert value is None or value == pytest.approx(theirs, abs=1e-6)
    assert ours.classes_averaged == len({*truth[truth != 255].tolist(), *prediction[truth != 255].tolist()})
