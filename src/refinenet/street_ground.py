"""Light, sky and ground of a street scene. See `drawing` for units and the rule that keeps drawings exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refinenet.drawing import (
    Camera,
    Canvas,
    Colour,
    Dice,
    Floats,
    Haze,
    Labels,
    Vector,
    dot,
    fragments,
    limit,
    mix,
    noise,
    planar,
    span,
    unit,
)
from refinenet.drawing_shapes import Paint, Plane, Surface, paint_plane

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

MARKING = (0.86, 0.86, 0.82)
YELLOW = (0.82, 0.66, 0.2)


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Light and air of a scene."""

    sun: Vector
    """Unit vector towards the sun."""
    sunlight: Colour
    """What a face turned to the sun gets on top of the ambient light."""
    ambient: Colour
    """What every face gets."""
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    """How much of the sky is clouded, 0 to 1."""
    haze: Haze

    def light(self, normal: Vector) -> Colour:
        """The light on a face that looks along `normal` (a unit vector)."""
        direct = max(0.0, dot(normal, self.sun))
        around = 0.8 + 0.2 * normal[1]
        red, green, blue = (a * around + s * direct for a, s in zip(self.ambient, self.sunlight, strict=True))
        return red, green, blue

    def lit(self, colour: Colour, normal: Vector) -> Colour:
        """A surface's colour in this light."""
        red, green, blue = (c * part for c, part in zip(colour, self.light(normal), strict=True))
        return red, green, blue


@dataclass(frozen=True, kw_only=True)
class _Climate:
    """A kind of weather: colours, how far each may vary, and ranges from which the rest is drawn."""

    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: tuple[float, float]
    sunlight: tuple[float, float]
    sun_tint: Colour
    ambient: tuple[float, float]
    sun_height: tuple[float, float]
    visibility: tuple[float, float]


_CLIMATES = (
    _Climate(  # clear day
        zenith=(0.27, 0.46, 0.78), horizon=(0.74, 0.83, 0.92), cloud=(0.97, 0.97, 0.98), cover=(0.25, 0.55),
        sunlight=(0.7, 1.0), sun_tint=(1.0, 0.95, 0.86), ambient=(0.42, 0.58), sun_height=(0.35, 1.2),
        visibility=(350, 900),
    ),
    _Climate(  # white, overexposed sky
        zenith=(0.95, 0.96, 0.97), horizon=(1.0, 1.0, 1.0), cloud=(1.0, 1.0, 1.0), cover=(0.3, 0.7),
        sunlight=(0.25, 0.75), sun_tint=(1.0, 0.97, 0.92), ambient=(0.5, 0.72), sun_height=(0.4, 1.3),
        visibility=(200, 600),
    ),
    _Climate(  # grey and cloudy
        zenith=(0.5, 0.54, 0.6), horizon=(0.74, 0.76, 0.78), cloud=(0.84, 0.85, 0.86), cover=(0.5, 0.8),
        sunlight=(0.0, 0.15), sun_tint=(1.0, 1.0, 1.0), ambient=(0.55, 0.85), sun_height=(0.6, 1.5),
        visibility=(150, 500),
    ),
    _Climate(  # dusk
        zenith=(0.3, 0.37, 0.46), horizon=(0.62, 0.63, 0.6), cloud=(0.56, 0.58, 0.6), cover=(0.4, 0.75),
        sunlight=(0.0, 0.08), sun_tint=(1.0, 0.85, 0.7), ambient=(0.2, 0.38), sun_height=(0.2, 0.5),
        visibility=(250, 700),
    ),
    _Climate(  # low, warm sun
        zenith=(0.42, 0.52, 0.7), horizon=(0.98, 0.86, 0.68), cloud=(0.98, 0.84, 0.72), cover=(0.3, 0.6),
        sunlight=(0.7, 1.05), sun_tint=(1.0, 0.82, 0.58), ambient=(0.34, 0.48), sun_height=(0.25, 0.5),
        visibility=(180, 500),
    ),
    _Climate(  # mist
        zenith=(0.76, 0.78, 0.8), horizon=(0.84, 0.85, 0.86), cloud=(0.85, 0.86, 0.87), cover=(0.5, 0.9),
        sunlight=(0.0, 0.1), sun_tint=(1.0, 1.0, 1.0), ambient=(0.6, 0.8), sun_height=(0.6, 1.5),
        visibility=(60, 130),
    ),
)  # fmt: skip


