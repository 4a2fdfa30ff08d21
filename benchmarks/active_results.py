"""Results of `active_labels.py` in one file, their tables, and accuracy against the number of labels as a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refinenet.io.console import print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARMS = ("ours", "random")
SHARE = 0.95
"""Share of the fully labelled mIoU that is to be reached."""
_LINES = {"ours": ("tab:blue", "chosen by label next"), "random": ("tab:gray", "chosen at random")}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """mIoU in [0, 1] on the images of one measurement, round by round."""

    title: str
    """What these images are."""
    arms: dict[str, list[list[float]]]
    """Rounds of each seed, for each arm."""
    whole: list[float]
    """With all labels, for each seed."""

    @property
    def goal(self) -> float | None:
        """Return the mIoU to be reached; None without a training on all labels."""
        return SHARE * statistics.fmean(self.whole) if self.whole else None

    def mean(self, arm: str) -> list[float]:
        """Return the mean of the seeds that have begun, in each round that all of these have finished."""
        found = [curve for curve in self.arms[arm] if curve]
        # Not strict: while the benchmark runs, seeds have finished different numbers of rounds.
        return [statistics.fmean(values) for values in zip(*found, strict=False)]


@dataclass(frozen=True, kw_only=True)
class ActiveResults:
    """Rounds of all arms, and the conditions under which they were trained."""

    trained: str
    """Images, steps and network."""
    counts: tuple[int, ...]
    """Numbers of labelled images of the rounds."""
    seeds: tuple[int, ...]
    measures: tuple[Curves, ...]

    def write(self, path: Path) -> None:
        """Write what `read` reads."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> ActiveResults:
        """Read a file of results."""
        found = json.loads(path.read_text("utf-8"))
        measures = tuple(Curves(**each) for each in found["measures"])
        counts, seeds = tuple(found["counts"]), tuple(found["seeds"])
        return cls(trained=found["trained"], counts=counts, seeds=seeds, measures=measures)

    def print(self) -> None:
        """Print mIoU by number of labels, and how many labels reach the goal."""
        for curves in self.measures:
            rows = []
            for number, images in enumerate(self.counts):
                found = [[curve[number] for curve in curves.arms[arm] if len(curve) > number] for arm in ARMS]
                rows.append([str(images), *map(_describe, found)])
            print_table(f"mIoU % on the {curves.title}, mean over seeds", ["images", *ARMS], rows)
            if curves.goal is not None:
                self._print_needed(curves, curves.goal)

    def _print_needed(self, curves: Curves, goal: float) -> None:
        rows = [
            [f"seed {seed}", *(self._say_needed(curves.arms[arm][k], goal) for arm in ARMS)]
            for k, seed in enumerate(self.seeds)
        ]
        rows.append(["mean curve", *(self._say_needed(curves.mean(arm), goal) for arm in ARMS)])
        whole = 100 * statistics.fmean(curves.whole)
        print_table(f"Images until {100 * SHARE:.0f} % of the fully labelled mIoU, {whole:.1f} %", ["", *ARMS], rows)

    def _say_needed(self, mious: Sequence[float], goal: float) -> str:
        """Return how many images reach a goal, in words; empty while rounds that could reach it are missing."""
        images = needed(self.counts, mious, goal)
        if images is not None:
            return f"{images:.0f}"
        return "not reached" if len(mious) == len(self.counts) else ""

    def draw(self, path: Path) -> None:
        """Draw accuracy against the number of labelled images, with the range of the seeds."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context({"svg.hashsalt": "active labels"}):
            width = 5.5 * len(self.measures)
            figure = Figure(figsize=(width, 4.5), layout="constrained")
            for axes, curves in zip(
                figure.subplots(1, len(self.measures), squeeze=False)[0], self.measures, strict=True
            ):
                self._draw(axes, curves)
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)

    def _draw(self, axes: Axes, curves: Curves) -> None:
        for arm, (colour, label) in _LINES.items():
            mean = 100 * np.array(curves.mean(arm))
            found = 100 * np.array([curve[: len(mean)] for curve in curves.arms[arm] if curve])
            if len(mean):
                axes.plot(self.counts[: len(mean)], mean, "o-", color=colour, label=label)
                axes.fill_between(self.counts[: len(mean)], found.min(0), found.max(0), color=colour, alpha=0.2)
        if curves.goal is not None:
            axes.axhline(100 * curves.goal / SHARE, color="black", linewidth=1, label="all labels")
            axes.axhline(100 * curves.goal, color="black", linewidth=1, linestyle="--", label=f"{SHARE:.0%} of that")
        axes.set_xlabel("labelled images")
        axes.set_ylabel(f"mIoU on the {curves.title}, %")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")


def needed(counts: Sequence[int], mious: Sequence[float], goal: float) -> float | None:
    """Return the number of images that reach a goal, between two rounds by linear interpolation; None if none does."""
    for number, miou in enumerate(mious):
        if miou >= goal:
            if number == 0:
                return float(counts[0])
            low, high = mious[number - 1], miou
            return counts[number - 1] + (goal - low) / (high - low) * (counts[number] - counts[number - 1])
    return None


def _describe(mious: Sequence[float]) -> str:
    if not mious:
        return ""
    spread = f" ({100 * min(mious):.1f} to {100 * max(mious):.1f})" if len(mious) > 1 else ""
    return f"{100 * statistics.fmean(mious):.1f}{spread}"
