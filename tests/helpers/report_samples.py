"""A tiny dataset whose figures can be counted by hand, with hostile names, and made-up answers to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset, Sample
from refinenet.distributed import ALONE
from refinenet.evaluation.evaluator import Prediction, Predictor
from refinenet.evaluation.pipeline import run_evaluation
from refinenet.evaluation.results import Evaluation
from refinenet.labels import LabelSet, voc_colours

HOSTILE_CLASS = "</script><script>alert(1)</script>"
HOSTILE_IMAGE = "a/b: ü<img src=x onerror=alert(2)>&\"'.png"
ROAD, HOSTILE, TREE, ABSENT = range(4)
CLASSES = LabelSet(
    names=("road", HOSTILE_CLASS, 'tree "&" bush', "absent"),
    colours=((200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)),
)
IMAGES = (HOSTILE_IMAGE, "second", "third", "fourth")
WRONG_COLUMNS = (30, 20, 10, 0)
"""Of each image's 60: wrong from the left on."""
CONFIDENT_COLUMNS = 10
"""Of the wrong ones, those that are said with confidence, from the left on."""
HEIGHT, WIDTH = 40, 60


def truth(label_set: LabelSet = CLASSES) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Road above, trees at the right below, the hostile class at the left below; void in the four lowest rows."""
    labels = np.full((HEIGHT, WIDTH), ROAD)
    labels[20:, :40] = HOSTILE
    labels[20:, 40:] = TREE
    labels[36:] = label_set.ignore_index
    return label_set.cast(labels)


def make_dataset(label_set: LabelSet = CLASSES) -> Dataset:
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    return Dataset(
        name="mine & <yours>",
        split="val",
        label_set=label_set,
        items=IMAGES,
        read_image=lambda _: image,
        read_labels=lambda _: truth(label_set),
    )


def make_predictor(*, confident: bool = True, last: int = TREE) -> Predictor:
    """Says the class `last` where it is wrong."""

    def predict(sample: Sample) -> Prediction:
        number = IMAGES.index(sample.name)
        labels = sample.labels.copy()
        labels[:, : WRONG_COLUMNS[number]] = last
        confidence = np.full(labels.shape, 0.97, np.float32)
        confidence[:, CONFIDENT_COLUMNS : WRONG_COLUMNS[number]] = 0.5
        return Prediction(labels, confidence if confident else None)

    return Predictor(predict=predict, has_confidence=confident, protocol="made up", model_sha256=None)


def report(
    folder: Path, predictor: Predictor | None = None, label_set: LabelSet = CLASSES, images: int = len(IMAGES)
) -> Evaluation:
    """Evaluate and write the report."""
    whole = make_dataset(label_set)
    part = Dataset(
        name=whole.name,
        split=whole.split,
        label_set=label_set,
        items=IMAGES[:images],
        read_image=whole.read_image,
        read_labels=whole.read_labels,
    )
    return run_evaluation(predictor or make_predictor(), part, report=folder, progress=False, processes=ALONE)


def numbered(count: int) -> LabelSet:
    return LabelSet(names=tuple(f"class {k}" for k in range(count)), colours=voc_colours(count))
