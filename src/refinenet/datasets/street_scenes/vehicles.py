"""Cars, vans and buses of a street scene. See `canvas` for units and the rule that keeps drawings exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    Camera,
    Canvas,
    Colour,
    Dice,
    Point,
    Vector,
    cross,
    dot,
    limit,
    mix,
    planar,
    span,
    subtract,
    turn,
    unit,
)
from refinenet.datasets.street_scenes.ground import paint_shadow
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Surface, fill_polygon, paint_plane
from refinenet.datasets.street_scenes.weather import CAR, Weather

_COLOURS: tuple[Colour, ...] = (
    (0.72, 0.73, 0.75), (0.5, 0.52, 0.54), (0.1, 0.1, 0.11), (0.9, 0.9, 0.9), (0.12, 0.18, 0.42), (0.6, 0.08, 0.08),
    (0.25, 0.27, 0.29), (0.2, 0.35, 0.55), (0.1, 0.28, 0.2), (0.65, 0.58, 0.42), (0.82, 0.68, 0.15), (0.35, 0.12, 0.14),
)  # fmt: skip
_BUS_COLOURS: tuple[Colour, ...] = (
    (0.72, 0.08, 0.07),
    (0.15, 0.4, 0.65),
    (0.88, 0.87, 0.82),
    (0.2, 0.45, 0.25),
    (0.9, 0.7, 0.2),
)


@dataclass(frozen=True, kw_only=True)
class VehicleShape:
    """A kind of vehicle, in metres: side outlines as (z ahead, y up), extruded across the vehicle."""

    body: tuple[Point, ...]
    """Convex outline of the body, from the rear foot over the top to the front foot."""
    cabin: tuple[Point, ...]
    """Convex outline of the cabin on top, from rear to front."""
    half_width: tuple[float, float]
    """Half the width of the body, and of the cabin's top."""
    wheels: tuple[float, ...]
    """Positions of the axles along z."""
    wheel: float
    """Radius of the wheels."""
    glazed: tuple[bool, bool, bool]
    """Whether the cabin has a rear window, side windows and a windscreen."""
    lamps: tuple[float, float]
    """Height of the rear and front lamps."""
    windows: tuple[tuple[float, float, float, float], ...]
    """Side windows of the body: from z, to z, from y, to y."""
    screens: tuple[tuple[float, float], ...]
    """Heights of windows across the body's ends: from, to."""
    colours: tuple[Colour, ...]


HATCHBACK = VehicleShape(
    body=((-1.9, 0.26), (-1.95, 0.7), (-1.82, 0.92), (0.85, 0.93), (1.7, 0.76), (1.95, 0.55), (1.93, 0.26)),
    cabin=((-1.8, 0.9), (-1.45, 1.36), (-0.9, 1.46), (0.0, 1.43), (0.95, 0.9)),
    half_width=(0.84, 0.6), wheels=(-1.2, 1.25), wheel=0.3, glazed=(True, True, True),
    lamps=(0.78, 0.64), windows=(), screens=(), colours=_COLOURS,
)  # fmt: skip
SALOON = VehicleShape(
    body=((-2.2, 0.28), (-2.28, 0.65), (-2.15, 0.93), (0.85, 0.92), (1.95, 0.74), (2.22, 0.54), (2.2, 0.26)),
    cabin=((-1.75, 0.9), (-1.05, 1.36), (-0.6, 1.42), (0.0, 1.4), (0.95, 0.9)),
    half_width=(0.88, 0.6), wheels=(-1.35, 1.35), wheel=0.31, glazed=(True, True, True),
    lamps=(0.76, 0.64), windows=(), screens=(), colours=_COLOURS,
)  # fmt: skip
ESTATE = VehicleShape(
    body=((-2.2, 0.32), (-2.25, 0.7), (-2.2, 1.0), (0.9, 1.02), (1.95, 0.86), (2.2, 0.62), (2.18, 0.3)),
    cabin=((-2.15, 0.98), (-1.85, 1.6), (-1.4, 1.68), (0.0, 1.64), (0.95, 0.98)),
    half_width=(0.9, 0.66), wheels=(-1.3, 1.38), wheel=0.35, glazed=(True, True, True),
    lamps=(0.88, 0.74), windows=(), screens=(), colours=_COLOURS,
)  # fmt: skip
VAN = VehicleShape(
    body=((-2.5, 0.35), (-2.52, 0.8), (-2.5, 1.2), (1.5, 1.2), (2.2, 1.02), (2.45, 0.7), (2.42, 0.3)),
    cabin=((-2.5, 1.18), (-2.44, 2.05), (-2.2, 2.15), (0.9, 2.1), (1.75, 1.18)),
    half_width=(0.97, 0.84), wheels=(-1.5, 1.6), wheel=0.34, glazed=(False, False, True),
    lamps=(1.0, 0.8), windows=((0.45, 1.25, 1.25, 1.8),), screens=(), colours=((0.9, 0.9, 0.9), *_COLOURS),
)  # fmt: skip
BUS = VehicleShape(
    body=((-5.0, 0.35), (-5.0, 1.5), (-4.95, 2.95), (4.9, 2.95), (5.0, 1.5), (4.98, 0.8), (4.95, 0.3)),
    cabin=(), half_width=(1.25, 1.25), wheels=(-3.0, 3.2), wheel=0.5, glazed=(False, False, False),
    lamps=(0.9, 0.75), windows=tuple((-4.7 + 1.55 * k, -3.35 + 1.55 * k, 1.25, 2.3) for k in range(6)),
    screens=((1.3, 2.5),), colours=_BUS_COLOURS,
)  # fmt: skip
DOUBLE_DECKER = VehicleShape(
    body=((-4.8, 0.35), (-4.8, 2.0), (-4.7, 4.3), (4.6, 4.3), (4.8, 2.0), (4.8, 0.8), (4.75, 0.3)),
    cabin=(), half_width=(1.25, 1.25), wheels=(-2.8, 3.0), wheel=0.5, glazed=(False, False, False),
    lamps=(0.9, 0.75),
    windows=tuple((-4.5 + 1.5 * k, -3.15 + 1.5 * k, low, low + 0.95) for k in range(6) for low in (1.2, 2.9)),
    screens=((1.3, 2.3), (2.9, 3.85)), colours=_BUS_COLOURS,
)  # fmt: skip
KINDS = (HATCHBACK,) * 5 + (SALOON,) * 4 + (ESTATE,) * 4 + (VAN,) * 2 + (BUS, DOUBLE_DECKER)


