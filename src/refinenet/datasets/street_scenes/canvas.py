"""Perspective drawing with NumPy: a camera, a canvas of colours and labels, and the blending of shapes.

The same call draws the same bytes on every machine. All code that determines pixels follows one rule for this: only
integers and operations that IEEE 754 defines to the last bit (+ - * / sqrt floor minimum maximum and comparisons in
float64); no sin, cos, exp, log, pow or hypot, whose last bits differ between math libraries (rotations are built from
the tangent of half the angle instead); no float sums, means or matrix products over arrays, nor `sum` of floats, whose
order of addition differs; randomness only from `Dice`.

World coordinates in metres: x to the right, y up (the ground is 0), z ahead. View coordinates: the same relative to the
camera. Screen coordinates in pixels: x to the right, y down, the centre of the first pixel at (0.5, 0.5). Colours are
three numbers from 0 to 1; arrays of colours are planar, `(3, N)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from refinenet.datasets.street_scenes.relief import Relief

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Labels = npt.NDArray[np.uint8]
Vector = tuple[float, float, float]
Point = tuple[float, float]
Colour = tuple[float, float, float]
Item = TypeVar("Item")

NEAREST = 0.2
"""Near plane in metres: nothing nearer to the camera is drawn."""
FARTHEST = 2000.0
"""Depths are clipped to this, in metres."""
_TILE = 512
_BAND = 1 << 14


class Dice:
    """Random numbers that are identical on every machine for the same seed."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from `low` to `high`."""
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(self._generator.random()) < probability

    def whole(self, low: int, high: int) -> int:
        """Draw an integer from `low` to `high`, both included."""
        return int(self._generator.integers(low, high + 1))

    def pick(self, options: Sequence[Item]) -> Item:
        """Draw one of the options with equal probability."""
        return options[self.whole(0, len(options) - 1)]

    def vary(self, colour: Colour, amount: float) -> Colour:
        """Vary a colour: brighter or darker, with a slightly different hue."""
        light = self.uniform(1 - amount, 1 + amount)
        red, green, blue = (part * light * self.uniform(1 - amount / 3, 1 + amount / 3) for part in colour)
        return red, green, blue

    def split(self) -> Dice:
        """Return independent dice: the number of draws from them does not affect what is drawn later."""
        return Dice(self.whole(0, 1 << 62))

    def numbers(self, count: int) -> Floats:
        """Draw `(count,)` float64 from 0 to 1."""
        return self._generator.random(count)


def turn(half_tangent: float) -> Point:
    """Return cosine and sine of the angle whose half has this tangent; exact on every machine."""
    square = half_tangent * half_tangent
    return (1 - square) / (1 + square), 2 * half_tangent / (1 + square)


