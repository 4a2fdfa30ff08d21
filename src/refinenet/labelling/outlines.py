"""Outlines of the regions of a label map, and their simplification without gaps between neighbours.

Outlines run along the edges of pixels, through the corners of the pixel grid: (0, 0) is the upper left corner of the
image, (W, H) the lower right one. Where three regions meet, or two and the edge of the image, outlines have a
junction, which stays where it is. The path between two junctions, an arc, belongs to two regions: it is simplified the
same way for both, so that neighbours share all points of their border.

Shape letters: H height, W width, E edges, P points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats.polygons import FIFTHS, fill_outline
from refinenet.inference.connected_regions import number_regions
from refinenet.labels import LabelMap

Ring = npt.NDArray[np.int64]
"""`(P, 2)` int64: x and y of the points of a closed outline; the last one is joined to the first."""
Nodes = npt.NDArray[np.int64]

_ROUNDS = 4
"""How often crossings of simplified borders are looked for before nothing is simplified."""
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
"""x and y of a step east, south, west and north. An outline has its region to its right."""
_AHEAD_RIGHT = np.array([[0, 0], [-1, 0], [-1, -1], [0, -1]])
"""x and y, relative to a node, of the pixel to the right of a step that starts there."""
_AHEAD_LEFT = _AHEAD_RIGHT[[3, 0, 1, 2]]
"""The same for the pixel to the left."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region of 4-connected pixels of one class."""

    label: int
    """Its class id; the ignore index for pixels without a class."""
    outer: Ring
    """Its outer border, clockwise on the screen."""
    holes: tuple[Ring, ...]
    """Its inner borders, counter-clockwise on the screen."""
    pixel: tuple[int, int]
    """x and y of its first pixel, row by row."""
    area: int
    """Number of its pixels."""
    box: tuple[int, int, int, int]
    """x and y of the upper left corner, width and height, in pixels."""

    @property
    def rings(self) -> tuple[Ring, ...]:
        """The outer border and those of the holes."""
        return (self.outer, *self.holes)


def find_outlines(labels: LabelMap, tolerance: float = 0.0) -> list[Region]:
    """Find the regions of a label map, with their outlines.

    Args:
        labels: `(H, W)` ids; pixels with the ignore index are regions, too.
        tolerance: Largest distance, in pixels, of a pixel's edge from the simplified outline (by the algorithm of
            Douglas and Peucker, 1973); 0 for outlines that follow the edges exactly.

    Returns:
        The regions in the order of their first pixels: together they cover every pixel once. Those that are thinner
        than the tolerance may vanish.
    """
    if labels.size == 0:
        return []
    numbers = number_regions(labels)
    rings = list(_walk_rings(_find_edges(numbers)))
    is_fixed = np.zeros((labels.shape[0] + 1, labels.shape[1] + 1), bool)
    for _ in range(_ROUNDS):
        regions = _build(labels, numbers, rings, tolerance, is_fixed)
        faults = np.zeros((0, 2), np.int64) if tolerance <= 0 else _find_faults(regions, labels.shape)
        if not len(faults):
            return regions
        # Simplified borders cross where regions are narrow: there they keep all points.
        reach = math.ceil(tolerance) + 1
        for y, x in faults.tolist():
            is_fixed[max(0, y - reach) : y + reach + 2, max(0, x - reach) : x + reach + 2] = True
    return _build(labels, numbers, rings, 0.0, is_fixed)


