"""People on foot and on bicycles in a street scene. See `canvas` for units and the rule that keeps drawings exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    Camera,
    Canvas,
    Colour,
    Dice,
    Floats,
    Point,
    Vector,
    limit,
    planar,
    span,
    turn,
)
from refinenet.datasets.street_scenes.ground import paint_shadow
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Rod, Surface, fill_rod, paint_plane
from refinenet.datasets.street_scenes.weather import BICYCLIST, PEDESTRIAN, Weather

_DETAILED = 25.0
"""Distance in metres from which thin limbs are left out."""
_SKIN: tuple[Colour, ...] = ((0.85, 0.66, 0.55), (0.72, 0.52, 0.4), (0.45, 0.3, 0.22), (0.9, 0.73, 0.62))
_HAIR: tuple[Colour, ...] = (
    (0.12, 0.09, 0.07),
    (0.3, 0.2, 0.12),
    (0.6, 0.48, 0.3),
    (0.5, 0.5, 0.5),
    (0.35, 0.15, 0.08),
)
_CLOTHES: tuple[Colour, ...] = (
    (0.1, 0.1, 0.12), (0.15, 0.18, 0.3), (0.3, 0.3, 0.32), (0.55, 0.1, 0.1), (0.8, 0.78, 0.74), (0.2, 0.3, 0.2),
    (0.5, 0.4, 0.28), (0.2, 0.35, 0.6), (0.75, 0.45, 0.5), (0.85, 0.75, 0.2), (0.4, 0.2, 0.4), (0.9, 0.45, 0.1),
)  # fmt: skip
_TROUSERS: tuple[Colour, ...] = (
    (0.1, 0.1, 0.12),
    (0.18, 0.24, 0.38),
    (0.3, 0.28, 0.25),
    (0.55, 0.5, 0.4),
    (0.25, 0.25, 0.27),
)

Limb = tuple[str, str, float, float, str]
"""Start joint, end joint, radius at each in metres, and the piece of clothing."""

_WALKER_LIMBS: tuple[Limb, ...] = (
    ("hip_left", "knee_left", 0.085, 0.06, "legs"), ("knee_left", "foot_left", 0.06, 0.045, "legs"),
    ("hip_right", "knee_right", 0.085, 0.06, "legs"), ("knee_right", "foot_right", 0.06, 0.045, "legs"),
    ("foot_left", "toe_left", 0.045, 0.035, "shoes"), ("foot_right", "toe_right", 0.045, 0.035, "shoes"),
    ("shoulder_left", "elbow_left", 0.055, 0.045, "coat"), ("elbow_left", "hand_left", 0.045, 0.035, "coat"),
    ("shoulder_right", "elbow_right", 0.055, 0.045, "coat"), ("elbow_right", "hand_right", 0.045, 0.035, "coat"),
    ("waist_left", "shoulder_left", 0.11, 0.09, "coat"), ("waist_right", "shoulder_right", 0.11, 0.09, "coat"),
    ("waist", "neck", 0.13, 0.11, "coat"), ("neck", "head", 0.055, 0.06, "skin"),
    ("head", "head", 0.105, 0.105, "skin"), ("crown", "crown", 0.105, 0.105, "hair"),
)  # fmt: skip
_BAG: Limb = ("back_low", "back_high", 0.12, 0.13, "bag")
_SKIRT: Limb = ("waist", "hem", 0.15, 0.2, "coat")
_BICYCLE_LIMBS: tuple[Limb, ...] = (
    ("rear_low", "rear_high", 0.028, 0.028, "tyre"), ("front_low", "front_high", 0.028, 0.028, "tyre"),
    ("rear", "crank", 0.018, 0.018, "frame"), ("rear", "saddle", 0.016, 0.016, "frame"),
    ("crank", "saddle", 0.02, 0.02, "frame"), ("crank", "head_tube", 0.022, 0.022, "frame"),
    ("saddle", "head_tube", 0.02, 0.02, "frame"), ("front", "bars", 0.02, 0.02, "frame"),
    ("bar_left", "bar_right", 0.02, 0.02, "tyre"), ("saddle", "saddle_back", 0.05, 0.07, "tyre"),
)  # fmt: skip
_BICYCLE: dict[str, Vector] = {
    "rear": (0, 0.34, -0.52), "front": (0, 0.34, 0.52), "crank": (0, 0.3, -0.06), "saddle": (0, 0.92, -0.22),
    "saddle_back": (0, 0.94, -0.34), "head_tube": (0, 0.84, 0.36), "bars": (0, 1.02, 0.34),
    "bar_left": (-0.26, 1.04, 0.3), "bar_right": (0.26, 1.04, 0.3),
    "rear_low": (0, 0.03, -0.52), "rear_high": (0, 0.65, -0.52),
    "front_low": (0, 0.03, 0.52), "front_high": (0, 0.65, 0.52),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person: joints as (across, up, ahead) in metres, limbs between them, and their colours."""

    x: float
    z: float
    heading: Point
    """Cosine and sine of the angle from straight ahead to the right."""
    joints: Mapping[str, Vector]
    limbs: tuple[Limb, ...]
    colours: Mapping[str, Colour]
    scale: float
    label: int

    def place(self, joint: str) -> Vector:
        """Return a joint in world coordinates."""
        return self.at(self.joints[joint])

    def at(self, point: Vector) -> Vector:
        """Convert a point of the person to world coordinates."""
        x, y, z = (part * self.scale for part in point)
        cosine, sine = self.heading
        return self.x + x * cosine + z * sine, y, self.z - x * sine + z * cosine


