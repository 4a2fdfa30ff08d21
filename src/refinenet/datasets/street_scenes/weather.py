"""Light, sky and lens of a street scene. See `canvas` for units and the rule that keeps drawings exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    Camera,
    Canvas,
    Colour,
    Dice,
    Floats,
    Haze,
    Vector,
    dot,
    fragments,
    limit,
    mix,
    noise,
    planar,
    unit,
)

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Light and air of a scene."""

    sun: Vector
    """Unit vector towards the sun."""
    sunlight: Colour
    """Light of the sun on a face turned towards it, in addition to the ambient light."""
    ambient: Colour
    """Ambient light on every face."""
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    """Cloud cover, 0 to 1."""
    haze: Haze

    def light(self, normal: Vector) -> Colour:
        """Return the light on a face with this unit normal."""
        direct = max(0.0, dot(normal, self.sun))
        around = 0.8 + 0.2 * normal[1]
        red, green, blue = (a * around + s * direct for a, s in zip(self.ambient, self.sunlight, strict=True))
        return red, green, blue

    def lit(self, colour: Colour, normal: Vector) -> Colour:
        """Return a surface's colour in this light."""
        red, green, blue = (c * part for c, part in zip(colour, self.light(normal), strict=True))
        return red, green, blue


@dataclass(frozen=True, kw_only=True)
class _Climate:
    """A kind of weather: colours, their variation, and ranges of the other parameters."""

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
        zenith=(0.58, 0.62, 0.67), horizon=(0.84, 0.85, 0.86), cloud=(0.92, 0.93, 0.94), cover=(0.5, 0.8),
        sunlight=(0.0, 0.15), sun_tint=(1.0, 1.0, 1.0), ambient=(0.55, 0.82), sun_height=(0.6, 1.5),
        visibility=(150, 500),
    ),
    _Climate(  # dusk
        zenith=(0.3, 0.37, 0.46), horizon=(0.62, 0.63, 0.6), cloud=(0.56, 0.58, 0.6), cover=(0.4, 0.75),
        sunlight=(0.0, 0.08), sun_tint=(1.0, 0.85, 0.7), ambient=(0.3, 0.44), sun_height=(0.2, 0.5),
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
    """Draw random weather: clear, white, cloudy, dusk, low sun or mist."""
    climate = _CLIMATES[dice.pick((0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5))]
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
    lowest = (abs(right[1]) * edge + ahead[1]) / up[1]
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
        shade = 1.0 - limit(thickness * 0.9) * 0.45 * lining
        colour = mix(colour, planar(weather.cloud) * shade, share * 0.9)
        facing = np.maximum((across * weather.sun[0] + rise * weather.sun[1] + forward * weather.sun[2]) / length, 0.0)
        # The sixth power by multiplication, since pow is not exact on every machine; squared below to the twelfth.
        facing = facing * facing
        facing = facing * facing * facing
        glow = planar(weather.sunlight) * (facing * facing * 0.35)
        canvas.blend(pixels, limit(colour + glow), 0.0, SKY)


def develop(canvas: Canvas, dice: Dice) -> Floats:
    """Simulate a camera: return the image `(3, H, W)` from 0 to 1, softened, toned, vignetted, with noise."""
    softness, gain = dice.uniform(0.12, 0.24), dice.uniform(1.0, 1.4)
    contrast, vignette = dice.uniform(0.4, 1.6), dice.uniform(0.0, 0.25)
    grain, tint = dice.uniform(0.008, 0.03), dice.vary((1.0, 1.0, 1.0), 0.05)
    paleness = dice.uniform(0.0, 0.55)
    picture = canvas.colours.reshape(3, canvas.height, canvas.width)
    y = (np.arange(canvas.height) + 0.5)[:, None] / canvas.height - 0.5
    x = (np.arange(canvas.width) + 0.5)[None, :] / canvas.width - 0.5
    fall = (1 - vignette * (x * x + y * y) * 2) * gain
    speckle = dice.numbers(canvas.height * canvas.width).reshape(canvas.height, canvas.width) - 0.5
    grey = picture[0] * 0.3 + picture[1] * 0.59 + picture[2] * 0.11
    for channel in range(3):
        plane = mix(picture[channel], grey, paleness)
        plane = _soften(_soften(plane, softness).T, softness).T
        plane = limit(plane * fall * tint[channel])
        # An S-curve that keeps 0, 0.5 and 1.
        plane = plane + contrast * (plane - 0.5) * plane * (1 - plane)
        picture[channel] = limit(plane + speckle * grain * (2 + channel * 0.5))
    return picture


def _soften(plane: Floats, share: float) -> Floats:
    """Mix each row with its neighbours, weighted `share` each."""
    above, below = np.concatenate([plane[:1], plane[:-1]]), np.concatenate([plane[1:], plane[-1:]])
    soft: Floats = plane * (1 - 2 * share) + (above + below) * share
    return soft
