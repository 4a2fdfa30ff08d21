"""Trees, lamp posts, traffic signs and lights of a street scene. See `canvas` for units and the rule."""

from __future__ import annotations

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
    mix,
    noise,
    planar,
    scatter,
    span,
)
from refinenet.datasets.street_scenes.ground import paint_shadow
from refinenet.datasets.street_scenes.shapes import Paint, Plane, Rod, Surface, fill_polygon, fill_rod, paint_plane
from refinenet.datasets.street_scenes.weather import FENCE, POLE, SIGN, TREE, Weather

_CIRCLE = tuple(
    (s * x, t * y)
    for s, t, points in (
        (1, 1, ((1.0, 0.0), (0.924, 0.383), (0.707, 0.707), (0.383, 0.924))),
        (-1, 1, ((0.0, 1.0), (0.383, 0.924), (0.707, 0.707), (0.924, 0.383))),
        (-1, -1, ((1.0, 0.0), (0.924, 0.383), (0.707, 0.707), (0.383, 0.924))),
        (1, -1, ((0.0, 1.0), (0.383, 0.924), (0.707, 0.707), (0.924, 0.383))),
    )
    for x, y in points
)
_TRIANGLE: tuple[Point, ...] = ((-1.0, -0.75), (1.0, -0.75), (0.0, 1.0))
_SQUARE: tuple[Point, ...] = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
_DIAMOND: tuple[Point, ...] = ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))
_BAR: tuple[Point, ...] = ((-0.6, -0.15), (0.6, -0.15), (0.6, 0.15), (-0.6, 0.15))
_STROKE: tuple[Point, ...] = ((-0.12, -0.5), (0.12, -0.5), (0.12, 0.5), (-0.12, 0.5))
_RING: tuple[Point, ...] = ((-0.1, 0.0), (0.35, 0.0), (0.45, 0.22), (0.35, 0.45), (-0.1, 0.45))
_ARROW: tuple[Point, ...] = ((-0.4, 0.0), (0.4, 0.0), (0.0, 0.7))
_RED, _BLUE, _WHITE, _BLACK = (0.75, 0.07, 0.08), (0.08, 0.25, 0.65), (0.92, 0.92, 0.9), (0.08, 0.08, 0.08)
_GREEN, _AMBER = (0.05, 0.4, 0.25), (0.9, 0.7, 0.1)


@dataclass(frozen=True, kw_only=True)
class Board:
    """A flat sign: its outline in units of half its size, and nested layers with a colour each."""

    layers: tuple[tuple[tuple[Point, ...], float, Colour], ...]
    half: tuple[float, float]
    """Half the width and half the height, metres."""


_BOARDS = (
    Board(layers=((_CIRCLE, 1, _RED), (_CIRCLE, 0.78, _WHITE), (_STROKE, 0.7, _BLACK)), half=(0.34, 0.34)),
    Board(layers=((_CIRCLE, 1, _RED), (_BAR, 1, _WHITE)), half=(0.32, 0.32)),
    Board(
        layers=((_CIRCLE, 1, _WHITE), (_CIRCLE, 0.93, _BLUE), (_STROKE, 0.8, _WHITE), (_ARROW, 0.8, _WHITE)),
        half=(0.32, 0.32),
    ),
    Board(layers=((_TRIANGLE, 1, _RED), (_TRIANGLE, 0.7, _WHITE), (_STROKE, 0.5, _BLACK)), half=(0.42, 0.4)),
    Board(layers=((_DIAMOND, 1, _WHITE), (_DIAMOND, 0.75, _AMBER)), half=(0.38, 0.38)),
    Board(
        layers=((_SQUARE, 1, _WHITE), (_SQUARE, 0.92, _BLUE), (_STROKE, 0.9, _WHITE), (_RING, 1, _WHITE)),
        half=(0.3, 0.36),
    ),
    Board(layers=((_SQUARE, 1, _WHITE), (_SQUARE, 0.9, _GREEN), (_BAR, 1.2, _WHITE)), half=(0.75, 0.4)),
    Board(layers=((_SQUARE, 1, _BLACK), (_SQUARE, 0.92, _WHITE), (_BAR, 1.1, _BLACK)), half=(0.6, 0.25)),
    Board(layers=((_SQUARE, 1, _AMBER), (_BAR, 1.3, _BLACK)), half=(0.3, 0.4)),
)


