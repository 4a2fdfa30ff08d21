"""Training: the loop written out; the order of lines is the order of events.

Shape letters: N batch, K classes, h and w height and width of the crop.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from refinenet.backends.pytorch import PyTorchBackend
from refinenet.datasets import Dataset
from refinenet.evaluate import PROTOCOL, evaluate
from refinenet.files import write_atomically
from refinenet.losses import cross_entropy, log_weights
from refinenet.metrics import Scores
from refinenet.model_file import ModelCard, save
from refinenet.network import Network
from refinenet.segmenter import Segmenter
from refinenet.terminal import print_note, progress_bar
from refinenet.transforms import Augmentation, AugmentationConfig

Optimiser = Literal["adamw", "sgd"]
ClassWeights = Literal["log", "none"]
Precision = Literal["auto", "float32", "bfloat16"]

FREQUENCY_SAMPLES = 100
"""Images, spread over the dataset, that class frequencies are counted on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(AugmentationConfig):
    """How to train.

    Raises:
        ValueError: a value out of its range; all problems are reported together.
    """

    epochs: int = 50
    """Passes over the training images."""
    batch_size: int = 8
    """Images in a step."""
    learning_rate: float = 1e-3
    """Of decoder and classifier, at its highest."""
    encoder_learning_rate: float | None = None
    """Of the encoder, at its highest; the same as `learning_rate` where it is not given."""
    warm_up: float = 0.02
    """Share of all steps in which the learning rates rise from zero."""
    polynomial_power: float = 0.9
    """After warm-up a rate falls as (1 - share of steps done) to this power."""
    optimiser: Optimiser = "adamw"
    """"adamw", or "sgd" with momentum 0.9 as in the papers."""
    weight_decay: float = 1e-4
    """Of kernels; biases and batch norms have none."""
    class_weights: ClassWeights = "log"
    """"log" weighs rare classes up (`losses.log_weights`), "none" weighs all alike."""
    precision: Precision = "auto"
    """Of the network's arithmetic; "auto" is bfloat16 where the device computes in it, else float32."""
    validate_every: int = 1
    """Epochs between measurements on the validation split; the last epoch is always measured."""
    workers: int = 2
    """Processes that load images; 0 loads in the training process."""
    seed: int = 42
    """From which all randomness follows."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is a whole number from {least} up, not {getattr(self, name)!r}"
            for name, least in (
                ("epochs", 1),
                ("batch_size", 1),
                ("validate_every", 1),
                ("workers", 0),
                ("seed", 0),
            )
            if type(getattr(self, name)) is not int or getattr(self, name) < least
        ]
        for name, kind in (
            ("optimiser", Optimiser),
            ("class_weights", ClassWeights),
            ("precision", Precision),
        ):
            if getattr(self, name) not in get_args(kind):
                problems.append(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        rates = {"learning_rate": self.learning_rate, "encoder_learning_rate": self.encoder_learning_rate}
        for name, rate in rates.items():
            if rate is not None and not 0 < rate < 100:
                problems.append(f"{name} is above 0 and below 100, not {rate!r}")
        if not (0 <= self.warm_up < 1 and self.polynomial_power >= 0 and self.weight_decay >= 0):
            problems.append("warm_up is at least 0 and below 1, polynomial_power and weight_decay are at least 0")
        if problems:
            raise ValueError("; ".join(problems) + ".")
        super().__post_init__()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build a configuration from settings by name, lists standing for tuples.

        Raises:
            ValueError: a setting is unknown or out of its range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"Unknown training settings: {', '.join(unknown)}. Known are {', '.join(sorted(known))}.")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run left."""

    folder: Path
    """Holds run.json (the recipe), log.csv, best.safetensors and checkpoint.pt."""
    model: Path
    """The model of the epoch with the best validation mIoU."""
    best_miou: float
    """Validation mIoU of that model, in [0, 1]."""
    epochs: int
    """Epochs trained in all."""


@dataclass
class _Progress:
    """Where a run stands; what a checkpoint holds beside the tensors."""

    epoch: int = 0
    best_miou: float = -1.0