_DETAILED = 45.0
"""Distance in metres from which lamps and number plates are left out."""
_GLASS = (0.09, 0.1, 0.11)
_DARK = (0.07, 0.07, 0.075)


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """A vehicle on the road."""

    shape: VehicleShape
    x: float
    z: float
    heading: Point
    """Cosine and sine of the angle from straight ahead to the right."""
    colour: Colour
    lit: bool
    """Whether brake lamps and headlamps shine."""

    def place(self, point: Vector) -> Vector:
        """Convert a point of the vehicle (across, up, ahead) to world coordinates."""
        cosine, sine = self.heading
        x, y, z = point
        return self.x + x * cosine + z * sine, y, self.z - x * sine + z * cosine

    @property
    def length(self) -> float:
        """Length in metres."""
        return self.shape.body[-2][0] - self.shape.body[1][0]


def draw_vehicle(dice: Dice, x: float, z: float, half_tangent: float, buses: bool) -> Vehicle:
    """Draw a random vehicle; the heading's half tangent is 0 for driving ahead, large for oncoming."""
    shape = dice.pick(KINDS if buses else KINDS[:15])
    return Vehicle(
        shape=shape,
        x=x,
        z=z,
        heading=turn(half_tangent),
        colour=dice.vary(dice.pick(shape.colours), 0.15),
        lit=dice.chance(0.4),
    )


def paint_vehicle(canvas: Canvas, camera: Camera, vehicle: Vehicle, weather: Weather) -> None:
    """Paint a vehicle and the shadow under it."""
    shape = vehicle.shape
    half = shape.half_width[0]
    cosine, sine = abs(vehicle.heading[0]), abs(vehicle.heading[1])
    long = vehicle.length / 2
    size = (half * cosine + long * sine - 0.15, half * sine + long * cosine - 0.1)
    paint_shadow(canvas, camera, (vehicle.x, vehicle.z), size, 0.75, 0.85)
    brush = _Brush(canvas=canvas, camera=camera, vehicle=vehicle, weather=weather)
    brush.wheels(far=True)
    brush.solid(shape.body, (half, half), (False, False, False))
    if vehicle.z < _DETAILED:
        brush.body_details()
    brush.wheels(far=False)
    if shape.cabin:
        brush.solid(shape.cabin, (half - 0.05, shape.half_width[1]), shape.glazed)
        brush.side_windows()