@dataclass(frozen=True, kw_only=True)
class Post:
    """A pole with a lamp, signs, traffic lights or nothing (a bollard)."""

    x: float
    z: float
    height: float
    radius: float
    colour: Colour
    arm: float
    """Reach of a lamp over the road in metres; negative to the left, 0 without a lamp."""
    boards: tuple[Board, ...]
    tint: float
    lights: int
    """The lit traffic light, 0 to 2 from the top; -1 without traffic lights."""


def draw_post(dice: Dice, kind: str, x: float, z: float) -> Post:
    """Draw a random post: a "lamp", a "sign", traffic "lights" or a "bollard"."""
    height = {"lamp": dice.uniform(5, 9), "sign": dice.uniform(2.3, 3), "lights": 3.2}.get(kind, dice.uniform(0.9, 1.1))
    grey = dice.uniform(0.15, 0.6)
    tint = dice.pick(((grey, grey, grey), (0.12, 0.16, 0.13), (0.55, 0.57, 0.56), (0.35, 0.38, 0.36)))
    reach = dice.uniform(0.8, 2.0) * (-1 if x > 0 else 1)
    return Post(
        x=x,
        z=z,
        height=height,
        radius={"lamp": dice.uniform(0.06, 0.1), "bollard": dice.uniform(0.05, 0.08)}.get(kind, 0.045),
        colour=dice.vary(tint, 0.1),
        arm=reach if kind == "lamp" else 0.0,
        boards=tuple(dice.pick(_BOARDS) for _ in range(dice.pick((1, 1, 2)))) if kind == "sign" else (),
        tint=dice.uniform(0.8, 1.05),
        lights=dice.whole(0, 2) if kind == "lights" else -1,
    )


def paint_post(canvas: Canvas, camera: Camera, post: Post, weather: Weather) -> None:
    """Paint a post and everything on it."""
    paint_shadow(canvas, camera, (post.x, post.z), (0.05, 0.05), 0.25, 0.5)
    colour = weather.lit(post.colour, (0.0, 0.0, -1.0))
    glow = (1.0 if weather.sun[0] > 0 else -1.0, 0.0, 0.3)
    top = (post.x, post.height, post.z)
    rods = [
        Rod(start=(post.x, 0, post.z), end=top, start_radius=post.radius, end_radius=post.radius * 0.6, colour=colour)
    ]
    if post.arm:
        tip = (post.x + post.arm, post.height + 0.35, post.z)
        rods.append(Rod(start=top, end=tip, start_radius=0.045, end_radius=0.04, colour=colour))
        end = (tip[0] + post.arm * 0.3, tip[1], tip[2])
        rods.append(Rod(start=tip, end=end, start_radius=0.09, end_radius=0.07, colour=colour))
    for rod in rods:
        fill_rod(canvas, camera, rod, glow, POLE)
    y = post.height - 0.35
    for board in post.boards:
        _paint_board(canvas, camera, board, (post.x, y, post.z - 0.08), post.tint, weather)
        y -= board.half[1] * 2 + 0.08
    if post.lights >= 0:
        _paint_lights(canvas, camera, post, weather)


def _paint_board(canvas: Canvas, camera: Camera, board: Board, centre: Vector, tint: float, weather: Weather) -> None:
    for outline, share, colour in board.layers:
        shown = weather.lit((colour[0] * tint, colour[1] * tint, colour[2] * tint), (0.0, 0.0, -1.0))
        corners = [
            (centre[0] + x * board.half[0] * share, centre[1] + y * board.half[1] * share, centre[2])
            for x, y in outline
        ]
        fill_polygon(canvas, camera, corners, (shown, shown), SIGN)


