"""How to train: every setting, its meaning and its range. Each part's settings stand beside the part."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

from refinenet.io.sample_values import check_value_range
from refinenet.models.batch_norm import BatchNormConfig
from refinenet.settings import DEFAULT_SEED, is_number
from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.loggers import LoggerConfig
from refinenet.training.losses.config import LossConfig
from refinenet.training.optimisation import OptimiserConfig, ScheduleConfig

Place = Literal["workers", "device"]
Cache = Literal["none", "memory", "disk"]

_PARTS = (AugmentationConfig, LossConfig, OptimiserConfig, ScheduleConfig, BatchNormConfig, LoggerConfig)
_WHOLE_NUMBERS = {
    "epochs": 1,
    "batch_size": 1,
    "accumulation": 1,
    "validate_every": 1,
    "patience": 1,
    "workers": 0,
    "seed": 0,
}
_LARGEST_SEED = 2**63 - 1
_INSTEAD_OF_NUMBERS = {"batch_size": "auto", "patience": None}
_CHOICES = {"augment_on": Place, "cache": Cache}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(AugmentationConfig, LossConfig, OptimiserConfig, ScheduleConfig, BatchNormConfig, LoggerConfig):
    """How to train.

    Raises:
        ValueError: a value out of its range; all problems are reported together.
    """

    epochs: int = 50
    """Passes over the training images."""
    batch_size: int | Literal["auto"] = 8
    """Images in a step, over all processes; "auto" is the largest number that fits into a GPU's memory."""
    accumulation: int = 1
    """Parts that a batch is computed in, one after the other, to save memory; the gradients are those of the whole
    batch, but for batch norms that take statistics of what they see."""
    validate_every: int = 1
    """Epochs between measurements on the validation split; the last epoch is always measured."""
    patience: int | None = None
    """Training ends early after so many epochs without a better validation mIoU; None trains all epochs."""
    checkpoint_minutes: float = 10.0
    """Minutes after which the state is kept in the middle of an epoch; at the end of one it always is."""
    workers: int = 2 if sys.platform == "linux" else 0
    """Processes that load images; 0 loads in the training process. By default 2 on Linux; elsewhere processes cannot be
    forked, and more than 0 needs a script with `if __name__ == "__main__":`."""
    cache: Cache = "none"
    """Where decoded images wait for their next epoch: "memory" (on Linux; as much as is free but for 1 GiB) or "disk",
    in the run's folder until its end. It pays where loading is what training waits for."""
    augment_on: Place = "workers"
    """Where images are resized, cropped and flipped: in the processes that load them, or on the device that trains, for
    a GPU whose machine has few cores. Colours are varied on the device in both."""
    compile: bool = False
    """Whether `torch.compile` translates the network first: minutes at the start, for faster steps on a GPU."""
    seed: int = DEFAULT_SEED
    """From which the order of images, their augmentation, dropout and new rows of the classifier follow; on the command
    line a new network's weights, too, which in Python follow from the seed that `RefineNet` is given."""

    value_range: tuple[float, float] | None = None
    """The stored values of images that are black and white, such as (0, 4095) for 12 bits; kept with the model and used
    wherever it is. None for those of the images' types."""

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = [problem for part in _PARTS for problem in part.problems(self)]
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            is_told_otherwise = name in _INSTEAD_OF_NUMBERS and value == _INSTEAD_OF_NUMBERS[name]
            if not is_told_otherwise and (type(value) is not int or value < least):
                found.append(f"{name} is a whole number from {least} up, not {value!r}")
        if type(self.seed) is int and self.seed > _LARGEST_SEED:
            found.append(f"seed is a whole number up to 2^63 - 1, not {self.seed!r}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                found.append(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if not is_number(self.checkpoint_minutes) or self.checkpoint_minutes <= 0:
            found.append(f"checkpoint_minutes is a number above 0, not {self.checkpoint_minutes!r}")
        if self.value_range is not None:
            try:
                check_value_range(self.value_range)
            except ValueError as error:
                found.append(str(error).removesuffix("."))
        found += self._without_effect() if not found else []
        if not isinstance(self.compile, bool):
            found.append(f"compile is True or False, not {self.compile!r}")
        return found

    def _without_effect(self) -> list[str]:
        """What would have no effect, of values that are each in their range."""
        found = []
        late = [epoch for epoch in self.step_epochs if epoch >= self.epochs]
        if late:
            found.append(f"step_epochs has {late[0]}, but the run ends after {self.epochs} epochs: leave it out")
        if self.patience is not None and self.patience >= self.epochs:
            found.append(f"patience={self.patience} has no effect in a run of {self.epochs} epochs: lower it")
        if self.rare_below != TrainConfig.rare_below and not self.paste_rare:
            found.append("rare_below is for paste_rare, which is 0: set it, or leave rare_below out")
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
            near = [match for name in unknown for match in get_close_matches(name, known, n=1)]
            meant = f" Did you mean {', '.join(near)}?" if near else ""
            told = f"Unknown training settings: {', '.join(unknown)}.{meant} Known are {', '.join(sorted(known))}."
            raise ValueError(told)
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)
