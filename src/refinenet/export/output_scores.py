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
        dataset: The images, with the targets that are measured (`Dataset.with_targets`).
        label_set: Classes of the network.
    """

    def __init__(self, outputs: Sequence[OutputSpec], dataset: Dataset, label_set: LabelSet) -> None:
        results = list_results(outputs, len(label_set))
        self._label_set = label_set
        self._labels_at = next((index for index, result in enumerate(results) if result.name == LABELS), None)
        has_classes = bool(label_set.names and dataset.label_set.names)
        self._matrix = ConfusionMatrix(len(label_set), label_set.ignore_index) if has_classes else None
        self._values = [
            (index, result.spec)
            for index, result in enumerate(results)
            if result.spec is not None and not result.is_deviation and result.spec.name in dataset.chosen_targets
        ]
        self._errors = {name: _SquaredError() for _, spec in self._values for name in _list_names(spec)}

    def add(self, sample: Sample, answer: GraphOutput) -> None:
        """Add the outputs of the graph for the image of a sample, a batch of one."""
        if self._labels_at is not None and self._matrix is not None:
            labels = answer[self._labels_at].reshape(sample.labels.shape)
            self._matrix.add(sample.labels, self._label_set.cast(labels))
        for index, spec in self._values:
            found, truth = answer[index][0].astype(np.float64), sample.targets[spec.name].astype(np.float64)
            squares = np.square(found - truth)
            parts = squares if spec.info.names_quantities else squares.sum(axis=0, keepdims=True)
            for name, part in zip(_list_names(spec), parts, strict=True):
                self._errors[name].add(part[np.isfinite(part)])

    def miou(self) -> float | None:
        """Return the mIoU, in [0, 1]; None without classes, and where no pixel has a class."""
        return None if self._matrix is None else self._matrix.scores().miou

    def rmse(self) -> Mapping[str, float | None]:
        """Return the root mean squared error of each quantity in its unit; None where no pixel has ground truth.

        Of normals it is that of the length of the difference of two unit vectors.
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
    """Return by which share an error rises: 0.1 for a tenth more; 0 where both are unknown or 0."""
    if not before or after is None:
        return math.inf if after else 0.0
    return after / before - 1
