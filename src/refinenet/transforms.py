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
_LUMA = (0.2989, 0.587, 0.114)
"""Grey from RGB by ITU-R BT.601, as Pillow and torchvision take it."""


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
    """Vary images and their label maps together, into training pairs of fixed size.

    `vary_place` belongs where single images are read, `vary_colour` where batches are computed on; both work on any
    device.

    Args:
        config: How.
        ignore_index: What padding gets in the label map.
    """

    def __init__(self, config: AugmentationConfig, ignore_index: int) -> None:
        fill: dict[Any, Any] = {tv_tensors.Image: _IMAGENET_MEAN_COLOUR, tv_tensors.Mask: ignore_index}
        self._scale = config.scale
        self._jitter = config.colour_jitter
        self._crop_and_flip = v2.Compose(
            [
                v2.RandomCrop(config.crop_size, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(0.5 if config.flip else 0.0),
            ]
        )

    def vary_place(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Resize, crop and flip `(3, H, W)` uint8 and `(H, W)` uint8 or int32 ids to the crop size."""
        factor = float(torch.empty(1).uniform_(*self._scale))
        size = [max(1, round(side * factor)) for side in labels.shape]
        resized = v2.functional.resize(image, size, antialias=True)
        # What torchvision does to masks of itself, "nearest", rounds down and shifts them against the image.
        ids = v2.functional.resize(labels[None], size, v2.InterpolationMode.NEAREST_EXACT)[0]
        image, mask = self._crop_and_flip(tv_tensors.Image(resized), tv_tensors.Mask(ids))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)

    def vary_colour(self, images: Tensor) -> Tensor:
        """Change brightness, contrast and saturation of each image of a batch.

        Args:
            images: `(N, 3, h, w)` uint8 RGB.

        Returns:
            `(N, 3, h, w)` float32 in [0, 1]. The three changes are torchvision's `adjust_brightness`,
            `adjust_contrast` and `adjust_saturation`, in this order, clamped once at their end.
        """
        changes = torch.empty(3, len(images), 1, 1).uniform_(1 - self._jitter, 1 + self._jitter)
        brightness, contrast, saturation = changes.to(images.device)
        luma = torch.tensor(_LUMA, device=images.device)
        # All three are linear in a pixel's colour, so together they are one matrix and, for the contrast, an offset.
        mixing = saturation * torch.eye(3, device=images.device) + (1 - saturation) * luma
        values = images.flatten(2).float()
        mean_luma = (values.mean(2) @ luma)[:, None, None]
        offset = (1 - contrast) * brightness * mean_luma / 255
        varied = torch.baddbmm(offset.expand(-1, 3, 1), brightness * contrast / 255 * mixing, values)
        return varied.clamp_(0, 1).view(images.shape)


def to_tensors(pixels: npt.NDArray[np.uint8], labels: LabelMap) -> tuple[Tensor, Tensor]:
    """`(H, W, 3)` uint8 and `(H, W)` ids to `(3, H, W)` uint8 and `(H, W)` uint8, or int32 for ids of 16 bits."""
    ids = labels if labels.dtype == np.uint8 else labels.astype(np.int32)
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(ids)
