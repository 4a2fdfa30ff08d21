"""Parity of the outputs of values of an exported graph with those of its network in PyTorch.

Shape letters: N batch, D channels of an output, C channels of all outputs, H and W height and width of the image, h and
w those of the maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.export.metadata import GraphOutput
from refinenet.models.inference_graph import GraphResult

SAME = 1e-3
"""Share of the range of a quantity's values by which two of its values differ that count as the same."""


@dataclass(frozen=True, kw_only=True)
class ValueParity:
    """Difference of the values of one quantity, or of normals, for the same images."""

    name: str
    unit: str
    agreement: float
    """Share of its values at the size of the images that are the same: within `SAME` of their range; in [0, 1]."""
    count: int
    """Number of these values."""
    largest_difference: float
    """Greatest absolute difference of these values."""
    map_difference: float
    """Greatest absolute difference before resizing, where it is well conditioned: normals have no length 1 there."""
    map_range: float
    """Difference of the greatest and the least value before resizing of the network in PyTorch."""

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def relative_difference(self) -> float:
        """`map_difference` as a share of `map_range`."""
        if self.map_difference == 0:
            return 0.0
        return self.map_difference / self.map_range if self.map_range else float("inf")


def compare_values(
    results: Sequence[GraphResult], places: Mapping[str, int], expected: GraphOutput, found: GraphOutput
) -> Iterator[ValueParity]:
    """Compare the outputs of values of a graph with those of the network in PyTorch; none for classes alone.

    Args:
        results: Outputs of the graph.
        places: The first channel of each output in the maps, by name.
        expected: Outputs of the network in PyTorch.
        found: Outputs of the graph.
    """
    for index, result in enumerate(results):
        if result.spec is None:
            continue
        channels, names = result.spec.count_channels(0), result.spec.quantities
        first = places[result.spec.name] + (channels if result.is_deviation else 0)
        width, prefix = channels // len(names), "deviation of " if result.is_deviation else ""
        for number, (name, unit) in enumerate(names):
            part = slice(number * width, (number + 1) * width)
            in_maps = slice(first + part.start, first + part.stop)
            maps = expected[-1][:, in_maps], found[-1][:, in_maps]
            yield _measure(f"{prefix}{name}", unit, expected[index][:, part], found[index][:, part], *maps)


def _measure(
    name: str,
    unit: str,
    expected: npt.NDArray[Any],
    found: npt.NDArray[Any],
    expected_maps: npt.NDArray[Any],
    found_maps: npt.NDArray[Any],
) -> ValueParity:
    difference = np.abs(found.astype(np.float64) - expected)
    # Values of constant maps differ by rounding alone, which their own size measures.
    allowed = SAME * max(float(np.ptp(expected)), float(np.abs(expected).max()))
    return ValueParity(
        name=name,
        unit=unit,
        agreement=float((difference <= allowed).mean()),
        count=difference.size,
        largest_difference=_largest(difference),
        map_difference=_largest(np.abs(found_maps.astype(np.float64) - expected_maps)),
        map_range=float(np.ptp(expected_maps)),
    )


def _largest(differences: npt.NDArray[np.float64]) -> float:
    # NaN is not larger than any bound; an export that computes it must fail.
    return float(np.nan_to_num(differences.max(), nan=np.inf))


def merge(cases: Sequence[Sequence[ValueParity]]) -> tuple[ValueParity, ...]:
    """Return the differences of each quantity over all cases."""
    return tuple(map(_merge, zip(*cases, strict=True)))


def _merge(parts: Sequence[ValueParity]) -> ValueParity:
    count = sum(part.count for part in parts)
    return ValueParity(
        name=parts[0].name,
        unit=parts[0].unit,
        agreement=sum(part.agreement * part.count for part in parts) / count,
        count=count,
        largest_difference=max(part.largest_difference for part in parts),
        map_difference=max(part.map_difference for part in parts),
        map_range=max(part.map_range for part in parts),
    )