def _build(
    labels: LabelMap,
    numbers: Nodes,
    rings: list[tuple[int, Ring, npt.NDArray[np.bool_]]],
    tolerance: float,
    is_fixed: npt.NDArray[np.bool_],
) -> list[Region]:
    areas = np.bincount(numbers.ravel())
    firsts = np.unique(numbers, return_index=True)[1]
    outers: dict[int, Ring] = {}
    boxes: dict[int, tuple[int, int, int, int]] = {}
    holes: dict[int, list[Ring]] = {}
    for region, ring, is_junction in rings:
        points = _simplify(ring, is_junction, tolerance, is_fixed)
        if len(points) < 3:
            continue
        if _doubled_area(ring) > 0:
            outers[region], boxes[region] = points, _box(ring)
        else:
            holes.setdefault(region, []).append(points)
    return [
        Region(
            label=int(labels.flat[firsts[region]]),
            outer=outers[region],
            holes=tuple(holes.get(region, ())),
            pixel=(int(firsts[region]) % labels.shape[1], int(firsts[region]) // labels.shape[1]),
            area=int(areas[region]),
            box=boxes[region],
        )
        for region in sorted(outers)
    ]


def _find_faults(regions: list[Region], shape: tuple[int, ...]) -> Nodes:
    """Return row and column of the pixels that no region covers, or several."""
    cover = np.zeros(shape, np.int64)
    for region in regions:
        left, top, width, height = region.box
        points = (join_rings(region) - [left, top]).ravel()
        filled = fill_outline((FIFTHS * points).astype(np.int32), (height, width))
        cover[top : top + height, left : left + width] += filled
    return np.argwhere(cover != 1)


@dataclass(frozen=True)
class _Edges:
    """Steps along the edges of pixels between two regions, each in the direction that has its region to the right."""

    start: Nodes
    """`(E, 2)`: x and y of the node where a step starts."""
    direction: Nodes
    """`(E,)`: 0 to 3, as in `_STEPS`."""
    region: Nodes
    """`(E,)`: the region to the right."""
    following: Nodes
    """`(E,)`: the step that follows on the same outline."""
    is_junction: npt.NDArray[np.bool_]
    """`(E,)`: whether the step starts at a junction."""


def _find_edges(numbers: Nodes) -> _Edges:
    height, width = numbers.shape
    outside = np.full((height + 2, width + 2), -1)
    outside[1:-1, 1:-1] = numbers
    starts, directions = [], []
    for towards in range(4):
        right, left = _beside(outside, towards)
        y, x = np.nonzero((right != left) & (right >= 0))
        starts.append(np.stack([x, y], axis=1))
        directions.append(np.full(len(x), towards))
    start, direction = np.concatenate(starts), np.concatenate(directions)
    region = _look_up(outside, start + _AHEAD_RIGHT[direction])
    keys = (start[:, 1] * (width + 1) + start[:, 0]) * 4 + direction
    order = np.argsort(keys)
    start, direction, region, keys = start[order], direction[order], region[order], keys[order]
    end = start + _STEPS[direction]
    # At a corner where the region touches itself or another one only diagonally, the outline turns right: regions are
    # 4-connected.
    turns_right = _look_up(outside, end + _AHEAD_RIGHT[direction]) != region
    goes_on = ~turns_right & (_look_up(outside, end + _AHEAD_LEFT[direction]) != region)
    turn = np.where(turns_right, 1, np.where(goes_on, 0, 3))
    wanted = (end[:, 1] * (width + 1) + end[:, 0]) * 4 + (direction + turn) % 4
    return _Edges(start, direction, region, np.searchsorted(keys, wanted), _find_junctions(outside, start))


def _beside(outside: Nodes, direction: int) -> tuple[Nodes, Nodes]:
    """Return the regions to the right and left of the steps in a direction from each node, `(H + 1, W + 1)`."""
    height, width = (length - 1 for length in outside.shape)
    found = []
    for side in (_AHEAD_RIGHT, _AHEAD_LEFT):
        x, y = side[direction] + 1
        found.append(outside[y : y + height, x : x + width])
    return found[0], found[1]


def _look_up(outside: Nodes, pixels: Nodes) -> Nodes:
    regions: Nodes = outside[pixels[:, 1] + 1, pixels[:, 0] + 1]
    return regions


def _find_junctions(outside: Nodes, nodes: Nodes) -> npt.NDArray[np.bool_]:
    """Return which nodes have three or four edges between regions; the corners of the image count, too."""
    around = [_look_up(outside, nodes + step) for step in _AHEAD_RIGHT]
    degree = sum((one != other).astype(int) for one, other in zip(around, around[1:] + around[:1], strict=True))
    is_corner = sum((one < 0).astype(int) for one in around) == 3
    return np.asarray((degree > 2) | is_corner)


def _walk_rings(edges: _Edges) -> Iterator[tuple[int, Ring, npt.NDArray[np.bool_]]]:
    """Yield each closed outline: its region, its points, and which of them are junctions.

    Points in the middle of a straight line are left out, unless they are junctions.
    """
    following = edges.following.tolist()
    is_done = bytearray(len(following))
    for first in range(len(following)):
        if is_done[first]:
            continue
        ring = []
        step = first
        while not is_done[step]:
            is_done[step] = 1
            ring.append(step)
            step = following[step]
        steps = np.array(ring)
        direction = edges.direction[steps]
        is_kept = (direction != np.roll(direction, 1)) | edges.is_junction[steps]
        yield int(edges.region[first]), edges.start[steps[is_kept]], edges.is_junction[steps[is_kept]]


def _doubled_area(ring: Ring) -> int:
    """Return twice the area inside a ring by the shoelace formula; negative if it runs counter-clockwise."""
    x, y = ring[:, 0], ring[:, 1]
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def _box(ring: Ring) -> tuple[int, int, int, int]:
    left, top = ring.min(axis=0).tolist()
    right, bottom = ring.max(axis=0).tolist()
    return left, top, right - left, bottom - top


def _simplify(
    ring: Ring, is_junction: npt.NDArray[np.bool_], tolerance: float, is_fixed: npt.NDArray[np.bool_]
) -> Ring:
    if tolerance <= 0:
        return _without_straight(ring)
    places = np.flatnonzero(is_junction)
    if not len(places):
        ring, places = _anchor(ring)
    else:
        ring, places = np.roll(ring, -places[0], axis=0), places - places[0]
    closed = np.concatenate([ring, ring[:1]])
    ends = [*places.tolist(), len(ring)]
    arcs = [_simplify_arc(closed[a : b + 1], tolerance, is_fixed)[:-1] for a, b in pairwise(ends)]
    return np.concatenate(arcs)


def _without_straight(ring: Ring) -> Ring:
    """Leave out points in the middle of a straight line."""
    step = np.sign(ring - np.roll(ring, 1, axis=0))
    bends: Ring = ring[(step != np.roll(step, -1, axis=0)).any(axis=1)]
    return bends


def _anchor(ring: Ring) -> tuple[Ring, Nodes]:
    """Choose the fixed points of a ring without junctions, the same from both sides: its first one, and the farthest.

    An island's outline must not become a line, so a third point is fixed: the farthest from the line between them.
    """
    first = int(np.lexsort((ring[:, 0], ring[:, 1]))[0])
    ring = np.roll(ring, -first, axis=0)
    offset = ring - ring[0]
    distance = (offset**2).sum(axis=1)
    far = _choose(ring, distance)
    across = np.abs(offset[:, 0] * offset[far, 1] - offset[:, 1] * offset[far, 0])
    return ring, np.array(sorted({0, far, _choose(ring, across)}))


def _choose(points: Ring, values: npt.NDArray[np.generic]) -> int:
    """Return the index of the largest value; of equal ones that of the point which is first on the screen."""
    best = np.flatnonzero(values == values.max())
    return int(best[np.lexsort((points[best, 0], points[best, 1]))[0]])


def _simplify_arc(points: Ring, tolerance: float, is_fixed: npt.NDArray[np.bool_]) -> Ring:
    """Simplify a path between two points, the same in both directions; nodes in `is_fixed` `(H + 1, W + 1)` stay."""
    if len(points) < 3:
        return points
    is_reversed = points[0].tolist() + points[1].tolist() > points[-1].tolist() + points[-2].tolist()
    path = (points[::-1] if is_reversed else points).astype(np.float64)
    is_kept = is_fixed[path[:, 1].astype(int), path[:, 0].astype(int)]
    is_kept[[0, -1]] = True
    waiting = list(pairwise(np.flatnonzero(is_kept).tolist()))
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        distance = _distances(path[first + 1 : last], path[first], path[last])
        farthest = int(distance.argmax())
        if distance[farthest] > tolerance:
            middle = first + 1 + farthest
            is_kept[middle] = True
            waiting += [(first, middle), (middle, last)]
    kept: Ring = points[is_kept[::-1] if is_reversed else is_kept]
    return kept


def _distances(
    points: npt.NDArray[np.float64], start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the distances of points `(P, 2)` from the segment between two others, `(P,)`."""
    along = end - start
    length = float(along @ along)
    share = np.zeros(len(points)) if length == 0 else np.clip((points - start) @ along / length, 0, 1)
    distances: npt.NDArray[np.float64] = np.hypot(*(points - start - share[:, None] * along).T)
    return distances


def join_rings(region: Region) -> Ring:
    """Return one closed outline for a region with holes: a cut, there and back, leads from the border to each hole.

    Filled by the even-odd or the non-zero rule, it covers the region without its holes.
    """
    ring = region.outer
    for hole in sorted(region.holes, key=lambda points: tuple(points.min(axis=0).tolist())):
        outer_place, hole_place = _nearest(ring, hole)
        inner = np.roll(hole, -hole_place, axis=0)
        cut = [ring[: outer_place + 1], inner, inner[:1], ring[outer_place:]]
        ring = np.concatenate(cut)
    return ring


def _nearest(ring: Ring, hole: Ring) -> tuple[int, int]:
    """Return the indices of two points, one of each ring, that are close: the nearest to the hole's first point."""
    place = int(np.abs(ring - hole[0]).sum(axis=1).argmin())
    return place, int(np.abs(hole - ring[place]).sum(axis=1).argmin())
