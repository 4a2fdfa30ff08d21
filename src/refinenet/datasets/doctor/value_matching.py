"""Matching of mask values or colours to the nearest class, with a check for ambiguity.

Shape letters: H height, W width, N distinct codes, P points (the codes that have a meaning). A code is a label id, or a
colour packed into one number by `datasets.formats.lookup`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]

SAME = 12
"""Largest distance by which lossy compression shifts a whole area."""
MAX_UNCLEAR = 0.05
"""Largest share of ambiguous pixels (near no point or near two) of a mask that can be repaired; they become void."""
MIN_SAME = 0.8
"""Smallest share of pixels within `SAME` of a point in a mask that can be repaired."""
MIN_SPACING = 24
"""Smallest distance of ids that can be told apart after lossy compression."""

MIN_BLENDED = 0.3
"""Smallest share of transitions between areas of distant ids with intermediate ids in a smoothed mask."""

_MIN_GAP = 3  # with a smaller difference of ids, at most one id fits in between, as in real outlines
_AREA_RUN = 5  # pixels in a row that make an area; ramps of resizing filters are thinner
_MIN_RAMPS = 10  # fewer may be chance
_SWINGS = 2  # steps against the direction of a ramp, from filters that overshoot
_VOID = 255
_MAX_REPEATED = 0.7  # share of equal ramps between two ids above which they are a real class in between
_NOISY = 8  # distinct stray codes that compression leaves at least
_AREA = 5  # side of a square of equal codes, in pixels, that noise does not produce
_BLOCK = 65_536  # codes compared at a time, to bound memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The agreement of a mask's codes with the points."""

    total: int
    exact: int
    """Number of pixels on a point."""
    same: int
    """Number of pixels within `SAME` of a clearly nearest point, including exact ones."""
    unclear: int
    """Number of pixels without a clearly nearest point."""
    unlisted: tuple[int, ...]
    """Codes that are not noise around a point: they fill areas, or are too few for noise."""

    @property
    def is_exact(self) -> bool:
        """Whether every pixel is on a point."""
        return self.exact == self.total

    @property
    def is_clear(self) -> bool:
        """Whether the result of `snap` is reliable."""
        few_unclear = self.unclear <= MAX_UNCLEAR * self.total
        return few_unclear and self.same >= MIN_SAME * self.total and not self.unlisted


def can_snap(points: Codes, is_colour: bool) -> bool:
    """Return whether points are far enough apart to distinguish noise around one from another one."""
    if is_colour:
        return True
    return len(points) < 2 or int(np.diff(np.sort(points)).min()) >= MIN_SPACING


def fit(codes: Codes, counts: Codes, areas: Codes, points: Codes, is_colour: bool) -> Fit:
    """Measure how well the distinct codes of a mask agree with points `(P,)`.

    Args:
        codes: Distinct codes `(N,)`.
        counts: Their pixel counts `(N,)`.
        areas: Codes that fill areas, from `find_areas`.
        points: The codes that have a meaning.
        is_colour: Whether codes are colours.
    """
    nearest, distance, clear = _nearest(codes, points, is_colour)
    total = int(counts.sum())
    stray = distance > 0
    unlisted = stray & (distance > SAME) & np.isin(codes, areas)
    if stray.sum() < _NOISY:
        # Lossy compression leaves many colours, so a few strays are intended, unless each is all there is of a class.
        is_shared = np.bincount(nearest, minlength=len(points))[nearest] > 1
        unlisted |= stray & (is_shared | ~clear | (distance > SAME))
    return Fit(
        total=total,
        exact=int(counts[~stray].sum()),
        same=int(counts[clear & (distance <= SAME)].sum()),
        unclear=int(counts[~clear].sum()),
        unlisted=tuple(int(code) for code in codes[unlisted]),
    )


def find_areas(codes: Codes) -> Codes:
    """Find the codes that fill a square of `_AREA` by `_AREA` pixels in `(H, W)` codes.

    Noise and smoothed edges do not.
    """
    height, width = codes.shape
    if min(height, width) < _AREA:
        return np.unique(codes)
    # A square is a row of equal codes, repeated below: first combine shifted comparisons along rows, then down columns.
    equal = codes[:, 1:] == codes[:, :-1]
    rows = equal[:, : width - _AREA + 1].copy()
    for shift in range(1, _AREA - 1):
        rows &= equal[:, shift : shift + rows.shape[1]]
    first = codes[:, : rows.shape[1]]
    squares = rows[: height - _AREA + 1].copy()
    for shift in range(1, _AREA):
        below = slice(shift, shift + len(squares))
        squares &= rows[below] & (first[below] == first[: len(squares)])
    return np.unique(first[: len(squares)][squares])


