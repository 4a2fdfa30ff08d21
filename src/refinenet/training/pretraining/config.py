"""How to pre-train an encoder: every setting, its meaning and its range."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from refinenet.models.batch_norm import BatchNormConfig
from refinenet.settings import is_number
from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.config import TrainConfig
from refinenet.training.loggers import LoggerConfig
from refinenet.training.optimisation import OptimiserConfig, Schedule, ScheduleConfig

_PARTS = (OptimiserConfig, ScheduleConfig, BatchNormConfig, LoggerConfig)
_Rule = tuple[str, Callable[[Any], bool], str]
"""The name of a setting, whether a value is allowed, and what is."""


def _whole(name: str, least: int) -> _Rule:
    return name, lambda value: type(value) is int and value >= least, f"a whole number from {least} up"


def _number(name: str, low: float, high: float) -> _Rule:
    return name, lambda value: is_number(value) and low <= value <= high, f"a number from {low} to {high}"


def _range(name: str, low: float, high: float) -> _Rule:
    def is_allowed(value: Any) -> bool:
        is_pair = isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))
        return is_pair and low <= value[0] <= value[1] <= high

    return name, is_allowed, f"a range within {low} to {high}, lower end first"


def _switch(name: str) -> _Rule:
    return name, lambda value: isinstance(value, bool), "True or False"


_RULES = (
    _whole("epochs", 1),
    _whole("batch_size", 1),
    _whole("accumulation", 1),
    _whole("crop_size", 32),
    _whole("workers", 0),
    _whole("seed", 0),
    _number("colour_jitter", 0, 0.99),
    _number("hue", 0, 0.5),
    _number("label_smoothing", 0, 0.99),
    _number("checkpoint_minutes", 1e-9, 1e9),
    _range("crop_area", 0.001, 1),
    _range("crop_shape", 0.1, 10),
    _switch("flip"),
    _switch("compile"),
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(OptimiserConfig, ScheduleConfig, BatchNormConfig, LoggerConfig):
    """How to pre-train an encoder. The defaults are those of a small network on as many images as ImageNet has.

    Raises:
        ValueError: a value out of its range; all problems are reported together.
    """

    epochs: int = 90
    """Passes over the training images."""
    batch_size: int = 128
    """Images in a step, over all processes."""
    accumulation: int = 1
    """Parts that a batch is computed in, one after the other, to save memory; the gradients are those of the whole
    batch."""
    weight_decay: float = 0.05
    """Of kernels; biases and norms have none."""
    ema_decay: float = 0.999
    """As in `OptimiserConfig`."""
    schedule: Schedule = "cosine"
    """As in `ScheduleConfig`."""
    warm_up: float = 0.05
    """Share of all steps in which the learning rates rise from zero."""
    label_smoothing: float = 0.1
    """Share of the target of the cross-entropy that is spread evenly over all classes."""
    crop_size: int = 224
    """Side, in pixels, of the square that the network sees."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """What it shows of a training image, as a share of its area, is drawn from this range."""
    crop_shape: tuple[float, float] = (0.75, 4 / 3)
    """Width by height of what it shows is drawn from this range, evenly on a logarithmic scale."""
    flip: bool = True
    """Whether half of the training images are mirrored left to right."""
    colour_jitter: float = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 for none."""
    hue: float = 0.0
    """Largest turn of the colour circle to either side, as a part of the whole circle; 0 for none."""
    checkpoint_minutes: float = 10.0
    """Minutes after which the state is kept in the middle of an epoch; at the end of one it always is."""
    workers: int = 2 if sys.platform == "linux" else 0
    """Processes that load images; 0 loads in the training process."""
    compile: bool = False
    """Whether `torch.compile` translates the network first: minutes at the start, for faster steps on a GPU."""
    seed: int = 42
    """From which the first weights, the order of images and their variation follow."""

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = [problem for part in _PARTS for problem in part.problems(self)]
        for name, is_allowed, told in _RULES:
            if not is_allowed(getattr(self, name)):
                found.append(f"{name} is {told}, not {getattr(self, name)!r}")
        if self.learning_rate == "auto":
            found.append('learning_rate is a number: "auto" is for the training of whole networks')
        if self.batch_norm in ("frozen", "frozen_statistics"):
            found.append(f"batch_norm={self.batch_norm!r} is for trained encoders: a new one has no statistics to keep")
        late = [epoch for epoch in self.step_epochs if epoch >= self.epochs] if not found else []
        if late:
            found.append(f"step_epochs has {late[0]}, but the run ends after {self.epochs} epochs: leave it out")
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PretrainConfig:
        """Build a configuration from settings by name, lists standing for tuples.

        Raises:
            ValueError: a setting is unknown or out of its range.
        """
        known = sorted(field.name for field in fields(cls))
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"Unknown settings of pre-training: {', '.join(unknown)}. Known are {', '.join(known)}.")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)

    @property
    def colour(self) -> AugmentationConfig:
        """How colours are varied, in the words of what does it."""
        return AugmentationConfig(colour_jitter=self.colour_jitter, hue=self.hue)

    @property
    def learning(self) -> TrainConfig:
        """How weights move, in the words of what moves them."""
        shared = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(self)} - {"crop_size"}
        settings = {name: getattr(self, name) for name in shared}
        return TrainConfig(class_weights="none", dice_weight=0.0, **settings)