def cross(a: Vector, b: Vector) -> Vector:
    """Return the cross product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Vector, b: Vector) -> float:
    """Return the dot product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def subtract(a: Vector, b: Vector) -> Vector:
    """Return `a` minus `b`."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def unit(a: Vector) -> Vector:
    """Normalise a vector to length 1; a zero vector stays zero."""
    length = math.sqrt(dot(a, a)) or 1.0
    return a[0] / length, a[1] / length, a[2] / length


def scatter(first: Ids, second: Ids, salt: int = 0) -> Floats:
    """Hash each pair of integers to a number from 0 to 1 without visible pattern."""
    # Multiply-xorshift mixing with odd constants, modulo 2**64: integers, so the same on every machine.
    value = first.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value ^= second.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(salt * 0x165667B1 + 0x27220A95)
    value ^= value >> np.uint64(29)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(32)
    return (value & np.uint64(0xFFFF)).astype(np.float64) / 65535.0


@cache
def _noise_tile() -> Floats:
    """Return `(512 * 512,)` float64 from 0 to 1: value noise of seven octaves that tiles seamlessly."""
    place = np.arange(_TILE)
    total = np.zeros((_TILE, _TILE))
    weight = 1.0
    for octave in range(7):
        cells = 4 << octave
        position = place * cells / _TILE
        low = np.floor(position).astype(np.int64)
        step = position - low
        step = step * step * (3 - 2 * step)  # smoothstep: no visible edges between cells
        rows, columns = np.arange(cells)[:, None], np.arange(cells)[None, :]
        lattice = scatter(rows + 0 * columns, columns + 0 * rows, octave)
        high = (low + 1) % cells  # the last cell continues in the first, so that tiles join
        across = lattice[:, low] * (1 - step) + lattice[:, high] * step
        total += weight * (across[low] * (1 - step)[:, None] + across[high] * step[:, None])
        weight *= 0.62
    # 2.54 is about the sum of the weights; the factor 2.4 restores the contrast that averaging octaves costs.
    spread = (total / 2.54 - 0.5) * 2.4 + 0.5
    return np.minimum(np.maximum(spread, 0.0), 1.0).ravel()


def noise(x: Floats, y: Floats, *, smooth: bool = False) -> Floats:
    """Sample cloudy noise from 0 to 1 with features up to a quarter of a unit, repeating after one unit.

    `smooth` interpolates, for pixels far smaller than 1 / 512 of a unit.
    """
    tile = _noise_tile()
    x, y = x * _TILE, y * _TILE
    floor_x, floor_y = np.floor(x), np.floor(y)
    column, row = floor_x.astype(np.int64) & (_TILE - 1), floor_y.astype(np.int64) & (_TILE - 1)
    if not smooth:
        return tile.take(row * _TILE + column)
    right, below = (column + 1) & (_TILE - 1), (row + 1) & (_TILE - 1)
    step_x, step_y = x - floor_x, y - floor_y
    upper = tile.take(row * _TILE + column) * (1 - step_x) + tile.take(row * _TILE + right) * step_x
    lower = tile.take(below * _TILE + column) * (1 - step_x) + tile.take(below * _TILE + right) * step_x
    return upper * (1 - step_y) + lower * step_y


def limit(values: Floats, low: float = 0.0, high: float = 1.0) -> Floats:
    """Clamp values to `low` and `high`."""
    raised = np.maximum(values, low)
    return np.minimum(raised, high, out=raised)


def span(position: Floats, low: float, high: float, blur: Floats | float) -> Floats:
    """Return 1 between `low` and `high` and 0 outside, with edges as wide as `blur` (a pixel in the same unit)."""
    return limit(((high - low) / 2 - np.abs(position - (low + high) / 2)) / blur + 0.5)


def mix(first: Floats, second: Floats, share: Floats | float) -> Floats:
    """Interpolate: `first` where `share` is 0, `second` where it is 1."""
    return first + (second - first) * share


def planar(colour: Colour) -> Floats:
    """Return a colour as `(3, 1)`, to be combined with arrays of colours."""
    return np.array(colour, np.float64)[:, None]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera. A curved street is a straight one seen bent, `bend` metres sideways per square metre ahead."""

    position: Vector
    """World coordinates, metres."""
    axes: tuple[Vector, Vector, Vector]
    """Unit vectors to the right, up and ahead."""
    focal: float
    """Focal length, pixels."""
    centre: Point
    """Where the axis ahead meets the image, pixels."""
    bend: float = 0.0
    """1 / metres."""

    def view(self, point: Vector) -> Vector:
        """Convert a world point to view coordinates."""
        bent = (point[0] + self.bend * point[2] * point[2], point[1], point[2])
        away = subtract(bent, self.position)
        return dot(away, self.axes[0]), dot(away, self.axes[1]), dot(away, self.axes[2])

    def screen(self, point: Vector) -> Point:
        """Project a view point ahead of the camera onto the screen."""
        scale = self.focal / point[2]
        return self.centre[0] + point[0] * scale, self.centre[1] - point[1] * scale

    def straight(self) -> Camera:
        """Return the same camera without the bend."""
        return replace(self, bend=0.0)


def aim(yaw: float, pitch: float, roll: float) -> tuple[Vector, Vector, Vector]:
    """Return a camera's axes; angles are tangents of half the angle: to the right, upwards, clockwise."""
    (cy, sy), (cp, sp), (cr, sr) = turn(yaw), turn(pitch), turn(roll)
    ahead = (sy * cp, sp, cy * cp)
    right, up = (cy, 0.0, -sy), (-sy * sp, cp, -cy * sp)
    turned_right = (right[0] * cr + up[0] * sr, right[1] * cr + up[1] * sr, right[2] * cr + up[2] * sr)
    return turned_right, unit(cross(ahead, turned_right)), ahead