def is_blended(codes: Codes) -> bool:
    """Return whether `(H, W)` ids look resized with a smoothing filter.

    Along a row or column, two areas then meet in a thin ramp of rising or falling ids, which differ from place to
    place. A real outline class has the same id wherever two classes meet, and real thin objects leave most outlines
    without a ramp.
    """
    crossings = [_find_crossings(codes), _find_crossings(np.ascontiguousarray(codes.T))]
    pairs, signatures, is_ramp = (np.concatenate(parts) for parts in zip(*crossings, strict=True))
    if is_ramp.sum() < _MIN_RAMPS:
        return False
    varied = 0
    for pair in np.unique(pairs[is_ramp]):
        repeats = np.unique(signatures[is_ramp & (pairs == pair)], return_counts=True)[1]
        if repeats.max() <= _MAX_REPEATED * repeats.sum():
            varied += int(repeats.sum())
    return varied >= max(_MIN_RAMPS, MIN_BLENDED * len(pairs))


def _find_crossings(codes: Codes) -> tuple[Codes, Codes, npt.NDArray[np.bool_]]:
    """Find where rows cross from one area to another whose id differs by at least `_MIN_GAP`.

    Returns:
        The pair of ids packed into one number, the sum of the ids in between, and whether these rise or fall
        monotonically; all `(N,)`.
    """
    height, width = codes.shape
    starts = np.ones((height, width), np.bool_)
    starts[:, 1:] = codes[:, 1:] != codes[:, :-1]
    places = np.flatnonzero(starts)
    ids = codes.ravel()[places]
    lengths = np.diff(places, append=height * width)  # run-length encoding of all rows
    steps = np.sign(np.diff(ids, append=ids[-1:]))
    rises, falls = (np.concatenate([[0], np.cumsum(steps == sign)]) for sign in (1, -1))
    sums = np.concatenate([[0], np.cumsum(ids)])
    areas = np.flatnonzero(lengths >= _AREA_RUN)
    first, last = areas[:-1], areas[1:]
    is_crossing = (places[first] // width == places[last] // width) & (np.abs(ids[first] - ids[last]) >= _MIN_GAP)
    is_crossing &= (ids[first] != _VOID) & (ids[last] != _VOID)  # void separates classes, it is not an id above them
    first, last = first[is_crossing], last[is_crossing]
    low, high = np.minimum(ids[first], ids[last]), np.maximum(ids[first], ids[last])
    is_rising = ids[last] > ids[first]
    climbs = np.where(is_rising, rises[last] - rises[first], falls[last] - falls[first])
    # Bicubic and Lanczos filters overshoot at both ends of a ramp, so a few steps may go the other way.
    is_ramp = (climbs >= 2) & (climbs >= last - first - _SWINGS)
    return low << 20 | high, sums[last] - sums[first + 1], is_ramp


def snap(codes: Codes, points: Codes, is_colour: bool) -> Codes:
    """Return the index of the nearest point of each pixel of `(H, W)` codes, -1 if it is ambiguous."""
    distinct, inverse = np.unique(codes, return_inverse=True)
    nearest, _, clear = _nearest(distinct, points, is_colour)
    found: Codes = np.where(clear, nearest, -1)[inverse].reshape(codes.shape)
    return found


def _nearest(
    codes: Codes, points: Codes, is_colour: bool
) -> tuple[Codes, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the nearest point of each code, its distance, and whether the second nearest is more than twice as far."""
    parts = [
        _nearest_in_block(codes[start : start + _BLOCK], points, is_colour) for start in range(0, len(codes), _BLOCK)
    ]
    indices, distances, clear = zip(*parts, strict=True)
    return np.concatenate(indices), np.concatenate(distances), np.concatenate(clear)


def _nearest_in_block(
    codes: Codes, points: Codes, is_colour: bool
) -> tuple[Codes, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    first, second = np.full(len(codes), np.inf), np.full(len(codes), np.inf)
    index = np.zeros(len(codes), np.int64)
    place = _coordinates(codes, is_colour)
    for k, point in enumerate(_coordinates(points, is_colour)):
        distance = np.sqrt(((place - point) ** 2).sum(1, dtype=np.float64))
        closer = distance < first
        second = np.where(closer, first, np.minimum(second, distance))
        index[closer] = k
        first = np.where(closer, distance, first)
    return index, first, 2 * first < second


def _coordinates(codes: Codes, is_colour: bool) -> Codes:
    if not is_colour:
        return codes[:, np.newaxis]
    return np.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255], 1)
