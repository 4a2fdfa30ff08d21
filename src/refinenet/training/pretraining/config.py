"""Settings of pre-training an encoder."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from refinenet.models.batch_norm_config import BatchNormConfig
from refinenet.settings import DEFAULT_SEED, Range, Rule
from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.config import Count, Seed, TrainConfig
from refinenet.training.loggers import LoggerConfig
from refinenet.training.optimiser_config import OptimiserConfig
from refinenet.training.schedule import Schedule, ScheduleConfig


def _range_within(low: float, high: float) -> Rule:
    return Rule(lambda ends: low <= ends[0] <= ends[1] <= high, f"a range within {low} to {high}, lower end first")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(OptimiserConfig, ScheduleConfig, BatchNormConfig, LoggerConfig):
    """Settings of pre-training. The defaults suit a small network and as many images as ImageNet has.

    Raises:
        ValueError: A value is out of its range; all problems are reported together.
    """

    _title: ClassVar[str] = "pre-training settings"
    _listing: ClassVar[str] = "refinenet pretrain --show-settings"

    epochs: Count = 90
    """Passes over the training images."""
    batch_size: Count = 128
    """Images per step, over all processes."""
    accumulation: Count = 1
    """Number of parts into which a batch is split and computed one after the other, to save memory; the gradients are
    those of the whole batch."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.05
    """Weight decay of kernels; biases and norms have none."""
    ema_decay: Annotated[float, Range(0, below=1)] = 0.999
    """Decay per step of the exponential moving average of the weights that is measured and saved; 0 measures and saves
    the weights themselves."""
    schedule: Schedule = "cosine"
    """Schedule after warm-up: "polynomial" or "cosine" decay, a drop at each of `step_epochs` ("steps"), or
    "constant"."""
    warm_up: Annotated[float, Range(0, 0.99)] = 0.05
    """Share of all steps in which the learning rates rise from zero."""
    label_smoothing: Annotated[float, Range(0, 0.99)] = 0.1
    """Share of the target of the cross-entropy that is spread evenly over all classes."""
    crop_size: Annotated[int, Range(32)] = 224
    """Side, in pixels, of the square that the network sees."""
    crop_area: Annotated[tuple[float, float], _range_within(0.001, 1)] = (0.08, 1.0)
    """Range of the random area of a crop, as a share of the training image."""
    crop_shape: Annotated[tuple[float, float], _range_within(0.1, 10)] = (0.75, 4 / 3)
    """Range of the random aspect ratio (width / height) of a crop, uniform on a logarithmic scale."""
    flip: bool = True
    """Whether half of the training images are mirrored left to right."""
    colour_jitter: Annotated[float, Range(0, below=1)] = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 for none."""
    hue: Annotated[float, Range(0, 0.5)] = 0.0
    """Largest shift of the hue in either direction, as a fraction of the colour circle; 0 for none."""
    checkpoint_minutes: Annotated[float, Range(above=0)] = 10.0
    """Minutes between checkpoints within an epoch; the end of an epoch always gets one."""
    workers: Annotated[int, Range(0)] = 2 if sys.platform == "linux" else 0
    """Processes that load images; 0 loads in the training process."""
    compile: bool = False
    """Whether to compile the network with `torch.compile`: takes minutes at the start, makes steps on a GPU faster."""
    seed: Seed = DEFAULT_SEED
    """Seed for the initial weights, the order of images and their augmentation."""

    def _conflicts(self) -> list[str]:
        conflicts = super()._conflicts()
        if self.learning_rate == "auto":
            conflicts.append('learning_rate must be a number: "auto" is for the training of whole networks')
        if self.batch_norm in ("frozen", "frozen_statistics"):
            conflicts.append(
                f"batch_norm={self.batch_norm!r} is for trained encoders: a new one has no statistics to keep"
            )
        late = [epoch for epoch in self.step_epochs if epoch >= self.epochs]
        if late:
            conflicts.append(f"step_epochs has {late[0]}, but the run ends after {self.epochs} epochs: leave it out")
        return conflicts

    @property
    def colour(self) -> AugmentationConfig:
        """Augmentation settings that vary the colours as configured here."""
        return AugmentationConfig(colour_jitter=self.colour_jitter, hue=self.hue)

    @property
    def learning(self) -> TrainConfig:
        """Training settings that update the weights as configured here."""
        shared = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(self)} - {"crop_size"}
        settings = {name: getattr(self, name) for name in shared}
        return TrainConfig(class_weights="none", dice_weight=0.0, **settings)
