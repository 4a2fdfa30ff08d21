"""Synthetic street scenes: any number, any size, identical for the same seed on every machine.

The eleven classes are CamVid's, with its ids. See `canvas` for units and the rule that keeps drawings exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.datasets.street_scenes.canvas import Camera, Canvas, Dice, aim
from refinenet.datasets.street_scenes.ground import paint_ground
from refinenet.datasets.street_scenes.layout import draw_street_plan
from refinenet.datasets.street_scenes.relief import Relief
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
    canvas, _, dice = _paint(seed, height, width)
    picture = develop(canvas, dice.split())
    image = np.floor(picture * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(image), canvas.labels.reshape(height, width)


@dataclass(frozen=True, kw_only=True)
class StreetGeometry:
    """The geometry of a drawn street, in the frame of its camera: x right, y down, z into the scene."""

    depth: npt.NDArray[np.float32]
    """`(H, W)` metres along the optical axis; NaN in the sky."""
    normals: npt.NDArray[np.float32]
    """`(3, H, W)` unit vectors; z is -1 where a surface faces the camera; NaN in the sky."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels: the centre of the pixel in row v, column u shows `depth * ((u - cx) / fx,
    (v - cy) / fy, 1)`. The camera has square pixels, and its axis meets the middle of the image."""


def draw_street_geometry(seed: int, height: int = 360, width: int = 480) -> StreetGeometry:
    """Compute depth and normals of the scene that `draw_street` draws.

    They are exact for flat things, which are most: the ground, buildings, vehicles, signs and fences. Crowns of trees
    are flat and face the camera; poles, branches and limbs are round, to within the width of a limb. A pixel shows what
    hides at least half of it, so that gaps, such as those in a railing, show what is behind.

    Args:
        seed: See `draw_street`.
        height: See `draw_street`.
        width: See `draw_street`.

    Raises:
        ValueError: See `draw_street`.
    """
    canvas, camera, _ = _paint(seed, height, width, has_relief=True)
    assert canvas.relief is not None
    right, up, ahead = canvas.relief.normals
    normals = np.stack([right, -up, ahead]).astype(np.float32)
    return StreetGeometry(
        depth=canvas.relief.depth.astype(np.float32).reshape(height, width),
        normals=normals.reshape(3, height, width),
        intrinsics=(camera.focal, camera.focal, camera.centre[0] - 0.5, camera.centre[1] - 0.5),
    )


def _paint(seed: int, height: int, width: int, *, has_relief: bool = False) -> tuple[Canvas, Camera, Dice]:
    """Paint a scene; also return its camera, and the dice that develop the picture."""
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
    relief = Relief.blank(height, width) if has_relief else None
    canvas = Canvas.blank(height, width, weather.haze, relief)
    # Painter's algorithm: from far to near, later things cover earlier ones.
    paint_sky(canvas, camera, weather, dice.uniform(0, 1))
    paint_ground(canvas, camera, plan.ground, weather)
    ground = None if relief is None else relief.depth.copy()
    plan.paint(canvas, camera, weather)
    if relief is not None and ground is not None:
        # The round feet of posts and the lowest leaves of bushes are drawn a little below the ground.
        np.fmin(relief.depth, ground, out=relief.depth)
    return canvas, camera, dice


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
