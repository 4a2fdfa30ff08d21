"""The layout of a street scene. See `canvas` for units and the rule that keeps drawings exact."""

from __future__ import annotations

from dataclasses import dataclass

from refinenet.datasets.street_scenes.buildings import Building, draw_facade, paint_building
from refinenet.datasets.street_scenes.canvas import Camera, Canvas, Dice, Point
from refinenet.datasets.street_scenes.ground import MARKING, YELLOW, Ground, Patch, SideStreet
from refinenet.datasets.street_scenes.occupants import Side, Standing, draw_traffic, furnish
from refinenet.datasets.street_scenes.weather import PAVEMENT, TREE, Weather


@dataclass(frozen=True, kw_only=True)
class StreetPlan:
    """A street: its ground, and the things on it."""

    ground: Ground
    things: tuple[Standing, ...]

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather) -> None:
        """Paint everything that stands on the ground, from far to near."""
        for thing in sorted(self.things, key=lambda thing: -thing.distance):
            thing.paint(canvas, camera, weather)


def draw_street_plan(dice: Dice) -> StreetPlan:
    """Draw a random street."""
    road = dice.uniform(3.2, 6.5)
    end = dice.uniform(70, 220)
    sides = [_draw_side(dice.split(), side, road, end) for side in (-1, 1)]
    streets = tuple(street for side in sides for street in _draw_streets(dice.split(), side))
    things: list[Standing] = []
    roofs: list[tuple[float, ...]] = []
    for side in sides:
        buildings = _draw_row(dice.split(), side, streets)
        roofs.append(_roof_line(buildings))
        things += [_building(building) for building in buildings]
        things += _draw_back(dice.split(), side, streets)
    things += _draw_end(dice.split(), end)
    for side in sides:
        things += furnish(dice.split(), side, streets)
    things += draw_traffic(dice.split(), (sides[0], sides[1]))
    ground = _draw_ground(dice.split(), road, (sides[0], sides[1]), streets, (roofs[0], roofs[1]))
    return StreetPlan(ground=ground, things=tuple(things))


def _draw_side(dice: Dice, side: int, road: float, end: float) -> Side:
    kind = dice.pick(("terrace", "terrace", "terrace", "modern", "villas", "villas", "park"))
    setback = {"terrace": 0.0, "modern": dice.uniform(0, 3), "villas": dice.uniform(2.5, 6)}.get(kind, 8.0)
    return Side(side=side, road=road, pavement=dice.uniform(2.0, 4.8), setback=setback, kind=kind, end=end)


def _draw_streets(dice: Dice, side: Side) -> list[SideStreet]:
    streets, place = [], dice.uniform(8, 40)
    while place < side.end - 20:
        wide = dice.uniform(5, 9)
        if dice.chance(0.6):
            streets.append(SideStreet(side=side.side, near=place, far=place + wide))
        place += wide + dice.uniform(30, 70)
    return streets


def _draw_row(dice: Dice, side: Side, streets: tuple[SideStreet, ...]) -> list[Building]:
    """Draw the buildings along one side, from near to far."""
    openings = sorted((street.near - 1.5, street.far + 1.5) for street in streets if street.side == side.side)
    buildings: list[Building] = []
    usual = dice.uniform(6.5, 14) if side.kind != "modern" else dice.uniform(9, 22)
    place = -12.0
    while place < side.end and side.kind != "park":
        wide = dice.uniform(5, 13) if side.kind == "terrace" else dice.uniform(9, 16)
        wide = wide * 2 if side.kind == "modern" else wide
        stop = place + wide
        for near, far in openings:
            if place < far and stop > near:
                place, stop = (place, near) if near - place > 4 else (far, far + wide)
        buildings.append(_draw_building(dice.split(), side, (place, stop), usual))
        place = stop + (
            dice.uniform(1.5, 6) if side.kind == "villas" else 0.0 if dice.chance(0.85) else dice.uniform(2, 5)
        )
    return buildings


def _draw_building(dice: Dice, side: Side, z: tuple[float, float], usual: float) -> Building:
    modern = side.kind == "modern" or dice.chance(0.12)
    wall = side.wall + (0.0 if dice.chance(0.7) else dice.uniform(0, 0.8))
    deep = dice.uniform(8, 13)
    return Building(
        x=(wall, wall + deep) if side.side > 0 else (-wall - deep, -wall),
        z=z,
        height=usual * dice.uniform(0.8, 1.25),
        rise=0.0 if modern or dice.chance(0.25) else dice.uniform(2, 5),
        facade=draw_facade(dice, modern),
        blank_sides=dice.chance(0.7),
    )


def _building(building: Building) -> Standing:
    return Standing(
        distance=building.z[1],
        paint=lambda canvas, camera, weather: paint_building(canvas, camera, building, weather),
    )


def _roof_line(buildings: list[Building]) -> tuple[float, ...]:
    heights = [0.0] * 130
    for building in buildings:
        first, last = int((building.z[0] + 20) / 2), int((building.z[1] + 20) / 2)
        for place in range(max(first, 0), min(last + 1, len(heights))):
            heights[place] = building.height + building.rise * 0.5
    return tuple(heights)


