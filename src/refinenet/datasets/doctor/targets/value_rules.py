"""Findings about quantities other than depth: nothing is known of their range, so files are compared with each other.

Shape letters: N files, D channels, Q quantiles (`scan.QUANTILES`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from refinenet.datasets.doctor.targets.notes import Notes, Seen
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.outputs import OutputSpec

Floats = npt.NDArray[np.float64]

_FEWEST = 8
"""Smallest number of files that are compared with each other."""
_MOST = 1 / 3
"""Largest share of the files that are odd; beyond, it is not clear which ones are."""
_ODD = 0.7
"""Difference of decimal logarithms of files in different units: 5 times, as files of one unit differ, too."""
_ALIKE = 0.25
"""Largest median deviation of the logarithms of files that are alike."""
_GAP = 0.35
"""Difference of logarithms between those in different units: values of different scenes have others in between."""
_SAME = 0.3
"""Largest difference of the logarithms by which the quantiles of a file are smaller, if all are by one factor."""
_SMALLEST = -6.5
"""Logarithm of the smallest ratio of two units; below, there is nothing in a file."""
_BOTH_SIGNS = 0.05
"""Ratio of low to high quantiles from which values have both signs, and so no scale."""
_NOTHING = 1e-3
"""Ratio to the high quantile below which another one is about 0, and has no logarithm."""

_CLOSE = 0.5
"""Ratio of the least values of a file to those of files with an area of 0 from which it has values close to 0."""
_FEWEST_CLOSE = 2
_SHARE_CLOSE = 0.1
"""Share of the files from which 0 is as plausible as the values close to it."""
_FITS = 3.0
"""Distance in robust standard deviations up to which a file's quantiles are those of a quantity."""
_FAR = 10.0
"""Distance from which at least one of two exchanged quantities is not where it belongs."""


def judge_quantities(seen: Sequence[Seen], encoding: TargetEncoding | None, spec: OutputSpec, notes: Notes) -> None:
    """Find problems of the quantities in readable files."""
    for one in seen:
        _judge_units(one, encoding, spec, notes)
    for k, name in enumerate(spec.channels):
        channels = [one.target.channels[k] for one in seen if len(one.target.channels) > k]
        _judge_edges([one for one in seen if len(one.target.channels) > k], k, name, notes)
        known = [channel for channel in channels if channel.known]
        is_alone = any(not channel.is_constant for one in seen for channel in one.target.channels if channel.known)
        if known and is_alone and all(channel.is_constant for channel in known):
            notes.add_name("values-constant", name)
    whole = [one for one in seen if one.target.channels and all(channel.known for channel in one.target.channels)]
    exchanged = _judge_exchanged(whole, spec, notes)
    rest = [one for one in seen if one.name not in exchanged]
    for k, name in enumerate(spec.channels):
        _judge_scales(
            [one for one in rest if len(one.target.channels) > k and one.target.channels[k].known], k, name, notes
        )


def _judge_edges(seen: Sequence[Seen], k: int, name: str, notes: Notes) -> None:
    """Find files that seem to mark missing values by 0 or -1; not by 0 if others have values close to it.

    Heights above the ground are exactly 0 there, and those of houses are far from it; elsewhere, something low grows.
    """
    channels = [one.target.channels[k] for one in seen]
    gaps = [channel.least for channel in channels if channel.edge_value == 0]
    close = sum(channel.least < _CLOSE * np.median(gaps) for channel in channels) if gaps else 0
    is_plausible = close >= max(_FEWEST_CLOSE, _SHARE_CLOSE * len(channels))
    for one, channel in zip(seen, channels, strict=True):
        if channel.edge_value is not None and not (channel.edge_value == 0 and is_plausible):
            notes.add("values-edge", one, f"{channel.edge_value:g} in the first one, in {name}.")


def _judge_units(one: Seen, encoding: TargetEncoding | None, spec: OutputSpec, notes: Notes) -> None:
    if encoding is None or not one.target.dtype.startswith(("int", "uint")):
        return
    rows = zip(spec.channels, spec.units, encoding.scales, strict=True)
    plain = [f"1 is 1 {unit} of {name}" if unit else f"1 is 1 in {name}" for name, unit, scale in rows if scale is None]
    if plain:
        notes.add("values-whole-units", one, f"{', '.join(plain)}.")


