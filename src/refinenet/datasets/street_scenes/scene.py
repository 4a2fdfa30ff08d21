"""Synthetic street scenes: any number, any size, identical for the same seed on every machine.

The eleven classes are CamVid's, with its ids. See `canvas` for units and the rule that keeps drawings exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refinenet.datasets.street_scenes.canvas import Camera, Canvas, Dice, aim
from refinenet.datasets.street_scenes.ground import paint_ground
from refinenet.datasets.street_scenes.layout import draw_street_plan
from refinenet.datasets.street_scenes.weather import develop, draw_weather, paint_sky

LARGEST = 4096
"""Maximum height and width of an image in pixels."""


def draw_street(seed: int, height: int = 360, width: int = 480) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a street scene.

    Args:
        seed: 0 or more; each seed gives another scene, the same one at any size.
        height: Height of the image, 1 to 4096 pixels.
        width: Width of the image, 1 to 4096 pixels.

    Returns:
        The image, `(H, W, 3)` uint8 RGB, and its labels, `(H, W)` uint8: 0 sky, 1 building, 2 pole, 3 road,
        4 pavement, 5 tree, 6 sign or symbol, 7 fence, 8 car, 9 pedestrian, 10 bicyclist.

    Raises:
        ValueError: The seed is negative, or a size is not from 1 to 4096.
    """
    if seed < 0:
        raise ValueError(f"The seed of a street scene must be at least 0, not {seed}.")
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise ValueError(
            f"The height and width of a street scene must be from 1 to {LARGEST} pixels, not {height} x {width}."
        )
    # Every part gets dice of its own, so that a change to one part leaves the others of a seed as they are.
    dice = Dice(seed)
    weather = draw_weather(dice.split())
    plan = draw_street_plan(dice.split())
    camera = _draw_camera(dice.split(), plan.ground.road, plan.ground.bend, height, width)
    canvas = Canvas.blank(height, width, weather.haze)
    # Painter's algorithm: from far to near, later things cover earlier ones.
    paint_sky(canvas, camera, weather, dice.uniform(0, 1))
    paint_ground(canvas, camera, plan.ground, weather)
    plan.paint(canvas, camera, weather)
    picture = develop(canvas, dice.split())
    image = np.floor(picture * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(image), canvas.labels.reshape(height, width)


def _draw_camera(dice: Dice, road: float, bend: float, height: int, width: int) -> Camera:
    """Place a dash camera in the left lane, or sometimes elsewhere on the road."""
    x = -road * dice.uniform(0.2, 0.5) if dice.chance(0.75) else road * dice.uniform(-0.2, 0.6)
    yaw = dice.uniform(-0.05, 0.05) if dice.chance(0.8) else dice.uniform(-0.16, 0.16)
    scale = max(width, height * 4 / 3)  # no aspect ratio sees more than a 4:3 image does
    return Camera(
        position=(x, dice.uniform(1.15, 1.6), 0.0),
        axes=aim(yaw, dice.uniform(-0.025, 0.035), dice.uniform(-0.012, 0.012)),
        focal=scale * dice.uniform(0.85, 1.1),
        centre=(width / 2, height / 2),
        bend=bend,
    )
