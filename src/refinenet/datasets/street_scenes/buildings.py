"""Buildings of a street scene. See `canvas` for units and the rule that keeps drawings exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    Camera,
    Canvas,
    Colour,
    Dice,
    Floats,
    Vector,
    limit,
    mix,
    noise,
    planar,
    scatter,
    span,
)
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Surface, fill_polygon, paint_plane
from refinenet.datasets.street_scenes.weather import BUILDING, Weather

_WALLS: dict[str, tuple[Colour, ...]] = {
    "brick": ((0.5, 0.28, 0.2), (0.62, 0.42, 0.3), (0.66, 0.57, 0.42), (0.42, 0.25, 0.21), (0.58, 0.5, 0.4)),
    "plaster": (
        (0.88, 0.86, 0.8), (0.85, 0.78, 0.62), (0.8, 0.68, 0.55), (0.7, 0.76, 0.8), (0.82, 0.72, 0.7),
        (0.72, 0.78, 0.68), (0.92, 0.92, 0.92), (0.75, 0.55, 0.42),
    ),
    "stone": ((0.66, 0.62, 0.54), (0.55, 0.53, 0.49), (0.72, 0.68, 0.58), (0.45, 0.42, 0.38)),
    "concrete": ((0.6, 0.6, 0.58), (0.5, 0.51, 0.52), (0.68, 0.67, 0.64)),
    "glass": ((0.3, 0.36, 0.4), (0.42, 0.45, 0.47), (0.25, 0.27, 0.3)),
}  # fmt: skip
_TRIMS: tuple[Colour, ...] = (
    (0.9, 0.9, 0.88),
    (0.8, 0.78, 0.72),
    (0.3, 0.27, 0.25),
    (0.16, 0.2, 0.17),
    (0.55, 0.5, 0.45),
)
_ROOFS: tuple[Colour, ...] = (
    (0.3, 0.3, 0.33),
    (0.45, 0.26, 0.2),
    (0.38, 0.33, 0.3),
    (0.22, 0.23, 0.26),
    (0.52, 0.36, 0.28),
)
_SHOPS: tuple[Colour, ...] = (
    (0.7, 0.12, 0.12), (0.1, 0.3, 0.6), (0.1, 0.4, 0.25), (0.12, 0.12, 0.14), (0.9, 0.88, 0.84), (0.85, 0.55, 0.1),
    (0.4, 0.15, 0.4), (0.2, 0.5, 0.55), (0.85, 0.75, 0.2), (0.35, 0.22, 0.15),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Facade:
    """The facade of a building, in metres and colours before lighting."""

    material: str
    wall: Colour
    trim: Colour
    glass: Colour
    roof: Colour
    shop: Colour
    storey: float
    bay: float
    """Width of the part of the wall that has one window."""
    window: tuple[float, float, float, float]
    """A window within its bay and storey: left, right, bottom, top, as shares."""
    foot: float
    """Height of the ground floor."""
    is_shop: bool
    frame: float
    panes: int
    texture: int


def draw_facade(dice: Dice, modern: bool) -> Facade:
    """Draw a random facade: an old one of brick, plaster or stone, or a modern one."""
    material = dice.pick(
        ("concrete", "glass", "plaster", "brick") if modern else ("brick", "brick", "plaster", "plaster", "stone")
    )
    wide = dice.uniform(0.7, 0.96) if modern else dice.uniform(0.3, 0.52)
    tall = dice.uniform(0.45, 0.85) if material == "glass" else dice.uniform(0.42, 0.62)
    foot = dice.uniform(0.18, 0.3)
    dark = dice.uniform(0.05, 0.22)
    return Facade(
        material=material,
        wall=dice.vary(dice.pick(_WALLS[material]), 0.15),
        trim=dice.vary(dice.pick(_TRIMS), 0.1),
        glass=(dark, dark * 1.08, dark * 1.15),
        roof=dice.vary(dice.pick(_ROOFS), 0.15),
        shop=dice.vary(dice.pick(_SHOPS), 0.15),
        storey=dice.uniform(2.7, 3.4),
        bay=dice.uniform(2.4, 4.5) if modern else dice.uniform(1.9, 3.0),
        window=(0.5 - wide / 2, 0.5 + wide / 2, foot, min(foot + tall, 0.95)),
        foot=dice.uniform(3.2, 4.2),
        is_shop=dice.chance(0.5),
        frame=dice.uniform(0.04, 0.12),
        panes=dice.whole(1, 3),
        texture=dice.whole(0, 10_000),
    )


def paint_wall(facade: Facade, surface: Surface, height: float) -> Floats:
    """Return the colours of the bare wall, `(3, N)`."""
    u, v, shift = surface.u, surface.v, facade.texture * 0.013
    stains = noise(u * 0.05 + shift, v * 0.03 + shift, smooth=True) - 0.5
    grain = noise(u * 0.4 + shift, v * 0.4) - 0.5
    fade = 8.0 / (8.0 + surface.depth)
    tone = 1 + 0.3 * stains + 0.25 * grain * fade
    tone = tone * (0.78 + 0.22 * limit(v / 1.2)) * (0.86 + 0.14 * limit((height - v) / 0.4))
    if facade.material in ("brick", "stone"):
        course, size = (0.09, 0.26) if facade.material == "brick" else (0.4, 0.8)
        row = np.floor(v / course)
        column = np.floor(u / size + (row - 2 * np.floor(row / 2)) * 0.5)
        visible = limit(course / surface.pixel_v - 0.8) * 0.9
        bricks = scatter(row.astype(np.int64), column.astype(np.int64), facade.texture) - 0.5
        mortar = span(v / course - row, 0.0, 0.14, surface.pixel_v / course)
        tone = tone * (1 + visible * (0.35 * bricks + 0.25 * mortar))
    if facade.material == "concrete":
        panel = v / facade.storey
        seam = span((panel - np.floor(panel)) * facade.storey, 0.0, 0.06, surface.pixel_v)
        tone = tone * (1 - 0.3 * seam)
    return planar(facade.wall) * tone


def paint_windows(
    facade: Facade, colour: Floats, surface: Surface, length: float, height: float, sky: Floats
) -> Floats:
    """Return the colours of the wall with windows, ledges and ground floor, `(3, N)`."""
    bays = max(1, int(length / facade.bay))
    bay = length / bays
    column = np.floor(surface.u / bay)
    storeys = max(1, int((height - facade.foot - 0.3) / facade.storey))
    storey = (height - facade.foot - 0.4) / storeys
    upper = surface.v > facade.foot
    row = np.floor((surface.v - facade.foot) / storey)
    across = surface.u - column * bay
    rise = surface.v - facade.foot - row * storey
    left, right, low, high = facade.window
    colour = _opening(
        facade, colour, surface, (across, rise), (left * bay, right * bay, low * storey, high * storey),
        (column, row), (upper & (row < storeys)).astype(np.float64), sky,
    )  # fmt: skip
    ledge = span(surface.v, height - 0.35, height, surface.pixel_v)
    ledge = np.maximum(ledge, span(surface.v, facade.foot - 0.12, facade.foot + 0.06, surface.pixel_v) * 0.7)
    colour = mix(colour, planar(facade.trim) * 0.9, ledge * 0.8)
    return _ground_floor(facade, colour, surface, (across, column), bay, sky)


def _opening(
    facade: Facade,
    colour: Floats,
    surface: Surface,
    place: tuple[Floats, Floats],
    box: tuple[float, float, float, float],
    cell: tuple[Floats, Floats],
    where: Floats,
    sky: Floats,
) -> Floats:
    """Add windows in a grid of cells: frame, panes, glass mirroring the sky, curtains, sill and lintel's shadow."""
    (across, rise), (left, right, low, high) = place, box
    blur_u, blur_v = surface.pixel_u, surface.pixel_v
    luck = scatter(cell[0].astype(np.int64), cell[1].astype(np.int64), facade.texture)
    inside = span(across, left, right, blur_u)
    frame = facade.frame
    outer = inside * span(rise, low, high, blur_v) * where
    inner = span(across, left + frame, right - frame, blur_u) * span(rise, low + frame, high - frame, blur_v) * where
    bars = np.zeros_like(across)
    for bar in range(1, facade.panes):
        middle = left + (right - left) * bar / facade.panes
        bars = np.maximum(bars, span(across, middle - frame / 3, middle + frame / 3, blur_u))
    inner = inner * (1 - bars)
    slope = limit((rise - low) / (high - low))
    mirror = limit(luck * 1.3 - 0.4) * (0.3 + 0.6 * slope) + 0.12 * slope
    glass = mix(planar(facade.glass), sky, mirror)
    curtain = (luck * 7 - np.floor(luck * 7) > 0.65) * limit(slope * 8 - 2 - luck * 4)
    glass = mix(glass, planar(facade.trim) * 0.75, curtain * 0.6)
    glass = glass * (1 - 0.55 * span(rise, high - 0.3, high, blur_v + 0.1))
    sill = span(across, left - 0.06, right + 0.06, blur_u) * span(rise, low - 0.13, low, blur_v) * where
    colour = mix(colour, planar(facade.trim), np.maximum(outer, sill))
    return mix(colour, glass, inner)


