"""Base class of the accumulators of errors of dense targets.

Shape letters: D channels of a target, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from refinenet.outputs import OutputSpec

Values = npt.NDArray[np.floating[Any]]
"""Predictions or targets, `(D, H, W)` float32, or float64 numbers computed from them."""
Integers = npt.NDArray[np.int64]


class TargetAccumulator(ABC):
    """Errors of one output over the images of a dataset.

    All sums are integers (`ExactSums` for those of numbers with a fraction), so that the result depends neither on the
    order of the images nor on their distribution over processes. Memory does not grow with the number of images.
    """

    rules: ClassVar[Mapping[str, str]]
    """Rule of each metric in words, by the name of its field."""

    @classmethod
    @abstractmethod
    def for_output(cls, spec: OutputSpec) -> Self:
        """Return an accumulator for an output, with the defaults of its kind."""

    @abstractmethod
    def add(self, predicted: Values, target: Values) -> None:
        """Add the errors of one image.

        Args:
            predicted: `(D, H, W)` float32, finite.
            target: `(D, H, W)` float32, NaN where there is no truth.

        Raises:
            ValueError: The shapes differ or are not those of the output, or a value that counts is not finite.
        """

    @abstractmethod
    def arrays(self) -> tuple[Integers, ...]:
        """Return all sums, int64 arrays that may be changed in place; those of several processes are to be added."""

    @abstractmethod
    def summary(self) -> Mapping[str, float | None]:
        """Return the few metrics that the log of a training has, by name; the same names at all times."""

    @abstractmethod
    def summary_units(self) -> Mapping[str, str]:
        """Return the units of the metrics of `summary` that have one, by name."""

    @abstractmethod
    def score(self) -> float:
        """Return a number in [0, 1], 1 for perfect predictions, by which the best epoch of a training is chosen."""

    @abstractmethod
    def tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Yield tables to print: a title, the heads of the columns, and the rows."""

    @abstractmethod
    def result(self) -> Any:
        """Compute the metrics, a frozen record; None where there was nothing to measure."""

    def add_up(self, sum_over_processes: Callable[[Integers], Integers]) -> None:
        """Replace the sums of this process by those over all processes.

        Args:
            sum_over_processes: Returns the sum of all processes' arrays, which have one shape. It is passed in so that
                metrics need no PyTorch.
        """
        for sums in self.arrays():
            sums[...] = sum_over_processes(sums)


def show(value: float | None, digits: int = 3) -> str:
    """Format a value, None as "-"."""
    return "-" if value is None else f"{value:.{digits}f}"


def check_image(predicted: Values, target: Values, channels: int) -> None:
    """Check the shapes of a prediction and a target, and that the prediction is finite.

    Raises:
        ValueError: They differ from each other or from `(channels, H, W)`, or a prediction is not finite.
    """
    if predicted.shape != target.shape or predicted.ndim != 3 or len(predicted) != channels:
        raise ValueError(
            f"Prediction and target must have one shape ({channels}, H, W), not {predicted.shape} and {target.shape}."
        )
    if not np.isfinite(predicted).all():
        raise ValueError("Predictions must be finite numbers; mark missing truth as NaN in the target only.")