def _dress(dice: Dice) -> dict[str, Colour]:
    return {
        "legs": dice.vary(dice.pick(_TROUSERS), 0.25),
        "shoes": dice.vary((0.12, 0.1, 0.1), 0.5),
        "coat": dice.vary(dice.pick(_CLOTHES), 0.25),
        "skin": dice.vary(dice.pick(_SKIN), 0.1),
        "hair": dice.vary(dice.pick(_HAIR), 0.2),
        "bag": dice.vary(dice.pick(_CLOTHES), 0.25),
        "frame": dice.vary(dice.pick(_CLOTHES), 0.25),
        "tyre": (0.06, 0.06, 0.06),
    }


def draw_walker(dice: Dice, x: float, z: float, half_tangent: float) -> Person:
    """Draw a person walking or standing; the heading's half tangent is 0 for walking ahead, large for approaching."""
    stride = dice.uniform(-0.34, 0.34) if dice.chance(0.75) else 0.05
    swing, wide = stride * dice.uniform(0.5, 0.9), dice.uniform(0.15, 0.2)
    joints: dict[str, Vector] = {
        "waist": (0, 0.96, 0), "neck": (0, 1.4, 0.02), "head": (0, 1.6, 0.05),
        "crown": (0, 1.65, 0.0), "back_low": (0, 1.05, -0.2), "back_high": (0, 1.32, -0.2), "hem": (0, 0.62, 0),
    }  # fmt: skip
    for name, side in (("left", -1), ("right", 1)):
        step, arm = side * stride, -side * swing
        lift = max(0.0, -step)
        joints |= {
            f"hip_{name}": (side * 0.08, 0.9, 0), f"waist_{name}": (side * 0.07, 0.97, 0),
            f"knee_{name}": (side * 0.09, 0.5, step * 0.5 + 0.05),
            f"foot_{name}": (side * 0.09, 0.07 + lift * 0.25, step),
            f"toe_{name}": (side * 0.1, 0.04 + lift * 0.1, step + 0.14),
            f"shoulder_{name}": (side * wide, 1.36, 0), f"elbow_{name}": (side * (wide + 0.06), 1.1, arm * 0.5),
            f"hand_{name}": (side * (wide + 0.05), 0.88, arm + 0.08),
        }  # fmt: skip
    extras = ((_BAG,) if dice.chance(0.3) else ()) + ((_SKIRT,) if dice.chance(0.35) else ())
    return Person(
        x=x, z=z, heading=turn(half_tangent), joints=joints, limbs=_WALKER_LIMBS + extras, colours=_dress(dice),
        scale=dice.uniform(0.9, 1.12) if dice.chance(0.9) else dice.uniform(0.6, 0.8), label=PEDESTRIAN,
    )  # fmt: skip


