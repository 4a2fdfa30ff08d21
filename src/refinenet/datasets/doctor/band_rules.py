"""Problems of images for models of named bands: files that cannot be read as these bands, and values out of range.

Shape letters: H height, W width, B bands.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, spread
from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.report import Report
from refinenet.io.console import progress_bar
from refinenet.io.images.bands import name_bands

SAMPLES = 100
"""Number of images of a split, evenly spread, that are read."""
_AT_ENDS = 0.25
"""Share of a band's values at either end of its range from which the range seems wrong."""
_NARROW = 1 / 16
"""Share of its range that the values of a band fill at most where the range seems wrong."""
_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class _BandFacts:
    """What the values of an image's bands are like."""

    item: str
    low: npt.NDArray[np.float32]
    """`(B,)`: least value of each band, from 0 to 1."""
    high: npt.NDArray[np.float32]
    at_ends: npt.NDArray[np.float64]
    """`(B,)`: share of the values that are exactly 0 or 1."""


def check_bands(dataset: Dataset, *, progress: bool = True) -> Report:
    """Find problems of the images of a split, as a model of named bands reads them.

    Args:
        dataset: A dataset with bands, from `with_bands`.
        progress: Whether to show a progress bar on a terminal.
    """
    indices = spread(len(dataset), SAMPLES)
    facts: list[_BandFacts] = []
    refused: list[tuple[str, str]] = []
    with progress_bar(progress) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values outside the range are counted here
        task = bar.add_task(
            f"Checking the bands of {dataset.name} {dataset.split}", total=len(indices), status="", unit="images"
        )
        for index in indices:
            item = dataset.items[index]
            try:
                facts.append(_read(item, dataset.read_image(item)))
            except (ValueError, OSError) as error:
                refused.append((item, str(error)))
            bar.advance(task)
    return Report(
        source=dataset.name,
        root=None,
        layout=f"images of {name_bands(dataset.bands)}",
        images={dataset.split: len(dataset)},
        checked=len(indices),
        is_fixable=False,
        is_quick=len(indices) < len(dataset),
        findings=(*_judge_refused(refused), *_judge_values(dataset, facts)),
    )


def _read(item: str, pixels: npt.NDArray[np.float32]) -> _BandFacts:
    flat = pixels.reshape(-1, pixels.shape[2])
    at_ends = ((flat == 0) | (flat == 1)).mean(axis=0)
    return _BandFacts(item=item, low=flat.min(axis=0), high=flat.max(axis=0), at_ends=at_ends)


def _judge_refused(refused: Sequence[tuple[str, str]]) -> list[Finding]:
    return [find("bands-refused", [item for item, _ in refused], message=refused[0][1])] if refused else []


def _judge_values(dataset: Dataset, facts: Sequence[_BandFacts]) -> list[Finding]:
    found = []
    for k, band in enumerate(dataset.bands if facts else ()):
        low, high = float(min(fact.low[k] for fact in facts)), float(max(fact.high[k] for fact in facts))
        constant = [fact.item for fact in facts if fact.high[k] - fact.low[k] < _CONSTANT]
        at_ends = [fact.item for fact in facts if fact.at_ends[k] > _AT_ENDS]
        stored = "that of its stored type" if band.range is None else f"{band.range[0]:g} to {band.range[1]:g}"
        if len(constant) == len(facts):
            found.append(find("band-constant", constant, band=band.name))
        elif at_ends and not band.is_colour:
            found.append(find("band-clipped", at_ends, band=band.name, share=f"{_AT_ENDS:.0%}", range=stored))
        elif high - low < _NARROW:
            names, words = [fact.item for fact in facts], (f"{low:.3g}", f"{high:.3g}")
            found.append(find("band-narrow", names, band=band.name, range=stored, low=words[0], high=words[1]))
    return found