def _paint_lights(canvas: Canvas, camera: Camera, post: Post, weather: Weather) -> None:
    centre = (post.x, post.height - 0.3, post.z - 0.1)
    case = Board(layers=((_SQUARE, 1, (0.1, 0.1, 0.1)),), half=(0.19, 0.5))
    _paint_board(canvas, camera, case, centre, 1.0, weather)
    for lamp, colour in enumerate(((0.95, 0.15, 0.1), (0.98, 0.7, 0.1), (0.15, 0.9, 0.55))):
        shine = 1.0 if lamp == post.lights else 0.15
        shown = (colour[0] * shine, colour[1] * shine, colour[2] * shine)
        y = centre[1] + 0.3 * (1 - lamp)
        corners = [(centre[0] + across * 0.11, y + up * 0.11, centre[2]) for across, up in _CIRCLE]
        fill_polygon(canvas, camera, corners, (shown, shown), SIGN)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree whose crown is a set of balls (across, up, radius) in metres, roughened by noise."""

    x: float
    z: float
    trunk: float
    """Height of the bottom of the crown, metres."""
    radius: float
    """Radius of the trunk, metres."""
    balls: tuple[Vector, ...]
    colour: Colour
    bark: Colour
    bare: bool
    grain: float
    """Fineness of the leaves."""
    texture: float


_LEAVES: tuple[Colour, ...] = (
    (0.2, 0.3, 0.1), (0.3, 0.36, 0.13), (0.14, 0.22, 0.1), (0.33, 0.35, 0.2), (0.5, 0.36, 0.12), (0.52, 0.24, 0.1),
    (0.18, 0.24, 0.17), (0.4, 0.42, 0.18),
)  # fmt: skip


def draw_tree(dice: Dice, x: float, z: float, height: float, bushes: bool) -> Tree:
    """Draw a random tree: round, tall, a cone or, if allowed, a bush; in leaf, in autumn colours or bare."""
    kind = dice.pick(("round", "round", "round", "tall", "cone", "bush" if bushes else "round"))
    trunk = {"bush": 0.1, "cone": 0.4}.get(kind, height * dice.uniform(0.2, 0.35))
    wide = {"tall": 0.16, "cone": 0.2, "bush": 0.5}.get(kind, dice.uniform(0.26, 0.38)) * height
    size = height - trunk if kind != "bush" else height * 0.4
    balls = []
    for number in range(9):
        share = (number + 0.5) / 9
        narrow = (1 - share * 0.9) if kind == "cone" else 1.0 - 1.2 * (share - 0.45) * (share - 0.45) * 2
        radius = wide * narrow * dice.uniform(0.5, 0.72) + 0.1
        offset = wide * narrow * 0.5
        balls.append((dice.uniform(-offset, offset), trunk + size * (0.12 + 0.76 * share), radius))
    bare = dice.chance(0.25) and kind in ("round", "tall")
    bark = dice.vary((0.26, 0.22, 0.18), 0.3)
    return Tree(
        x=x, z=z, trunk=trunk, radius=0.02 * height + 0.04, balls=tuple(balls),
        colour=bark if bare else dice.vary(dice.pick(_LEAVES), 0.25), bark=bark, bare=bare,
        grain=dice.uniform(0.25, 0.5), texture=dice.uniform(0, 1),
    )  # fmt: skip


def paint_tree(canvas: Canvas, camera: Camera, tree: Tree, weather: Weather) -> None:
    """Paint a tree: shadow, trunk, branches and crown."""
    spread = max(radius for _, _, radius in tree.balls)
    middle = (tree.x - weather.sun[0] * tree.trunk * 0.7, tree.z - weather.sun[2] * tree.trunk * 0.7)
    paint_shadow(canvas, camera, middle, (spread * 0.3, spread * 0.3), spread * 1.1, 0.25 + 0.3 * weather.sunlight[0])
    colour = weather.lit(tree.bark, (0.0, 0.0, -1.0))
    glow = (1.0 if weather.sun[0] > 0 else -1.0, 0.0, 0.35)
    fork = (tree.x, tree.trunk * 1.15, tree.z)
    rods = [
        Rod(
            start=(tree.x, 0.0, tree.z),
            end=fork,
            start_radius=tree.radius,
            end_radius=tree.radius * 0.75,
            colour=colour,
        )
    ]
    for across, up, radius in tree.balls if tree.bare or tree.z < 30 else ():
        tip = (tree.x + across * 1.2, up + radius * 0.3, tree.z)
        rods.append(Rod(start=fork, end=tip, start_radius=tree.radius * 0.45, end_radius=0.02, colour=colour))
    for rod in rods:
        fill_rod(canvas, camera, rod, glow, TREE)
    _paint_crown(canvas, camera, tree, weather)


def _paint_crown(canvas: Canvas, camera: Camera, tree: Tree, weather: Weather) -> None:
    """Paint the leaves, or a bare tree's twigs, on a plane through the trunk that faces the camera."""
    shadow, light = planar(weather.ambient) * 0.55, planar(weather.light((0.0, 0.6, -0.5))) * 1.15
    tilt = weather.sun[0] * 0.5

    def shader(surface: Surface) -> Paint:
        u, v = surface.u, surface.v
        field, shade = np.full(u.shape, -9.0), np.zeros(u.shape)
        for across, up, radius in tree.balls:
            x, y = (u - across) / radius, (v - up) / radius
            inside = 1 - x * x - y * y
            nearer = inside > field
            field = np.where(nearer, inside, field)
            shade = np.where(nearer, x * tilt + y * 0.5, shade)
        clump = noise(u * 0.13 + tree.texture, v * 0.13 + tree.texture, smooth=True) - 0.5
        leaf = noise(u * tree.grain + tree.texture, v * tree.grain) - 0.5
        field = field + clump * 1.1 + leaf * 0.7
        if tree.bare:
            return Paint(
                colour=planar(tree.colour) * light * (0.9 + leaf),
                opacity=_twigs(tree, u, v, field),
                extent=limit(field * 2 + 0.4 + leaf),
            )
        opacity = limit(field * 6) * (0.97 + 0 * leaf)
        bright = limit(0.45 + shade * 0.55 + clump * 0.9 + leaf * 0.7)
        colour = planar(tree.colour) * (0.85 + 0.5 * limit(leaf + 0.5)) * mix(shadow, light, bright)
        return Paint(colour=limit(colour), opacity=opacity)

    reach = max(abs(across) + radius for across, _, radius in tree.balls) * 1.25
    low = min(up - radius for _, up, radius in tree.balls) - 0.3
    high = max(up + radius for _, up, radius in tree.balls) * 1.08
    right = camera.axes[0]
    plane = Plane(
        origin=(tree.x, 0.0, tree.z),
        along=(tree.x + right[0], 0.0, tree.z + right[2]),
        up=(tree.x, 1.0, tree.z),
    )
    paint_plane(canvas, camera, plane, ((-reach, low), (reach, low), (reach, high), (-reach, high)), shader, TREE)


def _twigs(tree: Tree, u: Floats, v: Floats, field: Floats) -> Floats:
    """Return how much of the sky twigs hide: thin lines where noise crosses its mean."""
    first = np.abs(noise(u * 0.16 + tree.texture, v * 0.07, smooth=True) - 0.5)
    second = np.abs(noise(u * 0.3, v * 0.15 + tree.texture, smooth=True) - 0.5)
    lines = limit(1 - first * 22) * 0.9 + limit(1 - second * 14) * 0.6
    return limit(lines) * limit(field * 2.5 + 0.8)


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """A fence, railing or hedge over the line between two points on the ground; metres."""

    start: Vector
    end: Vector
    height: float
    pitch: float
    """Distance between bars or boards."""
    bar: float
    """Width of a bar; as wide as the pitch for boards, 0 for a hedge."""
    colour: Colour


def draw_barrier(dice: Dice, start: Vector, end: Vector) -> Barrier:
    """Draw a random barrier: railings, mesh, boards, a low wall's rail or a hedge."""
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
    """Paint a barrier, see-through between its bars; the gaps are labelled FENCE, too (TREE for a hedge)."""
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
