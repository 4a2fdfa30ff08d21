"""Measure a segmenter, or label maps of any origin, on a dataset, image by image.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from refinenet._version import __version__
from refinenet.datasets.catalog import Dataset, Sample
from refinenet.distributed import ALONE, Processes
from refinenet.evaluation.metrics import ConfusionMatrix, MetricAccumulator, SegmentationScores, compute_metrics
from refinenet.evaluation.results import Evaluation, Seconds
from refinenet.inference.protocol import PLAIN
from refinenet.inference.segmenter import Segmenter
from refinenet.io.console import progress_bar
from refinenet.io.mask_files import read_mask
from refinenet.labels import LabelMap

PROTOCOL = PLAIN.describe()
"""That of training's validation."""


@dataclass(frozen=True)
class Prediction:
    """What is said of an image."""

    labels: LabelMap
    """`(H, W)` ids; the ignore index where no class is said."""
    confidence: npt.NDArray[np.float32] | None
    """`(H, W)` float32 in [0, 1], where it is known."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """What is measured: a model, or label maps of any origin."""

    answer: Callable[[Sample], Prediction]
    has_confidence: bool
    protocol: str
    """How images were put before the network, in words."""
    model_sha256: str | None
    """Of the model's weights, where it is one."""


def model_predictor(segmenter: Segmenter, model_sha256: str, abstain_below: float = 0.0) -> Predictor:
    """A model to be measured.

    Args:
        segmenter: What runs it.
        model_sha256: Of its weights as stored.
        abstain_below: Pixels of less confidence than this get no class.
    """

    def answer(sample: Sample) -> Prediction:
        found = segmenter.segment(sample.image, abstain_below)
        return Prediction(found.labels, found.confidence)

    withheld = f"; no class below a confidence of {abstain_below:g}" if abstain_below else ""
    return Predictor(
        answer=answer,
        has_confidence=True,
        protocol=segmenter.protocol.describe() + withheld,
        model_sha256=model_sha256,
    )


def measure(
    examinee: Predictor, dataset: Dataset, *, progress: bool, processes: Processes, official: str = ""
) -> Evaluation:
    """All figures of a model, or of label maps, on a dataset.

    Args:
        examinee: What to measure.
        dataset: What to measure it on.
        progress: Whether to show progress.
        processes: Those that share the images; all get the same figures, equal to those of one process alone.
        official: How those who published the dataset measure on it, in words.

    Raises:
        ValueError: an image, a mask or a prediction cannot be used; the file is named.
    """
    label_set = dataset.label_set
    tally = MetricAccumulator(len(label_set), label_set.ignore_index, len(dataset))
    parts = np.zeros(3)
    start = last = time.perf_counter()
    for index, sample in _share_images(dataset, progress, processes):
        loaded = time.perf_counter()
        answer = examinee.answer(sample)
        answered = time.perf_counter()
        _count(tally, index, sample, answer)
        parts += loaded - last, answered - loaded, time.perf_counter() - answered
        last = time.perf_counter()
    tally.add_up(processes)
    load, network, figures = processes.add_up(torch.from_numpy(parts)).tolist()
    return Evaluation(
        dataset=dataset.name,
        split=dataset.split,
        label_set=label_set,
        figures=compute_metrics(tally, has_confidence=examinee.has_confidence),
        names=tuple(dataset.items),
        seconds=time.perf_counter() - start,
        parts=Seconds(load=load, network=network, figures=figures),
        protocol=examinee.protocol,
        official=official,
        model_sha256=examinee.model_sha256,
        package_version=__version__,
    )


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    progress: bool = True,
    processes: Processes = ALONE,
    after_image: Callable[[], object] | None = None,
) -> tuple[SegmentationScores, float]:
    """Segment every image of a dataset and count no more than training needs.

    Args:
        segmenter: What to measure.
        dataset: What to measure it on.
        progress: Whether to show progress.
        processes: Those that share the images; all get the same figures, equal to those of one process alone.
        after_image: Called after each image, on all processes equally often; it may end the work by an exception.

    Returns:
        The figures, and the seconds it took.

    Raises:
        ValueError: an image or mask cannot be used; the file is named.
    """
    matrix = ConfusionMatrix(len(dataset.label_set), dataset.label_set.ignore_index)
    start = time.perf_counter()
    for _, sample in _share_images(dataset, progress, processes, after_image):
        matrix.add(sample.labels, segmenter.predict(sample.image))
    matrix.counts = processes.add_up(torch.from_numpy(matrix.counts)).numpy()
    return matrix.scores(), time.perf_counter() - start