def _draw_back(dice: Dice, side: Side, streets: tuple[SideStreet, ...]) -> list[Standing]:
    """Draw the buildings behind the first row, seen through its gaps."""
    things = []
    place = -10.0
    while place < side.end + 40:
        wide = dice.uniform(12, 30)
        wall = side.wall + dice.uniform(22, 45)
        building = Building(
            x=(wall, wall + 12) if side.side > 0 else (-wall - 12, -wall),
            z=(place, place + wide),
            height=dice.uniform(5, 12),
            rise=dice.uniform(2, 4) if dice.chance(0.7) else 0.0,
            facade=draw_facade(dice.split(), dice.chance(0.4)),
            blank_sides=False,
        )
        if dice.chance(0.75) and _shows(side, wall, building.z, streets):
            standing = _building(building)
            things.append(Standing(distance=standing.distance + 1000, paint=standing.paint))
        place += wide + dice.uniform(0, 25)
    return things


def _shows(side: Side, wall: float, z: Point, streets: tuple[SideStreet, ...]) -> bool:
    """Return whether a building behind the first row may be visible through its gaps; errs towards True."""
    if side.kind in ("villas", "park"):
        return True
    spread = wall / side.wall
    gaps = [(street.near * spread - 15, street.far * spread + 15) for street in streets if street.side == side.side]
    return any(z[0] < far and z[1] > near for near, far in gaps)


def _draw_end(dice: Dice, end: float) -> list[Standing]:
    """Draw what closes the view at the end of the street."""
    things = []
    place = -70.0
    while place < 70:
        wide = dice.uniform(10, 25)
        building = Building(
            x=(place, place + wide),
            z=(end + dice.uniform(18, 30), end + 50),
            height=dice.uniform(5, 14),
            rise=0.0,
            facade=draw_facade(dice.split(), dice.chance(0.4)),
            blank_sides=False,
        )
        place += wide
        if dice.chance(0.7):
            things.append(_building(building))
    return things


def _draw_ground(
    dice: Dice,
    road: float,
    sides: tuple[Side, Side],
    streets: tuple[SideStreet, ...],
    roofs: tuple[tuple[float, ...], tuple[float, ...]],
) -> Ground:
    tone = dice.uniform(0.27, 0.52)
    slabs = dice.uniform(0.42, 0.68)
    left, right = sides
    return Ground(
        road=road,
        pavement=(left.pavement, right.pavement),
        beyond=(_beyond(dice, left), _beyond(dice, right)),
        asphalt=dice.vary((tone, tone, tone * 1.03), 0.05),
        slabs=dice.vary(
            dice.pick(
                (
                    (slabs, slabs, slabs),
                    (slabs, slabs * 0.95, slabs * 0.85),
                    (slabs, slabs * 0.8, slabs * 0.7),
                )
            ),
            0.05,
        ),
        grass=dice.vary((0.3, 0.38, 0.16), 0.2),
        slab=dice.uniform(0.4, 0.9),
        kerb=dice.vary((0.62, 0.61, 0.58), 0.1),
        dashes=(
            dice.uniform(2, 4),
            0.0 if dice.chance(0.2) else dice.uniform(2, 6),
            dice.uniform(0.05, 0.08),
        ),
        edge_lines=(dice.uniform(0.25, 0.4), dice.pick((YELLOW, YELLOW, MARKING)), dice.whole(0, 2)),
        patches=_draw_patches(dice.split(), road),
        streets=streets,
        roofs=roofs,
        walls=(left.wall, right.wall),
        bend=0.0 if dice.chance(0.5) else dice.uniform(-0.0022, 0.0022),
        texture=dice.uniform(0, 1),
    )


def _beyond(dice: Dice, side: Side) -> int:
    return TREE if side.kind == "park" or (side.kind == "villas" and dice.chance(0.6)) else PAVEMENT


def _draw_patches(dice: Dice, road: float) -> tuple[Patch, ...]:
    """Draw zebra crossings, stop lines and repairs."""
    patches = []
    for _ in range(dice.whole(1, 5)):
        x, z, shade = dice.uniform(-road, road * 0.7), dice.uniform(3, 40), dice.uniform(0.15, 0.5)
        size = dice.uniform(0.4, 2), dice.uniform(0.5, 6)
        patches.append(Patch(x=(x, x + size[0]), z=(z, z + size[1]), colour=(shade, shade, shade), strength=0.5))
    if dice.chance(0.35):
        z, x = dice.uniform(6, 35), -road + 0.4
        while x < road - 0.5:
            patches.append(Patch(x=(x, x + 0.55), z=(z, z + 3), colour=MARKING, strength=0.9))
            x += 1.15
    if dice.chance(0.3):
        z = dice.uniform(5, 30)
        patches.append(Patch(x=(-road + 0.3, -0.1), z=(z, z + 0.35), colour=MARKING, strength=0.9))
    return tuple(patches)
