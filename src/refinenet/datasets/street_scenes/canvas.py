"""Drawing in perspective with NumPy alone: a camera, a canvas of colours and labels, and shapes painted onto it.

The same call draws the same bytes on every machine. That holds because of one rule, which all code that ends in
pixels keeps: only operations that IEEE 754 defines to the last bit (+ - * / sqrt floor minimum maximum comparisons
in float64) and integers; no sin, cos, exp, log, pow or hypot, whose last bits differ between mathematical
libraries (a rotation is made of a half angle's tangent instead); no float sums, means or matrix products over
arrays, nor `sum` of floats, whose order of adding differs; randomness only from `Dice`.

World coordinates in metres: x to the right, y up (the ground is 0), z ahead. View coordinates: the same as the camera
sees it. Screen coordinates in pixels: x to the right, y down, the first pixel's centre at (0.5, 0.5). Colours are
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

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Labels = npt.NDArray[np.uint8]
Vector = tuple[float, float, float]
Point = tuple[float, float]
Colour = tuple[float, float, float]
Item = TypeVar("Item")

NEAREST = 0.2
"""Nothing nearer to the camera than this is drawn, in metres."""
FARTHEST = 2000.0
"""Depths are clipped to this, in metres."""
_TILE = 512
_BAND = 1 << 14


class Dice:
    """Random numbers that are the same on every machine for the same seed."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` up to `high`."""
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return float(self._generator.random()) < probability

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(self._generator.integers(low, high + 1))

    def pick(self, options: Sequence[Item]) -> Item:
        """One of the options, each as likely as the others."""
        return options[self.whole(0, len(options) - 1)]

    def vary(self, colour: Colour, amount: float) -> Colour:
        """A colour near the given one: brighter or darker, and a little of another hue."""
        light = self.uniform(1 - amount, 1 + amount)
        red, green, blue = (part * light * self.uniform(1 - amount / 3, 1 + amount / 3) for part in colour)
        return red, green, blue

    def split(self) -> Dice:
        """New dice, so that what is drawn with them does not shift what comes after."""
        return Dice(self.whole(0, 1 << 62))

    def numbers(self, count: int) -> Floats:
        """`(count,)` float64 from 0 to 1."""
        return self._generator.random(count)


def turn(half_tangent: float) -> Point:
    """Cosine and sine of the angle whose half has this tangent; exact on every machine."""
    square = half_tangent * half_tangent
    return (1 - square) / (1 + square), 2 * half_tangent / (1 + square)


def cross(a: Vector, b: Vector) -> Vector:
    """The vector at right angles to both."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Vector, b: Vector) -> float:
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def subtract(a: Vector, b: Vector) -> Vector:
    """The way from `b` to `a`."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def unit(a: Vector) -> Vector:
    """The vector at length 1; a zero vector stays zero."""
    length = math.sqrt(dot(a, a)) or 1.0
    return a[0] / length, a[1] / length, a[2] / length


def scatter(first: Ids, second: Ids, salt: int = 0) -> Floats:
    """A number from 0 to 1 for each pair of integers, without visible pattern (an integer hash)."""
    value = first.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value ^= second.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(salt * 0x165667B1 + 0x27220A95)
    value ^= value >> np.uint64(29)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(32)
    return (value & np.uint64(0xFFFF)).astype(np.float64) / 65535.0


@cache
def _noise_tile() -> Floats:
    """`(512 * 512,)` float64 from 0 to 1: value noise of seven octaves that repeats without a seam."""
    place = np.arange(_TILE)
    total = np.zeros((_TILE, _TILE))
    weight = 1.0
    for octave in range(7):
        cells = 4 << octave
        position = place * cells / _TILE
        low = np.floor(position).astype(np.int64)
        step = position - low
        step = step * step * (3 - 2 * step)
        rows, columns = np.arange(cells)[:, None], np.arange(cells)[None, :]
        lattice = scatter(rows + 0 * columns, columns + 0 * rows, octave)
        high = (low + 1) % cells
        across = lattice[:, low] * (1 - step) + lattice[:, high] * step
        total += weight * (across[low] * (1 - step)[:, None] + across[high] * step[:, None])
        weight *= 0.62
    spread = (total / 2.54 - 0.5) * 2.4 + 0.5
    return np.minimum(np.maximum(spread, 0.0), 1.0).ravel()


