"""Planted label errors: how many of the first suspects of `refinenet label errors` are errors.

    python benchmarks/label_errors.py [draw] [plant] [find] [score] --output FOLDER
                         [--images 2000] [--errors 200] [--size 240 180] [--epochs 4] [--folds 2] [--seed 0]
                         [--start camvid] [--crop 96 128]

`draw` writes street scenes as a user's folder, and their true masks beside it. `plant` replaces masks by wrong ones:
one error in each of `--errors` images, equally many of ten kinds. `find` searches for them as a user would, with models
of `--folds` folds that start from `--start` (which has seen none of these scenes), none of which judges an image that
it was trained on. `score`
counts: a suspect is a hit if at least half of its pixels were changed by a planted error. Without any of these words,
all four are done. Everything is kept in FOLDER: images and masks that are there are not drawn again, finished folds are
not trained again, and a killed search goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from refinenet.datasets.street_scenes import draw_street
from refinenet.datasets.street_scenes.dataset import LABEL_SET
from refinenet.inference import number_regions
from refinenet.io.console import print_note, print_table
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import write
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelMap

STEPS = ("draw", "plant", "find", "score")
FIRST_SEED = 5_000_000
VOID = LABEL_SET.ignore_index
THINGS = tuple(LABEL_SET.names.index(name) for name in LABEL_SET.names[2:] if name not in ("road", "pavement"))
"""Ids of classes with objects of limited size."""
LEAST = 0.0018
"""Smallest error, as a share of the image: 78 pixels of 240x180."""

Labels = LabelMap
Mask = npt.NDArray[np.bool_]
Plant = Callable[[Labels, Mask, Generator], Labels]
"""Changes the labels of an object, given by its mask."""


def surround(labels: Labels, region: Mask) -> int:
    """Return the most frequent class around a region."""
    near = widen(region) & ~region
    return int(np.bincount(labels[near], minlength=1).argmax()) if near.any() else 0


def widen(mask: Mask, times: int = 1) -> Mask:
    """Dilate a mask by pixels."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | mask
    return mask


