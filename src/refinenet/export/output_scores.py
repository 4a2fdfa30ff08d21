"""Scores of the outputs of a graph against ground truth: mIoU of classes, root mean squared errors of values.

Shape letters: N batch, D channels, H and W height and width of the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from refinenet.datasets.catalog import Dataset, Sample
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.export.metadata import GraphOutput
from refinenet.labels import LabelSet
from refinenet.models.inference_graph import LABELS, list_results
from refinenet.outputs import OutputSpec


class OutputScores:
    """Scores of a graph over the images of a dataset.

    Args:
        outputs: Outputs of the network.
        dataset: The images, with the targets that are measured (`Dataset.with_targets`); None for images that have
            labels alone.
        label_set: Classes of the network.
    """

    def __init__(self, outputs: Sequence[OutputSpec], dataset: Dataset | None, label_set: LabelSet) -> None:
        results = list_results(outputs, len(label_set))
        targets = () if dataset is None else dataset.chosen_targets
        self._label_set = label_set
        self._labels_at = next((index for index, result in enumerate(results) if result.name == LABELS), None)
        has_classes = bool(label_set.names and (dataset is None or dataset.label_set.names))
        self._matrix = ConfusionMatrix(len(label_set), label_set.ignore_index) if has_classes else None
        self._values = [
            (index, result.spec)
            for index, result in enumerate(results)
            if result.spec is not None and not result.is_deviation and result.spec.name in targets
        ]
        self._errors = {name: _SquaredError() for _, spec in self._values for name in _list_names(spec)}

    def add(self, sample: Sample, answer: GraphOutput) -> None:
        """Add the outputs of the graph for the image of a sample, a batch of one: of classes labels, or else logits."""
        if self._labels_at is not None and self._matrix is not None:
            found = answer[self._labels_at]
            labels = found if np.issubdtype(found.dtype, np.integer) else found.argmax(1)
            self._matrix.add(sample.labels, self._label_set.cast(labels.reshape(sample.labels.shape)))
        for index, spec in self._values:
            truth = sample.targets[spec.name].astype(np.float64)
            squares = np.square(answer[index][0].astype(np.float64) - truth)
            # Only the ground truth says where to measure: a value that is not finite there spoils the score.
            unknown = np.isnan(truth)
            if not spec.info.names_quantities:
                squares, unknown = squares.sum(axis=0, keepdims=True), np.asarray(unknown.any(axis=0, keepdims=True))
            for name, part, lacks_truth in zip(_list_names(spec), squares, unknown, strict=True):
                self._errors[name].add(part[~lacks_truth])

    @property
    def has_classes(self) -> bool:
        """Whether classes are measured."""
        return self._matrix is not None

    def miou(self) -> float | None:
        """Return the mIoU, in [0, 1]; None without classes, and where no pixel has a class."""
        return None if self._matrix is None else self._matrix.scores().miou

    def rmse(self) -> Mapping[str, float | None]:
        """Return the root mean squared error of each quantity in its unit; None where no pixel has ground truth.

        Of normals it is that of the length of the difference of two unit vectors. It is not finite where the graph's
        values are not.
        """
        return {name: error.root() for name, error in self._errors.items()}


class _SquaredError:
    """Mean of squared errors."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, squares: np.ndarray) -> None:
        self._sum += float(squares.sum())
        self._count += squares.size

    def root(self) -> float | None:
        return math.sqrt(self._sum / self._count) if self._count else None


def _list_names(spec: OutputSpec) -> list[str]:
    return [name for name, _ in spec.quantities]


def relative_rise(before: float | None, after: float | None) -> float:
    """Return by which share an error rises: 0.1 for a tenth more, 0 where both are unknown or 0.

    Infinite for an error from nothing, and for one that can no longer be measured.
    """
    if before == after:
        return 0.0
    if not before or after is None:
        return math.inf
    return after / before - 1
