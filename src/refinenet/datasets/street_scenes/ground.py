"""The ground of a street scene: road, pavement, grass and shadows. See `canvas` for units and the rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    Camera,
    Canvas,
    Colour,
    Floats,
    Labels,
    Vector,
    limit,
    mix,
    noise,
    planar,
    span,
)
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Surface, paint_plane
from refinenet.datasets.street_scenes.weather import PAVEMENT, ROAD, TREE, Weather

MARKING = (0.86, 0.86, 0.82)
YELLOW = (0.82, 0.66, 0.2)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A painted or repaired rectangle on the road; metres."""

    x: tuple[float, float]
    z: tuple[float, float]
    colour: Colour
    strength: float


@dataclass(frozen=True, kw_only=True)
class SideStreet:
    """A street that leaves to the left (side -1) or right (1) between two distances, in metres."""

    side: int
    near: float
    far: float


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The ground, in metres from the middle of the road, left before right."""

    road: float
    """Half the road's width."""
    pavement: tuple[float, float]
    beyond: tuple[int, int]
    """The class beyond the pavement: PAVEMENT (paved) or TREE (grass)."""
    asphalt: Colour
    slabs: Colour
    grass: Colour
    slab: float
    """A slab's size."""
    kerb: Colour
    dashes: tuple[float, float, float]
    """The middle line: length of a dash, length of a gap (0 for a continuous line), half its width."""
    edge_lines: tuple[float, Colour, int]
    """Lines along the kerb: distance from it, colour, how many (0 to 2)."""
    patches: tuple[Patch, ...]
    streets: tuple[SideStreet, ...]
    roofs: tuple[tuple[float, ...], tuple[float, ...]]
    """Height of the buildings beside the street, every 2 metres starting at z = -20."""
    walls: tuple[float, float]
    """Distance of the buildings from the middle."""
    bend: float
    texture: float
    """Offset of the ground's texture in the noise."""


def paint_ground(canvas: Canvas, camera: Camera, ground: Ground, weather: Weather) -> None:
    """Paint road, pavement and the ground beyond, up to the horizon."""
    light = planar(weather.light((0.0, 1.0, 0.0)))
    dark = planar(weather.ambient)

    def shader(surface: Surface) -> Paint:
        x, z = surface.u - ground.bend * surface.v * surface.v, surface.v
        colour, label = _material(ground, x, z, surface)
        shaded = _shadow(ground, weather.sun, x, z) if weather.sunlight[0] > 0.1 else 1.0
        return Paint(colour=limit(colour * mix(light, dark, shaded)), label=label)

    plane = Plane(origin=(0.0, 0.0, 0.0), along=(1.0, 0.0, 0.0), up=(0.0, 0.0, 1.0))
    far, wide = 1800.0, 1800.0
    outline = ((-wide, -20.0), (wide, -20.0), (wide, far), (-wide, far))
    paint_plane(canvas, camera.straight(), plane, outline, shader, ROAD)


def _material(ground: Ground, x: Floats, z: Floats, surface: Surface) -> tuple[Floats, Labels]:
    """Return colours `(3, N)` and labels `(N,)` before lighting."""
    right = x >= 0
    away = np.abs(x) - ground.road
    width = np.where(right, ground.pavement[1], ground.pavement[0])
    crossing = np.zeros(x.shape, np.bool_)
    for street in ground.streets:
        crossing |= (z > street.near) & (z < street.far) & (right if street.side > 0 else ~right)
    fade = 6.0 / (6.0 + surface.depth)
    grain = noise(x * 0.31 + ground.texture, z * 0.31) - 0.5
    stains = noise(x * 0.045, z * 0.017 + ground.texture, smooth=True) - 0.5
    tone = 1.0 + grain * 0.45 * fade + stains * 0.35
    label = np.full(x.shape, ROAD, np.uint8)
    colour = _road_colour(ground, x, z, surface) * tone
    on_pavement = (away > 0) & (away <= width) & ~crossing
    label[on_pavement] = PAVEMENT
    slabs = planar(ground.slabs) * (tone - _joints(ground.slab, away, z, surface) * 0.25)
    kerb = span(away, 0.0, 0.16, surface.pixel_u)
    slabs = mix(slabs, planar(ground.kerb) * tone, kerb)
    colour = np.where(on_pavement, slabs, colour)
    gutter = span(away, -0.14, 0.0, surface.pixel_u) * ~crossing
    colour = colour * (1 - 0.45 * gutter)
    yard = (away > width) & ~crossing
    kind = np.where(right, ground.beyond[1], ground.beyond[0])
    label[yard] = kind[yard]
    blades = noise(x * 0.9 + ground.texture, z * 0.9) - 0.5
    grass = planar(ground.grass) * (1.0 + blades * fade + stains * 0.7)
    return np.where(yard, np.where(kind == TREE, grass, slabs * 0.92), colour), label


