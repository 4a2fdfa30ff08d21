"""Buildings of a street scene. See `drawing` for units and the rule that keeps drawings exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import Camera, Canvas, Vector, limit, noise, planar, scatter
from refinenet.datasets.street_scenes.facades import Facade, paint_wall, paint_windows
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Surface, fill_polygon, paint_plane
from refinenet.datasets.street_scenes.weather import BUILDING, Weather


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
    """Paint the sides of a block that the camera can see, and its roof."""
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
