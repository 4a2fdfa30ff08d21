"""Suspects in one image, and their order among those of all images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from refinenet.labelling.errors.suspect_scores import score_suspects
from refinenet.labelling.errors.suspects import Suspect, find_suspects
from refinenet.labels import LabelSet

LABEL_SET = LabelSet.numbered(3)
VOID = LABEL_SET.ignore_index


def truth() -> npt.NDArray[np.uint8]:
    """Return labels `(60, 80)`: class 0 with a square of class 1 and a band of class 2."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 10:30] = 1
    labels[45:] = 2
    return labels


def sure_of(labels: npt.NDArray[np.uint8], share: float = 0.9) -> npt.NDArray[np.float32]:
    """Return probabilities of a model that gives the class of each pixel a share, and the others the rest."""
    shares = np.full((3, *labels.shape), (1 - share) / 2, np.float32)
    np.put_along_axis(shares, labels[None].astype(np.int64), np.float32(share), 0)
    return shares


def test_labels_that_the_model_confirms_are_no_suspects() -> None:
    suspects, regions = find_suspects(truth(), sure_of(truth()), LABEL_SET)
    assert not suspects
    assert not regions.any()


def test_a_swapped_object_is_exactly_one_suspect() -> None:
    wrong = truth()
    wrong[10:30, 10:30] = 2
    (suspect,), regions = find_suspects(wrong, sure_of(truth()), LABEL_SET)
    assert (suspect.label, suspect.prediction, suspect.pixels) == (2, 1, 400)
    assert suspect.box == (10, 10, 30, 30)
    assert suspect.share_of_object == 1
    assert np.isclose([suspect.confidence, suspect.doubt], [0.9, 0.85]).all()
    assert np.array_equal(regions == suspect.number, truth() == 1)


def test_two_wrong_objects_of_one_label_are_two_suspects_and_the_larger_comes_first() -> None:
    wrong = truth()
    wrong[45:, 60:] = 0
    wrong[10:30, 10:30] = 0
    suspects, regions = find_suspects(wrong, sure_of(truth()), LABEL_SET)
    assert [(each.number, each.pixels, each.prediction) for each in suspects] == [(1, 400, 1), (2, 300, 2)]
    assert np.bincount(regions.ravel()).tolist() == [60 * 80 - 700, 400, 300]


def test_void_where_the_model_sees_a_class_is_a_suspect_only_where_it_is_very_sure() -> None:
    wrong = truth()
    wrong[10:30, 10:30] = VOID
    (suspect,), _ = find_suspects(wrong, sure_of(truth()), LABEL_SET)
    assert (suspect.label, suspect.prediction, suspect.pixels) == (VOID, 1, 400)
    assert find_suspects(wrong, sure_of(truth(), 0.6), LABEL_SET)[0] == []


def test_an_outline_drawn_a_pixel_wider_and_a_speck_are_no_suspects() -> None:
    wide = truth()
    wide[9:31, 9:31] = 1
    assert find_suspects(wide, sure_of(truth()), LABEL_SET)[0] == []
    speck = truth()
    speck[5, 70:73] = 2
    assert find_suspects(speck, sure_of(truth()), LABEL_SET)[0] == []


def test_a_model_that_hesitates_accuses_nobody() -> None:
    wrong = truth()
    wrong[10:30, 10:30] = 2
    assert find_suspects(wrong, sure_of(truth(), 0.45), LABEL_SET)[0] == []


SUSPECT = Suspect(
    number=1,
    label=0,
    prediction=1,
    pixels=400,
    share=0.01,
    box=(0, 0, 20, 20),
    doubt=0.8,
    confidence=0.9,
    width=5.0,
    share_of_object=1.0,
)


def test_surer_and_larger_suspects_come_first() -> None:
    others = {1: replace(SUSPECT, doubt=0.9), 2: SUSPECT, 3: replace(SUSPECT, share=0.003)}
    found = {k: [replace(each, prediction=k)] for k, each in others.items()}
    assert [each.image for each in score_suspects(found, 100)] == [1, 2, 3]


def test_a_confusion_that_the_model_makes_everywhere_comes_after_a_rare_one() -> None:
    found = {k: [SUSPECT] for k in range(10)} | {10: [replace(SUSPECT, prediction=2, doubt=0.7)]}
    scored = score_suspects(found, 20)
    assert scored[0].image == 10
    assert all(0 <= each.score < 1 for each in scored)
    # The doubt alone would say the opposite, and does where the others are few among many images.
    assert score_suspects(found, 100_000)[0].image == 0


def test_the_strongest_of_many_suspects_of_a_kind_comes_before_the_usual_ones() -> None:
    found = {k: [replace(SUSPECT, doubt=0.6)] for k in range(50)} | {50: [replace(SUSPECT, doubt=0.95)]}
    scored = score_suspects(found, 1000)
    assert scored[0].image == 50
    assert scored[0].score > scored[1].score
