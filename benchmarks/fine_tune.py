"""Fine-tuning: accuracy and time of the bundled model on a small custom dataset.

    python benchmarks/fine_tune.py [--epochs 60] [--images 60] [--seed 0] [--keep FOLDER] [--draw-only]

The dataset is drawn here: pictures of 320x240 pixels with three classes. The ground is grass, gravel or a mixture of
both; on it lie overlapping pieces of wickerwork and cracked clay, of any shape and size, in light that varies over
the picture. Colours have the same distribution in all three classes, so only texture distinguishes them.

It is written as a user's folder (images/, masks/, classes.yaml), of which `refinenet train` uses every fifth picture
for validation; then `refinenet train --recipe few_images` and `refinenet eval` run as a user runs them. Seconds are
those of the whole training command; CPU seconds are those of all its processes, which other load on the machine hardly
affects.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from refinenet.io.console import print_table
from refinenet.io.images.codec import write

HEIGHT, WIDTH = 240, 320
CLASSES = ("ground", "wicker", "clay")
COLOURS = ((110, 110, 110), (220, 60, 60), (60, 100, 230))
"""Of the masks' palette."""

Plane = npt.NDArray[np.float64]
"""`(H, W)`."""


@dataclass(frozen=True)
class Scene:
    """An image and its label map while they are drawn."""

    pixels: npt.NDArray[np.float64]
    """`(H, W, 3)` RGB, 0 to 255."""
    ids: npt.NDArray[np.uint8]
    """`(H, W)`."""


def draw_noise(random: Generator, slope: float) -> Plane:
    """Noise whose amplitude falls with frequency to the power `slope`; mean 0, standard deviation 1."""
    spectrum = np.fft.rfft2(random.normal(size=(HEIGHT, WIDTH)))
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(spectrum * frequency**-slope, (HEIGHT, WIDTH))
    return np.asarray((noise - noise.mean()) / noise.std())


def draw_colour(random: Generator) -> npt.NDArray[np.float64]:
    """Draw an earthy colour, `(3,)` RGB, independent of the class."""
    return random.uniform((70, 65, 45), (190, 180, 150))


def paint(values: Plane, random: Generator, contrast: float) -> npt.NDArray[np.float64]:
    """Colour a texture with values of about -1 to 1: `(H, W, 3)`."""
    dark, bright = draw_colour(random), draw_colour(random)
    middle = (dark + bright) / 2
    # A texture varies mostly in brightness and a little in colour.
    tint = (bright - dark) / 2 * 0.4
    return np.asarray(middle * (1 + contrast * values[..., None]) + tint * values[..., None])


def draw_ground(random: Generator) -> npt.NDArray[np.float64]:
    """Draw grass and gravel, and the mixture of both."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    blades = draw_noise(random, 0.4)
    lean = random.uniform(-0.4, 0.4)
    grass = np.mean([np.roll(blades, (step, round(step * lean)), (0, 1)) for step in range(5)], axis=0) * 2
    stones = draw_noise(random, 1.2) + 0.6 * draw_noise(random, 0.2)
    where = draw_noise(random, 1.8) + random.normal(0, 0.8) + (rows + columns) / (HEIGHT + WIDTH) - 0.5
    share = 1 / (1 + np.exp(-6 * where))[..., None]
    ground: npt.NDArray[np.float64] = share * paint(grass, random, 0.14) + (1 - share) * paint(stones, random, 0.14)
    return ground


def warp(random: Generator, strength: float) -> tuple[Plane, Plane]:
    """Rotated and distorted coordinates, in pixels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    rows += strength * draw_noise(random, 1.9)
    columns += strength * draw_noise(random, 1.9)
    angle = random.uniform(0, np.pi)
    return np.cos(angle) * rows - np.sin(angle) * columns, np.sin(angle) * rows + np.cos(angle) * columns


def draw_wicker(random: Generator) -> npt.NDArray[np.float64]:
    """Draw woven canes."""
    down, across = (axis * 2 * np.pi / random.uniform(12, 18) for axis in warp(random, 6))
    over = np.sin(down / 2) * np.sin(across / 2) > 0
    canes = np.where(over, np.abs(np.sin(down / 2)), np.abs(np.sin(across / 2))) * 2 - 1.2
    return paint(canes + 0.35 * draw_noise(random, 0.3), random, 0.22)


def draw_clay(random: Generator) -> npt.NDArray[np.float64]:
    """Draw plates with cracks between them, from the distances to the two nearest points of a jittered grid."""
    down, across = warp(random, 4)
    size = random.uniform(10, 17)
    shifts = random.uniform(0, 1, (64, 64, 2))
    row, column = np.floor(down / size).astype(int), np.floor(across / size).astype(int)
    distances = []
    for r in (-1, 0, 1):
        for c in (-1, 0, 1):
            shift = shifts[(row + r) % 64, (column + c) % 64]
            point = (row + r + shift[..., 0]) * size, (column + c + shift[..., 1]) * size
            distances.append(np.hypot(down - point[0], across - point[1]))
    nearest, second = np.sort(np.stack(distances), axis=0)[:2]
    plates = np.clip((second - nearest) / 3, 0, 1) * 2 - 1.3
    return paint(plates + 0.35 * draw_noise(random, 0.3), random, 0.22)