def _joints(size: float, across: Floats, z: Floats, surface: Surface) -> Floats:
    """Return the joints between slabs, 0 to 1."""
    row = np.floor(z / size)
    offset = across / size + (row - 2 * np.floor(row / 2)) * 0.5
    width = 0.015
    blur_u, blur_v = surface.pixel_u, surface.pixel_v
    lines = span((offset - np.floor(offset)) * size, 0.0, width, blur_u) * limit(size / (blur_u * 3) - 0.5)
    rows = span((z / size - row) * size, 0.0, width, blur_v) * limit(size / (blur_v * 3) - 0.5)
    return np.maximum(lines, rows)


def _road_colour(ground: Ground, x: Floats, z: Floats, surface: Surface) -> Floats:
    """Return the colours of asphalt with tracks, repairs and markings, `(3, N)`."""
    lane = np.abs(np.abs(x) - ground.road * 0.5)
    tracks = span(lane, 0.45, 1.05, 0.5)
    worn = noise(x * 0.2, z * 0.2 + ground.texture)
    cracks = span(noise(x * 0.08 + ground.texture, z * 0.05, smooth=True), 0.492, 0.508, 0.012) * (worn > 0.45)
    colour = planar(ground.asphalt) * (1 + 0.07 * tracks - 0.3 * cracks * 5 / (5 + surface.depth))
    for patch in ground.patches:
        inside = span(x, *patch.x, surface.pixel_u) * span(z, *patch.z, surface.pixel_v)
        colour = mix(colour, planar(patch.colour), inside * patch.strength * (0.65 + 0.35 * (worn > 0.3)))
    dash, gap, half = ground.dashes
    position = z / (dash + gap)
    on = span((position - np.floor(position)) * (dash + gap), 0.0, dash, surface.pixel_v) if gap > 0 else 1.0
    paint = span(x, -half, half, surface.pixel_u) * on
    colour = mix(colour, planar(MARKING), paint * (0.5 + 0.45 * worn))
    distance, tint, count = ground.edge_lines
    for line in range(count):
        start = ground.road - distance - 0.2 * line
        paint = span(np.abs(x), start - 0.1, start, surface.pixel_u)
        colour = mix(colour, planar(tint), paint * (0.4 + 0.5 * worn))
    return colour


def _shadow(ground: Ground, sun: Vector, x: Floats, z: Floats) -> Floats:
    """Return how much of the sun the buildings on its side hide from the ground, 0 to 1."""
    side = 1 if sun[0] > 0 else 0
    wall = ground.walls[side] * (1 if side else -1)
    slope = max(abs(sun[0]), 0.02)
    distance = np.maximum((wall - x) * (1 if side else -1), 0.0)
    height = distance * (sun[1] / slope)  # of the ray towards the sun where it reaches the wall
    roofs = np.array(ground.roofs[side])
    place = limit((z + distance * (sun[2] / slope) + 20.0) / 2.0, 0.0, len(roofs) - 1.001)
    floor = np.floor(place)
    index = floor.astype(np.int64)
    roof = mix(roofs.take(index), roofs.take(index + 1), place - floor)
    return limit((roof - height) / (0.3 + 0.06 * distance) + 0.5)


def paint_shadow(
    canvas: Canvas,
    camera: Camera,
    centre: tuple[float, float],
    size: tuple[float, float],
    softness: float,
    depth: float,
) -> None:
    """Darken the ground under an object.

    Args:
        canvas: The canvas to paint on.
        camera: The camera.
        centre: x and z in metres.
        size: Half the extent along x and z, metres.
        softness: Width of the fading edge, metres.
        depth: Darkness in the middle, 0 to 1.
    """

    def shader(surface: Surface) -> Paint:
        across = np.maximum(np.abs(surface.u) - size[0], 0.0)
        along = np.maximum(np.abs(surface.v) - size[1], 0.0)
        share = limit(1 - np.sqrt(across * across + along * along) / softness)
        return Paint(colour=np.zeros((3, 1)), opacity=share * share * depth)

    x, z = centre
    wide, long = size[0] + softness, size[1] + softness
    plane = Plane(origin=(x, 0.0, z), along=(x + 1.0, 0.0, z), up=(x, 0.0, z + 1.0))
    paint_plane(canvas, camera, plane, ((-wide, -long), (wide, -long), (wide, long), (-wide, long)), shader, None)
