"""Findings about depths: their scale and range, and values at the limits of a sensor or of a type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refinenet.datasets.doctor.targets.notes import Notes, Seen
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.outputs import OutputSpec

Floats = npt.NDArray[np.float64]

USUAL = (0.15, 300.0)
"""Medians of depth maps, in metres, outside of which the scale is doubted unless a range is declared."""
_FACTORS = (10.0, 100.0, 1000.0, 0.1, 0.01, 0.001)
"""Factors by which a scale may be wrong, the most frequent ones."""
_ODD = 0.7
"""Difference of decimal logarithms from the median of all maps from which all quantiles of one map are odd."""
_ALIKE = 0.25
"""Largest median deviation of the logarithms of maps that are alike."""
_SATURATED = 0.05
"""Share of pixels at one highest value from which it is not a measurement."""
_STRETCHED = 0.9
"""Share of the maps above which they are taken for pictures: a few measured ones may span their type by chance."""
_FEWEST = 3
_MOST = 0.5


def judge_depths(seen: Sequence[Seen], encoding: TargetEncoding | None, spec: OutputSpec, notes: Notes) -> None:
    """Find problems of the depths of readable files."""
    known = [one for one in seen if one.target.known]
    if not known:
        return
    quantiles = np.array([one.target.channels[0].quantiles for one in known])
    if not _judge_scale(quantiles, known, encoding, spec, notes):
        _judge_odd(quantiles, known, notes)
    _judge_limits(known, notes)
    for one in known:
        if one.target.dtype == "uint8":
            notes.add("depth-8-bit", one)


def _judge_scale(
    quantiles: Floats, seen: Sequence[Seen], encoding: TargetEncoding | None, spec: OutputSpec, notes: Notes
) -> bool:
    """Find a wrong scale of all maps; return whether it is wrong."""
    has_range = encoding is not None and encoding.has_range
    low, high = spec.range if has_range and spec.range else USUAL
    middles = quantiles[:, 1]
    outside = (middles < low) | (middles > high)
    if outside.mean() <= _MOST:
        if has_range:
            for one, is_outside in zip(seen, outside, strict=True):
                if is_outside:
                    notes.add("depth-out-of-range", one, f"{low:g} to {high:g} metres.")
        return False
    middle = float(np.median(middles))
    fits = [factor for factor in _FACTORS if low <= middle / factor <= high]
    scale = (encoding.scales[0] if encoding is not None else None) or 1.0
    words = f"half of the maps have medians around {middle:.3g} metres, and {low:g} to {high:g} are "
    words += f"{'the range in targets.yaml' if has_range else 'usual'}."
    if fits:
        # Of several factors that fit, the one by which units differ most often: millimetres and metres.
        factor = next((factor for factor in (1000.0, 0.001) if factor in fits), fits[0])
        words += f"\nscale: {scale * factor:g}"
    notes.add_name("depth-scale", spec.name, words)
    return True


def _judge_odd(quantiles: Floats, seen: Sequence[Seen], notes: Notes) -> None:
    """Find single maps with another unit than most."""
    logs = np.log10(np.maximum(quantiles, 1e-9))
    middle = np.median(logs, 0)
    if len(seen) < 2 * _FEWEST or np.median(np.abs(logs[:, 1] - middle[1])) > _ALIKE:
        return
    away = logs - middle
    odd = (np.abs(away) > _ODD).all(1) & (np.abs(np.sign(away).sum(1)) == 3)
    for one, is_odd, deviation in zip(seen, odd, away[:, 1], strict=True):
        if is_odd:
            words = f"{10**deviation:.3g} times the median of all for the first one."
            notes.add("depth-scale-mixed", one, words, leaves_out=True)


def _judge_limits(seen: Sequence[Seen], notes: Notes) -> None:
    """Find maps that end at one value, as sensors do, and maps that are stretched to the range of their type."""
    stretched = [one for one in seen if one.target.is_stretched and one.target.channels[0].at_highest < _SATURATED]
    if len(stretched) >= _FEWEST and len(stretched) > _STRETCHED * len(seen):
        for one in stretched:
            notes.add("depth-stretched", one)
        return
    saturated = [
        one
        for one in seen
        if one.target.channels[0].at_highest >= _SATURATED and not one.target.channels[0].is_constant
    ]
    ends = Counter(one.target.channels[0].highest for one in saturated)
    if not ends or ends.most_common(1)[0][1] < min(_FEWEST, len(seen)):
        return
    value = ends.most_common(1)[0][0]
    for one in saturated:
        if one.target.channels[0].highest == value:
            notes.add("depth-saturated", one, f"{value:.6g} metres.")
