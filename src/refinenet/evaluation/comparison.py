"""Comparison of two evaluations on the same images, with the significance of each difference.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.confusion import Counts, divide, ious, mean, one_or_none, or_none
from refinenet.evaluation.metrics.significance import LEVEL, PAIRED_RULE, SUMMARY, Difference, compare_counts
from refinenet.evaluation.results import Results, percent, read_results, shorten
from refinenet.io.console import print_table, say

_FIRST_FEW = 3
_ALPHA = f"{1 - LEVEL:.0%}".replace("%", " %")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A metric of both models, in [0, 1]; None if undefined."""

    name: str
    first: float | None
    second: float | None
    difference: Difference
    """Second minus first."""
    p_corrected: float | None = None
    """p of a class, corrected for the number of classes (Holm)."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without the name."""
        interval = self.difference.interval
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference.value,
            "interval": list(interval) if interval else None,
            "p": self.difference.p,
        }


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two evaluations compared."""

    file: str
    protocol: str | None
    model_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class EvaluationComparison:
    """Two models on the same images."""

    first: Side
    second: Side
    dataset: str
    split: str
    images: int
    """Number of images, N."""
    summary: tuple[Change, ...]
    """mIoU, pixel accuracy and mean accuracy."""
    classes: tuple[Change, ...]
    """IoU by class id."""
    draws: int

    @property
    def verdict(self) -> str:
        """Which model is better and whether the difference in mIoU is significant, in words."""
        change = self.summary[0]
        value, p = change.difference.value, change.difference.p
        if value is None:
            return "There is no mIoU to compare: no pixel has ground truth."
        if value == 0:
            return f"Both have the same mIoU{'' if p is None else f' (p = {show_p(p)})'}."
        better, other = (self.second, self.first) if value > 0 else (self.first, self.second)
        by = f"{better.file} is better than {other.file} by {_points(abs(value))} points of mIoU"
        if p is None:
            return f"{by} on these images; from {_few(self.images)} no conclusion about other images is possible."
        if change.difference.is_significant:
            return f"{by}: significant at {_ALPHA} (p = {show_p(p)})."
        return f"{by}: not significant at {_ALPHA} (p = {show_p(p)}); on other images it might be reversed."

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without an IoU in one of the two, which are not compared."""
        return tuple(change.name for change in self.classes if change.difference.value is None)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; metrics in [0, 1], null if undefined."""
        return {
            "first": asdict(self.first),
            "second": asdict(self.second),
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            **{change.name: change.to_dict() for change in self.summary},
            "class_iou": {
                change.name: {**change.to_dict(), "p_corrected": change.p_corrected} for change in self.classes
            },
            "classes_not_compared": list(self.absent),
            "verdict": self.verdict,
            "draws": self.draws,
            "rule": PAIRED_RULE,
        }

    def print(self) -> None:
        """Print tables in percent and points, and the verdict."""
        columns = ["A %", "B %", "B - A", "95 % of B - A", "p"]
        say(f"A: {_describe(self.first)}\nB: {_describe(self.second)}")
        title = f"IoU on {self.dataset} {self.split}: {self.images} images"
        rows = [[*_row(change), show_p(change.p_corrected)] for change in self.classes]
        print_table(title, ["class", *columns, "p corrected"], rows)
        print_table("All classes", ["", *columns], [_row(change) for change in self.summary])
        for note in self._notes():
            say(note)
        say(self.verdict)

    def _notes(self) -> Iterator[str]:
        if self.absent:
            yield (
                "Not compared, because A or B has no such class in ground truth or prediction: "
                f"{', '.join(self.absent)}."
            )
        significant = [
            change.name for change in self.classes if change.p_corrected is not None and change.p_corrected <= 1 - LEVEL
        ]
        yield (
            f"Classes that differ significantly at {_ALPHA}, corrected for the number of classes (Holm): "
            f"{', '.join(significant) or 'none'}."
        )


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> EvaluationComparison:
    """Compare two results files, written by `Evaluation.save` for the same images.

    Raises:
        ValueError: one is not a results file, or images, ground truth or classes differ; the message says which.
        OSError: a file is missing or cannot be read.
    """
    one, other = read_results(first), read_results(second)
    other = _align(one, other)
    differences = compare_counts(one.counts, other.counts)
    summary = zip(_summary(one.counts), _summary(other.counts), strict=True)
    by_class = zip(or_none(ious(one.counts.sum(0))), or_none(ious(other.counts.sum(0))), strict=True)
    return EvaluationComparison(
        first=_side(one),
        second=_side(other),
        dataset=one.dataset,
        split=one.split,
        images=len(one.images),
        summary=tuple(
            Change(name=name, first=a, second=b, difference=difference)
            for name, (a, b), difference in zip(SUMMARY, summary, differences.summary, strict=True)
        ),
        classes=tuple(
            Change(name=name, first=a, second=b, difference=difference, p_corrected=corrected)
            for name, (a, b), difference, corrected in zip(
                one.classes, by_class, differences.classes, differences.p_corrected, strict=True
            )
        ),
        draws=differences.draws,
    )


def _align(one: Results, other: Results) -> Results:
    """Return `other` with its images in the order of `one`; reject results of different data."""
    both = f"{one.path} and {other.path} cannot be compared"
    for key in ("dataset", "split"):
        if getattr(one, key) != getattr(other, key):
            ours, theirs = shorten(getattr(one, key)), shorten(getattr(other, key))
            raise ValueError(f"{both}: their {key!r} is {ours} and {theirs}. Measure both on the same data.")
    if one.classes != other.classes:
        raise ValueError(f"{both}: {_describe_classes(one, other)} Measure both with the same classes.")
    if set(one.images) != set(other.images):
        raise ValueError(f"{both}: {_describe_images(one, other)} Measure both on the same images.")
    # Paired by name: differences are tested image by image, and two runs may have read them in another order.
    position = {name: index for index, name in enumerate(other.images)}
    counts = other.counts[[position[name] for name in one.images]]
    differs = np.argwhere(one.counts[:, 1] != counts[:, 1])  # row 1 is the ground truth
    if len(differs):
        image, label = differs[0]
        raise ValueError(
            f"{both}: in the ground truth of image {shorten(one.images[image])}, {one.counts[image, 1, label]} and "
            f"{counts[image, 1, label]} 'pixels' belong to {shorten(one.classes[label])}; {len(set(differs[:, 0]))} of "
            f"{len(one.images)} images differ. Measure both with the same masks in the same size."
        )
    return replace(other, images=one.images, counts=counts)


def _describe_classes(one: Results, other: Results) -> str:
    if set(one.classes) == set(other.classes):
        return "the classes of their 'class_iou' are in another order."
    only = [[name for name in a.classes if name not in set(b.classes)] for a, b in ((one, other), (other, one))]
    return f"of their 'class_iou' only the first has {_list(only[0])}, only the second {_list(only[1])}."


def _describe_images(one: Results, other: Results) -> str:
    only = [[name for name in a.images if name not in set(b.images)] for a, b in ((one, other), (other, one))]
    return f"of their 'per_image' only the first has {_list(only[0])}, only the second {_list(only[1])}."


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FIRST_FEW} more" if len(names) > _FIRST_FEW else ""
    return ", ".join(map(shorten, names[:_FIRST_FEW])) + more if names else "none"


def _summary(counts: Counts) -> tuple[float | None, ...]:
    """Compute the metrics in `SUMMARY` from counts `(N, 3, K)`."""
    sums = counts.sum(0)
    hits, truth, _ = sums
    values: tuple[npt.NDArray[np.float64], ...] = (
        mean(ious(sums)),
        divide(hits.sum(), truth.sum()),
        mean(divide(hits, truth)),
    )
    return tuple(map(one_or_none, values))


def _side(results: Results) -> Side:
    return Side(file=str(Path(results.path)), protocol=results.protocol, model_sha256=results.model_sha256)


def _describe(side: Side) -> str:
    model = f", model {side.model_sha256[:12]}" if side.model_sha256 else ""
    return f"{side.file}{model}{f', {side.protocol}' if side.protocol else ''}"


def _row(change: Change) -> list[str]:
    difference = change.difference
    shown = "-" if difference.value is None else f"{100 * difference.value:+.2f}"
    bounds = difference.interval
    interval = "-" if bounds is None else f"{100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f}"
    return [change.name, percent(change.first), percent(change.second), shown, interval, show_p(difference.p)]


def show_p(p: float | None) -> str:
    """Format a p value with its significant digits, None as "-"."""
    return "-" if p is None else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def _points(value: float) -> str:
    # Below 0.005 points two decimals would show 0.00 for a difference that is not 0.
    return f"{100 * value:.2f}" if value >= 5e-5 else f"{100 * value:.1g}"


def _few(images: int) -> str:
    return "one image" if images == 1 else "images that are all the same"
