"""Segmentation task: validation, saved models, curves and sample predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

import torch

from refinenet.datasets.catalog import Dataset
from refinenet.evaluation.evaluator import PROTOCOL, accumulate_targets, validate
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.segmenter import Segmenter
from refinenet.models.architecture import Architecture
from refinenet.models.files.model_card import ModelCard
from refinenet.models.files.model_file import save
from refinenet.models.network import Network
from refinenet.outputs import has_only_classes
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.trainer import Measurement
from refinenet.training.records.curves import CLASS_IOU, draw_curves
from refinenet.training.records.folder import RunFolder
from refinenet.training.records.samples import choose_samples, draw_samples, draw_target_samples

SAMPLES = 4
"""Number of validation images whose predictions are drawn after an epoch."""
CURVES_INTERVAL = 10
"""Least number of seconds between two drawings of the curves, which takes longer than the epoch of a small run."""
_PROGRESS = ("epoch", "loss", "learning_rate", "encoder_learning_rate")
_CLASS_SCORES = ("val_miou", "val_pixel_accuracy")
_SPEED = ("images_per_second", "seconds")
"""Columns of the log, in this order; the metrics of other outputs and the IoU of each class follow."""


MIOU = "mIoU"
"""Goal of networks that predict classes alone."""


def choose_goal(architecture: Architecture) -> str:
    """Return the name of the score by which the best epoch of a network is chosen."""
    return MIOU if has_only_classes(architecture.outputs) else "mean score of the outputs"


class SegmentationTask:
    """Measures a network by its mIoU and the scores of other outputs, and saves it; the `Task` of a `Trainer`.

    Args:
        folder: Folder for models and pictures.
        card: Metadata of the models; the scores and this run's settings are added.
        learner: Learner of the network.
        train_set: Training data.
        val_set: Data to measure on.
        show: Whether to show progress.
    """

    def __init__(
        self,
        folder: RunFolder,
        card: ModelCard,
        learner: Learner[Network],
        train_set: Dataset,
        val_set: Dataset,
        *,
        show: bool,
    ) -> None:
        self.folder, self.card, self.learner = folder, card, learner
        self.train_set, self.val_set, self.show = train_set, val_set, show
        self._ious = tuple(f"{CLASS_IOU}{name}" for name in val_set.label_set.names)
        scores = _CLASS_SCORES if self._ious else ()
        self._outputs = tuple(
            f"val_{name}_{metric}"
            for name, accumulator in accumulate_targets(val_set).items()
            for metric in accumulator.summary()
        )
        self.columns = (*_PROGRESS, *scores, *_SPEED, *self._outputs, *self._ious)
        self.goal = choose_goal(learner.measured.architecture)
        self.printed = ("loss", *(scores[:1] if self._outputs else scores), *self._outputs, *_SPEED)
        self._samples: list[int] = []
        self._curves_are_behind, self._curves_drawn_at = False, time.monotonic()
        # One for validation and samples: it fuses the network again only when weights have changed.
        network = learner.measured
        outputs, bands = network.architecture.outputs, network.architecture.bands
        self._segmenter = Segmenter(PyTorchBackend(network), val_set.label_set, outputs=outputs, bands=bands)

    def _describe_reduction(self) -> str:
        side = self.val_set.longest_side
        return "" if side is None else f"; images and labels reduced to at most {side} pixels on their longer side"

    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Segment the validation images and count pixels; see `Task`."""
        targets = accumulate_targets(self.val_set)
        scores = validate(
            self._segmenter,
            self.val_set,
            targets,
            progress=self.show,
            processes=self.learner.processes,
            after_image=after_each,
        )
        summary = {
            "dataset": self.val_set.name,
            "split": self.val_set.split,
            "images": len(self.val_set),
            "protocol": PROTOCOL + self._describe_reduction(),
        }
        columns: dict[str, float | None] = {}
        if self._ious:
            summary |= {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
            columns |= zip(_CLASS_SCORES, (scores.miou, scores.pixel_accuracy), strict=True)
            columns |= zip(self._ious, scores.class_iou, strict=True)
        if targets:
            found = {name: accumulator.summary() for name, accumulator in targets.items()}
            summary["outputs"] = {name: dict(metrics) for name, metrics in found.items()}
            columns |= {f"val_{name}_{key}": value for name, metrics in found.items() for key, value in metrics.items()}
        units = {
            f"val_{name}_{key}": unit
            for name, accumulator in targets.items()
            for key, unit in accumulator.summary_units().items()
        }
        parts = [accumulator.score() for accumulator in targets.values()]
        parts += [] if scores.miou is None else [scores.miou]
        return Measurement(score=fmean(parts) if parts else 0.0, columns=columns, summary=summary, units=units)

    def save_best(self, epoch: int, measurement: Measurement) -> bool:
        """Save the network as the best model so far, and return whether it was saved."""
        path = self.folder.best_model
        return self.folder.attempt("the best model", lambda: self._save(path, epoch, measurement))

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Save the network as the last model, and draw samples and, now and then, curves."""
        self.save_last(epoch, measurement)
        self._curves_are_behind = True
        if time.monotonic() - self._curves_drawn_at >= CURVES_INTERVAL:
            self.finish_curves()
        if measurement is not None:
            self.folder.attempt("the samples", lambda: self._draw_samples(epoch))

    def save_last(self, epoch: int, measurement: Measurement | None = None) -> None:
        """Save the network as the last model."""
        self.folder.attempt("the last model", lambda: self._save(self.folder.last_model, epoch, measurement))

    def finish_curves(self, *, is_last: bool = False) -> None:
        """Draw the curves, if epochs have ended since they were drawn.

        Args:
            is_last: Whether training ends here.
        """
        if self._curves_are_behind:
            self._curves_are_behind = not self.folder.attempt("the curves", self._draw_curves, is_last=is_last)
            self._curves_drawn_at = time.monotonic()

    def _draw_curves(self) -> None:
        rows = self.folder.read_log()
        if rows:  # the disk may have been too full for the log so far
            draw_curves(rows, self.folder.path / "curves.png")

    def _draw_samples(self, epoch: int) -> None:
        self._samples = self._samples or choose_samples(self.val_set, SAMPLES)
        folder, facts = self.folder.path / "samples", (self.val_set, self._segmenter, self._samples)
        if self._ious:
            draw_samples(*facts, folder / f"epoch-{epoch:03d}.png", f"Epoch {epoch}. ")
        if self._outputs:
            draw_target_samples(*facts, folder / f"epoch-{epoch:03d}-outputs.png", f"Epoch {epoch}. ")

    def _save(self, path: Path, epoch: int, measurement: Measurement | None) -> None:
        recipe = {
            **self.card.recipe,
            "dataset": self.train_set.name,
            "train_images": len(self.train_set),
            "epoch": epoch,
            "torch": torch.__version__,
            **asdict(self.learner.config),
            "precision": self.learner.engine.arithmetic,
        }
        network, scores = self.learner.measured, {} if measurement is None else measurement.summary
        card = replace(self.card, architecture=network.architecture, scores=scores, recipe=recipe)
        save(path, network, card, "float32")