def draw_weather(dice: Dice) -> Weather:
    """Weather at random: clear, white, cloudy, dusk, low sun or mist."""
    climate = _CLIMATES[dice.pick((0, 0, 1, 1, 1, 2, 2, 3, 4, 5))]
    sun = unit((dice.uniform(-1, 1), dice.uniform(*climate.sun_height), dice.uniform(-1, 0.8)))
    strength, around = dice.uniform(*climate.sunlight), dice.uniform(*climate.ambient)
    tint = climate.sun_tint
    horizon = dice.vary(climate.horizon, 0.06)
    return Weather(
        sun=sun,
        sunlight=(strength * tint[0], strength * tint[1], strength * tint[2]),
        ambient=dice.vary((around * 0.97, around, around * 1.05), 0.04),
        zenith=dice.vary(climate.zenith, 0.12),
        horizon=horizon,
        cloud=dice.vary(climate.cloud, 0.04),
        cover=dice.uniform(*climate.cover),
        haze=Haze(colour=horizon, distance=dice.uniform(*climate.visibility)),
    )


def paint_sky(canvas: Canvas, camera: Camera, weather: Weather, shift: float) -> None:
    """Paint the sky down to just below the horizon; `shift` (0 to 1) moves the clouds."""
    right, up, ahead = camera.axes
    edge = max(canvas.width - camera.centre[0], camera.centre[0]) / camera.focal
    lowest = (abs(right[1]) * edge - ahead[1]) / up[1]
    bottom = camera.centre[1] + camera.focal * (lowest + 0.03) + 1
    for pixels in fragments(canvas, (0, 0, canvas.width, bottom), lambda x, y: np.ones((y.size, x.size))):
        x = (pixels.x - camera.centre[0]) / camera.focal
        y = (camera.centre[1] - pixels.y) / camera.focal
        across = x * right[0] + y * up[0] + ahead[0]
        rise = np.maximum(x * right[1] + y * up[1] + ahead[1], 0.0)
        forward = x * right[2] + y * up[2] + ahead[2]
        length = np.sqrt(across * across + rise * rise + forward * forward)
        height = limit(rise / length * 1.8)
        colour = mix(planar(weather.horizon), planar(weather.zenith), np.sqrt(height))
        cloud_u, cloud_v = across / (rise + 0.16) * 0.11 + shift, forward / (rise + 0.16) * 0.11 + shift * 0.7
        thickness = noise(cloud_u, cloud_v, smooth=True) + weather.cover - 1.0
        lining = noise(cloud_u + weather.sun[0] * 0.02, cloud_v + weather.sun[2] * 0.02, smooth=True)
        share = limit(thickness * 3.5) * limit(height * 6 + 0.25)
        shade = 1.0 - limit(thickness * 0.9) * 0.55 * lining
        colour = mix(colour, planar(weather.cloud) * shade, share * 0.9)
        facing = np.maximum((across * weather.sun[0] + rise * weather.sun[1] + forward * weather.sun[2]) / length, 0.0)
        facing = facing * facing
        facing = facing * facing * facing
        glow = planar(weather.sunlight) * (facing * facing * 0.35)
        canvas.blend(pixels, limit(colour + glow), 0.0, SKY)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A rectangle painted or mended on the road; metres."""

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
    """What lies on the ground, in metres from the middle of the road, left before right."""

    road: float
    """Half the road's width."""
    pavement: tuple[float, float]
    beyond: tuple[int, int]
    """What comes after the pavement: the class PAVEMENT (paved) or TREE (grass)."""
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
    """Height of what stands beside the street, every 2 metres from -20 ahead."""
    walls: tuple[float, float]
    """Distance of that from the middle."""
    bend: float
    texture: float
    """Where in the noise the ground's texture begins."""