class TrainRun:
    """One training run in its folder; it can be stopped at any time and taken up again at its last epoch.

    Args:
        network: Trained in place.
        card: What to say of the model; its recipe is replaced by this run's.
        train_set: What to learn from.
        val_set: What to choose the best epoch by.
        config: How to train.
        folder: Where to put the results; a checkpoint found there is taken up.
        source: "dataset" and "root" that the datasets were opened by, to open them again.
        progress: Whether to show progress.
    """

    def __init__(
        self,
        *,
        network: Network,
        card: ModelCard,
        train_set: Dataset,
        val_set: Dataset,
        config: TrainConfig,
        folder: Path,
        source: Mapping[str, Any],
        progress: bool = True,
    ) -> None:
        self.train_set, self.val_set, self.config, self.folder = train_set, val_set, config, folder
        self.card, self.show = card, progress
        self.source = source
        self.recipe = {"dataset": train_set.name, "train_images": len(train_set), **asdict(config)}
        device = network.mean.device
        self.fabric = Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision="bf16-mixed" if choose_bfloat16(config.precision, device) else "32-true",
        )
        self.network = network.to(memory_format=torch.channels_last)
        self.optimiser = build_optimiser(network, config)
        self.steps_per_epoch = max(1, len(train_set) // config.batch_size)
        self.state = _Progress()
        self.weights: Tensor | None = None

    def run(self) -> TrainResult:
        """Train to the last epoch.

        Raises:
            ValueError: an image or mask cannot be used, or the loss is not a finite number.
            KeyboardInterrupt: the user stopped it; the last whole epoch is kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_up_checkpoint()
        self.weights = self._class_weights()
        model, optimiser = self.fabric.setup(self.network, self.optimiser)
        while self.state.epoch < self.config.epochs:
            started = time.perf_counter()
            loss = self._train_one_epoch(model, optimiser)
            seconds = time.perf_counter() - started
            self.state.epoch += 1
            scores = self._validate() if self._is_measured(self.state.epoch) else None
            self._log(loss, seconds, scores)
            self._keep_if_best(scores)
            self._save_checkpoint()
        return TrainResult(
            folder=self.folder,
            model=self.folder / "best.safetensors",
            best_miou=self.state.best_miou,
            epochs=self.state.epoch,
        )

    def _train_one_epoch(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> float:
        """One pass over the training images; returns the mean loss of its steps."""
        torch.manual_seed(self.config.seed + self.state.epoch)
        losses: list[float] = []
        model.train()
        with progress_bar(self.show) as bar:
            task = bar.add_task(self._title(), total=self.steps_per_epoch, status="")
            started = time.perf_counter()
            for step, (images, labels) in enumerate(self._batches()):
                self._set_learning_rates(optimiser, self.state.epoch * self.steps_per_epoch + step)
                logits = model(images.contiguous(memory_format=torch.channels_last))
                loss = cross_entropy(logits, labels, self.weights, self.train_set.label_set.ignore_index)
                optimiser.zero_grad()
                self.fabric.backward(loss)
                optimiser.step()
                losses.append(self._check_finite(loss.item()))
                speed = (step + 1) * len(images) / (time.perf_counter() - started)
                bar.update(task, advance=1, status=f"loss {np.mean(losses):.3f}, {speed:.1f} images/s")
        return float(np.mean(losses))

    def _batches(self) -> Any:
        """Shuffled, augmented batches: images `(N, 3, h, w)` float32 in [0, 1], labels `(N, h, w)` int64."""
        augmentation = Augmentation(self.config, self.train_set.label_set.ignore_index)
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            _AugmentedDataset(self.train_set, augmentation),
            batch_size=min(self.config.batch_size, len(self.train_set)),
            shuffle=True,
            drop_last=True,
            num_workers=self.config.workers,
            generator=torch.Generator().manual_seed(self.config.seed + self.state.epoch),
        )
        return self.fabric.setup_dataloaders(loader)

    def _set_learning_rates(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        factor = schedule(step, self.steps_per_epoch * self.config.epochs, self.config)
        for group in optimiser.param_groups:
            group["lr"] = factor * group["highest_rate"]

    def _check_finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise ValueError(
                f"Training diverged: the loss became {loss} in epoch {self.state.epoch + 1}. The run up to epoch "
                f"{self.state.epoch} is kept in {self.folder}. Try a smaller learning_rate or precision='float32'."
            )
        return loss

    def _class_weights(self) -> Tensor | None:
        if self.config.class_weights == "none":
            return None
        classes = len(self.train_set.label_set)
        counts = np.zeros(classes, np.int64)
        indices = np.unique(np.linspace(0, len(self.train_set) - 1, FREQUENCY_SAMPLES).round().astype(int))
        with progress_bar(self.show) as bar:
            task = bar.add_task("Counting classes", total=len(indices), status="")
            for index in indices:
                labels = self.train_set[int(index)].labels
                counts += np.bincount(labels[labels < classes], minlength=classes)
                bar.advance(task)
        return log_weights(counts.tolist()).to(self.network.mean.device)

    def _is_measured(self, epoch: int) -> bool:
        return epoch % self.config.validate_every == 0 or epoch == self.config.epochs

    def _validate(self) -> Scores:
        segmenter = Segmenter(PyTorchBackend(self.network), self.val_set.label_set)
        return evaluate(segmenter, self.val_set, progress=self.show)[0]

    def _title(self) -> str:
        best = f", best mIoU {100 * self.state.best_miou:.1f}" if self.state.best_miou >= 0 else ""
        return f"Epoch {self.state.epoch + 1}/{self.config.epochs}{best}"

    def _log(self, loss: float, seconds: float, scores: Scores | None) -> None:
        """Add a line to log.csv, and say it."""
        miou = "" if scores is None or scores.miou is None else f"{scores.miou:.4f}"
        accuracy = "" if scores is None or scores.pixel_accuracy is None else f"{scores.pixel_accuracy:.4f}"
        speed = self.steps_per_epoch * min(self.config.batch_size, len(self.train_set)) / seconds
        row = [self.state.epoch, f"{loss:.4f}", miou, accuracy, f"{speed:.2f}", f"{seconds:.1f}"]
        path = self.folder / "log.csv"
        lines = path.read_text("utf-8").splitlines()[: self.state.epoch] if path.exists() else []
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        header = "epoch,loss,val_miou,val_pixel_accuracy,images_per_second,seconds"
        write_atomically(path, "\n".join([*(lines or [header]), text.getvalue()]).encode())
        status = f"val mIoU {miou}, " if miou else ""
        print_note(
            f"epoch {row[0]}/{self.config.epochs}: loss {row[1]}, {status}{row[4]} images/s, {row[5]} s",
            enabled=self.show,
        )

    def _keep_if_best(self, scores: Scores | None) -> None:
        if scores is None or (scores.miou or 0.0) <= self.state.best_miou:
            return
        self.state.best_miou = scores.miou or 0.0
        measured = {
            "dataset": self.val_set.name,
            "split": self.val_set.split,
            "images": len(self.val_set),
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            "protocol": PROTOCOL,
        }
        card = ModelCard(
            architecture=self.network.architecture,
            label_set=self.card.label_set,
            licence=self.card.licence,
            scores=measured,
            recipe={**self.recipe, "epoch": self.state.epoch},
        )
        save(self.folder / "best.safetensors", self.network, card, "float32")

    def _save_checkpoint(self) -> None:
        content = io.BytesIO()
        torch.save(
            {
                "epoch": self.state.epoch,
                "best_miou": self.state.best_miou,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            },
            content,
        )
        write_atomically(self.folder / "checkpoint.pt", content.getvalue())

    def _take_up_checkpoint(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            write_atomically(self.folder / "run.json", (json.dumps(self._description(), indent=2) + "\n").encode())
            return
        try:
            content = torch.load(path, map_location=self.network.mean.device, weights_only=True)
            self.network.load_state_dict(content["network"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.state = _Progress(epoch=content["epoch"], best_miou=content["best_miou"])
        except (RuntimeError, KeyError, ValueError, EOFError, TypeError) as error:
            raise ValueError(f"The checkpoint {path} is damaged or of another run: {error}") from error
        print_note(f"Taking up {self.folder} after epoch {self.state.epoch}.", enabled=self.show)

    def _description(self) -> dict[str, Any]:
        return {
            "source": dict(self.source),
            "config": asdict(self.config),
            "architecture": self.network.architecture.to_dict(),
            "label_set": self.card.label_set.to_dict(),
        }


class _AugmentedDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """Loads and varies in the worker processes."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation) -> None:
        self.dataset = dataset
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.dataset[index]
        return self.augmentation(sample.image, sample.labels)


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """The share of its highest value that a learning rate has in a step, counted from 0: warm-up, then polynomial."""
    warm_up_steps = config.warm_up * steps
    if step < warm_up_steps:
        return (step + 1) / (warm_up_steps + 1)
    return float((1 - (step - warm_up_steps) / (steps - warm_up_steps)) ** config.polynomial_power)


def build_optimiser(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """An optimiser with rates of their own for the encoder and the rest, and no weight decay but on kernels."""
    rates = {True: config.encoder_learning_rate or config.learning_rate, False: config.learning_rate}
    groups = []
    for is_encoder, is_kernel in ((True, True), (True, False), (False, True), (False, False)):
        parameters = [
            parameter
            for name, parameter in network.named_parameters()
            if name.startswith("encoder.") == is_encoder and (parameter.ndim > 1) == is_kernel
        ]
        decay = config.weight_decay if is_kernel else 0.0
        rate = rates[is_encoder]
        groups.append({"params": parameters, "lr": rate, "highest_rate": rate, "weight_decay": decay})
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    return torch.optim.AdamW(groups)


def choose_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether training computes in bfloat16; "auto" does where the device has instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Older releases of PyTorch cannot say; there the CPU is taken to have none.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