def _share_images(
    dataset: Dataset, progress: bool, processes: Processes, after_image: Callable[[], object] | None = None
) -> Iterator[tuple[int, Sample]]:
    """The images of this process with their indices: every so many-th one."""
    with progress_bar(progress) as bar:
        task = bar.add_task(f"Evaluating on {dataset.name} {dataset.split}", total=len(dataset), status="")
        for first in range(0, len(dataset), processes.count):
            index = first + processes.rank
            if index < len(dataset):
                yield index, dataset[index]
            bar.advance(task, min(processes.count, len(dataset) - first))
            if after_image is not None:
                after_image()


def _count(tally: MetricAccumulator, index: int, sample: Sample, answer: Prediction) -> None:
    try:
        tally.add(index, sample.labels, answer.labels, answer.confidence)
    except ValueError as error:
        raise ValueError(f"{sample.name}: {error}") from error


FIRST_FEW = 3
"""Files that a message names of many."""


def examine_predictions(folder: str | os.PathLike[str], dataset: Dataset) -> Predictor:
    """Label maps in a folder, to be measured on a dataset.

    Args:
        folder: It holds a PNG for each image, called as the image: `city/one.png` or, where no two images have that
            name, `one.png`. Its pixels are class ids in the dataset's order, grey or with a palette, of 8 or 16 bits;
            the dataset's ignore index stands for no class, which counts as a miss.
        dataset: What they are predictions for.

    Raises:
        ValueError: names of images do not tell them apart.
        FileNotFoundError: the folder, or a file in it, is not there; all missing ones are counted, the first named.
    """
    base = Path(folder)
    if not base.is_dir():
        raise FileNotFoundError(f"There is no folder of predictions {base}.")
    files = _find_files(base, dataset)

    def answer(sample: Sample) -> Prediction:
        path = files[sample.name]
        labels = read_mask(path)
        _check_labels(path, labels, sample, dataset)
        return Prediction(dataset.label_set.cast(labels), None)

    return Predictor(
        answer=answer, has_confidence=False, protocol=f"predictions read from the files in {base}", model_sha256=None
    )


def _find_files(base: Path, dataset: Dataset) -> dict[str, Path]:
    """The file of each image: below its folders, or all of them side by side."""
    nested = {item: base / f"{item}.png" for item in dataset.items}
    flat = {item: base / f"{Path(item).name}.png" for item in dataset.items}
    found = nested if any(path.is_file() for path in nested.values()) else flat
    missing = [path for path in found.values() if not path.is_file()]
    if missing:
        named = ", ".join(str(path.relative_to(base)) for path in missing[:FIRST_FEW])
        more = ", ..." if len(missing) > FIRST_FEW else ""
        raise FileNotFoundError(
            f"{base} lacks predictions for {len(missing)} of the {len(found)} images of {dataset.name} "
            f"{dataset.split}: {named}{more}. There has to be a PNG of class ids for each image, called as the image."
        )
    if len(set(found.values())) < len(found):
        raise ValueError(
            f"Images of {dataset.name} in different folders have the same name, so that {base} does not say which "
            "prediction is whose: lay the predictions in folders like those of the images."
        )
    return found


def _check_labels(path: Path, labels: LabelMap, sample: Sample, dataset: Dataset) -> None:
    if labels.shape != sample.labels.shape:
        height, width = sample.labels.shape
        raise ValueError(
            f"{path} has {labels.shape[1]}x{labels.shape[0]} pixels (width x height), the image {width}x{height}. "
            "They must be equal: resize what the network said before choosing classes."
        )
    classes, void = len(dataset.label_set), dataset.label_set.ignore_index
    strange = (labels >= classes) & (labels != void)
    if strange.any():
        row, column = (int(place[0]) for place in strange.nonzero())
        raise ValueError(
            f"{path} has the id {labels[row, column]} at row {row}, column {column} ({strange.sum()} pixels in all "
            f"have such ids). Allowed are 0 to {classes - 1}, in the order {', '.join(dataset.label_set.names[:3])}, "
            f"..., and {void} for pixels without a predicted class."
        )
