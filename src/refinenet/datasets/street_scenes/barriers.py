"""Fences, railings and hedges of a street scene. See `drawing` for units and the rule that keeps drawings exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    Camera,
    Canvas,
    Colour,
    Dice,
    Vector,
    limit,
    noise,
    planar,
    scatter,
    span,
)
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Surface, paint_plane
from refinenet.datasets.street_scenes.weather import FENCE, TREE, Weather


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """A fence, railing or hedge over the line between two points on the ground; metres."""

    start: Vector
    end: Vector
    height: float
    pitch: float
    """From one bar or board to the next."""
    bar: float
    """Width of a bar; as wide as the pitch for boards, 0 for a hedge."""
    colour: Colour


def draw_barrier(dice: Dice, start: Vector, end: Vector) -> Barrier:
    """A barrier at random: railings, mesh, boards, a low wall's rail or a hedge."""
    kind = dice.pick(("railing", "railing", "mesh", "boards", "boards", "hedge"))
    height = {"railing": dice.uniform(0.9, 1.4), "mesh": dice.uniform(1.2, 2.4)}.get(kind, dice.uniform(1.0, 1.9))
    pitch = {"railing": dice.uniform(0.12, 0.2), "mesh": 0.08}.get(kind, dice.uniform(0.12, 0.25))
    colours: dict[str, tuple[Colour, ...]] = {
        "railing": (
            (0.12, 0.13, 0.13),
            (0.6, 0.62, 0.63),
            (0.14, 0.25, 0.18),
            (0.85, 0.85, 0.83),
            (0.15, 0.2, 0.4),
        ),
        "mesh": ((0.35, 0.37, 0.36), (0.2, 0.3, 0.22), (0.5, 0.52, 0.52)),
        "boards": ((0.42, 0.3, 0.2), (0.55, 0.45, 0.35), (0.35, 0.33, 0.31), (0.62, 0.5, 0.36)),
        "hedge": ((0.16, 0.25, 0.1), (0.25, 0.3, 0.13), (0.2, 0.24, 0.16)),
    }
    bar = {"railing": dice.uniform(0.02, 0.04), "mesh": 0.02, "hedge": 0.0}.get(kind, pitch)
    return Barrier(
        start=start,
        end=end,
        height=height,
        pitch=pitch,
        bar=bar,
        colour=dice.vary(dice.pick(colours[kind]), 0.15),
    )


def paint_barrier(canvas: Canvas, camera: Camera, barrier: Barrier, weather: Weather) -> None:
    """Paint a barrier; between its bars one sees through, yet all of it is labelled FENCE (a hedge TREE)."""
    start, end = barrier.start, barrier.end
    length = abs(end[0] - start[0]) + abs(end[2] - start[2])
    normal = (0.0, 0.0, -1.0) if start[2] == end[2] else (-1.0 if start[0] > camera.position[0] else 1.0, 0.0, 0.0)
    colour = planar(weather.lit(barrier.colour, normal))
    is_hedge = barrier.bar == 0

    def shader(surface: Surface) -> Paint:
        column = np.floor(surface.u / barrier.pitch)
        luck = scatter(column.astype(np.int64), column.astype(np.int64), 5) - 0.5
        if is_hedge:
            leaves = noise(surface.u * 0.5, surface.v * 0.5) - 0.5
            edge = limit((barrier.height - surface.v + leaves * 0.3 - 0.1) * 12)
            return Paint(colour=limit(colour * (1 + 1.2 * leaves) * (0.6 + 0.4 * surface.v)), opacity=edge)
        bars = span(surface.u - column * barrier.pitch, 0.0, barrier.bar, surface.pixel_u)
        rails = span(surface.v, barrier.height - 0.06, barrier.height, surface.pixel_v)
        rails = np.maximum(rails, span(surface.v, 0.1, 0.15, surface.pixel_v))
        gap = 1 - 0.5 * span(surface.u - column * barrier.pitch, 0.0, 0.02, surface.pixel_u) * (barrier.bar > 0.05)
        return Paint(
            colour=limit(colour * (1 + 0.3 * luck) * gap),
            opacity=np.maximum(bars, rails),
            extent=np.ones_like(bars),
        )

    plane = Plane(origin=start, along=end, up=(start[0], 1.0, start[2]))
    outline = ((0.0, 0.0), (length, 0.0), (length, barrier.height), (0.0, barrier.height))
    paint_plane(canvas, camera, plane, outline, shader, TREE if is_hedge else FENCE)
