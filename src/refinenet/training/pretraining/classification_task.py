"""How a classifier is measured, and how its encoder is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from refinenet.inference.segmenter import NotFiniteError
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.trainer import Measurement
from refinenet.training.pretraining.classifier import write_encoder
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.loader import ImageLoader
from refinenet.training.records.folder import RunFolder

FEW = 5
"""So many guesses are allowed in the second accuracy, where there are more classes."""


class ClassificationTask:
    """Measures a classifier by its accuracy, and keeps its encoder; the `Keeper` of a `TrainLoop`.

    Args:
        folder: Where.
        encoder: The name of what is trained.
        classes: Names of the classes.
        config: How it is trained, for the files to tell.
        learner: Whose classifier is measured.
        loader: Gives the images to measure it on.
    """

    goal = "accuracy"
    told: tuple[str, ...] = ("loss", "learning_rate", "val_top1", "val_top5", "images_per_second", "seconds")
    columns: tuple[str, ...] = ("epoch", *told)

    def __init__(
        self,
        folder: RunFolder,
        encoder: str,
        classes: Sequence[str],
        config: PretrainConfig,
        learner: Learner,
        loader: ImageLoader,
    ) -> None:
        self.folder, self.learner, self.loader = folder, learner, loader
        self.encoder, self.classes, self.config = encoder, tuple(classes), config

    @torch.no_grad()
    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Classify the validation images and count; see `Keeper`."""
        classifier = self.learner.measured.eval()
        found = torch.zeros(3, dtype=torch.int64)
        for part in self.loader.validation():
            if part.names:
                found += self._count_found(classifier(part.images).flatten(1), part.labels.flatten())
            after_each()
        first, few, images = self.learner.processes.add_up(found).tolist()
        top1, top5 = first / images, few / images if len(self.classes) > FEW else None
        facts = {"accuracy": {"top1": top1, "top5": top5}}
        return Measurement(score=top1, columns={"val_top1": top1, "val_top5": top5}, facts=facts)

    def _count_found(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits `(n, K)`: how many are highest at the label, how many are among the highest, and n."""
        if not bool(logits.isfinite().all()):
            raise NotFiniteError("The classifier's answer is not finite: its weights are broken.")
        is_label = logits.topk(min(FEW, len(self.classes)), dim=1).indices == labels[:, None]
        return torch.tensor([int(is_label[:, 0].sum()), int(is_label.sum()), len(labels)])

    def keep_best(self, epoch: int, measurement: Measurement) -> bool:
        """Keep the encoder as the best so far; returns whether that is done."""
        return self._keep(self.folder.best_name, epoch, measurement)

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Keep the encoder as the last."""
        self._keep(self.folder.last_model.name, epoch, measurement)

    def _keep(self, name: str, epoch: int, measurement: Measurement | None) -> bool:
        measured = {} if measurement is None else measurement.facts
        facts = {"classes": list(self.classes), "recipe": asdict(self.config), "epoch": epoch, **measured}
        encoder, path = self.learner.measured.encoder, self.folder.path / name
        return self.folder.attempt(name, lambda: write_encoder(path, self.encoder, encoder, facts))
