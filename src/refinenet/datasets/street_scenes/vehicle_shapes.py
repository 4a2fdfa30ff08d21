"""The shapes of cars, vans and buses, as data, in metres."""

from __future__ import annotations

from dataclasses import dataclass

from refinenet.datasets.street_scenes.canvas import Colour, Point

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
    """A kind of vehicle, in metres: side outlines as (z ahead, y up), drawn out across the vehicle."""

    body: tuple[Point, ...]
    """Convex outline of the body, from the rear foot over the top to the front foot."""
    cabin: tuple[Point, ...]
    """Convex outline of what stands on it, from rear to front."""
    half_width: tuple[float, float]
    """Half the width of the body, and of the cabin's top."""
    wheels: tuple[float, ...]
    """Where the axles are."""
    wheel: float
    """A wheel's radius."""
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
