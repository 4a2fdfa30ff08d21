"""Shapes in perspective: flat polygons, painted planes and tapered rods. See `canvas` for units and the rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refinenet.datasets.street_scenes.canvas import (
    FARTHEST,
    NEAREST,
    Camera,
    Canvas,
    Colour,
    Floats,
    Fragments,
    Labels,
    Point,
    Vector,
    cross,
    dot,
    fragments,
    limit,
    mix,
    planar,
    subtract,
    unit,
)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Positions of pixels on a plane, all `(N,)` float64 in metres: u and v, distance, and a pixel's size there."""

    u: Floats
    v: Floats
    depth: Floats
    pixel_u: Floats
    pixel_v: Floats


@dataclass(frozen=True, kw_only=True)
class Paint:
    """The result of a shader: `(3, N)` colours and, if they vary, `(N,)` opacities from 0 to 1 and labels."""

    colour: Floats
    opacity: Floats | float = 1.0
    label: Labels | None = None
    extent: Floats | None = None
    """The share that belongs to the shape, 0 to 1, if it differs from the opacity: a railing includes its gaps."""


Shader = Callable[[Surface], Paint]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane in world coordinates: u runs from `origin` to `along`, v at right angles to it towards `up`."""

    origin: Vector
    along: Vector
    up: Vector


def _clip(points: Sequence[Vector]) -> list[Vector]:
    """Clip a polygon in view coordinates to the part ahead of the camera (Sutherland-Hodgman, near plane only)."""
    clipped: list[Vector] = []
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        if a[2] >= NEAREST:
            clipped.append(a)
        if (a[2] >= NEAREST) != (b[2] >= NEAREST):
            share = (NEAREST - a[2]) / (b[2] - a[2])
            clipped.append((a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, NEAREST))
    return clipped


def _edges(corners: Sequence[Point]) -> list[Vector]:
    """Return (a, b, c) for each edge of a convex polygon: a x + b y + c is the inward distance of (x, y) in pixels."""
    area = 0.0
    pairs = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    for (ax, ay), (bx, by) in pairs:
        area += ax * by - bx * ay
    side = 1.0 if area > 0 else -1.0  # the sign of the area tells the orientation of the corners
    edges = []
    for (ax, ay), (bx, by) in pairs:
        length = math.sqrt((bx - ax) * (bx - ax) + (by - ay) * (by - ay))
        if length > 1e-9:
            across, down = side * (ay - by) / length, side * (bx - ax) / length
            edges.append((across, down, -(across * ax + down * ay)))
    return edges


def polygon_fragments(canvas: Canvas, camera: Camera, points: Sequence[Vector]) -> Iterator[Fragments]:
    """Iterate over the pixels of a convex polygon given in view coordinates."""
    clipped = _clip(points)
    if len(clipped) < 3:
        return
    corners = [camera.screen(point) for point in clipped]
    columns, rows = [x for x, _ in corners], [y for _, y in corners]
    edges = _edges(corners)
    if not edges:
        return

    def coverage(x: Floats, y: Floats) -> Floats:
        # The distance to the nearest edge, plus half a pixel, approximates the covered share: cheap anti-aliasing.
        inside = edges[0][0] * x + (edges[0][1] * y + edges[0][2])
        for across, down, shift in edges[1:]:
            inside = np.minimum(inside, across * x + (down * y + shift))
        return limit(inside + 0.5)

    box = (min(columns) - 0.5, min(rows) - 0.5, max(columns) + 0.5, max(rows) + 0.5)
    yield from fragments(canvas, box, coverage)


def fill_polygon(
    canvas: Canvas, camera: Camera, points: Sequence[Vector], colours: tuple[Colour, Colour], label: int
) -> None:
    """Paint a convex polygon in world coordinates, from the first colour at the bottom to the second at the top."""
    seen = [camera.view(point) for point in points]
    depth = max(NEAREST, min(point[2] for point in seen))
    low, high = planar(colours[0]), planar(colours[1])
    ahead = [camera.screen(point)[1] for point in seen if point[2] >= NEAREST] or [0.0]
    bottom, size = max(ahead), max(max(ahead) - min(ahead), 1.0)
    face = Face.through(camera, seen) if canvas.relief is not None else None
    for pixels in polygon_fragments(canvas, camera, seen):
        colour = mix(low, high, limit((bottom - pixels.y) / size)) if low is not high else low
        canvas.blend(pixels, colour, depth, label)
        if face is not None:
            canvas.shape(pixels, face.depths(pixels), planar(face.normal))


@dataclass(frozen=True, kw_only=True)
class Face:
    """The plane of a polygon, in view coordinates; a polygon that a curved street bends has its mean plane."""

    camera: Camera
    normal: Vector
    """Unit vector, turned towards the camera."""
    height: float
    """Dot product of the normal and each point of the plane; negative, since the normal faces the camera."""
    reach: Point
    """Least and largest depth of the polygon, metres."""

    @classmethod
    def through(cls, camera: Camera, points: Sequence[Vector]) -> Face | None:
        """Return the plane of a polygon in view coordinates (Newell's method); None if it is seen edge-on."""
        x = y = z = 0.0
        for a, b in zip(points, [*points[1:], points[0]], strict=True):
            part = cross(a, b)
            x, y, z = x + part[0], y + part[1], z + part[2]
        normal, height = unit((x, y, z)), 0.0
        for point in points:
            height += dot(normal, point) / len(points)
        if -1e-6 < height < 1e-6:
            return None
        depths = [point[2] for point in points]
        reach = max(NEAREST, min(depths)), max(NEAREST, max(depths))
        return cls(camera=camera, normal=face_camera(normal, height), height=-abs(height), reach=reach)

    def depths(self, pixels: Fragments) -> Floats:
        """Return the depths `(N,)` of pixels in metres."""
        x = (pixels.x - self.camera.centre[0]) / self.camera.focal
        y = (self.camera.centre[1] - pixels.y) / self.camera.focal
        nearness = (x * self.normal[0] + y * self.normal[1] + self.normal[2]) / self.height
        return 1.0 / limit(nearness, 1 / self.reach[1], 1 / self.reach[0])


def face_camera(normal: Vector, height: float) -> Vector:
    """Turn the normal of a plane towards the camera; `height` is the dot product of it and a point of the plane."""
    return normal if height < 0 else (-normal[0], -normal[1], -normal[2])


def paint_plane(
    canvas: Canvas,
    camera: Camera,
    plane: Plane,
    outline: Sequence[Point],
    shader: Shader,
    label: int | None,
) -> None:
    """Paint a convex part of a plane, pixel by pixel.

    Args:
        canvas: The canvas to paint on.
        camera: The camera.
        plane: The plane of the part.
        outline: The corners of the part as (u, v) in metres.
        shader: Returns the colours; labels from the shader override `label`.
        label: The class of the part, or None to keep the existing labels.
    """
    origin = camera.view(plane.origin)
    along = unit(subtract(camera.view(plane.along), origin))
    up = subtract(camera.view(plane.up), origin)
    slant = dot(up, along)
    up = unit((up[0] - slant * along[0], up[1] - slant * along[1], up[2] - slant * along[2]))
    normal = cross(along, up)
    height = dot(normal, origin)
    if -1e-6 < height < 1e-6:  # seen edge-on
        return
    corners = [
        (
            origin[0] + u * along[0] + v * up[0],
            origin[1] + u * along[1] + v * up[1],
            origin[2] + u * along[2] + v * up[2],
        )
        for u, v in outline
    ]
    facing = planar(face_camera(normal, height))
    lift = Lift(camera=camera, origin=origin, along=along, up=up, normal=normal, height=height)
    bounds = (
        (min(u for u, _ in outline), max(u for u, _ in outline)),
        (
            min(v for _, v in outline),
            max(v for _, v in outline),
        ),
    )
    for pixels in polygon_fragments(canvas, camera, corners):
        surface = lift(pixels, bounds)
        paint = shader(surface)
        chosen = label if paint.label is None else paint.label
        canvas.blend(pixels, paint.colour, surface.depth, None, paint.opacity)
        if chosen is not None:
            canvas.shape(pixels, surface.depth, facing, paint.opacity)
            canvas.mark(pixels, chosen, paint.opacity if paint.extent is None else paint.extent)


@dataclass(frozen=True, kw_only=True)
class Lift:
    """Maps pixels to the plane that they show; all vectors in view coordinates."""

    camera: Camera
    origin: Vector
    along: Vector
    up: Vector
    normal: Vector
    height: float

    def __call__(self, pixels: Fragments, bounds: tuple[Point, Point]) -> Surface:
        """Return the positions on the plane, clamped to the bounds of u and v."""
        focal = self.camera.focal
        x = (pixels.x - self.camera.centre[0]) / focal
        y = (self.camera.centre[1] - pixels.y) / focal
        # Along a pixel's ray (x, y, 1) * depth the plane is met where depth * (ray . normal) equals its height.
        nearness = (x * self.normal[0] + y * self.normal[1] + self.normal[2]) / self.height
        depth = 1.0 / limit(nearness, 1 / FARTHEST, 1 / NEAREST)
        u = depth * (x * self.along[0] + y * self.along[1] + self.along[2]) - dot(self.origin, self.along)
        v = depth * (x * self.up[0] + y * self.up[1] + self.up[2]) - dot(self.origin, self.up)
        size = depth / focal
        stretch = depth / abs(self.height)  # a plane seen at a flat angle stretches the pixel along it
        return Surface(
            u=limit(u, *bounds[0]),
            v=limit(v, *bounds[1]),
            depth=depth,
            pixel_u=size * (1 + stretch * abs(self.along[2])),
            pixel_v=size * (1 + stretch * abs(self.up[2])),
        )


@dataclass(frozen=True, kw_only=True)
class Rod:
    """A rod with round ends, in world coordinates and metres; a ball if both ends are equal."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float
    colour: Colour


def fill_rod(canvas: Canvas, camera: Camera, rod: Rod, glow: Vector, label: int) -> None:
    """Paint a rod, at least one pixel thick, brighter on the side towards `glow` (screen x and y, strength)."""
    start, end = camera.view(rod.start), camera.view(rod.end)
    if min(start[2], end[2]) < NEAREST:
        return
    (ax, ay), (bx, by) = camera.screen(start), camera.screen(end)
    dx, dy = bx - ax, by - ay
    first, last = (
        max(0.5, rod.start_radius * camera.focal / start[2]),
        max(0.5, rod.end_radius * camera.focal / end[2]),
    )
    square = max(dx * dx + dy * dy, 1e-9)
    reach = max(first, last) + 0.5
    box = (min(ax, bx) - reach, min(ay, by) - reach, max(ax, bx) + reach, max(ay, by) + reach)

    def offset(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        share = limit(((x - ax) * dx + (y - ay) * dy) / square)
        return x - ax - share * dx, y - ay - share * dy, first + (last - first) * share

    def coverage(x: Floats, y: Floats) -> Floats:
        across, down, radius = offset(x, y)
        return limit(radius + 0.5 - np.sqrt(across * across + down * down))

    colour = planar(rod.colour)
    for pixels in fragments(canvas, box, coverage):
        across, down, radius = offset(pixels.x, pixels.y)
        shine = 1 + glow[2] * limit((across * glow[0] + down * glow[1]) / radius, -1.0, 1.0)
        canvas.blend(pixels, colour * shine, (start[2] + end[2]) / 2, label)
        if canvas.relief is not None:
            share = limit(((pixels.x - ax) * dx + (pixels.y - ay) * dy) / square)
            canvas.shape(pixels, *_round(rod, (start, end), share, (across / radius, -down / radius)))


def _round(
    rod: Rod, ends: tuple[Vector, Vector], share: Floats, offset: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Return the depths `(N,)` and normals `(3, N)` of a rod's rounded side, in view coordinates.

    Args:
        rod: The rod.
        ends: Its ends in view coordinates.
        share: `(N,)` positions on the screen from the start (0) to the end (1).
        offset: `(N,)` distances from the axis to the right and upwards, as shares of the radius.
    """
    start, end = ends
    axis = 1.0 / ((1 - share) / start[2] + share / end[2])  # the inverse of depth is linear on the screen
    x, y = offset
    bulge = np.sqrt(np.maximum(1 - x * x - y * y, 0.0))
    depth = np.maximum(axis - bulge * (rod.start_radius + (rod.end_radius - rod.start_radius) * share), NEAREST)
    along = unit(subtract(end, start))
    # Between its round ends a rod's normals are at right angles to its axis.
    slant = (x * along[0] + y * along[1] - bulge * along[2]) * ((share > 0) & (share < 1))
    x, y, z = x - slant * along[0], y - slant * along[1], -bulge - slant * along[2]
    length = np.sqrt(x * x + y * y + z * z)
    is_seen = length > 0.1  # not so for the middle of a rod that points at the camera
    safe = np.where(is_seen, length, 1.0)
    return depth, np.stack(
        [np.where(is_seen, x / safe, 0.0), np.where(is_seen, y / safe, 0.0), np.where(is_seen, z / safe, -1.0)]
    )
