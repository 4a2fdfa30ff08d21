"""Classification task: validation of the classifier, and saving of its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from refinenet.inference.segmenter import NotFiniteError
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.trainer import Measurement
from refinenet.training.pretraining.classifier import ImageClassifier, write_encoder
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.loader import ImageLoader
from refinenet.training.records.folder import RunFolder

FEW = 5
"""Number of guesses in the second accuracy (top-5), if there are more classes."""


class ClassificationTask:
    """Measures a classifier by its accuracy and saves its encoder; the `Task` of a `Trainer`.

    Args:
        folder: Folder for the encoders.
        encoder: Name of the encoder that is trained.
        classes: Names of the classes.
        config: Settings of the training, recorded in the files.
        learner: Learner of the classifier.
        loader: Loader of the validation images.
    """

    goal = "accuracy"
    printed: tuple[str, ...] = ("loss", "learning_rate", "val_top1", "val_top5", "images_per_second", "seconds")
    columns: tuple[str, ...] = ("epoch", *printed)

    def __init__(
        self,
        folder: RunFolder,
        encoder: str,
        classes: Sequence[str],
        config: PretrainConfig,
        learner: Learner[ImageClassifier],
        loader: ImageLoader,
    ) -> None:
        self.folder, self.learner, self.loader = folder, learner, loader
        self.encoder, self.classes, self.config = encoder, tuple(classes), config

    @torch.no_grad()
    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Classify the validation images and count; see `Task`."""
        classifier = self.learner.measured.eval()
        counts = torch.zeros(3, dtype=torch.int64)
        for part in self.loader.validation():
            if part.names:
                counts += self._count_correct(classifier(part.images).flatten(1), part.labels.flatten())
            after_each()
        first, few, images = self.learner.processes.add_up(counts).tolist()
        top1, top5 = first / images, few / images if len(self.classes) > FEW else None
        summary = {"accuracy": {"top1": top1, "top5": top5}}
        return Measurement(score=top1, columns={"val_top1": top1, "val_top5": top5}, summary=summary)

    def _count_correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count in logits `(n, K)` those highest at the label, those with the label among the five highest, and n."""
        if not bool(logits.isfinite().all()):
            raise NotFiniteError("The classifier's output is not finite: its weights are broken.")
        is_label = logits.topk(min(FEW, len(self.classes)), dim=1).indices == labels[:, None]
        return torch.tensor([int(is_label[:, 0].sum()), int(is_label.sum()), len(labels)])

    def save_best(self, epoch: int, measurement: Measurement) -> bool:
        """Save the encoder as the best so far, and return whether it was saved."""
        return self._save(self.folder.best_name, epoch, measurement)

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Save the encoder as the last."""
        self._save(self.folder.last_model.name, epoch, measurement)

    def _save(self, name: str, epoch: int, measurement: Measurement | None) -> bool:
        measured = {} if measurement is None else measurement.summary
        metadata = {"classes": list(self.classes), "recipe": asdict(self.config), "epoch": epoch, **measured}
        encoder, path = self.learner.measured.encoder, self.folder.path / name
        return self.folder.attempt(name, lambda: write_encoder(path, self.encoder, encoder, metadata))
