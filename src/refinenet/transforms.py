"""What images pass through on their way to the network: preparation always, augmentation in training.

Shape letters: N batch, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import UnionType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
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
    class_crops: float = 0.0
    """Share of the crops that are laid over a pixel of a class drawn evenly from those in the image, so that rare
    classes are seen as often as others."""
    paste_classes: float = 0.0
    """Probability that an image gets classes of another image of its batch pasted over its own pixels, half of those
    that are there (ClassMix; Olsson et al., 2021)."""

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
        for name in ("class_crops", "paste_classes"):
            if not is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} is a number from 0 to 1, not {getattr(self, name)!r}")
        return problems


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, kind) for part in value)


class _Window(NamedTuple):
    """What a crop shows of an image along one of its sides."""

    cut: slice
    """The pixels of the image."""
    size: int
    """How many pixels of the crop they become."""
    start: int
    """The first of these; the others are padding."""

    @classmethod
    def draw(cls, length: int, shown: int, factor: float, over: int | None) -> _Window:
        """Draw where a crop of `shown` pixels lies on an image of `length` pixels that is resized by `factor`.

        It shows the pixel `over`, if there is one to show.
        """
        window = max(1, round(shown / factor))
        room = length - window
        low, high = min(room, 0), max(room, 0)
        if over is not None and room > 0:
            low, high = max(low, over - window + 1), min(high, over)
        first = int(torch.randint(low, high + 1, (1,)))
        cut = slice(max(first, 0), min(first + window, length))
        size = min(shown, max(1, round((cut.stop - cut.start) * factor))) if room < 0 else shown
        return cls(cut, size, min(round(max(-first, 0) * factor), shown - size))


class Augmentation:
    """Vary images and their label maps together, into training pairs of fixed size.

    `vary_place` belongs where single images are read, `vary_colour` where batches are computed on; both work on any
    device.

    Args:
        config: How.
        ignore_index: What padding gets in the label map.
    """

    def __init__(self, config: AugmentationConfig, ignore_index: int) -> None:
        self._config = config
        self._ignore_index = ignore_index

    def vary_place(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Resize, crop and flip `(3, H, W)` uint8 and `(H, W)` uint8 or int32 ids to the crop size."""
        factor = float(torch.empty(1).uniform_(*self._config.scale))
        # Only what the crop will show is resized: it is cut out first.
        rows, columns = (
            _Window.draw(length, shown, factor, over)
            for length, shown, over in zip(labels.shape, self._config.crop_size, self._draw_pixel(labels), strict=True)
        )
        image, labels = image[:, rows.cut, columns.cut], labels[rows.cut, columns.cut]
        if self._config.flip and torch.rand(1) < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        size = [rows.size, columns.size]
        image = v2.functional.resize(image, size, antialias=True)
        # What torchvision does to masks of itself, "nearest", rounds down and shifts them against the image.
        labels = v2.functional.resize(labels[None], size, v2.InterpolationMode.NEAREST_EXACT)[0]
        return self._pad(image, labels, rows, columns)

    def _draw_pixel(self, labels: Tensor) -> tuple[int | None, int | None]:
        """Row and column of what a crop must show, if anything."""
        if torch.rand(1) >= self._config.class_crops:
            return None, None
        classes = labels.unique()
        classes = classes[classes != self._ignore_index]
        if not len(classes):
            return None, None
        pixels = (labels == classes[torch.randint(len(classes), (1,))]).nonzero()
        row, column = pixels[torch.randint(len(pixels), (1,))][0].tolist()
        return row, column

    def paste_classes(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Paste half of the classes of another image of the batch into some of them, `(N, 3, h, w)` and `(N, h, w)`."""
        if not self._config.paste_classes:
            return images, labels
        images, labels, others, theirs = images.clone(), labels.clone(), images.roll(1, 0), labels.roll(1, 0)
        for index in range(len(images)):
            if torch.rand(1) >= self._config.paste_classes:
                continue
            classes = theirs[index].unique()
            classes = classes[classes != self._ignore_index]
            chosen = classes[torch.randperm(len(classes))[: len(classes) // 2]]
            pasted = torch.isin(theirs[index], chosen)
            images[index] = torch.where(pasted, others[index], images[index])
            labels[index] = torch.where(pasted, theirs[index], labels[index])
        return images, labels

    def _pad(self, image: Tensor, labels: Tensor, rows: _Window, columns: _Window) -> tuple[Tensor, Tensor]:
        height, width = self._config.crop_size
        if (rows.size, columns.size) == (height, width):
            return image, labels
        padded = torch.tensor(_IMAGENET_MEAN_COLOUR, dtype=image.dtype, device=image.device)[:, None, None]
        padded = padded.repeat(1, height, width)
        void = torch.full((height, width), self._ignore_index, dtype=labels.dtype, device=labels.device)
        where = slice(rows.start, rows.start + rows.size), slice(columns.start, columns.start + columns.size)
        padded[:, *where], void[where] = image, labels
        return padded, void

    def vary_colour(self, images: Tensor) -> Tensor:
        """Change brightness, contrast and saturation of each image of a batch.

        Args:
            images: `(N, 3, h, w)` uint8 RGB.

        Returns:
            `(N, 3, h, w)` float32 in [0, 1]. The three changes are torchvision's `adjust_brightness`,
            `adjust_contrast` and `adjust_saturation`, in this order, clamped once at their end.
        """
        changes = torch.empty(3, len(images), 1, 1).uniform_(
            1 - self._config.colour_jitter, 1 + self._config.colour_jitter
        )
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