def draw_outline(random: Generator) -> npt.NDArray[np.bool_]:
    """Draw a smooth shape at a random place: `(H, W)`."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    down, across = rows - random.uniform(0, HEIGHT), (columns - random.uniform(0, WIDTH)) * random.uniform(0.6, 1.6)
    angle = np.arctan2(down, across)
    radius = np.full((HEIGHT, WIDTH), random.uniform(18, 62))
    for waves in range(2, 7):
        radius *= 1 + random.normal(0, 0.5) / waves * np.sin(waves * angle + random.uniform(0, 2 * np.pi))
    inside: npt.NDArray[np.bool_] = np.hypot(down, across) < radius
    return inside


def lay(scene: Scene, random: Generator) -> Scene:
    """Add an object and its shadow to the scene."""
    label = int(random.integers(1, len(CLASSES)))
    texture = draw_wicker(random) if CLASSES[label] == "wicker" else draw_clay(random)
    inside = draw_outline(random)
    down, right = random.integers(2, 6, 2)
    shadow = np.pad(inside, ((down, 0), (right, 0)))[:HEIGHT, :WIDTH] & ~inside
    below = np.where(shadow[..., None], scene.pixels * random.uniform(0.55, 0.8), scene.pixels)
    lit = texture * random.uniform(0.8, 1.2)
    return Scene(np.where(inside[..., None], lit, below), np.where(inside, np.uint8(label), scene.ids))


def draw_picture(seed: int, number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw an image `(240, 320, 3)` uint8 RGB and its ids `(240, 320)` uint8."""
    random = np.random.default_rng([seed, number])
    scene = Scene(draw_ground(random), np.zeros((HEIGHT, WIDTH), np.uint8))
    for _ in range(random.integers(4, 10)):
        scene = lay(scene, random)
    light = 1 + 0.18 * draw_noise(random, 2.5) + random.uniform(-0.25, 0.25) * np.linspace(-1, 1, WIDTH)
    pixels = scene.pixels * light[..., None] * random.uniform(0.8, 1.2)
    pixels += random.normal(0, random.uniform(2, 7), pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), scene.ids


def write_set(folder: Path, images: int, seed: int) -> None:
    """Write the dataset as a user's folder."""
    for number in range(images):
        pixels, ids = draw_picture(seed, number)
        write(folder / "images" / f"{number:03d}.jpg", pixels)
        write(folder / "masks" / f"{number:03d}.png", ids, palette=COLOURS)
    (folder / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n", encoding="utf-8")


def run(*arguments: str | Path) -> tuple[str, float, float]:
    """Run `refinenet ARGUMENTS`; return its output, its seconds, and the CPU seconds of all its processes."""
    command = [sys.executable, "-m", "refinenet", *map(str, arguments)]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return printed, time.perf_counter() - started, busy


def report(evaluation: dict[str, Any], command: list[str], epochs: int, seconds: float, busy: float) -> None:
    """Print the results."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ious = evaluation["class_iou"]
    rows = [
        ["command", " ".join(command)],
        ["cores", str(cores)],
        ["seconds", f"{seconds:.0f}"],
        ["CPU seconds", f"{busy:.0f}"],
        ["mIoU %", f"{100 * evaluation['miou']:.2f}"],
        *([f"IoU % of {name}", f"{100 * ious[name]:.2f}"] for name in CLASSES),
        ["pixel accuracy %", f"{100 * evaluation['pixel_accuracy']:.2f}"],
        ["images measured on", str(evaluation["images"])],
    ]
    print_table(f"Fine-tuning the bundled model, {epochs} epochs", ["", "value"], rows)


def main() -> None:
    """Draw, train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the dataset and the run")
    parser.add_argument("--draw-only", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place: Path = arguments.keep or Path(temporary)
        write_set(place / "set", arguments.images, arguments.seed)
        if arguments.draw_only:
            return
        command = ["train", "--recipe", "few_images", "--dataset", str(place / "set"), "--model", "camvid"]
        command += ["--epochs", str(arguments.epochs)]
        _, seconds, busy = run(*command, "--device", "cpu", "--output", place / "run")
        model = place / "run" / "best.safetensors"
        printed, _, _ = run("eval", "--dataset", place / "set", "--model", model, "--device", "cpu", "--json")
        report(json.loads(printed), ["refinenet", *command], arguments.epochs, seconds, busy)


if __name__ == "__main__":
    main()