def _ground_floor(
    facade: Facade, colour: Floats, surface: Surface, cell: tuple[Floats, Floats], bay: float, sky: Floats
) -> Floats:
    """Add shop windows under a name board, or a row of doors and windows."""
    (across, column), v, zero = cell, surface.v, np.zeros_like(surface.v)
    below = (v < facade.foot).astype(np.float64)
    if not facade.is_shop:
        luck = scatter(column.astype(np.int64), column.astype(np.int64), facade.texture + 1)
        door = (luck > 0.6).astype(np.float64)
        box = (facade.window[0] * bay, facade.window[1] * bay, 0.95, facade.foot - 0.75)
        colour = _opening(facade, colour, surface, (across, v), box, (column, zero - 1), below * (1 - door), sky)
        leaf = span(across, bay / 2 - 0.5, bay / 2 + 0.5, surface.pixel_u) * span(v, -1.0, 2.15, surface.pixel_v)
        surround = span(across, bay / 2 - 0.65, bay / 2 + 0.65, surface.pixel_u) * span(v, -1.0, 2.4, surface.pixel_v)
        colour = mix(colour, planar(facade.trim), surround * door)
        return mix(colour, planar(facade.shop) * 0.7, leaf * door)
    box = (0.08, bay - 0.08, 0.45, facade.foot - 0.95)
    colour = mix(colour, planar(facade.shop) * 0.75, below * 0.9)
    colour = _opening(facade, colour, surface, (across, v), box, (column, zero - 1), below, sky)
    goods = (noise(surface.u * 0.3 + 0.1, v * 0.5) > 0.62) * span(v, 0.5, 1.5, 0.1)
    inside = span(across, 0.15, bay - 0.15, surface.pixel_u) * below
    colour = mix(colour, planar((0.75, 0.6, 0.45)), goods * inside * 0.5)
    board = span(v, facade.foot - 0.9, facade.foot - 0.15, surface.pixel_v)
    colour = mix(colour, planar(facade.shop), board)
    letter = np.floor(surface.u / 0.22)
    stroke = scatter(np.floor(surface.u / 0.07).astype(np.int64), np.floor(v / 0.12).astype(np.int64), facade.texture)
    text = span(v, facade.foot - 0.7, facade.foot - 0.35, surface.pixel_v) * (stroke > 0.45)
    text = text * (scatter(letter.astype(np.int64), (zero).astype(np.int64), facade.texture + 2) > 0.35)
    text = text * limit(0.2 / surface.pixel_u)
    bright = 0.9 if facade.shop[0] + facade.shop[1] + facade.shop[2] < 1.6 else 0.12
    return mix(colour, planar((bright, bright, bright)), text * 0.85)


