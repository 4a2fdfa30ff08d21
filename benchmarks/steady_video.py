"""Steady labels in drawn videos of known motion: flicker and mIoU before and after, and the time that it takes.

    python benchmarks/steady_video.py [--scenes 5] [--frames 16] [--size 480x360] [--memory 0.5 0.75 0.9]

Each scene is a drawn street past which the camera moves by whole pixels, at 0, 1, 2, 4 or 8 a frame, and a car (of
another street) that crosses it at a speed of its own; noise, a flickering exposure and JPEG make the frames differ as a
camera does. Labels are exact. Flicker is the share of pixels whose label changes though the same surface is seen: each
pixel is compared with the place in the frame before that its motion came from; those that come into sight are left out.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.video.steady import MEMORY, Steadier
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.inference.segmentation import Logits
from refinenet.io.console import print_table
from refinenet.labels import LabelSet

CAR = 8
SPEEDS = (0, 1, 2, 4, 8)
"""Pixels a frame by which the camera moves to the right."""
SCENARIOS = {"noise": (6.0, 0.02, 85), "strong noise": (14.0, 0.04, 60), "clean": (0.0, 0.0, 100)}
"""Standard deviations of the noise, in grey levels, and of the exposure, as a share; quality of the JPEG."""

Picture = npt.NDArray[np.uint8]
Map = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class TrueFrame:
    """A drawn frame with what is true of it."""

    picture: Picture
    labels: Picture
    surface: npt.NDArray[np.bool_]
    """Where the car is seen."""
    motion: tuple[int, int]
    """Pixels by which the street and the car have moved to the right since the frame before."""


def cut_car(seed: int, height: int, width: int) -> tuple[Picture, npt.NDArray[np.bool_]]:
    """Cut the largest car from the first street that has one of a sixtieth of the picture: picture and mask."""
    import cv2

    while True:
        picture, labels = draw_street(seed, height, width)
        _, parts, statistics, _ = cv2.connectedComponentsWithStats((labels == CAR).astype(np.uint8), connectivity=4)
        if len(statistics) > 1:
            best = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
            left, top, wide, high, area = (int(value) for value in statistics[best])
            if area > height * width / 60:
                box = slice(top, top + high), slice(left, left + wide)
                return picture[box], (parts == best)[box]
        seed += 100


def draw_scene(seed: int, frames: int, height: int, width: int) -> Iterator[TrueFrame]:
    """Draw the frames of a scene without the faults of a camera."""
    speed = SPEEDS[seed % len(SPEEDS)]
    wide, truth = draw_street(seed, height, width + speed * frames)
    car, mask = cut_car(1000 + seed, height, width)
    top, step = min(height - len(car), int(0.55 * height)), 3 + seed % 4
    for number in range(frames):
        start = speed * number
        picture, labels = wide[:, start : start + width].copy(), truth[:, start : start + width].copy()
        left = width // 5 + step * number
        shown = mask[:, : max(0, width - left)]
        box = slice(top, top + len(car)), slice(left, left + shown.shape[1])
        picture[box][shown] = car[:, : shown.shape[1]][shown]
        labels[box][shown] = CAR
        surface = np.zeros(labels.shape, np.bool_)
        surface[box] = shown
        yield TrueFrame(picture=picture, labels=labels, surface=surface, motion=(-speed, step))


def film(frame: TrueFrame, random: np.random.Generator, noise: float, exposure: float, quality: int) -> TrueFrame:
    """Return a frame as a camera delivers it."""
    if not noise:
        return frame
    values = frame.picture * (1 + random.normal(0, exposure)) + random.normal(0, noise, frame.picture.shape)
    content = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=quality)
    return replace(frame, picture=np.asarray(Image.open(content)))


def count_changes(before: tuple[TrueFrame, Map], now: tuple[TrueFrame, Map]) -> tuple[int, int]:
    """Count the pixels of a frame that show what the frame before showed, too, and those whose label has changed."""
    (old, old_labels), (new, new_labels) = before, now
    height, width = new_labels.shape
    columns = np.arange(width) - np.where(new.surface, new.motion[1], new.motion[0])
    rows = np.arange(height)[:, None]
    is_seen, columns = (columns >= 0) & (columns < width), columns.clip(0, width - 1)
    is_seen &= old.surface[rows, columns] == new.surface
    return int(is_seen.sum()), int((is_seen & (old_labels[rows, columns] != new_labels)).sum())


class Score:
    """Flicker and mIoU of the label maps of several videos."""

    def __init__(self, label_set: LabelSet) -> None:
        self.matrix = ConfusionMatrix(len(label_set), label_set.ignore_index)
        self.seen = self.changed = 0
        self._before: tuple[TrueFrame, Map] | None = None

    def begin(self) -> None:
        """Begin another video."""
        self._before = None

    def add(self, frame: TrueFrame, found: Logits) -> None:
        """Add the labels of a frame."""
        now = frame, found.labels()
        self.matrix.add(frame.labels, now[1].astype(np.uint8))
        if self._before is not None:
            seen, changed = count_changes(self._before, now)
            self.seen, self.changed = self.seen + seen, self.changed + changed
        self._before = now

    @property
    def flicker(self) -> float:
        """Share of the pixels without motion of their own whose label changes, in percent."""
        return 100 * self.changed / self.seen


def measure(r: RefineNet, scenario: str, options: argparse.Namespace) -> list[tuple[str, Score, float]]:
    """Return the score of plain labels, and of steadied ones for each memory; with milliseconds of processor time."""
    width, height = (int(side) for side in options.size.split("x"))
    scores = {memory: Score(r.label_set) for memory in (0.0, *options.memory)}
    seconds = dict.fromkeys(scores, 0.0)
    for seed in range(options.scenes):
        random = np.random.default_rng(seed)
        steadiers = {memory: Steadier(r.outputs, len(r.label_set), memory) for memory in scores}
        for score in scores.values():
            score.begin()
        for true in draw_scene(seed, options.frames, height, width):
            frame = film(true, random, *SCENARIOS[scenario])
            found = r._segmenter.predict_maps(frame.picture)
            for memory, score in scores.items():
                started = time.process_time()
                maps = steadiers[memory].steady(frame.picture, found) if memory else found
                seconds[memory] += time.process_time() - started
                score.add(frame, maps)
    count = options.scenes * options.frames
    names = {memory: f"steady, memory {memory:g}" if memory else "plain" for memory in scores}
    return [(names[memory], score, 1000 * seconds[memory] / count) for memory, score in scores.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--scenes", type=int, default=len(SPEEDS))
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", default="480x360")
    parser.add_argument("--memory", type=float, nargs="*", default=[MEMORY])
    parser.add_argument("--scenario", nargs="*", choices=[*SCENARIOS], default=[*SCENARIOS])
    options = parser.parse_args()
    r = RefineNet(model=options.model, device="cpu")
    for scenario in options.scenario:
        rows = []
        for name, score, milliseconds in measure(r, scenario, options):
            miou = score.matrix.scores().miou
            rows.append([name, f"{score.flicker:.2f} %", f"{100 * (miou or 0):.2f} %", f"{milliseconds:.0f} ms"])
        title = f"{scenario}: {options.scenes} scenes of {options.frames} frames, {options.size}"
        print_table(title, ("labels", "flicker", "mIoU", "processor time a frame"), rows)


if __name__ == "__main__":
    main()