def box(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def move(mask: Mask, down: int, right: int) -> Mask:
    """Shift a mask; what leaves the image is lost."""
    moved = np.roll(mask, (down, right), (0, 1))
    if down:
        moved[slice(0, down) if down > 0 else slice(down, None)] = False
    if right:
        moved[:, slice(0, right) if right > 0 else slice(right, None)] = False
    return moved


def swap_class(labels: Labels, region: Mask, random: Generator) -> Labels:
    """Give an object another class."""
    own = int(labels[region][0])
    others = [k for k in range(len(LABEL_SET)) if k not in (own, surround(labels, region))]
    return np.where(region, np.uint8(random.choice(others)), labels)


def shift(labels: Labels, region: Mask, random: Generator) -> Labels:
    """Shift the label of an object by half its size or more."""
    rows, columns = box(region)
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    angle = random.uniform(0, 2 * np.pi)
    moved = move(region, round(0.7 * high * np.sin(angle)), round(0.7 * wide * np.cos(angle)))
    emptied = np.where(region, np.uint8(surround(labels, region)), labels)
    return np.where(moved, labels[region][0], emptied)


def forget(labels: Labels, region: Mask, random: Generator) -> Labels:  # noqa: ARG001 - as all kinds
    """Leave out an object."""
    return np.where(region, np.uint8(surround(labels, region)), labels)


def merge(labels: Labels, region: Mask, random: Generator) -> Labels:  # noqa: ARG001 - as all kinds
    """Let an object run over its border into what is around it."""
    rows, columns = box(region)
    times = max(4, round(0.35 * min(rows.stop - rows.start, columns.stop - columns.start)))
    return np.where(widen(region, times), labels[region][0], labels)


def void(labels: Labels, region: Mask, random: Generator) -> Labels:  # noqa: ARG001 - as all kinds
    """Mark an object as void."""
    return np.where(region, np.uint8(VOID), labels)


def invent(labels: Labels, region: Mask, random: Generator) -> Labels:
    """Label an object where there is none: a copy of this one elsewhere."""
    height, width = labels.shape
    for _ in range(50):
        copy = move(region, int(random.integers(-height, height)), int(random.integers(-width, width)))
        if copy.sum() >= 0.9 * region.sum() and not (copy & widen(region, 2)).any():
            return np.where(copy & (labels != labels[region][0]), labels[region][0], labels)
    return labels


def halve(labels: Labels, region: Mask, random: Generator) -> Labels:
    """Leave out half of an object."""
    rows, columns = box(region)
    half = np.zeros_like(region)
    if random.random() < 0.5:
        half[:, : (columns.start + columns.stop) // 2] = True
    else:
        half[: (rows.start + rows.stop) // 2] = True
    return np.where(region & half, np.uint8(surround(labels, region)), labels)


def outline_as_box(labels: Labels, region: Mask, random: Generator) -> Labels:  # noqa: ARG001 - as all kinds
    """Label an object by its bounding box."""
    filled = np.zeros_like(region)
    filled[box(region)] = True
    return np.where(filled, labels[region][0], labels)


def slip(labels: Labels, region: Mask, random: Generator) -> Labels:
    """Let the brush of another object slip over the image."""
    height, width = labels.shape
    rows, columns = np.mgrid[:height, :width]
    row, column = (int(each[len(each) // 2]) for each in np.nonzero(region))
    angle, length = random.uniform(0, np.pi), random.uniform(0.15, 0.3) * width
    along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
    across = -(rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
    stroke = (along >= 0) & (along <= length) & (abs(across) <= max(3, height // 45))
    return np.where(stroke, labels[region][0], labels)


def exchange(labels: Labels, region: Mask, random: Generator) -> Labels:  # noqa: ARG001 - as all kinds
    """Exchange the classes of an object and of what surrounds it, in a frame around it."""
    own, other = int(labels[region][0]), surround(labels, region)
    rows, columns = box(region)
    frame = np.zeros_like(region)
    frame[max(0, rows.start - 4) : rows.stop + 4, max(0, columns.start - 4) : columns.stop + 4] = True
    swapped = np.where(frame & (labels == other), np.uint8(own), labels)
    return np.where(region, np.uint8(other), swapped)


KINDS: Mapping[str, Plant] = {
    "swapped class": swap_class,
    "shifted object": shift,
    "missing object": forget,
    "merged border": merge,
    "wrong void": void,
    "invented object": invent,
    "half an object": halve,
    "box instead of outline": outline_as_box,
    "slip of the brush": slip,
    "exchanged classes": exchange,
}
"""Kinds of errors by name."""


def draw(folder: Path, images: int, size: tuple[int, int], seed: int) -> None:
    """Write the images that are missing, and their true masks."""
    for number in range(images):
        target = folder / "truth" / f"{number:05d}.png"
        if not target.exists():
            pixels, labels = draw_street(FIRST_SEED + seed * 1_000_000 + number, size[1], size[0])
            write(folder / "set" / "images" / f"{number:05d}.png", pixels)
            write(target, labels)
    names = ", ".join(f'"{name}"' for name in LABEL_SET.names)
    write_atomically(folder / "set" / "classes.yaml", f"names: [{names}]\n".encode())


def plant(folder: Path, images: int, errors: int, seed: int) -> None:
    """Write the masks of the set, with errors, and list them in planted.csv."""
    random = np.random.default_rng([seed, 1])
    kinds = list(KINDS)
    rows: list[dict[str, Any]] = []
    waiting = [kinds[number % len(kinds)] for number in range(errors)]
    for number in random.permutation(images).tolist():
        labels = read_mask(folder / "truth" / f"{number:05d}.png")
        wrong = _spoil(labels, waiting[0], random) if waiting else None
        if wrong is not None:
            changed = wrong != labels
            rows.append({"image": f"{number:05d}", "kind": waiting.pop(0), "pixels": int(changed.sum())})
            write(folder / "changed" / f"{number:05d}.png", changed.astype(np.uint8))
        write(folder / "set" / "masks" / f"{number:05d}.png", labels if wrong is None else wrong)
    assert not waiting, f"Only {len(rows)} images have an object that is large enough."
    with (folder / "planted.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["image", "kind", "pixels"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["image"]))


def _spoil(labels: Labels, kind: str, random: Generator) -> Labels | None:
    """Plant an error into one of the objects of an image; None if none of them gives a change that is large enough."""
    numbers = number_regions(labels)
    areas, classes = np.bincount(numbers.ravel()), np.zeros(numbers.max() + 1, np.int64)
    classes[numbers] = labels
    least = LEAST * labels.size
    fit = np.flatnonzero(np.isin(classes, THINGS) & (areas >= least) & (areas <= 0.12 * labels.size))
    for region in random.permutation(fit):
        wrong = KINDS[kind](labels, numbers == region, random)
        changed = wrong != labels
        thick = ~widen(~changed, 2)  # nothing but a thin line is left to no one's judgement
        if changed.sum() >= least and thick.any():
            return wrong
    return None


def find(folder: Path, arguments: argparse.Namespace) -> None:
    """Search for label errors by the package's own function, with fold models."""
    from refinenet.labelling import Folds, find_label_errors

    settings = {
        "epochs": arguments.epochs,
        "batch_size": 8,
        "crop_size": arguments.crop,
        "workers": 0,
        "learning_rate": 0.001,
        "loggers": [],
        "seed": arguments.seed,
    }
    network = {"size": "small"} if arguments.start == "imagenet" else {"model": arguments.start}
    found = find_label_errors(
        folder / "set",
        folder / "suspects",
        folds=Folds(count=arguments.folds, network=network, settings=settings),
        device="cpu",
    )
    print_note(found.describe())


def score(folder: Path, first: int) -> None:
    """Print how many of the first suspects are planted errors, and what the others are."""
    with (folder / "planted.csv").open(encoding="utf-8", newline="") as stream:
        planted = {row["image"]: row["kind"] for row in csv.DictReader(stream)}
    suspects = json.loads((folder / "suspects" / "suspects.json").read_text("utf-8"))["suspects"]
    hits, false = [], []
    for suspect in suspects:
        name = Path(suspect["image"]).stem
        is_hit = False
        if name in planted:
            changed = read_mask(folder / "changed" / f"{name}.png") == 1
            region = read_mask(folder / "suspects" / suspect["region"]) == suspect["number"]
            is_hit = bool(changed[region].mean() >= 0.5)
        hits.append(planted[name] if is_hit else None)
        if not is_hit and len(hits) <= first:
            false.append([str(len(hits)), name, suspect["label"], suspect["prediction"], f"{suspect['score']:.3f}"])
    _print(suspects, hits, false, planted, first)


def _print(
    suspects: list[dict[str, Any]],
    hits: list[str | None],
    false: list[list[str]],
    planted: Mapping[str, str],
    first: int,
) -> None:
    rows = []
    for count in (10, 20, 50, 100, 150, 200, 300):
        if count <= len(suspects):
            right = [index for index in range(count) if hits[index] is not None]
            images = {suspects[index]["image"] for index in right}
            shares = [f"{100 * len(right) / count:.0f} %", f"{len(images)} of {len(planted)}"]
            rows.append([f"first {count}", *shares])
    print_table("Suspects that are planted errors", ["", "precision", "errors found"], rows)
    kinds = Counter(planted.values())
    of_first = {suspects[k]["image"]: kind for k, kind in enumerate(hits[:first]) if kind is not None}
    by_kind = Counter(of_first.values())
    table = [[kind, str(by_kind[kind]), str(kinds[kind])] for kind in KINDS]
    print_table(f"Errors among the first {first} suspects, by kind", ["", "found", "planted"], table)
    print_table("Suspects that are no planted errors", ["rank", "image", "label", "prediction", "score"], false)


def main() -> None:
    """Draw, plant, find, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--errors", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 180), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--crop", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument(
        "--start", default="camvid", help="model to start from, or imagenet for a new network of size small"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.steps) - {*STEPS}
    if unknown:
        parser.error(f"there is no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    steps, folder = arguments.steps or STEPS, arguments.output
    if "draw" in steps:
        draw(folder, arguments.images, arguments.size, arguments.seed)
    if "plant" in steps:
        plant(folder, arguments.images, arguments.errors, arguments.seed)
    if "find" in steps:
        find(folder, arguments)
    if "score" in steps:
        score(folder, arguments.first)


if __name__ == "__main__":
    main()