@dataclass(frozen=True, kw_only=True)
class Building:
    """A block: extent along x and z, height of the wall and of the roof over it, in metres."""

    x: tuple[float, float]
    z: tuple[float, float]
    height: float
    rise: float
    facade: Facade
    blank_sides: bool


def paint_building(canvas: Canvas, camera: Camera, building: Building, weather: Weather) -> None:
    """Paint the visible sides of a block, and its roof."""
    (left, right), (near, far) = building.x, building.z
    seen_from = camera.position[0]
    _paint_roof(canvas, camera, building, weather)
    if camera.position[2] < near - 0.5:
        _paint_face(canvas, camera, building, weather, ((left, 0.0, near), (right, 0.0, near)), (0.0, 0.0, -1.0))
    if left > seen_from:
        _paint_face(canvas, camera, building, weather, ((left, 0.0, near), (left, 0.0, far)), (-1.0, 0.0, 0.0))
    elif right < seen_from:
        _paint_face(canvas, camera, building, weather, ((right, 0.0, near), (right, 0.0, far)), (1.0, 0.0, 0.0))


def _paint_face(
    canvas: Canvas,
    camera: Camera,
    building: Building,
    weather: Weather,
    foot: tuple[Vector, Vector],
    normal: Vector,
) -> None:
    """Paint one wall, over the line between two points on the ground."""
    start, end = foot
    length = abs(end[0] - start[0]) + abs(end[2] - start[2])
    facade, height = building.facade, building.height
    light = planar(weather.light(normal))
    sky = planar(weather.horizon)
    blank = building.blank_sides and normal[2] != 0.0

    def shader(surface: Surface) -> Paint:
        colour = paint_wall(facade, surface, height)
        if not blank:
            colour = paint_windows(facade, colour, surface, length, height, sky)
        return Paint(colour=limit(colour * light))

    plane = Plane(origin=start, along=end, up=(start[0], 1.0, start[2]))
    outline = [(0.0, 0.0), (length, 0.0), (length, height), (0.0, height)]
    if normal[2] != 0.0 and building.rise > 0:
        outline.insert(3, (length / 2, height + building.rise))
    paint_plane(canvas, camera, plane, outline, shader, BUILDING)


