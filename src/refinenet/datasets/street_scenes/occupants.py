"""Occupants of a street scene: traffic, people, trees, posts, fences. See `canvas` for units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from refinenet.datasets.street_scenes.canvas import Camera, Canvas, Dice
from refinenet.datasets.street_scenes.furniture import (
    Barrier,
    Post,
    Tree,
    draw_barrier,
    draw_post,
    draw_tree,
    paint_barrier,
    paint_post,
    paint_tree,
)
from refinenet.datasets.street_scenes.ground import SideStreet
from refinenet.datasets.street_scenes.people import Person, draw_cyclist, draw_walker, paint_person
from refinenet.datasets.street_scenes.vehicles import Vehicle, draw_vehicle, paint_vehicle
from refinenet.datasets.street_scenes.weather import Weather

COMING = 40.0
"""Tangent of half the heading angle towards the camera."""

Painter = Callable[[Canvas, Camera, Weather], None]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Something to paint, and the distance of its far end: the farthest is painted first."""

    distance: float
    paint: Painter


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the street: -1 left or 1 right; metres from the middle of the road."""

    side: int
    road: float
    pavement: float
    setback: float
    kind: str
    end: float

    @property
    def wall(self) -> float:
        """Distance of the buildings from the middle of the road."""
        return self.road + self.pavement + self.setback


def _post(post: Post) -> Standing:
    return Standing(distance=post.z, paint=lambda canvas, camera, weather: paint_post(canvas, camera, post, weather))


def _tree(tree: Tree) -> Standing:
    return Standing(distance=tree.z, paint=lambda canvas, camera, weather: paint_tree(canvas, camera, tree, weather))


def _person(person: Person) -> Standing:
    return Standing(
        distance=person.z, paint=lambda canvas, camera, weather: paint_person(canvas, camera, person, weather)
    )


def _vehicle(vehicle: Vehicle) -> Standing:
    return Standing(
        distance=vehicle.z, paint=lambda canvas, camera, weather: paint_vehicle(canvas, camera, vehicle, weather)
    )


def _barrier(barrier: Barrier) -> Standing:
    return Standing(
        distance=barrier.end[2], paint=lambda canvas, camera, weather: paint_barrier(canvas, camera, barrier, weather)
    )


def furnish(dice: Dice, side: Side, streets: tuple[SideStreet, ...]) -> list[Standing]:
    """Draw what stands on one side's pavement and behind it."""
    things = _posts(dice.split(), side) + _trees(dice.split(), side) + _walkers(dice.split(), side)
    things += _barriers(dice.split(), side, streets)
    things += [_tree(_end_tree(dice, side)) for _ in range(dice.whole(1, 4))]
    return things


def _end_tree(dice: Dice, side: Side) -> Tree:
    """Draw a tree beyond the end of the street."""
    x = side.side * dice.uniform(0, side.wall + 8)
    return draw_tree(dice.split(), x, side.end + dice.uniform(5, 20), dice.uniform(6, 14), True)


def _posts(dice: Dice, side: Side) -> list[Standing]:
    things = []
    kerb = side.side * (side.road + 0.45)
    place, step = dice.uniform(3, 22), dice.uniform(18, 32)
    while place < min(side.end, 140):
        things.append(_post(draw_post(dice.split(), "lamp", kerb, place)))
        place += step
    for _ in range(dice.whole(1, 5)):
        kind = dice.pick(("sign", "sign", "sign", "lights"))
        things.append(_post(draw_post(dice.split(), kind, kerb, dice.uniform(5, 40))))
    if dice.chance(0.3):
        place = dice.uniform(4, 15)
        for _ in range(dice.whole(4, 9)):
            things.append(_post(draw_post(dice.split(), "bollard", kerb, place)))
            place += 1.6
    return things


def _trees(dice: Dice, side: Side) -> list[Standing]:
    things = []
    height = dice.uniform(5, 12)
    spacing = {"terrace": 16.0, "modern": 14.0, "villas": 9.0}.get(side.kind, 6.0) * dice.uniform(0.7, 1.3)
    wanted = {"terrace": 0.45, "modern": 0.75}.get(side.kind, 0.9)
    is_lined = dice.chance(wanted)
    place = dice.uniform(6, 20)
    while place < min(side.end, 130) and is_lined:
        behind = dice.uniform(0.8, 4) if side.kind in ("villas", "park") else -0.8
        x = side.side * (side.road + side.pavement + behind)
        things.append(_tree(draw_tree(dice.split(), x, place, height * dice.uniform(0.7, 1.2), behind > 0)))
        if side.kind == "park":
            far = side.wall + dice.uniform(6, 30)
            things.append(
                _tree(draw_tree(dice.split(), side.side * far, place + 3, height * dice.uniform(0.8, 1.6), True))
            )
        place += spacing * dice.uniform(0.6, 1.4)
    return things


