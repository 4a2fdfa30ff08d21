"""What an evaluation found: figures with the rules they follow, as a table, as JSON, as an object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refinenet.evaluation.metrics import RULE, RULES, Figures, ImageFigures, Scores
from refinenet.io.console import print_table
from refinenet.io.files import write_atomically
from refinenet.labels import LabelSet

RESULTS_VERSION = 2
"""Of the JSON file; before version 2 it held no images, and no version."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Where the time of an evaluation went, over all images and processes."""

    load: float
    """Reading and decoding images and masks."""
    network: float
    """From the image to labels and confidence; with predictions from files, reading them."""
    figures: float
    """Counting."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, on what, how."""

    dataset: str
    split: str
    label_set: LabelSet
    figures: Figures
    names: Sequence[str]
    """Of the images, in the dataset's order."""
    seconds: float
    """Wall-clock time from the first image's loading to the last one's counting."""
    parts: Seconds
    protocol: str
    """How the images were put before the network, in words."""
    official: str
    """How those who published the dataset measure on it, in words; empty where nobody says."""
    model_sha256: str | None
    """SHA-256 of the model's weights as stored (`tensors.digest`); None where predictions came from files."""
    package_version: str

    @property
    def scores(self) -> Scores:
        """mIoU, accuracies and IoU by class."""
        return self.figures.scores

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.names)

    def summary(self) -> dict[str, Any]:
        """All figures of the images together as JSON-ready values; in [0, 1], absent ones null."""
        figures, scores, images = self.figures, self.scores, max(self.images, 1)
        calibration = figures.calibration
        return {
            "version": RESULTS_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            "mean_accuracy": scores.mean_accuracy,
            "frequency_weighted_iou": figures.frequency_weighted_iou,
            "mean_dice": figures.mean_dice,
            "boundary_miou": figures.boundary_miou,
            "boundary_f": figures.boundary_f,
            "trimap_miou": {str(width): value for width, value in figures.trimap_miou.items()},
            "calibration_error": calibration.error if calibration else None,
            "abstained": figures.abstained,
            "intervals": {name: list(found) if found else None for name, found in figures.intervals.items()},
            "class_iou": dict(zip(self.label_set.names, scores.class_iou, strict=True)),
            "classes": dict(zip(self.label_set.names, map(asdict, figures.classes), strict=True)),
            "classes_averaged": scores.classes_averaged,
            "classes_absent": len(self.label_set) - scores.classes_averaged,
            "reliability": [asdict(found) for found in calibration.reliability] if calibration else None,
            "coverage": [asdict(found) for found in calibration.coverage] if calibration else None,
            "seconds": self.seconds,
            "seconds_per_image": {"all": self.seconds / images, **_share(self.parts, images)},
            "protocol": self.protocol,
            "official_protocol": self.official or None,
            "rule": RULE,
            "rules": dict(RULES),
            "model_sha256": self.model_sha256,
            "package_version": self.package_version,
        }

    def to_dict(self) -> dict[str, Any]:
        """`summary`, with the confusion matrix (rows the true classes) and the figures of each image."""
        return {
            **self.summary(),
            "confusion_matrix": self.figures.confusion.tolist(),
            "per_image": list(self._images()),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as a JSON file; missing folders are made, an existing file is replaced."""
        return write_atomically(path, self._to_json().encode())

    def print(self) -> None:
        """Print the figures as a table, in percent."""
        figures = self.figures
        rows = [
            [
                name,
                *map(percent, (found.iou, found.precision, found.recall, found.boundary_iou)),
                _range(found.iou_interval),
            ]
            for name, found in zip(self.label_set.names, figures.classes, strict=True)
        ]
        title = f"{self.dataset} {self.split}: {self.images} images in {self.seconds:.1f} s"
        print_table(title, ["class", "IoU %", "precision %", "recall %", "boundary IoU %", "95 % of IoU"], rows)
        print_table("All classes", ["", "%", "95 %"], list(self._overall()))

    def _overall(self) -> Iterator[list[str]]:
        figures, scores = self.figures, self.scores
        intervals = figures.intervals
        yield [f"mIoU over {scores.classes_averaged} classes", percent(scores.miou), _range(intervals["miou"])]
        yield ["pixel accuracy", percent(scores.pixel_accuracy), _range(intervals["pixel_accuracy"])]
        yield ["mean accuracy", percent(scores.mean_accuracy), _range(intervals["mean_accuracy"])]
        yield ["boundary mIoU", percent(figures.boundary_miou), _range(intervals["boundary_miou"])]
        yield ["boundary F-score", percent(figures.boundary_f), ""]
        bands = [width for width in figures.trimap_miou if width in (2, 8)]
        yield from (
            [f"mIoU within {width} pixels of outlines", percent(figures.trimap_miou[width]), ""] for width in bands
        )
        if figures.calibration is not None:
            yield ["calibration error", percent(figures.calibration.error), ""]
        if figures.abstained:
            yield ["pixels without a predicted class", percent(figures.abstained), ""]

    def _images(self) -> Iterator[dict[str, Any]]:
        for name, found in zip(self.names, self.figures.images, strict=True):
            yield {
                "name": name,
                "miou": found.miou,
                "pixel_accuracy": found.pixel_accuracy,
                "boundary_miou": found.boundary_miou,
                "confident_mistakes": found.confident_mistakes,
                "pixels": self._pixels(found),
            }

    def _pixels(self, found: ImageFigures) -> dict[str, list[int]]:
        """Of each class that occurs: pixels in both, in the truth and in the prediction."""
        return {
            name: counts.tolist()
            for name, counts in zip(self.label_set.names, found.regions.T, strict=True)
            if counts.any()
        }

    def _to_json(self) -> str:
        """Indented, but for rows and images: a line each."""
        head = json.dumps(self.summary(), indent=2, ensure_ascii=False).removesuffix("\n}")
        matrix = ",\n".join(f"    {row}" for row in self.figures.confusion.tolist())
        images = ",\n".join(f"    {json.dumps(found, ensure_ascii=False)}" for found in self._images())
        return f'{head},\n  "confusion_matrix": [\n{matrix}\n  ],\n  "per_image": [\n{images}\n  ]\n}}\n'


def _share(parts: Seconds, images: int) -> Mapping[str, float]:
    return {name: seconds / images for name, seconds in asdict(parts).items()}


def percent(value: float | None) -> str:
    """A figure in percent, "-" where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
