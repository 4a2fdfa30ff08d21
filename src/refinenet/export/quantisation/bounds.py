"""Scores of a model in floating point and in int8, and the bounds on their difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset, Sample
from refinenet.export.defaults import MAX_DROP, MAX_RISE
from refinenet.export.output_scores import OutputScores, relative_rise
from refinenet.inference.backends.graph import compile_openvino
from refinenet.inference.segmenter import prepare
from refinenet.labels import LabelSet
from refinenet.outputs import CLASSES, OutputSpec


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a model on images with ground truth."""

    miou: float | None = None
    """mIoU in [0, 1]; None without classes."""
    rmse: Mapping[str, float] = field(default_factory=dict)
    """Root mean squared error of each quantity of other outputs, in its unit."""

    @property
    def is_finite(self) -> bool:
        """Whether there is a score, and all of them are finite numbers."""
        numbers = [*([] if self.miou is None else [self.miou]), *self.rmse.values()]
        return bool(numbers) and all(map(math.isfinite, numbers))


Measure = Callable[[Any], float | Scores]
"""Function from an `openvino.Model` to its scores; a number is its mIoU, or another metric where larger is better."""


@dataclass(frozen=True, kw_only=True)
class DropBounds:
    """Largest losses that int8 may cause.

    Raises:
        ValueError: a bound is out of range.
    """

    max_drop: float = MAX_DROP
    """Largest drop of the mIoU, in [0, 1]."""
    max_rise: float = MAX_RISE
    """Largest relative rise of each root mean squared error: 0.05 for a twentieth."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise ValueError(f"max_drop must be from 0 to 1 (0.005 is half a percentage point), not {self.max_drop!r}.")
        if not 0 <= self.max_rise < math.inf:
            raise ValueError(f"max_rise must be a number of at least 0 (0.05 is a twentieth), not {self.max_rise!r}.")

    def allow(self, before: Scores, after: Scores) -> bool:
        """Return whether the losses are within the bounds."""
        drops = before.miou is None or (after.miou is not None and before.miou - after.miou <= self.max_drop)
        return drops and all(
            relative_rise(value, after.rmse.get(name)) <= self.max_rise for name, value in before.rmse.items()
        )

    def describe(self, before: Scores, after: Scores) -> str:
        """Return a message that nothing meets the bounds, with the scores of a model entirely in int8."""
        missed = []
        if before.miou is not None and after.miou is not None:
            missed.append(f"{self.max_drop:g} of the float mIoU, {before.miou:.4f}: all in int8 gives {after.miou:.4f}")
        for name, value in before.rmse.items():
            found = after.rmse.get(name, math.nan)
            missed.append(f"{self.max_rise:g} of the float RMSE of {name}, {value:.4g}: all in int8 gives {found:.4g}")
        return f"No int8 model is within {'; '.join(missed)}"


def measure_finite(measure: Measure, model: Any) -> Scores:
    """Measure a model.

    Raises:
        ValueError: A score is not finite.
    """
    found = measure(model)
    scores = found if isinstance(found, Scores) else Scores(miou=float(found))
    if not scores.is_finite:
        words = f"mIoU was measured as {scores.miou}" if not scores.rmse else f"scores were measured as {scores}"
        raise ValueError(f"The model's {words}: measure it on images with ground truth.")
    return scores


def as_input(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert an image `(H, W, 3)` uint8 RGB to a model's input `(1, 3, H, W)` float32 in [0, 1]."""
    return np.ascontiguousarray(prepare(image))


def measure_on(
    samples: Iterable[Sample], label_set: LabelSet, outputs: Sequence[OutputSpec] = (CLASSES,)
) -> Callable[[Any], Scores]:
    """Return a function that measures all outputs of a model for which there is ground truth.

    Images are run one at a time, in float32 where the model is not int8.

    Args:
        samples: A `Dataset` with its targets, or a list of samples with labels; read again for each model.
        label_set: Classes of the samples.
        outputs: Outputs of the network, whose graph has those of `list_results`; of classes alone perhaps logits
            instead.
    """
    dataset = samples if isinstance(samples, Dataset) else None

    def measure(model: Any) -> Scores:
        run, scores = compile_openvino(model), OutputScores(outputs, dataset, label_set)
        for sample in samples:
            results = run([as_input(sample.image)])
            scores.add(sample, tuple(results[place] for place in range(len(results))))
        miou = _or_nan(scores.miou()) if scores.has_classes else None
        return Scores(miou=miou, rmse={name: _or_nan(value) for name, value in scores.rmse().items()})

    return measure


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