def noise(x: Floats, y: Floats, *, smooth: bool = False) -> Floats:
    """Cloudy noise from 0 to 1, features from a quarter of a unit downwards, repeating after one unit.

    `smooth` interpolates, for where a pixel is far smaller than 1 / 512 of a unit.
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
    """The values, none below `low` or above `high`."""
    raised = np.maximum(values, low)
    return np.minimum(raised, high, out=raised)


def span(position: Floats, low: float, high: float, blur: Floats | float) -> Floats:
    """1 between `low` and `high`, 0 outside, with edges as wide as `blur` (a pixel's size, in the same unit)."""
    return limit(((high - low) / 2 - np.abs(position - (low + high) / 2)) / blur + 0.5)


def mix(first: Floats, second: Floats, share: Floats | float) -> Floats:
    """`first` where `share` is 0, `second` where it is 1."""
    return first + (second - first) * share


def planar(colour: Colour) -> Floats:
    """A colour as `(3, 1)`, to reckon with arrays of colours."""
    return np.array(colour, np.float64)[:, None]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera; it also sees a straight street bent, by `bend` metres sideways per square metre ahead."""

    position: Vector
    """Metres."""
    axes: tuple[Vector, Vector, Vector]
    """Unit vectors to the right, up and ahead."""
    focal: float
    """Pixels."""
    centre: Point
    """Where the axis ahead meets the picture, pixels."""
    bend: float = 0.0
    """1 / metres."""

    def view(self, point: Vector) -> Vector:
        """A world point in view coordinates."""
        bent = (point[0] + self.bend * point[2] * point[2], point[1], point[2])
        away = subtract(bent, self.position)
        return dot(away, self.axes[0]), dot(away, self.axes[1]), dot(away, self.axes[2])

    def screen(self, point: Vector) -> Point:
        """A view point, which lies ahead, on the screen."""
        scale = self.focal / point[2]
        return self.centre[0] + point[0] * scale, self.centre[1] - point[1] * scale

    def straight(self) -> Camera:
        """The same camera without the bend."""
        return replace(self, bend=0.0)


def aim(yaw: float, pitch: float, roll: float) -> tuple[Vector, Vector, Vector]:
    """A camera's axes; each angle is given as its half's tangent: to the right, upwards, clockwise."""
    (cy, sy), (cp, sp), (cr, sr) = turn(yaw), turn(pitch), turn(roll)
    ahead = (sy * cp, sp, cy * cp)
    right, up = (cy, 0.0, -sy), (-sy * sp, cp, -cy * sp)
    turned_right = (right[0] * cr + up[0] * sr, right[1] * cr + up[1] * sr, right[2] * cr + up[2] * sr)
    return turned_right, unit(cross(ahead, turned_right)), ahead


@dataclass(frozen=True, kw_only=True)
class Haze:
    """Air: colours fade towards `colour`, half way at `distance` metres."""

    colour: Colour
    distance: float


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What is painted on: `colours` `(3, H * W)` float64, `labels` `(H * W,)` uint8."""

    height: int
    width: int
    colours: Floats
    labels: Labels
    haze: Haze

    @classmethod
    def blank(cls, height: int, width: int, haze: Haze) -> Canvas:
        """A black canvas of label 0."""
        size = height * width
        return cls(
            height=height,
            width=width,
            haze=haze,
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
        haze = depth / (depth + self.haze.distance)
        share = where.coverage * opacity
        for channel in range(3):
            plane = self.colours[channel]
            paint = colour[channel] + (self.haze.colour[channel] - colour[channel]) * haze
            before = plane[where.index]
            plane[where.index] = before + (paint - before) * share
        if label is not None:
            self.mark(where, label, 1.0)

    def mark(self, where: Fragments, label: Labels | int, extent: Floats | float) -> None:
        """Label the pixels of which the shape, as far as it extends (0 to 1), covers at least half."""
        chosen = where.coverage * extent >= 0.5
        self.labels[where.index[chosen]] = label if isinstance(label, int) else label[chosen]


@dataclass(frozen=True, kw_only=True)
class Fragments:
    """Pixels that a shape touches: flat indices, the share of each that it covers, and their screen positions."""

    index: Ids
    coverage: Floats
    x: Floats
    y: Floats


Coverage = Callable[[Floats, Floats], Floats]


def fragments(canvas: Canvas, box: tuple[float, float, float, float], coverage: Coverage) -> Iterator[Fragments]:
    """The pixels in a box (left, top, right, bottom, in pixels) that a shape covers, in bands that fit the caches.

    Args:
        canvas: what will be painted on.
        box: what surrounds the shape; it may reach beyond the canvas.
        coverage: from the x `(1, w)` and the y `(h, 1)` of pixel centres to the covered share `(h, w)`.
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
