"""Summaries of depth, normals and other quantities of a dataset: how much of them is known, and their range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.dataset import Target, spread
from refinenet.io.processes.parallel import map_parallel
from refinenet.outputs import OutputSpec

SAMPLES = 64
"""Number of images, evenly spread over a split, whose targets are read."""
_NUMBERS = 4096
"""About as many values of each image, evenly spaced, are kept."""
_QUANTILES = (0.05, 0.5, 0.95)
_AXES = ("x", "y", "z")


@dataclass(frozen=True, kw_only=True)
class QuantitySummary:
    """The values of one channel of a target in one split."""

    name: str
    """The name of the output, with that of the quantity if it has several."""
    unit: str
    images: int
    """Number of images whose values were read."""
    known: float
    """Share of their pixels with ground truth, in [0, 1]."""
    quantiles: tuple[float, float, float]
    """5 %, median and 95 % of the values; NaN if none is known."""

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values."""
        names = ("percentile_5", "median", "percentile_95")
        values = {name: None if math.isnan(value) else value for name, value in zip(names, self.quantiles, strict=True)}
        return {"name": self.name, "unit": self.unit, "images": self.images, "known": self.known, **values}


def summarise_targets(dataset: Dataset, *, workers: int | None = None) -> tuple[QuantitySummary, ...]:
    """Summarise the targets of a split, each channel by itself, from up to `SAMPLES` of its images.

    Args:
        dataset: The split, with whatever targets are chosen.
        workers: Number of processes; by default one per core, 0 for this process.

    Raises:
        ValueError: A file is damaged, or its values are not allowed.
        OSError: A file cannot be read.
    """
    specs = dataset.target_specs
    if not specs:
        return ()
    found = list(map_parallel(partial(_read, dataset), spread(len(dataset), SAMPLES), workers=workers))
    return tuple(summary for spec in specs for summary in _summarise(spec, [one[spec.name] for one in found]))


class _Values(NamedTuple):
    """The values of a target of one image."""

    kept: list[npt.NDArray[np.float32]]
    """For each channel, some of the values that are known."""
    known: list[int]
    """For each channel, the number of pixels with ground truth."""
    pixels: int


def _read(dataset: Dataset, index: int) -> dict[str, _Values]:
    """Read the values of the targets of a sample, but no image: those of some bands are read only for their model."""
    item = dataset.items[index]
    targets = {spec.name: dataset.read_target(spec.name, item) for spec in dataset.target_specs}
    pixels = next((target[0].size for target in targets.values() if target is not None), 0)
    if not pixels:
        pixels = dataset.labels(index).size
    channels = {spec.name: spec.count_channels(0) for spec in dataset.target_specs}
    return {name: _keep(target, channels[name], pixels) for name, target in targets.items()}


def _keep(target: Target | None, channels: int, pixels: int) -> _Values:
    known = [np.zeros(0, np.float32)] * channels if target is None else [one[~np.isnan(one)] for one in target]
    kept = [some[:: max(1, some.size // _NUMBERS)] for some in known]
    return _Values(kept, [some.size for some in known], pixels)


def _summarise(spec: OutputSpec, found: Sequence[_Values]) -> Iterator[QuantitySummary]:
    names = spec.channels or (_AXES if spec.kind == "normals" else ("",))
    units = spec.units or ("m" if spec.kind == "depth" else "",) * len(names)
    pixels = max(1, sum(one.pixels for one in found))
    for k, (name, unit) in enumerate(zip(names, units, strict=True)):
        values = np.concatenate([one.kept[k] for one in found]) if found else np.zeros(0)
        low, middle, high = np.quantile(values, _QUANTILES).tolist() if values.size else [math.nan] * 3
        yield QuantitySummary(
            name=f"{spec.name}: {name}" if name else spec.name,
            unit=unit,
            images=len(found),
            known=sum(one.known[k] for one in found) / pixels,
            quantiles=(low, middle, high),
        )
