"""Measure a segmenter on a dataset: single scale, whole images, one by one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from refinenet import __version__
from refinenet.datasets import Dataset
from refinenet.distributed import ALONE, Processes
from refinenet.files import write_atomically
from refinenet.labels import LabelSet
from refinenet.metrics import RULE, ConfusionMatrix, Scores
from refinenet.segmenter import Segmenter
from refinenet.terminal import print_table, progress_bar

PROTOCOL = "single scale, whole image, no flip; logits resized bilinearly to the image's size before argmax"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, on what, how."""

    dataset: str
    split: str
    label_set: LabelSet
    scores: Scores
    images: int
    seconds: float
    """Wall-clock time from the first image's loading to the last one's counting."""
    model_sha256: str
    """SHA-256 of the model's weights as stored (`model_file.digest`)."""
    package_version: str

    def to_dict(self) -> dict[str, Any]:
        """All as JSON-ready values, with protocol and rule; figures in [0, 1], absent ones null."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "miou": self.scores.miou,
            "pixel_accuracy": self.scores.pixel_accuracy,
            "mean_accuracy": self.scores.mean_accuracy,
            "class_iou": dict(zip(self.label_set.names, self.scores.class_iou, strict=True)),
            "classes_averaged": self.scores.classes_averaged,
            "images": self.images,
            "seconds": self.seconds,
            "seconds_per_image": self.seconds / max(self.images, 1),
            "protocol": PROTOCOL,
            "rule": RULE,
            "model_sha256": self.model_sha256,
            "package_version": self.package_version,
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as a JSON file; missing folders are made, an existing file is replaced."""
        return write_atomically(path, (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())

    def print(self) -> None:
        """Print the figures as a table, in percent."""
        rows = [[name, _percent(iou)] for name, iou in zip(self.label_set.names, self.scores.class_iou, strict=True)]
        rows += [
            [f"mIoU over {self.scores.classes_averaged} classes", _percent(self.scores.miou)],
            ["pixel accuracy", _percent(self.scores.pixel_accuracy)],
            ["mean accuracy", _percent(self.scores.mean_accuracy)],
        ]
        title = f"{self.dataset} {self.split}: {self.images} images in {self.seconds:.1f} s"
        print_table(title, ["class", "IoU %"], rows)


def measure(
    segmenter: Segmenter, dataset: Dataset, model_sha256: str, *, progress: bool, processes: Processes
) -> Evaluation:
    """`evaluate`, with all that is to be said of the figures.

    Raises:
        ValueError: an image or mask cannot be used; the file is named.
    """
    scores, seconds = evaluate(segmenter, dataset, progress=progress, processes=processes)
    return Evaluation(
        dataset=dataset.name,
        split=dataset.split,
        label_set=dataset.label_set,
        scores=scores,
        images=len(dataset),
        seconds=seconds,
        model_sha256=model_sha256,
        package_version=__version__,
    )


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    progress: bool = True,
    processes: Processes = ALONE,
    after_image: Callable[[], object] | None = None,
) -> tuple[Scores, float]:
    """Segment every image of a dataset and count.

    Args:
        segmenter: What to measure.
        dataset: What to measure it on.
        progress: Whether to show progress.
        processes: Those that share the images; all get the same figures, equal to those of one process alone.
        after_image: Called after each image, on all processes equally often; it may end the work by an exception.

    Returns:
        The figures, and the seconds it took.

    Raises:
        ValueError: an image or mask cannot be used; the file is named.
    """
    matrix = ConfusionMatrix(len(dataset.label_set), dataset.label_set.ignore_index)
    start = time.perf_counter()
    with progress_bar(progress) as bar:
        task = bar.add_task(f"Evaluating on {dataset.name} {dataset.split}", total=len(dataset), status="")
        for first in range(0, len(dataset), processes.count):
            index = first + processes.rank
            if index < len(dataset):
                sample = dataset[index]
                matrix.add(sample.labels, segmenter.predict(sample.image))
            bar.advance(task, min(processes.count, len(dataset) - first))
            if after_image is not None:
                after_image()
    matrix.counts = processes.add_up(torch.from_numpy(matrix.counts)).numpy()
    return matrix.scores(), time.perf_counter() - start


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