def _judge_scales(seen: Sequence[Seen], k: int, name: str, notes: Notes) -> None:
    """Find single files with another unit than most."""
    shifts = find_shifts(np.array([one.target.channels[k].quantiles for one in seen]).reshape(-1, 3))
    for one, shift in zip(seen, shifts.tolist(), strict=True):
        if shift:
            words = f"{10**shift:.3g} times the median of all for the first one, in {name}."
            notes.add("values-scale-mixed", one, words, leaves_out=True)


def find_shifts(quantiles: Floats) -> Floats:
    """Return by which decimal logarithm files are in another unit than most.

    Args:
        quantiles: `(N, Q)` of each file, ascending.

    Returns:
        `(N,)`; 0 for files that are not odd.
    """
    shifts = np.zeros(len(quantiles))
    if len(quantiles) < _FEWEST:
        return shifts
    middle = np.median(quantiles, 0)
    if middle[-1] < -middle[0]:
        quantiles, middle = -quantiles[:, ::-1], -middle[::-1]
    if middle[-1] <= 0 or middle[0] < -_BOTH_SIGNS * middle[-1]:
        return shifts
    used = middle >= _NOTHING * middle[-1]
    logs = np.log10(np.maximum(quantiles[:, used], 1e-9 * middle[-1]))
    away = logs - np.median(logs, 0)
    means = away.mean(1)
    if np.median(np.abs(means)) > _ALIKE:
        return shifts
    # Scenes may well have small values of different kinds, but not all of them by a power of ten.
    whole = (np.abs(means - np.rint(means)) < _ALIKE) & (means > _SMALLEST)
    is_larger, is_smaller = (away > _GAP).all(1), (away < -_GAP).all(1) & (np.ptp(away, 1) < _SAME) & whole
    odd = _find_apart(means) & is_larger | _find_apart(-means) & is_smaller
    if odd.mean() <= _MOST:
        shifts[odd] = means[odd]
    return shifts


def _find_apart(logs: Floats) -> npt.NDArray[np.bool_]:
    """Return which files are beyond the widest gap above the median, `(N,)`; none if that is narrow."""
    ordered = np.sort(logs)
    start = len(ordered) // 2
    gaps = np.diff(ordered[start:])
    place = start + int(np.argmax(gaps))
    beyond = logs > ordered[place]
    is_wide = gaps.max() > _GAP and np.median(logs[beyond]) > _ODD
    return beyond if is_wide else np.zeros(len(logs), np.bool_)


def _judge_exchanged(seen: Sequence[Seen], spec: OutputSpec, notes: Notes) -> set[str]:
    """Find single files with two quantities in each other's place, and return their names."""
    quantiles = np.array([[channel.quantiles for channel in one.target.channels] for one in seen])
    found = list(find_exchanged(quantiles)) if len(seen) else []
    for index, i, j in found:
        words = f"{spec.channels[i]} and {spec.channels[j]} in the first one."
        notes.add("values-exchanged", seen[index], words, leaves_out=True)
    return {seen[index].name for index, _, _ in found}


def find_exchanged(quantiles: Floats) -> Iterator[tuple[int, int, int]]:
    """Yield files and the two channels that are in each other's place.

    Args:
        quantiles: `(N, D, Q)`.
    """
    if len(quantiles) < _FEWEST:
        return
    middle = np.median(quantiles, 0)
    # 1.4826 times the median deviation estimates the standard deviation of normally distributed numbers.
    spread = 1.4826 * np.median(np.abs(quantiles - middle), 0) + 0.05 * np.ptp(middle, 1)[:, np.newaxis] + 1e-12
    # How far channel i of a file is from what channel j is in most files, (N, i, j).
    distances = (np.abs(quantiles[:, :, np.newaxis] - middle) / spread).max(3)
    for i, j in combinations(range(quantiles.shape[1]), 2):
        own, other = distances[:, (i, j), (i, j)], distances[:, (i, j), (j, i)]
        exchanged = (other < _FITS).all(1) & (own > _FITS).all(1) & (own.max(1) > _FAR)
        if exchanged.mean() <= _MOST:
            yield from ((index, i, j) for index in np.flatnonzero(exchanged).tolist())
