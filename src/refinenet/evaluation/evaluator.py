"""Evaluate a model, or label maps from files, on a dataset: one pass, image by image.

`evaluate` computes all metrics, `validate` those that training needs after an epoch; both run `_run_pass`.

Shape letters: H height, W width.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from refinenet._version import __version__
from refinenet.datasets.catalog import Dataset, Sample
from refinenet.distributed import ALONE, Processes
from refinenet.evaluation.metrics import ConfusionMatrix, MetricAccumulator, SegmentationScores, compute_metrics
from refinenet.evaluation.metrics.target_accumulator import TargetAccumulator
from refinenet.evaluation.metrics.targets import TARGET_METRICS
from refinenet.evaluation.results import Evaluation, Seconds
from refinenet.inference.protocol import PLAIN
from refinenet.inference.segmenter import Segmenter
from refinenet.io.console import progress_bar
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelMap

PROTOCOL = PLAIN.describe()
"""Protocol of the validation during training, in words."""


@dataclass(frozen=True)
class Prediction:
    """Label map and other values predicted for an image."""

    labels: LabelMap | None
    """`(H, W)` ids; the ignore index where no class is predicted. None for networks without an output of classes."""
    confidence: npt.NDArray[np.float32] | None
    """`(H, W)` float32 in [0, 1], if known."""
    values: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Values of the outputs besides classes, by name, `(D, H, W)` float32 each."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Source of the predictions to evaluate: a model, or label maps in files."""

    predict: Callable[[Sample], Prediction]
    has_confidence: bool
    protocol: str
    """How images are passed to the network, in words."""
    model_sha256: str | None
    """SHA-256 of the model's weights; None without a model."""


def model_predictor(segmenter: Segmenter, model_sha256: str, abstain_below: float = 0.0) -> Predictor:
    """Return the predictor of a model.

    Args:
        segmenter: Runs the model.
        model_sha256: SHA-256 of its weights as stored.
        abstain_below: Least confidence of a pixel that is given a class.
    """

    def predict(sample: Sample) -> Prediction:
        found = segmenter.predict_outputs(sample.image, abstain_below)
        values = {name: found[name] for name in sample.targets}
        if found.segmentation is None:
            return Prediction(None, None, values)
        return Prediction(found.labels, found.segmentation.confidence, values)

    abstention = f"; no class below a confidence of {abstain_below:g}" if abstain_below else ""
    return Predictor(
        predict=predict,
        has_confidence=True,
        protocol=segmenter.describe_protocol() + abstention,
        model_sha256=model_sha256,
    )


def evaluate(
    predictor: Predictor, dataset: Dataset, *, progress: bool, processes: Processes, official: str = ""
) -> Evaluation:
    """Compute all metrics of a predictor on a dataset.

    Args:
        predictor: The model or label maps to evaluate.
        dataset: Images with ground truth.
        progress: Whether to show a progress bar.
        processes: Processes that share the images; all get the same metrics, equal to those of a single process.
        official: Protocol of the dataset's publishers, in words.

    Raises:
        ValueError: an image, a mask or a prediction cannot be used; the message names the file.
    """
    label_set = dataset.label_set
    accumulator = MetricAccumulator(len(label_set), label_set.ignore_index, len(dataset))
    targets = accumulate_targets(dataset)
    images = {name: _ImageTargets(accumulator, len(dataset)) for name, accumulator in targets.items()}

    def count(index: int, sample: Sample, prediction: Prediction) -> None:
        if label_set.names and prediction.labels is not None:
            accumulator.add(index, sample.labels, prediction.labels, prediction.confidence)
        if not targets:
            return
        alone = accumulate_targets(dataset)
        _add_targets(alone, sample, prediction)
        for name, of_image in alone.items():
            images[name].set(index, of_image)
            for total, counts in zip(targets[name].arrays(), of_image.arrays(), strict=True):
                total += counts

    start = time.perf_counter()
    parts = _run_pass(predictor.predict, dataset, count, progress, processes)
    _add_up((accumulator, *targets.values()), processes)
    load, network, metrics = processes.add_up(torch.from_numpy(parts)).tolist()
    return Evaluation(
        dataset=dataset.name,
        split=dataset.split,
        label_set=label_set,
        metrics=compute_metrics(accumulator, has_confidence=predictor.has_confidence and bool(label_set.names)),
        names=tuple(dataset.items),
        seconds=time.perf_counter() - start,
        parts=Seconds(load=load, network=network, metrics=metrics),
        protocol=predictor.protocol,
        official=official,
        model_sha256=predictor.model_sha256,
        package_version=__version__,
        targets=targets,
        image_targets={name: each.add_up(processes) for name, each in images.items()},
    )


