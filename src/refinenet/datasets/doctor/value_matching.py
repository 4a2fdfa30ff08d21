"""Values or colours that are close to those of classes: which class is meant, and whether that is clear.

Shape letters: H height, W width, N distinct codes, P points (the codes that have a meaning). A code is a label id, or a
colour packed into one number by `datasets.formats.colours`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]

SAME = 12
"""Distance up to which a lossy encoder shifts a whole area."""
MAX_UNCLEAR = 0.05
"""Share of a mask's pixels that may be near no point or two, to become void."""
MIN_SAME = 0.8
"""Share of a mask's pixels that have to be as good as exact."""
MIN_SPACING = 24
"""Ids that lie closer together than this cannot be told apart after a lossy encoder."""

MIN_BLENDED = 0.3
"""Share of the changes between areas of distant ids that have to pass by ids between, one of many for each pair."""

_MIN_GAP = 3
_AREA_RUN = 5
_MIN_RAMPS = 10
_SWINGS = 2
_VOID = 255
_MAX_REPEATED = 0.7
_NOISY = 8
_AREA = 5
_BLOCK = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How well a mask's codes agree with the points."""

    total: int
    exact: int
    """Pixels that are on a point."""
    same: int
    """Pixels within `SAME` of a point that is clearly the nearest, exact ones among them."""
    unclear: int
    """Pixels that are near none, or as near to another."""
    unlisted: tuple[int, ...]
    """Codes that are no noise around a point: they fill areas of their own, or are few beside others."""

    @property
    def is_exact(self) -> bool:
        """Whether every pixel is on a point."""
        return self.exact == self.total

    @property
    def is_clear(self) -> bool:
        """Whether `snap` may be trusted."""
        few_unclear = self.unclear <= MAX_UNCLEAR * self.total
        return few_unclear and self.same >= MIN_SAME * self.total and not self.unlisted


def can_snap(points: Codes, is_colour: bool) -> bool:
    """Whether the points lie far enough apart for noise around them to be told from other points."""
    if is_colour:
        return True
    return len(points) < 2 or int(np.diff(np.sort(points)).min()) >= MIN_SPACING


def fit(codes: Codes, counts: Codes, areas: Codes, points: Codes, is_colour: bool) -> Fit:
    """Measure how well the distinct codes of a mask agree with points `(P,)`.

    Args:
        codes: `(N,)` distinct codes.
        counts: `(N,)` their pixels.
        areas: Those codes that fill areas, as `find_areas` finds them.
        points: The codes that have a meaning.
        is_colour: Whether codes are colours.
    """
    nearest, distance, clear = _nearest(codes, points, is_colour)
    total = int(counts.sum())
    stray = distance > 0
    unlisted = stray & (distance > SAME) & np.isin(codes, areas)
    if stray.sum() < _NOISY:
        # An encoder leaves many colours: a few are meant, unless each is all that there is of a class.
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
    """The codes that fill a square of `_AREA` by `_AREA` pixels somewhere in `(H, W)` codes.

    Noise does not, and neither do smoothed edges.
    """
    height, width = codes.shape
    if min(height, width) < _AREA:
        return np.unique(codes)
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
    """Whether `(H, W)` ids look as if they had been resized by a filter that blends neighbouring ids.

    On a row or column, two areas then meet in a thin ramp of rising or falling ids. A real outline has the same id
    wherever the same two classes meet, and real thin objects leave most outlines without a ramp.
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
    """Where rows go from an area to another one whose id is at least `_MIN_GAP` away.

    Returns:
        The pair of ids and the sum of the ids between them, as one number each, and whether those between rise or fall
        throughout, all `(N,)`.
    """
    height, width = codes.shape
    starts = np.ones((height, width), np.bool_)
    starts[:, 1:] = codes[:, 1:] != codes[:, :-1]
    places = np.flatnonzero(starts)
    ids = codes.ravel()[places]
    lengths = np.diff(places, append=height * width)
    steps = np.sign(np.diff(ids, append=ids[-1:]))
    rises, falls = (np.concatenate([[0], np.cumsum(steps == way)]) for way in (1, -1))
    sums = np.concatenate([[0], np.cumsum(ids)])
    areas = np.flatnonzero(lengths >= _AREA_RUN)
    first, last = areas[:-1], areas[1:]
    kept = (places[first] // width == places[last] // width) & (np.abs(ids[first] - ids[last]) >= _MIN_GAP)
    kept &= (ids[first] != _VOID) & (ids[last] != _VOID)  # Void lies between classes, not above them all.
    first, last = first[kept], last[kept]
    low, high = np.minimum(ids[first], ids[last]), np.maximum(ids[first], ids[last])
    is_rising = ids[last] > ids[first]
    climbs = np.where(is_rising, rises[last] - rises[first], falls[last] - falls[first])
    # Bicubic and Lanczos filters swing beyond both ends before and after they climb.
    is_ramp = (climbs >= 2) & (climbs >= last - first - _SWINGS)
    return low << 20 | high, sums[last] - sums[first + 1], is_ramp


def snap(codes: Codes, points: Codes, is_colour: bool) -> Codes:
    """The index of the point that each pixel of `(H, W)` codes is near, -1 where that is not clear."""
    distinct, inverse = np.unique(codes, return_inverse=True)
    nearest, _, clear = _nearest(distinct, points, is_colour)
    found: Codes = np.where(clear, nearest, -1)[inverse].reshape(codes.shape)
    return found


def _nearest(
    codes: Codes, points: Codes, is_colour: bool
) -> tuple[Codes, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """For each code the nearest point, its distance, and whether the next one is more than twice as far."""
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
