"""What a run writes at the end of its epochs: the log, pictures, loggers, and its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from refinenet.backends.pytorch import PyTorchBackend
from refinenet.datasets import Dataset
from refinenet.evaluate import PROTOCOL
from refinenet.learner import Learner
from refinenet.metric_loggers import MetricLoggers
from refinenet.metrics import Scores
from refinenet.model_file import ModelCard, save
from refinenet.run_folder import RunFolder
from refinenet.run_record import draw_curves
from refinenet.sample_sheet import choose_samples, draw_samples
from refinenet.segmenter import Segmenter
from refinenet.terminal import print_note

SAMPLES = 4
"""Validation images whose predictions are drawn at the end of an epoch."""


class RunKeeper:
    """Writes for the first process; where the disk is full or fails, that is said and training goes on.

    Args:
        folder: Where.
        card: What to say of the models; the scores and this run's settings are added to it.
        learner: Whose network is kept.
        train_set: What it learns from.
        val_set: What it is measured on.
        loggers: What else is told of each epoch.
        show: Whether to say what is logged.
    """

    def __init__(
        self,
        folder: RunFolder,
        card: ModelCard,
        learner: Learner,
        train_set: Dataset,
        val_set: Dataset,
        loggers: MetricLoggers,
        *,
        show: bool,
    ) -> None:
        self.folder, self.card, self.learner = folder, card, learner
        self.train_set, self.val_set, self.loggers, self.show = train_set, val_set, loggers, show
        self._writes = learner.processes.is_first
        self._samples: list[int] = []

    def keep_best(self, epoch: int, scores: Scores) -> bool:
        """Keep the network as the best model so far; returns whether this process has done so."""
        path = self.folder.best_model
        return self._writes and self.folder.attempt("the best model", lambda: self._save(path, epoch, scores))

    def record_epoch(self, epoch: int, row: Mapping[str, str], scores: Scores | None) -> None:
        """Log an epoch, say it, and keep the network as the last model."""
        if not self._writes:
            return
        told = ", ".join(f"{name} {row[name]}" for name in _TOLD if row[name])
        print_note(f"epoch {epoch}/{self.learner.config.epochs}: {told}", enabled=self.show)
        figures = {name: float(value) for name, value in row.items() if value and name != "epoch"}
        self.folder.attempt("the log", lambda: self.folder.log(row, epoch))
        self.folder.attempt("the loggers' files", lambda: self.loggers.log(figures, epoch))
        self.keep_last(epoch, scores)
        self.folder.attempt("the curves", lambda: draw_curves(self.folder.read_log(), self.folder.path / "curves.png"))
        if scores is not None:
            self.folder.attempt("the samples", lambda: self._draw_samples(epoch))

    def keep_last(self, epoch: int, scores: Scores | None = None) -> None:
        """Keep the network as the last model."""
        if self._writes:
            self.folder.attempt("the last model", lambda: self._save(self.folder.last_model, epoch, scores))

    def _draw_samples(self, epoch: int) -> None:
        segmenter = Segmenter(PyTorchBackend(self.learner.measured), self.val_set.label_set)
        self._samples = self._samples or choose_samples(self.val_set, SAMPLES)
        path = self.folder.path / "samples" / f"epoch-{epoch:03d}.png"
        draw_samples(self.val_set, segmenter, self._samples, path, f"Epoch {epoch}. ")

    def _save(self, path: Path, epoch: int, scores: Scores | None) -> None:
        measured = (
            {}
            if scores is None
            else {
                "dataset": self.val_set.name,
                "split": self.val_set.split,
                "images": len(self.val_set),
                "miou": scores.miou,
                "pixel_accuracy": scores.pixel_accuracy,
                "protocol": PROTOCOL,
            }
        )
        recipe = {
            **self.card.recipe,
            "dataset": self.train_set.name,
            "train_images": len(self.train_set),
            "epoch": epoch,
            "torch": torch.__version__,
            **asdict(self.learner.config),
            "precision": self.learner.engine.arithmetic,
        }
        network = self.learner.measured
        card = replace(self.card, architecture=network.architecture, scores=measured, recipe=recipe)
        save(path, network, card, "float32")


_TOLD = ("loss", "val_miou", "val_pixel_accuracy", "images_per_second", "seconds")
"""Columns of the log that are said on the terminal."""
