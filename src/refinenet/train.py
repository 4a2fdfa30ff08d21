"""Training: the loop written out; the order of lines is the order of events.

Shape letters: N batch, K classes, h and w height and width of the crop.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from refinenet.backends.pytorch import PyTorchBackend
from refinenet.class_statistics import count_classes, log_weights, median_frequency_weights
from refinenet.datasets import Dataset
from refinenet.evaluate import PROTOCOL, evaluate
from refinenet.loader import batch_size, load_batches
from refinenet.losses import cross_entropy, dice
from refinenet.metrics import Scores
from refinenet.model_file import ModelCard, save
from refinenet.network import Network
from refinenet.optimisation import build_optimiser, choose_bfloat16, schedule
from refinenet.run_folder import RunFolder
from refinenet.sample_cache import cache_samples
from refinenet.segmenter import NotFiniteError, Segmenter
from refinenet.terminal import print_note, progress_bar
from refinenet.train_config import TrainConfig

FREQUENCY_SAMPLES = 100
"""Images, spread over the dataset, that class frequencies are counted on."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run left."""

    folder: Path
    """Holds run.json (how it was begun), log.csv, best.safetensors and checkpoint.pt."""
    model: Path
    """The model of the epoch with the best validation mIoU."""
    best_miou: float
    """Validation mIoU of that model, in [0, 1]."""
    epochs: int
    """Epochs trained in all."""


