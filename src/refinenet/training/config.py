"""Settings of training; those of each component are defined next to it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from refinenet.models.batch_norm_config import BatchNormConfig
from refinenet.settings import DEFAULT_SEED, Range, Rule
from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.loggers import LoggerConfig
from refinenet.training.losses.config import LossConfig
from refinenet.training.losses.output_config import OutputLossConfig
from refinenet.training.optimiser_config import OptimiserConfig
from refinenet.training.schedule import ScheduleConfig

Place = Literal["workers", "device"]
Cache = Literal["none", "memory", "disk"]
Count = Annotated[int, Range(1)]
# PyTorch takes seeds of 64 bits; those of SeedSequence and of recipes (TOML) have to fit as well.
Seed = Annotated[int, Rule(lambda seed: 0 <= seed < 2**63, "a whole number from 0 to 2^63 - 1")]
ValueRange = Annotated[
    tuple[float, float], Rule(lambda ends: ends[0] < ends[1], "two numbers, the value for black below that for white,")
]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    AugmentationConfig, LossConfig, OutputLossConfig, OptimiserConfig, ScheduleConfig, BatchNormConfig, LoggerConfig
):
    """Settings of a training run.

    Raises:
        ValueError: A value is out of its range; all problems are reported together.
    """

    _title: ClassVar[str] = "training settings"
    _listing: ClassVar[str] = "refinenet train --show-settings"

    epochs: Count = 50
    """Passes over the training images."""
    batch_size: Count | Literal["auto"] = 8
    """Images per step, over all processes; "auto" is the largest number that fits into a GPU's memory."""
    accumulation: Count = 1
    """Number of parts into which a batch is split and computed one after the other, to save memory; the gradients are
    those of the whole batch, except through batch norms that use statistics of each part."""
    validate_every: Count = 1
    """Epochs between measurements on the validation split; the last epoch is always measured."""
    patience: Count | None = None
    """Number of epochs without a better validation mIoU after which training stops early; None trains all epochs."""
    checkpoint_minutes: Annotated[float, Range(above=0)] = 10.0
    """Minutes between checkpoints within an epoch; the end of an epoch always gets one."""
    workers: Annotated[int, Range(0)] = 2 if sys.platform == "linux" else 0
    """Processes that load images; 0 loads in the training process. By default 2 on Linux; elsewhere processes cannot be
    forked, and more than 0 needs a script with `if __name__ == "__main__":`."""
    cache: Cache = "none"
    """Where decoded images are kept for later epochs: "memory" (on Linux; all free space but 1 GiB) or "disk", in
    the run folder until the run ends. Useful where training waits for images to load."""
    augment_on: Place = "workers"
    """Where images are resized, cropped and flipped: in the loading processes, or on the device that trains, for a GPU
    in a machine with few cores. Colours are varied on the device in both cases."""
    compile: bool = False
    """Whether to compile the network with `torch.compile`: takes minutes at the start, makes steps on a GPU faster."""
    seed: Seed = DEFAULT_SEED
    """Seed for the order of images, their augmentation, dropout and new rows of the classifier; on the command line
    also for a new network's weights, which in Python depend on the `seed` of `RefineNet`."""

    value_range: ValueRange | None = None
    """Stored values of images that become black and white, such as (0, 4095) for 12 bits; saved with the model and used
    wherever it is. None for the full range of the images' types."""
    longest_side: Count | Literal["auto", "none"] = "auto"
    """Length, in pixels, to which the longer side of larger images is reduced; saved with the model, which reduces
    images in the same way wherever it is used, and returns results at their full size. "auto" is that of the model
    from which training starts, or else 1024 for photographs (not TIFF) of more than 2048 pixels; "none" keeps the
    size."""

    @property
    def side_limit(self) -> int | None:
        """The length of `longest_side`; None for no limit, or one that is not chosen yet."""
        return self.longest_side if isinstance(self.longest_side, int) else None

    def _conflicts(self) -> list[str]:
        conflicts = super()._conflicts()
        late = [epoch for epoch in self.step_epochs if epoch >= self.epochs]
        if late:
            conflicts.append(f"step_epochs has {late[0]}, but the run ends after {self.epochs} epochs: leave it out")
        if self.patience is not None and self.patience >= self.epochs:
            conflicts.append(f"patience={self.patience} has no effect in a run of {self.epochs} epochs: lower it")
        if self.rare_below != TrainConfig.rare_below and not self.paste_rare:
            conflicts.append("rare_below is for paste_rare, which is 0: set it, or leave rare_below out")
        return conflicts