def draw_cyclist(dice: Dice, x: float, z: float, half_tangent: float) -> Person:
    """Draw a cyclist; for the heading see `draw_walker`."""
    lean, crank = dice.uniform(0.02, 0.25), dice.uniform(-0.16, 0.16)
    joints: dict[str, Vector] = {
        "waist": (0, 1.05, -0.24), "neck": (0, 1.48, lean), "head": (0, 1.66, lean + 0.08),
        "crown": (0, 1.71, lean + 0.03), "back_low": (0, 1.2, -0.36), "back_high": (0, 1.45, lean - 0.24),
    }  # fmt: skip
    for name, side in (("left", -1), ("right", 1)):
        pedal = side * crank
        joints |= {
            f"hip_{name}": (side * 0.09, 0.98, -0.22), f"waist_{name}": (side * 0.07, 1.04, -0.24),
            f"knee_{name}": (side * 0.11, 0.72 + pedal * 0.8, 0.12), f"foot_{name}": (side * 0.1, 0.28 + pedal, -0.04),
            f"toe_{name}": (side * 0.1, 0.26 + pedal, 0.1), f"shoulder_{name}": (side * 0.17, 1.44, lean),
            f"elbow_{name}": (side * 0.26, 1.2, (lean + 0.3) / 2), f"hand_{name}": (side * 0.26, 1.07, 0.3),
        }  # fmt: skip
    extras = (_BAG,) if dice.chance(0.4) else ()
    return Person(
        x=x, z=z, heading=turn(half_tangent), joints=joints | _BICYCLE, limbs=_BICYCLE_LIMBS + _WALKER_LIMBS + extras,
        colours=_dress(dice), scale=dice.uniform(0.95, 1.08), label=BICYCLIST,
    )  # fmt: skip


def paint_person(canvas: Canvas, camera: Camera, person: Person, weather: Weather) -> None:
    """Paint a person, with the shadow at their feet."""
    half = 0.5 if person.label == BICYCLIST else 0.12
    size = (0.12 + half * abs(person.heading[1]), 0.12 + half * abs(person.heading[0]))
    paint_shadow(canvas, camera, (person.x, person.z), size, 0.3, 0.6)
    if person.label == BICYCLIST:
        for axle in ("rear", "front"):
            _paint_wheel(canvas, camera, person, axle, weather)
    light = weather.light((0.0, 0.1, -0.9))
    glow = (0.8 if weather.sun[0] > 0 else -0.8, -0.6, 0.15 + 0.25 * min(1.0, weather.sunlight[0]))
    rods = []
    for start, end, start_radius, end_radius, wear in person.limbs:
        if person.z > _DETAILED and start_radius < 0.05:
            continue
        red, green, blue = (part * shine for part, shine in zip(person.colours[wear], light, strict=True))
        rod = Rod(
            start=person.place(start),
            end=person.place(end),
            start_radius=start_radius * person.scale,
            end_radius=end_radius * person.scale,
            colour=(red, green, blue),
        )
        rods.append(rod)
    for rod in sorted(rods, key=lambda rod: -(camera.view(rod.start)[2] + camera.view(rod.end)[2])):
        fill_rod(canvas, camera, rod, glow, person.label)


def _paint_wheel(canvas: Canvas, camera: Camera, person: Person, axle: str, weather: Weather) -> None:
    """Paint a bicycle's wheel: a thin tyre; its label includes the gaps between the spokes."""
    x, y, z = person.joints[axle]
    radius = 0.34 * person.scale
    colour = planar(weather.lit((0.07, 0.07, 0.07), (0.0, 0.0, -1.0)))

    def shader(surface: Surface) -> Paint:
        distance: Floats = np.sqrt(surface.u * surface.u + surface.v * surface.v)
        tyre = span(distance, radius - 0.05, radius, surface.pixel_v)
        disc = limit((radius - distance) / surface.pixel_v + 0.5)
        return Paint(colour=colour, opacity=np.maximum(tyre, disc * 0.18), extent=disc)

    plane = Plane(origin=person.at((x, y, z)), along=person.at((x, y, z + 1)), up=person.at((x, y + 1, z)))
    box = ((-radius, -radius), (radius, -radius), (radius, radius), (-radius, radius))
    paint_plane(canvas, camera, plane, box, shader, person.label)