class _ImageTargets:
    """The few metrics of an output that logs have, of each image.

    Args:
        accumulator: Accumulator of the output.
        images: Number of images.
    """

    def __init__(self, accumulator: TargetAccumulator, images: int) -> None:
        self._names = tuple(accumulator.summary())
        # Zero for the images of other processes, so that the sum over processes has all.
        self._values = np.zeros((images, len(self._names)))

    def set(self, index: int, accumulator: TargetAccumulator) -> None:
        """Take the metrics of one image from an accumulator of it alone; undefined ones become NaN."""
        self._values[index] = [np.nan if value is None else value for value in accumulator.summary().values()]

    def add_up(self, processes: Processes) -> tuple[Mapping[str, float | None], ...]:
        """Return the metrics of all images, by name; None if undefined."""
        values = processes.add_up(torch.from_numpy(self._values)).tolist()
        return tuple(
            {name: None if math.isnan(value) else value for name, value in zip(self._names, row, strict=True)}
            for row in values
        )


def accumulate_targets(dataset: Dataset) -> dict[str, TargetAccumulator]:
    """Return an accumulator for each target that a dataset reads, by name."""
    return {spec.name: TARGET_METRICS[spec.kind].for_output(spec) for spec in dataset.chosen_specs}


def _add_targets(accumulators: Mapping[str, TargetAccumulator], sample: Sample, prediction: Prediction) -> None:
    for name, accumulator in accumulators.items():
        accumulator.add(prediction.values[name], sample.targets[name])


def _add_up(accumulators: Iterable[MetricAccumulator | TargetAccumulator], processes: Processes) -> None:
    for accumulator in accumulators:
        accumulator.add_up(lambda counts: processes.add_up(torch.from_numpy(counts)).numpy())


def validate(
    segmenter: Segmenter,
    dataset: Dataset,
    targets: Mapping[str, TargetAccumulator] = MappingProxyType({}),
    *,
    progress: bool = True,
    processes: Processes = ALONE,
    after_image: Callable[[], object] | None = None,
) -> SegmentationScores:
    """Compute mIoU, accuracies and the IoU of each class, without the cost of the other metrics.

    Args:
        segmenter: Runs the model.
        dataset: Images with ground truth.
        targets: Accumulators of the dataset's targets, from `accumulate_targets`, which are filled.
        progress: Whether to show a progress bar.
        processes: Processes that share the images; all get the same scores, equal to those of a single process.
        after_image: Called after each image, equally often in all processes; it may raise an exception to stop.

    Raises:
        ValueError: an image or mask cannot be used; the message names the file.
    """
    matrix = ConfusionMatrix(len(dataset.label_set), dataset.label_set.ignore_index)

    def predict(sample: Sample) -> Prediction:
        if not targets:
            return Prediction(segmenter.predict(sample.image), None)  # labels alone need no softmax at full size
        found = segmenter.predict_outputs(sample.image)
        labels = None if found.segmentation is None else found.labels
        return Prediction(labels, None, {name: found[name] for name in targets})

    def count(_: int, sample: Sample, prediction: Prediction) -> None:
        if prediction.labels is not None:
            matrix.add(sample.labels, prediction.labels)
        _add_targets(targets, sample, prediction)

    _run_pass(predict, dataset, count, progress, processes, after_image)
    matrix.counts = processes.add_up(torch.from_numpy(matrix.counts)).numpy()
    _add_up(targets.values(), processes)
    return matrix.scores()


def _run_pass(
    predict: Callable[[Sample], Prediction],
    dataset: Dataset,
    count: Callable[[int, Sample, Prediction], None],
    progress: bool,
    processes: Processes,
    after_image: Callable[[], object] | None = None,
) -> npt.NDArray[np.float64]:
    """Load, predict and count the images of this process.

    Returns:
        `(3,)` seconds spent on loading, predicting and counting.
    """
    seconds = np.zeros(3)
    last = time.perf_counter()
    for index, sample in _share_images(dataset, progress, processes, after_image):
        loaded = time.perf_counter()
        prediction = predict(sample)
        predicted = time.perf_counter()
        try:
            count(index, sample, prediction)
        except ValueError as error:
            raise ValueError(f"{sample.name}: {error}") from error
        seconds += loaded - last, predicted - loaded, time.perf_counter() - predicted
        last = time.perf_counter()
    return seconds