def _walkers(dice: Dice, side: Side) -> list[Standing]:
    things = []
    for _ in range(dice.whole(1, 7)):
        x = side.side * (side.road + dice.uniform(0.5, side.pavement - 0.3))
        z = 5 + 40 * dice.uniform(0, 1) * dice.uniform(0.2, 1)
        heading = dice.pick((0.0, COMING, COMING, 1.0, -1.0)) + dice.uniform(-0.15, 0.15)
        things.append(_person(draw_walker(dice.split(), x, z, heading)))
        if dice.chance(0.3):
            things.append(_person(draw_walker(dice.split(), x + 0.55, z + 0.1, heading)))
    return things


def _barriers(dice: Dice, side: Side, streets: tuple[SideStreet, ...]) -> list[Standing]:
    """Draw fences between pavement and gardens or parks, or railings along the kerb."""
    openings = sorted((street.near, street.far) for street in streets if street.side == side.side)
    is_garden = side.kind in ("villas", "park")
    if not dice.chance(0.85 if is_garden else 0.35):
        return []
    line = side.road + (side.pavement if is_garden else 0.3)
    place, stop = (-2.0, side.end) if is_garden else (dice.uniform(3, 15), dice.uniform(18, 35))
    things = []
    style = dice.split()
    while place < stop:
        end = min(place + dice.uniform(6, 14), stop)
        inside = [far for near, far in openings if place < far and end > near]
        if inside:
            place = inside[0] + 0.5
            continue
        x = side.side * line
        things.append(_barrier(draw_barrier(style, (x, 0.0, place), (x, 0.0, end))))
        place = end + (dice.uniform(1, 3) if dice.chance(0.4) else 0.0)
    return things


def draw_traffic(dice: Dice, sides: tuple[Side, Side]) -> list[Standing]:
    """Draw parked and moving vehicles, bicycles, and people crossing the street."""
    things = []
    road = sides[0].road
    for side in sides:
        things += _parked(dice.split(), side)
    for lane, heading in ((-0.45, 0.0), (0.45, COMING)):
        place = dice.uniform(9, 30)
        for _ in range(dice.whole(0, 4)):
            x = road * lane + dice.uniform(-0.3, 0.3)
            tilt = dice.uniform(-0.02, 0.02)
            things.append(
                _vehicle(draw_vehicle(dice.split(), x, place, heading + tilt * (1 if heading == 0 else 900), True))
            )
            place += dice.uniform(12, 30)
    for _ in range(dice.pick((0, 1, 1, 1, 2))):
        lane = dice.pick((-1.0, 1.0))
        x = lane * (road - dice.uniform(0.6, 1.6))
        heading = (0.0 if lane < 0 else COMING) if dice.chance(0.8) else dice.pick((1.0, -1.0))
        things.append(_person(draw_cyclist(dice.split(), x, dice.uniform(6, 28), heading + dice.uniform(-0.1, 0.1))))
    for _ in range(dice.pick((0, 0, 0, 1, 2))):
        walker = draw_walker(dice.split(), dice.uniform(-road, road), dice.uniform(9, 35), dice.pick((1.0, -1.0)))
        things.append(_person(walker))
    return things


def _parked(dice: Dice, side: Side) -> list[Standing]:
    things: list[Standing] = []
    if not dice.chance(0.6) or side.road < 4.3:
        return things
    place = dice.uniform(4, 25)
    while place < min(side.end, 90):
        heading = 0.0 if (side.side < 0) == dice.chance(0.85) else COMING
        x = side.side * (side.road - dice.uniform(0.95, 1.15))
        vehicle = draw_vehicle(dice.split(), x, place, heading, False)
        if dice.chance(0.75):
            things.append(_vehicle(vehicle))
        place += dice.uniform(5.3, 8) if dice.chance(0.8) else dice.uniform(10, 20)
    return things
