"""Drawn folders with planted faults, and a table of what the doctor finds of them.

    python tests/helpers/planted_faults.py --images 2000 --size 480x360

draws one large folder with most kinds of faults and small ones with faults that concern a whole folder, checks them
all, and prints for each kind how many were planted, found, and found where none was planted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from planted_samples import COLOURS, FAULTS, NAMES, PAINTED, Spot, draw, draw_folder, paint, save, through_jpeg

from refinenet.datasets import doctor

BINARY = "names: [ground, thing]\n"

Planted = dict[str, set[str]]
"""For each kind of finding the files that it is true of, relative to the folder."""


def plant(root: Path, count: int, size: tuple[int, int]) -> Planted:
    """Draw a folder with `count` samples, more than a twentieth of them faulty; at least one fault of each kind."""
    stems = draw_folder(root, count, size, classes=PAINTED.replace("masks: colours\n", ""))
    planted: Planted = defaultdict(set)

    def take(split: str) -> Spot:
        return Spot(root, split, stems[split].pop())

    for _ in range(max(1, count // 400)):
        for kind, spoil in FAULTS:
            planted[kind].update(spoil(take))
    return planted


class Row(NamedTuple):
    kind: str
    planted: int
    found: int
    false_alarms: int


def compare(report: doctor.Report, planted: Planted) -> list[Row]:
    """What was planted, found, and found beside it, for each kind of either."""
    found = {finding.kind: finding for finding in report.findings}
    rows = []
    for kind in doctor.KINDS:
        if kind not in planted and kind not in found:
            continue
        wanted = planted.get(kind, set())
        count = found[kind].count if kind in found else 0
        examples = found[kind].examples if kind in found else ()
        strange = sum(not wanted & set(example.split(" = ")) for example in examples)
        rows.append(Row(kind, len(wanted), min(count, len(wanted)) - strange, max(count - len(wanted), strange)))
    return rows


def kinds_of(report: doctor.Report) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


def with_palette(ids: npt.NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette([value for colour in colours for value in colour])
    return image


def check_rows(rows: Sequence[Row]) -> None:
    """Fail where a fault was not found, or one that is none."""
    assert [row for row in rows if row.planted != row.found or row.false_alarms] == []


def spread(values: Sequence[int]) -> Callable[[npt.NDArray[np.uint8]], Image.Image]:
    """Masks that hold `values[k]` for class k."""
    return lambda ids: Image.fromarray(np.array(values, np.uint8)[ids])


def smoothed(ids: npt.NDArray[np.uint8]) -> Image.Image:
    """A binary mask whose edges a drawing program has smoothed."""
    large = spread([0, 255, 255, 255])(ids).resize((ids.shape[1] * 2, ids.shape[0] * 2), Image.Resampling.BICUBIC)
    return large.resize((ids.shape[1], ids.shape[0]), Image.Resampling.BICUBIC)


def in_other_order(ids: npt.NDArray[np.uint8]) -> Image.Image:
    """The same picture with its palette in another order."""
    order = np.array([0, 2, 3, 1], np.uint8)
    colours = [COLOURS[int(np.flatnonzero(order == k)[0])] for k in range(4)]
    return with_palette(order[ids], colours)


class Set(NamedTuple):
    """A small folder with a fault of its own: how its masks are written, and what nothing else should be found."""

    name: str
    classes: str | None
    write: Callable[[npt.NDArray[np.uint8]], Image.Image]
    kinds: dict[str, int | set[str]]
    """For each kind that should be found how many of 10 masks, or what."""
    odd: Callable[[npt.NDArray[np.uint8]], Image.Image] | None = None
    """How the first three masks of train are written, where these differ."""


SETS = (
    Set("clean ids", NAMES, Image.fromarray, {}),
    Set("clean palettes", None, lambda ids: with_palette(ids, COLOURS), {}),
    Set("clean colours", PAINTED, paint, {}),
    Set("clean binary", "names: [ground, thing]\nvalues: [0, 255]\n", spread([0, 255, 255, 255]), {}),
    Set("clean with void", NAMES, lambda ids: Image.fromarray(np.pad(ids[2:-2, 2:-2], 2, constant_values=255)), {}),
    Set("clean binary with void", BINARY, lambda ids: spread([0, 1, 1, 255])(ids), {}),
    Set("0 and 255", BINARY, spread([0, 255, 255, 255]), {"mask-0-255": 10}),
    Set("0 and 255, palettes", None, lambda ids: with_palette(np.array(spread([0, 255, 255, 255])(ids)), COLOURS * 64),
        {"mask-0-255": 10}),
    Set("0 and 255, smoothed", BINARY, smoothed, {"mask-0-255": 10, "mask-interpolated": 10}),
    Set("0 and 255, JPEG", BINARY, lambda ids: through_jpeg(spread([0, 255, 255, 255])(ids)),
        {"mask-0-255": 10, "mask-interpolated": 10}),
    Set("0 and 255 and 0 and 1", BINARY, spread([0, 1, 1, 1]), {"mask-0-255-mixed": 3}, spread([0, 255, 255, 255])),
    Set("0 and 255 without names", None, spread([0, 255, 255, 255]), {"no-classes": 10}),
    Set("ids from 1", NAMES, spread([1, 2, 3, 4]), {"ids-from-1": 10}),
    Set("ids far apart", NAMES, spread([0, 50, 100, 150]), {"ids-outside": 10}),
    Set("ids without names", None, Image.fromarray, {"no-classes": 10}),
    Set("colours without names", None, paint, {"no-classes": 10}),
    Set("colours for ids", NAMES, paint, {"mask-colours-for-ids": 10}),
    Set("ids for colours", PAINTED, Image.fromarray, {"mask-unlisted-colours": 10}),
    Set("near colours", PAINTED, paint, {"mask-near-colours": 3}, lambda ids: through_jpeg(paint(ids), 95)),
    Set("unlisted colours", PAINTED.replace("[40, 60, 220]", "[40, 60, 221]"), paint, {"mask-near-colours": 10}),
    Set("palettes in conflict", None, lambda ids: with_palette(ids, COLOURS), {"palettes-conflict": 3}, in_other_order),
    Set("palettes that differ", NAMES, lambda ids: with_palette(ids, COLOURS), {"palettes-differ": 3},
        lambda ids: with_palette(ids, [(9 + k, 7, 5) for k in range(4)])),
    Set("palettes in another order", NAMES, lambda ids: with_palette(ids, COLOURS), {"palettes-permuted": 3},
        in_other_order),
    Set("a class too many", NAMES.replace("]", ", sky]"), Image.fromarray, {"class-absent": {"sky"}}),
    Set("nothing but void", NAMES, spread([255] * 4), {"nothing-but-void": 10}),
    Set("damaged classes file", "names: [ground, disc\n", Image.fromarray, {"classes-file": {"classes.yaml"}}),
)  # fmt: skip


def find_set(name: str) -> Set:
    return next(planned for planned in SETS if planned.name == name)


def draw_set(root: Path, planned: Set, size: tuple[int, int], first_seed: int) -> Planted:
    stems = draw_folder(root, 10, size, first_seed=first_seed, classes=planned.classes)
    for split, names in stems.items():
        for number, stem in enumerate(names):
            spot = Spot(root, split, stem)
            is_odd = planned.odd is not None and split == "train" and number < 3
            spot.replace_mask((planned.odd or planned.write)(spot.ids()) if is_odd else planned.write(spot.ids()))
    masks = sorted(path.relative_to(root).as_posix() for path in root.glob("masks/*/*.png"))
    return {kind: set(masks[:what]) if isinstance(what, int) else what for kind, what in planned.kinds.items()}


def draw_layout_faults(root: Path, size: tuple[int, int], first_seed: int) -> Planted:
    """A list that names what is not there, a split without masks, and classes that one split lacks."""
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for number in range(8):
        image, ids = draw(first_seed + number, *size)
        kept = np.where(ids == 3, 0, ids) if number < 6 else np.where(ids == 2, 0, ids)
        save(root / "JPEGImages" / f"{number}.jpg", image)
        save(root / "SegmentationClass" / f"{number}.png", Image.fromarray(kept.astype(np.uint8)))
    (lists / "train.txt").write_text("".join(f"{number}\n" for number in [*range(6), "lost", "gone"]))
    (lists / "val.txt").write_text("6\n7\n")
    (lists / "test.txt").write_text("nothing\n")
    (root / "classes.yaml").write_text(NAMES)
    return {
        "listed-missing": {"lost", "gone", "nothing"},
        "empty-split": {"test"},
        "class-not-in-train": {"bar"},
        "class-not-in-val": {"block"},
    }


def check_all(folder: Path, count: int, size: tuple[int, int]) -> tuple[list[Row], float]:
    """Draw and check everything; the rows of all folders together, and the seconds for the large one."""
    planted = plant(folder / "large", count, size)
    begin = time.perf_counter()
    report = doctor.check(folder / "large")
    seconds = time.perf_counter() - begin
    rows = compare(report, planted)
    small = (size[0] // 2, size[1] // 2) if size[0] >= 192 else size
    for number, planned in enumerate(SETS):
        planted = draw_set(folder / planned.name, planned, small, 1_000_000 + 100 * number)
        rows += compare(doctor.check(folder / planned.name), planted)
    planted = draw_layout_faults(folder / "lists", small, 2_000_000)
    rows += compare(doctor.check(folder / "lists"), planted)
    draw_folder(folder / "clean", count, size, first_seed=3_000_000)
    rows += compare(doctor.check(folder / "clean"), {})
    return add_up(rows), seconds


def add_up(rows: Iterable[Row]) -> list[Row]:
    sums: dict[str, list[int]] = {}
    for row in rows:
        numbers = sums.setdefault(row.kind, [0, 0, 0])
        sums[row.kind] = [old + new for old, new in zip(numbers, row[1:], strict=True)]
    return [Row(kind, *sums[kind]) for kind in doctor.KINDS if kind in sums]


def main() -> int:
    """Draw, check, print the table; 0 where all was found and nothing else."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", default="480x360", help="WIDTHxHEIGHT")
    arguments = parser.parse_args()
    width, _, height = arguments.size.partition("x")
    folder = Path(tempfile.mkdtemp(prefix="planted-faults-"))
    try:
        rows, seconds = check_all(folder, arguments.images, (int(width), int(height)))
    finally:
        shutil.rmtree(folder)
    print(f"{'kind':32}{'planted':>9}{'found':>9}{'false alarms':>14}")
    for row in rows:
        print(f"{row.kind:32}{row.planted:9}{row.found:9}{row.false_alarms:14}")
    total = [
        sum(numbers) for numbers in zip(*((row.planted, row.found, row.false_alarms) for row in rows), strict=True)
    ]
    print(f"{f'{len(rows)} kinds':32}{total[0]:9}{total[1]:9}{total[2]:14}")
    print(f"{arguments.images} samples of {arguments.size}: checked in {seconds:.1f} s")
    return int(total[0] != total[1] or total[2] > 0)


if __name__ == "__main__":
    sys.exit(main())