def _share_images(
    dataset: Dataset, progress: bool, processes: Processes, after_image: Callable[[], object] | None
) -> Iterator[tuple[int, Sample]]:
    """Yield the samples of this process with their indices: the process of rank r takes images r, r + count, ..."""
    with progress_bar(progress) as bar:
        task = bar.add_task(
            f"Evaluating on {dataset.name} {dataset.split}", total=len(dataset), status="", unit="images"
        )
        for first in range(0, len(dataset), processes.count):
            index = first + processes.rank
            if index < len(dataset):
                yield index, dataset[index]
            bar.advance(task, min(processes.count, len(dataset) - first))
            # Also without an image in the last round: `after_image` may wait for the other processes.
            if after_image is not None:
                after_image()


FIRST_FEW = 3
"""Files that a message names of many."""


def folder_predictor(folder: str | os.PathLike[str], dataset: Dataset) -> Predictor:
    """Return the predictor that reads label maps from a folder.

    Args:
        folder: Holds a PNG for each image, named like the image: `city/one.png` or, if no two images share that name,
            `one.png`. Its pixels are class ids in the dataset's order, grey or with a palette, of 8 or 16 bits;
            the dataset's ignore index means that no class is predicted, which counts as a miss.
        dataset: Dataset of the images.

    Raises:
        ValueError: images in different folders share a name, and so would their predictions.
        FileNotFoundError: the folder or a file in it is missing; the message counts the missing files and names some.
    """
    base = Path(folder)
    if not base.is_dir():
        raise FileNotFoundError(f"There is no predictions folder {base}.")
    files = _find_files(base, dataset)

    def predict(sample: Sample) -> Prediction:
        path = files[sample.name]
        labels = read_mask(path)
        _check_labels(path, labels, sample, dataset)
        return Prediction(dataset.label_set.cast(labels), None)

    return Predictor(
        predict=predict, has_confidence=False, protocol=f"predictions read from the files in {base}", model_sha256=None
    )


def _find_files(base: Path, dataset: Dataset) -> dict[str, Path]:
    """Return the file of each image, in folders like the images' or all in one folder."""
    nested = {item: base / f"{item}.png" for item in dataset.items}
    flat = {item: base / f"{Path(item).name}.png" for item in dataset.items}
    files = nested if any(path.is_file() for path in nested.values()) else flat
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        named = ", ".join(str(path.relative_to(base)) for path in missing[:FIRST_FEW])
        more = ", ..." if len(missing) > FIRST_FEW else ""
        raise FileNotFoundError(
            f"{base} lacks predictions for {len(missing)} of the {len(files)} images of {dataset.name} "
            f"{dataset.split}: {named}{more}. Each image needs a PNG file of class ids with the same name."
        )
    if len(set(files.values())) < len(files):
        raise ValueError(
            f"Images of {dataset.name} in different folders have the same name, so the predictions in {base} cannot be "
            "told apart: put the predictions into the same folder structure as the images."
        )
    return files


def _check_labels(path: Path, labels: LabelMap, sample: Sample, dataset: Dataset) -> None:
    if labels.shape != sample.labels.shape:
        height, width = sample.labels.shape
        raise ValueError(
            f"{path} has {labels.shape[1]}x{labels.shape[0]} pixels (width x height), but the image has "
            f"{width}x{height}. Both must have the same size: upsample the logits before taking the argmax."
        )
    classes, void = len(dataset.label_set), dataset.label_set.ignore_index
    invalid = (labels >= classes) & (labels != void)
    if invalid.any():
        row, column = (int(positions[0]) for positions in invalid.nonzero())
        raise ValueError(
            f"{path} has the id {labels[row, column]} at row {row}, column {column} ({invalid.sum()} pixels in all "
            f"have such ids). Allowed are 0 to {classes - 1}, in the order {', '.join(dataset.label_set.names[:3])}, "
            f"..., and {void} for pixels without a predicted class."
        )