@dataclass(frozen=True, kw_only=True)
class _Brush:
    """Paints the parts of one vehicle."""

    canvas: Canvas
    camera: Camera
    vehicle: Vehicle
    weather: Weather

    def facing(self, corners: Sequence[Vector], middle: Vector) -> tuple[bool, Vector]:
        """Return whether the camera sees a face of a solid around `middle` from outside, and the face's normal."""
        view = self.camera
        bent = [(x + view.bend * z * z, y, z) for x, y, z in corners]
        normal = unit(cross(subtract(bent[1], bent[0]), subtract(bent[2], bent[0])))
        if dot(normal, subtract(corners[0], middle)) < 0:
            normal = (-normal[0], -normal[1], -normal[2])
        return dot(normal, subtract(view.position, bent[0])) > 0, normal

    def fill(self, corners: Sequence[Vector], colour: Colour, normal: Vector, gloss: float) -> None:
        """Paint a face; gloss mirrors the sky on upward faces."""
        low = self.weather.lit((colour[0] * 0.72, colour[1] * 0.72, colour[2] * 0.72), normal)
        high = self.weather.lit(colour, normal)
        share = gloss * (0.3 + 0.7 * max(normal[1], 0.0))
        mirrored = [h + (s - h) * share for h, s in zip(high, self.weather.horizon, strict=True)]
        fill_polygon(self.canvas, self.camera, corners, (low, (mirrored[0], mirrored[1], mirrored[2])), CAR)

    def solid(self, outline: tuple[Point, ...], widths: tuple[float, float], glazed: tuple[bool, bool, bool]) -> None:
        """Paint an extruded convex outline; `widths` are its half widths at the bottom and at the top."""
        vehicle = self.vehicle
        low, high = min(y for _, y in outline), max(y for _, y in outline)
        middle = vehicle.place((0.0, (low + high) / 2, (outline[0][0] + outline[-1][0]) / 2))

        def half(y: float) -> float:
            return widths[0] + (widths[1] - widths[0]) * (y - low) / (high - low)

        def across(points: Sequence[Point], side: float) -> list[Vector]:
            return [vehicle.place((side * half(y), y, z)) for z, y in points]

        for side in (-1.0, 1.0):
            corners = across(outline, side)
            seen, normal = self.facing(corners, middle)
            if seen:
                self.fill(corners, vehicle.colour, normal, 0.12)
        for number, pair in enumerate(pairwise(outline)):
            corners = across(pair, -1.0) + across(pair[::-1], 1.0)
            seen, normal = self.facing(corners, middle)
            if not seen:
                continue
            self.fill(corners, vehicle.colour, normal, 0.35)
            is_end = (number == 0 and glazed[0]) or (number == len(outline) - 2 and glazed[2])
            if is_end:
                self.fill(_shrink(corners, 0.84), _GLASS, normal, 0.5)

    def side_windows(self) -> None:
        """Paint the cabin's side windows, separated by a pillar."""
        shape = self.vehicle.shape
        if not shape.glazed[1]:
            return
        low, high = shape.cabin[0][1], max(y for _, y in shape.cabin)
        outline = [(z * 0.93 - 0.03, low + 0.04 + (y - low) * 0.84) for z, y in shape.cabin]
        middle = self.vehicle.place((0.0, low, 0.0))
        for side in (-1.0, 1.0):
            corners = []
            for z, y in outline:
                share = (y - low) / (high - low)
                wide = shape.half_width[0] - 0.04 + (shape.half_width[1] - shape.half_width[0] + 0.04) * share
                corners.append(self.vehicle.place((side * wide, y, z)))
            seen, normal = self.facing(corners, middle)
            if seen:
                self.fill(corners, _GLASS, normal, 0.5)
                wide = shape.half_width[0]
                top = shape.half_width[1] + 0.08
                pillar = ((-0.42, low, wide), (-0.34, low, wide), (-0.38, high - 0.1, top), (-0.46, high - 0.1, top))
                self.fill([self.vehicle.place((side * w, y, z)) for z, y, w in pillar], _DARK, normal, 0.0)

    def panel(self, corners: Sequence[Vector], colour: Colour, gloss: float = 0.1, *, is_lamp: bool = False) -> None:
        """Paint a flat part, given in the vehicle's coordinates, if it is visible; a lit lamp shines."""
        placed = [self.vehicle.place(corner) for corner in corners]
        seen, normal = self.facing(placed, self.vehicle.place((0.0, corners[0][1], 0.0)))
        if seen and is_lamp and self.vehicle.lit:
            fill_polygon(self.canvas, self.camera, placed, (colour, colour), CAR)
        elif seen:
            share = 0.7 if is_lamp else 1.0
            self.fill(placed, (colour[0] * share, colour[1] * share, colour[2] * share), normal, gloss)

    def body_details(self) -> None:
        """Paint bumpers, lamps, number plates, grille, and a bus's windows."""
        shape, half = self.vehicle.shape, self.vehicle.shape.half_width[0]
        foot = shape.body[0][1]
        rear, front = shape.body[1][0] - 0.02, shape.body[-2][0] + 0.02
        rear_lamp, front_lamp = shape.lamps
        for end in (rear, front):
            for low, high in shape.screens:
                self.panel(_across(-half + 0.12, half - 0.12, low, high, end), _GLASS, 0.4)
            self.panel(_across(-half + 0.02, half - 0.02, foot, foot + 0.22, end), _DARK, 0.05)
        self.panel(_across(-0.26, 0.26, foot + 0.2, foot + 0.32, rear - 0.01), (0.85, 0.75, 0.25))
        self.panel(_across(-0.26, 0.26, foot + 0.06, foot + 0.18, front + 0.01), (0.88, 0.88, 0.86))
        self.panel(_across(-0.4, 0.4, front_lamp - 0.16, front_lamp - 0.04, front), _DARK)
        for side in (-1, 1):
            left, right = sorted((side * (half - 0.28), side * (half - 0.03)))
            lamp = _across(left, right, rear_lamp - 0.12, rear_lamp + 0.14, rear)
            self.panel(lamp, (0.85, 0.08, 0.06), is_lamp=True)
            lamp = _across(left, right, front_lamp - 0.12, front_lamp + 0.06, front)
            self.panel(lamp, (0.95, 0.95, 0.88), is_lamp=True)
            for start, stop, low, high in shape.windows:
                x = side * (half + 0.01)
                self.panel([(x, low, start), (x, low, stop), (x, high, stop), (x, high, start)], _GLASS, 0.5)

    def wheels(self, *, far: bool) -> None:
        """Paint the wheels on the side away from the camera, or on the near side."""
        vehicle, shape = self.vehicle, self.vehicle.shape
        radius, tyre = shape.wheel, self.weather.lit((0.06, 0.06, 0.065), (0.0, 0.0, -1.0))
        rim = self.weather.lit((0.5, 0.51, 0.52), (0.0, 0.0, -1.0))

        def shader(surface: Surface) -> Paint:
            square = surface.u * surface.u + surface.v * surface.v
            distance = np.sqrt(square)
            blur = surface.pixel_v + 0.01
            spokes = span(np.abs(surface.u * surface.v) / (square + 1e-6), 0.2, 1.0, 0.15)
            share = span(distance, -1.0, radius * 0.62, blur) * (1 - 0.6 * spokes)
            edge = limit((radius - distance) / blur + 0.5)
            return Paint(colour=mix(planar(tyre), planar(rim), share), opacity=edge)

        for side in (-1.0, 1.0):
            x = side * (shape.half_width[0] + 0.015)
            hub = [vehicle.place((x, radius, z)) for z in shape.wheels]
            outside = vehicle.place((2 * x, radius, 0.0))
            middle = vehicle.place((x, radius, 0.0))
            away = dot(subtract(self.camera.position, middle), subtract(outside, middle)) < 0
            for centre, z in zip(hub, shape.wheels, strict=True):
                if away:
                    if far:
                        self._tyre(x - side * 0.2, z, tyre)
                    continue
                if far:
                    self._tyre(x - side * 0.2, z, tyre)
                    continue
                self._arch(x, z)
                plane = Plane(
                    origin=centre, along=vehicle.place((x, radius, z + 1)), up=(centre[0], radius + 1, centre[2])
                )
                box = ((-radius, -radius), (radius, -radius), (radius, radius), (-radius, radius))
                paint_plane(self.canvas, self.camera, plane, box, shader, CAR)

    def _arch(self, x: float, z: float) -> None:
        """Paint the dark opening around a wheel."""
        size = self.vehicle.shape.wheel * 1.15
        shape = ((-1.0, 0.15), (-0.92, 1.1), (-0.5, 1.7), (0.0, 1.95), (0.5, 1.7), (0.92, 1.1), (1.0, 0.15))
        corners = [self.vehicle.place((x, y * size, z + across * size)) for across, y in shape]
        fill_polygon(self.canvas, self.camera, corners, (_DARK, _DARK), CAR)

    def _tyre(self, x: float, z: float, colour: Colour) -> None:
        """Paint a tyre's tread, visible under the end of the vehicle."""
        radius = self.vehicle.shape.wheel
        corners = [
            self.vehicle.place((x + dx, y, z))
            for dx, y in ((-0.1, 0.0), (0.1, 0.0), (0.1, radius * 1.4), (-0.1, radius * 1.4))
        ]
        fill_polygon(self.canvas, self.camera, corners, (colour, colour), CAR)


def _across(left: float, right: float, low: float, high: float, z: float) -> list[Vector]:
    """Return a rectangle across the vehicle, `z` metres ahead of its middle."""
    return [(left, low, z), (right, low, z), (right, high, z), (left, high, z)]


def _shrink(corners: Sequence[Vector], share: float) -> list[Vector]:
    """Shrink a polygon around its middle."""
    x = y = z = 0.0
    for corner in corners:
        x, y, z = x + corner[0] / len(corners), y + corner[1] / len(corners), z + corner[2] / len(corners)
    return [(x + (a - x) * share, y + (b - y) * share, z + (c - z) * share) for a, b, c in corners]