def paint_ground(canvas: Canvas, camera: Camera, ground: Ground, weather: Weather) -> None:
    """Paint road, pavement and what lies beyond, up to the horizon."""
    light = planar(weather.light((0.0, 1.0, 0.0)))
    dark = planar(weather.ambient)

    def shader(surface: Surface) -> Paint:
        x, z = surface.u - ground.bend * surface.v * surface.v, surface.v
        colour, label = _material(ground, x, z, surface)
        shaded = _shadow(ground, weather.sun, x, z)
        return Paint(colour=limit(colour * mix(light, dark, shaded)), label=label)

    plane = Plane(origin=(0.0, 0.0, 0.0), along=(1.0, 0.0, 0.0), up=(0.0, 0.0, 1.0))
    far, wide = 1800.0, 1800.0
    outline = ((-wide, -20.0), (wide, -20.0), (wide, far), (-wide, far))
    paint_plane(canvas, camera.straight(), plane, outline, shader, ROAD)


def _material(ground: Ground, x: Floats, z: Floats, surface: Surface) -> tuple[Floats, Labels]:
    """Colours `(3, N)` and labels `(N,)` before light."""
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
    """Where slabs meet, 0 to 1."""
    row = np.floor(z / size)
    offset = across / size + (row - 2 * np.floor(row / 2)) * 0.5
    width = 0.015
    blur_u, blur_v = surface.pixel_u, surface.pixel_v
    lines = span((offset - np.floor(offset)) * size, 0.0, width, blur_u) * limit(size / (blur_u * 3) - 0.5)
    rows = span((z / size - row) * size, 0.0, width, blur_v) * limit(size / (blur_v * 3) - 0.5)
    return np.maximum(lines, rows)


def _road_colour(ground: Ground, x: Floats, z: Floats, surface: Surface) -> Floats:
    """Asphalt with tracks, mended places and markings, `(3, N)`."""
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
    """How much of the sun the buildings on its side hide from the ground, 0 to 1."""
    side = 1 if sun[0] > 0 else 0
    wall = ground.walls[side] * (1 if side else -1)
    slope = max(abs(sun[0]), 0.02)
    distance = np.maximum((wall - x) * (1 if side else -1), 0.0)
    height = distance * (sun[1] / slope)
    roofs = np.array(ground.roofs[side])
    place = limit((z + distance * (sun[2] / slope) + 20.0) / 2.0, 0.0, len(roofs) - 1.0).astype(np.int64)
    return limit((roofs[place] - height) / 0.5 + 0.5)


def paint_shadow(
    canvas: Canvas,
    camera: Camera,
    centre: tuple[float, float],
    size: tuple[float, float],
    softness: float,
    depth: float,
) -> None:
    """Darken the ground under something.

    Args:
        canvas: what is painted on.
        camera: what it is seen through.
        centre: x and z in metres.
        size: half the extent along x and z, metres.
        softness: how far the edge fades out, metres.
        depth: how dark it is in the middle, 0 to 1.
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


def develop(canvas: Canvas, dice: Dice) -> Floats:
    """The picture as a camera would give it, `(3, H, W)` from 0 to 1: softened, toned, vignetted, with noise."""
    softness, gain = dice.uniform(0.12, 0.24), dice.uniform(0.9, 1.15)
    contrast, vignette = dice.uniform(0.0, 0.7), dice.uniform(0.0, 0.25)
    grain, tint = dice.uniform(0.008, 0.03), dice.vary((1.0, 1.0, 1.0), 0.05)
    picture = canvas.colours.reshape(3, canvas.height, canvas.width)
    y = (np.arange(canvas.height) + 0.5)[:, None] / canvas.height - 0.5
    x = (np.arange(canvas.width) + 0.5)[None, :] / canvas.width - 0.5
    fall = (1 - vignette * (x * x + y * y) * 2) * gain
    speckle = dice.numbers(canvas.height * canvas.width).reshape(canvas.height, canvas.width) - 0.5
    for channel in range(3):
        plane = picture[channel]
        plane = _soften(_soften(plane, softness).T, softness).T
        plane = limit(plane * fall * tint[channel])
        plane = plane + contrast * (plane - 0.5) * plane * (1 - plane)
        picture[channel] = limit(plane + speckle * grain * (2 + channel * 0.5))
    return picture


def _soften(plane: Floats, share: float) -> Floats:
    """Each row mixed with its neighbours, which get `share` each."""
    above, below = np.concatenate([plane[:1], plane[:-1]]), np.concatenate([plane[1:], plane[-1:]])
    return plane * (1 - 2 * share) + (above + below) * share