@dataclass(frozen=True, kw_only=True)
class Haze:
    """Haze: colours fade towards `colour`, by half at `distance` metres."""

    colour: Colour
    distance: float


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The image being painted: `colours` `(3, H * W)` float64, `labels` `(H * W,)` uint8."""

    height: int
    width: int
    colours: Floats
    labels: Labels
    haze: Haze
    relief: Relief | None = None
    """The geometry of what is painted, if it is wanted."""

    @classmethod
    def blank(cls, height: int, width: int, haze: Haze, relief: Relief | None = None) -> Canvas:
        """Create a black canvas with label 0."""
        size = height * width
        return cls(
            height=height,
            width=width,
            haze=haze,
            relief=relief,
            colours=np.zeros((3, size)),
            labels=np.zeros(size, np.uint8),
        )

    def blend(
        self,
        where: Fragments,
        colour: Floats,
        depth: Floats | float,
        label: int | None = None,
        opacity: Floats | float = 1.0,
    ) -> None:
        """Paint pixels with `(3, N)` or `(3, 1)` colours, seen through the air at `depth` metres, and label them."""
        haze = depth / (depth + self.haze.distance)  # instead of an exponential, whose last bits differ by machine
        share = where.coverage * opacity
        for channel in range(3):
            plane = self.colours[channel]
            paint = colour[channel] + (self.haze.colour[channel] - colour[channel]) * haze
            before = plane[where.index]
            plane[where.index] = before + (paint - before) * share
        if label is not None:
            self.mark(where, label, 1.0)

    def mark(self, where: Fragments, label: Labels | int, extent: Floats | float) -> None:
        """Label the pixels of which the shape, to its extent (0 to 1), covers at least half."""
        chosen = where.coverage * extent >= 0.5
        self.labels[where.index[chosen]] = label if isinstance(label, int) else label[chosen]

    def shape(self, where: Fragments, depth: Floats, normals: Floats, opacity: Floats | float = 1.0) -> None:
        """Record the geometry of the pixels of which a surface hides at least half; does nothing without a relief.

        Unlike labels, it is that of what is seen: the gaps of a railing show what is behind it.
        """
        if self.relief is None:
            return
        chosen = where.coverage * opacity >= 0.5
        self.relief.record(where.index[chosen], depth[chosen], normals[:, chosen] if normals.shape[1] > 1 else normals)


@dataclass(frozen=True, kw_only=True)
class Fragments:
    """Pixels that a shape touches: flat indices, covered share of each, and screen positions."""

    index: Ids
    coverage: Floats
    x: Floats
    y: Floats


Coverage = Callable[[Floats, Floats], Floats]


def fragments(canvas: Canvas, box: tuple[float, float, float, float], coverage: Coverage) -> Iterator[Fragments]:
    """Iterate over the pixels in a box (left, top, right, bottom) that a shape covers, in bands that fit the caches.

    Args:
        canvas: The canvas to paint on.
        box: The bounding box of the shape in pixels, which may extend beyond the canvas.
        coverage: Maps x `(1, w)` and y `(h, 1)` of pixel centres to the covered share `(h, w)`.
    """
    left, right = max(0, math.floor(max(box[0], -1e6))), min(canvas.width, math.ceil(min(box[2], 1e6)))
    top, bottom = max(0, math.floor(max(box[1], -1e6))), min(canvas.height, math.ceil(min(box[3], 1e6)))
    if left >= right:
        return
    rows = max(1, _BAND // (right - left))
    for start in range(top, bottom, rows):
        x = np.arange(left, right, dtype=np.float64)[None, :] + 0.5
        y = np.arange(start, min(start + rows, bottom), dtype=np.float64)[:, None] + 0.5
        share = coverage(x, y)
        row, column = np.nonzero(share > 0.0)
        if len(row):
            yield Fragments(
                index=(row + start) * canvas.width + (column + left),
                coverage=share[row, column],
                x=x[0, column],
                y=y[row, 0],
            )
