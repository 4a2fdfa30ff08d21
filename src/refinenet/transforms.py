"""What images pass through on their way to the network: preparation always, augmentation in training.

Shape letters: N batch, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import UnionType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from refinenet.labels import LabelMap

_IMAGENET_MEAN_COLOUR = (124, 116, 104)


def prepare(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """`(H, W, 3)` uint8 RGB to `(1, 3, H, W)` float32 in [0, 1], channels last in memory."""
    image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    return image.to(torch.float32).div(255).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How training images are varied.

    Raises:
        ValueError: a value out of its range.
    """

    crop_size: tuple[int, int] = (320, 320)
    """Height and width, in pixels, of what the network sees; smaller images are padded with void."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Images are resized by a factor drawn from this range."""
    flip: bool = True
    """Whether half of the images are mirrored left to right."""
    colour_jitter: float = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 for none."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        problems = []
        if not _is_pair(self.crop_size, int) or min(self.crop_size) < 1:
            problems.append(f"crop_size is height and width, whole numbers from 1 up, not {self.crop_size!r}")
        if not _is_pair(self.scale, int | float) or not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            problems.append(f"scale is a range within 0.05 to 20, lower end first, not {self.scale!r}")
        if not isinstance(self.flip, bool):
            problems.append(f"flip is True or False, not {self.flip!r}")
        if not is_number(self.colour_jitter) or not 0 <= self.colour_jitter < 1:
            problems.append(f"colour_jitter is at least 0 and below 1, not {self.colour_jitter!r}")
        return problems


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, kind) for part in value)


class Augmentation:
    """Vary an image and its label map together, into a training pair of fixed size.

    Args:
        config: How.
        ignore_index: What padding gets in the label map.
    """

    def __init__(self, config: AugmentationConfig, ignore_index: int) -> None:
        fill: dict[Any, Any] = {tv_tensors.Image: _IMAGENET_MEAN_COLOUR, tv_tensors.Mask: ignore_index}
        jitter = config.colour_jitter
        self._scale = config.scale
        self._transform = v2.Compose(
            [
                v2.RandomCrop(config.crop_size, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(0.5 if config.flip else 0.0),
                v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter),
                v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            ]
        )

    def __call__(self, pixels: npt.NDArray[np.uint8], labels: LabelMap) -> tuple[Tensor, Tensor]:
        """`(H, W, 3)` uint8 and `(H, W)` ids to `(3, h, w)` float32 in [0, 1] and `(h, w)` int64 of the crop size."""
        factor = float(torch.empty(1).uniform_(*self._scale))
        size = [max(1, round(side * factor)) for side in labels.shape]
        image = v2.functional.resize(torch.from_numpy(pixels).permute(2, 0, 1), size, antialias=True)
        # What torchvision does to masks of itself, "nearest", rounds down and shifts them against the image.
        ids = torch.from_numpy(labels.astype(np.int32))[None]
        mask = v2.functional.resize(ids, size, v2.InterpolationMode.NEAREST_EXACT)[0]
        image, mask = self._transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)