def _paint_roof(canvas: Canvas, camera: Camera, building: Building, weather: Weather) -> None:
    """Paint the slope towards the camera, and a chimney; flat roofs cannot be seen from the street."""
    if building.rise <= 0:
        return
    (left, right), (near, far), height = building.x, building.z, building.height
    ridge = ((left + right) / 2, height + building.rise)
    eaves = left if ridge[0] > camera.position[0] else right
    normal = (-0.6 if eaves == left else 0.6, 0.8, 0.0)
    light = planar(weather.light(normal))
    facade = building.facade

    def shader(surface: Surface) -> Paint:
        row = np.floor(surface.v / 0.3)
        tiles = scatter(row.astype(np.int64), np.floor(surface.u / 0.25).astype(np.int64), facade.texture) - 0.5
        moss = noise(surface.u * 0.06, surface.v * 0.06 + facade.texture * 0.01, smooth=True) - 0.5
        shade = 1 + 0.4 * moss + 0.3 * tiles * limit(0.3 / surface.pixel_v - 0.7)
        return Paint(colour=limit(planar(facade.roof) * shade * light))

    run = abs(ridge[0] - eaves)
    slope = math.sqrt(run * run + building.rise * building.rise)
    plane = Plane(origin=(eaves, height, near), along=(eaves, height, far), up=(ridge[0], ridge[1], near))
    length = far - near
    for z in (near + 0.6, far - 1.4):
        _paint_chimney(canvas, camera, (ridge[0], ridge[1] - 0.3, z), facade, weather)
    paint_plane(canvas, camera, plane, ((0, 0), (length, 0), (length, slope), (0, slope)), shader, BUILDING)


def _paint_chimney(canvas: Canvas, camera: Camera, foot: Vector, facade: Facade, weather: Weather) -> None:
    """Paint a chimney as a block of two faces."""
    x, y, z = foot
    if z < 1:
        return
    side = -0.35 if x > camera.position[0] else 0.35
    front = ((x - 0.35, y, z), (x + 0.35, y, z), (x + 0.35, y + 1.5, z), (x - 0.35, y + 1.5, z))
    flank = ((x + side, y, z), (x + side, y, z + 0.9), (x + side, y + 1.5, z + 0.9), (x + side, y + 1.5, z))
    for corners, normal in ((flank, (-1.0 if side < 0 else 1.0, 0.0, 0.0)), (front, (0.0, 0.0, -1.0))):
        colour = weather.lit(facade.wall, normal)
        fill_polygon(canvas, camera, corners, (colour, colour), BUILDING)
