"""How to train: every setting, its meaning and its range."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from refinenet.transforms import AugmentationConfig, is_number

Optimiser = Literal["adamw", "sgd"]
ClassWeights = Literal["log", "median", "none"]
Precision = Literal["auto", "float32", "bfloat16"]
Place = Literal["workers", "device"]
Cache = Literal["none", "memory", "disk"]

_WHOLE_NUMBERS = {"epochs": 1, "batch_size": 1, "validate_every": 1, "workers": 0, "seed": 0}
_NUMBERS = {
    "learning_rate": (1e-12, 100),
    "encoder_learning_rate": (1e-12, 100),
    "warm_up": (0, 0.99),
    "polynomial_power": (0, 100),
    "weight_decay": (0, 100),
    "dice_weight": (0, 100),
    "ema_decay": (0, 1 - 1e-9),
}
_CHOICES = {
    "optimiser": Optimiser,
    "class_weights": ClassWeights,
    "precision": Precision,
    "augment_on": Place,
    "cache": Cache,
}


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
    """"log" and "median" weigh rare classes up (`class_statistics`), "none" weighs all alike."""
    dice_weight: float = 0.0
    """Weight of the Dice loss (`losses.dice`), which is added to the cross-entropy."""
    ema_decay: float = 0.0
    """What is measured and kept is an exponential moving average of the weights over the steps with this decay, such as
    0.995; 0 for the weights themselves."""
    precision: Precision = "auto"
    """Of the network's arithmetic; "auto" is bfloat16 where the device computes in it, else float32."""
    validate_every: int = 1
    """Epochs between measurements on the validation split; the last epoch is always measured."""
    workers: int = 2 if sys.platform == "linux" else 0
    """Processes that load images; 0 loads in the training process. By default 2 on Linux; elsewhere processes cannot be
    forked, and more than 0 needs a script with `if __name__ == "__main__":`."""
    cache: Cache = "none"
    """Where decoded images wait for their next epoch: "memory" (on Linux; as much as is free but for 1 GiB) or "disk",
    in the run's folder until its end. It pays where loading is what training waits for."""
    augment_on: Place = "workers"
    """Where images are resized, cropped and flipped: in the processes that load them, or on the device that trains, for
    a GPU whose machine has few cores. Colours are varied on the device in both."""
    seed: int = 42
    """From which the order of images, their augmentation, dropout and new rows of the classifier follow."""

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = super().problems()
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                found.append(f"{name} is a whole number from {least} up, not {value!r}")
        for name, (low, high) in _NUMBERS.items():
            value = getattr(self, name)
            is_left_out = name == "encoder_learning_rate" and value is None
            if not is_left_out and not (is_number(value) and low <= value <= high):
                found.append(f"{name} is a number from {low} to {high}, not {value!r}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                found.append(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        return found

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