class TrainRun:
    """One training run in its folder; it can be stopped at any time and taken up again after its last whole epoch.

    Args:
        network: Trained in place.
        card: What to say of the model; its recipe is replaced by this run's.
        train_set: What to learn from.
        val_set: What to choose the best epoch by.
        config: How to train.
        folder: Where to put the results; a state found there is taken up.
        progress: Whether to show progress.
    """

    def __init__(
        self,
        network: Network,
        card: ModelCard,
        train_set: Dataset,
        val_set: Dataset,
        config: TrainConfig,
        folder: RunFolder,
        *,
        progress: bool = True,
    ) -> None:
        self.train_set, self.val_set, self.config, self.folder = train_set, val_set, config, folder
        self.card, self.show = card, progress
        device = network.mean.device
        self.precision = "bfloat16" if choose_bfloat16(config.precision, device) else "float32"
        for name in ("lightning.fabric", "lightning.pytorch"):  # they announce what was asked for
            logging.getLogger(name).setLevel(logging.WARNING)
        self.fabric = Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision="bf16-mixed" if self.precision == "bfloat16" else "32-true",
        )
        self.network = network.to(memory_format=torch.channels_last)
        self.optimiser = build_optimiser(network, config)
        self.batch_size = batch_size(train_set, config)
        self.steps_per_epoch = len(train_set) // self.batch_size
        self.epoch = 0
        self.best_miou = -1.0
        self.weights: Tensor | None = None
        self.average = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None

    def run(self) -> TrainResult:
        """Train to the last epoch.

        Raises:
            ValueError: an image or mask cannot be used, or the loss is not a finite number.
            KeyboardInterrupt: the user stopped it; the last whole epoch is kept.
        """
        self.weights = None if self.epoch == self.config.epochs else self._class_weights()
        model, optimiser = self.fabric.setup(self.network, self.optimiser)
        kind, folder = self.config.cache, self.folder.path
        with (
            cache_samples(self.train_set, kind, folder / "cached-train") as train_set,
            cache_samples(self.val_set, kind, folder / "cached-val") as val_set,
        ):
            while self.epoch < self.config.epochs:
                started = time.perf_counter()
                loss = self._train_one_epoch(model, optimiser, train_set)
                seconds = time.perf_counter() - started
                self.epoch += 1
                scores = self._validate(val_set) if self._is_measured() else None
                self._log(loss, seconds, scores)
                self._keep_if_best(scores)
                self._save_state()
        return TrainResult(
            folder=self.folder.path, model=self.folder.best_model, best_miou=self.best_miou, epochs=self.epoch
        )

    def begin(self, source: Mapping[str, Any]) -> None:
        """Keep what the run starts from, so that it can be taken up even before its first epoch is over.

        Args:
            source: "dataset" and "root" that the datasets were opened by, to open them again.
        """
        self._save_state()
        self.folder.begin(
            {
                "source": dict(source),
                "train_images": len(self.train_set),
                "config": asdict(self.config),
                "architecture": self.network.architecture.to_dict(),
                "label_set": self.card.label_set.to_dict(),
                "licence": self.card.licence,
                "recipe": dict(self.card.recipe),
            }
        )

    def take_up(self) -> None:
        """Go back to the state that the folder keeps.

        Raises:
            ValueError: there is none, or it is damaged or of another run.
        """
        state = self.folder.load_state(self.network.mean.device)
        try:
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
            self.epoch, self.best_miou = state["epoch"], state["best_miou"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"The state kept in {self.folder.path} is of another run: {error}") from error

    def _train_one_epoch(self, model: nn.Module, optimiser: torch.optim.Optimizer, train_set: Dataset) -> float:
        """One pass over the training images; returns the mean loss of its steps."""
        torch.manual_seed(self.config.seed + self.epoch)
        total = 0.0
        model.train()
        with progress_bar(self.show) as bar:
            task = bar.add_task(self._title(), total=self.steps_per_epoch, status="")
            started = time.perf_counter()
            batches = load_batches(train_set, self.config, self.epoch, self.network.mean.device)
            for step, (images, labels) in enumerate(batches):
                self._set_learning_rates(optimiser, self.epoch * self.steps_per_epoch + step)
                logits = model(images.contiguous(memory_format=torch.channels_last))
                loss = self._loss(logits, labels, train_set.label_set.ignore_index)
                total += self._check_finite(loss.item())
                optimiser.zero_grad()
                self.fabric.backward(loss)
                optimiser.step()
                if self.average is not None:
                    self.average.update(self.network, self.epoch * self.steps_per_epoch + step)
                speed = (step + 1) * self.batch_size / (time.perf_counter() - started)
                bar.update(task, advance=1, status=f"loss {total / (step + 1):.3f}, {speed:.1f} images/s")
        return total / self.steps_per_epoch

    def _loss(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        loss = cross_entropy(logits, labels, self.weights, ignore_index)
        if self.config.dice_weight:
            loss = loss + self.config.dice_weight * dice(logits, labels, ignore_index)
        return loss

    @property
    def measured_network(self) -> Network:
        """The network whose weights are measured and kept: the average, where there is one."""
        if self.average is None:
            return self.network
        averaged: Network = self.average.module
        return averaged

    def _set_learning_rates(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        factor = schedule(step, self.steps_per_epoch * self.config.epochs, self.config)
        for group in optimiser.param_groups:
            group["lr"] = factor * group["highest_rate"]

    def _check_finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise self._divergence(f"the loss became {loss}")
        return loss

    def _divergence(self, sign: str) -> ValueError:
        return ValueError(
            f"Training diverged: {sign}. What was reached before this epoch is kept in {self.folder.path}. "
            "Try a smaller learning_rate or precision='float32'."
        )

    def _class_weights(self) -> Tensor | None:
        if self.config.class_weights == "none":
            return None
        indices = np.unique(np.linspace(0, len(self.train_set) - 1, FREQUENCY_SAMPLES).round().astype(int)).tolist()
        counts = count_classes(self.train_set, indices=indices, workers=self.config.workers, progress=self.show)
        by_log = self.config.class_weights == "log"
        weights = log_weights(counts.pixels) if by_log else median_frequency_weights(counts)
        return torch.tensor(weights, device=self.network.mean.device)

    def _is_measured(self) -> bool:
        return self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs

    def _validate(self, val_set: Dataset) -> Scores:
        segmenter = Segmenter(PyTorchBackend(self.measured_network), val_set.label_set)
        try:
            return evaluate(segmenter, val_set, progress=self.show)[0]
        except NotFiniteError as error:
            raise self._divergence("the network's answer is not finite") from error

    def _title(self) -> str:
        best = f", best mIoU {100 * self.best_miou:.1f}" if self.best_miou >= 0 else ""
        return f"Epoch {self.epoch + 1}/{self.config.epochs}{best}"

    def _log(self, loss: float, seconds: float, scores: Scores | None) -> None:
        """Add a row to log.csv, and say it."""
        row = {
            "epoch": str(self.epoch),
            "loss": f"{loss:.4f}",
            "val_miou": "" if scores is None or scores.miou is None else f"{scores.miou:.4f}",
            "val_pixel_accuracy": "" if scores is None or scores.miou is None else f"{scores.pixel_accuracy:.4f}",
            "images_per_second": f"{self.steps_per_epoch * self.batch_size / seconds:.2f}",
            "seconds": f"{seconds:.1f}",
        }
        self.folder.log(row, self.epoch)
        told = ", ".join(f"{name} {value}" for name, value in row.items() if value and name != "epoch")
        print_note(f"epoch {self.epoch}/{self.config.epochs}: {told}", enabled=self.show)

    def _keep_if_best(self, scores: Scores | None) -> None:
        if scores is None or (scores.miou or 0.0) <= self.best_miou:
            return
        self.best_miou = scores.miou or 0.0
        measured = {
            "dataset": self.val_set.name,
            "split": self.val_set.split,
            "images": len(self.val_set),
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            "protocol": PROTOCOL,
        }
        recipe = {
            **self.card.recipe,
            "dataset": self.train_set.name,
            "train_images": len(self.train_set),
            "epoch": self.epoch,
            "torch": torch.__version__,
        }
        card = replace(
            self.card,
            architecture=self.network.architecture,
            scores=measured,
            recipe={**recipe, **asdict(self.config), "precision": self.precision},
        )
        save(self.folder.best_model, self.measured_network, card, "float32")

    def _save_state(self) -> None:
        self.folder.save_state(
            {
                "epoch": self.epoch,
                "best_miou": self.best_miou,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.measured_network.state_dict() if self.average is not None else {},
            }
        )
