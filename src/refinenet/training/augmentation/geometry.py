"""What a training crop shows of its image: scale, rotation, place, mirror; image and label map always together.

Shape letters: H height and W width of an image, h and w of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms import v2

from refinenet.training.augmentation.config import AugmentationConfig

Pair = tuple[Tensor, Tensor]
"""`(3, H, W)` uint8 RGB and `(H, W)` uint8 or int32 ids."""
Point = tuple[int, int]
"""Row and column of a pixel."""

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's, which the network's normalisation makes nearly 0: what hidden or missing parts of an image show."""


def place(pair: Pair, config: AugmentationConfig, ignore_index: int, random: Generator, over: Point | None) -> Pair:
    """Resize, turn, crop and mirror an image with its label map.

    Args:
        pair: `(3, H, W)` uint8 and `(H, W)` ids, on any device.
        config: How.
        ignore_index: The id of what lies outside the image.
        random: Where draws come from.
        over: A pixel of the image that the crop shows.

    Returns:
        `(3, h, w)` uint8 and `(h, w)` ids of the type that came.
    """
    factor = random.uniform(*config.scale)
    angle = math.radians(random.uniform(-config.rotation, config.rotation)) if config.rotation else 0.0
    canvas, kept = _turned_size(config.crop_size, angle)
    # Only what the crop will show is resized: it is cut out first.
    rows, columns = (
        _Window.draw(random, length, shown, larger, factor, kept, pixel)
        for length, shown, larger, pixel in zip(
            pair[1].shape, config.crop_size, canvas, over or (None, None), strict=True
        )
    )
    image, labels = pair[0][:, rows.cut, columns.cut], pair[1][rows.cut, columns.cut]
    size = [rows.size, columns.size]
    image = v2.functional.resize(image, size, antialias=True)
    # What torchvision does to masks of itself, "nearest", rounds down and shifts them against the image.
    labels = v2.functional.resize(labels[None], size, v2.InterpolationMode.NEAREST_EXACT)[0]
    image, labels = _pad((image, labels), rows, columns, canvas, ignore_index)
    if angle:
        image, labels = _turn((image, labels), angle, config.crop_size)
    if config.flip and random.random() < 0.5:
        image, labels = image.flip(-1), labels.flip(-1)
    return image, labels


def draw_pixel(labels: Tensor, ignore_index: int, random: Generator, among: Sequence[int] = ()) -> Point | None:
    """A pixel of a class drawn evenly from those in a label map.

    Args:
        labels: `(H, W)` uint8 or int32 ids.
        ignore_index: The id that is no class.
        random: Where draws come from.
        among: The classes to choose from; all by default.

    Returns:
        Row and column, or None where there is no such class.
    """
    classes = [each for each in present(labels, ignore_index) if not among or each in among]
    if not classes:
        return None
    pixels = (labels == classes[random.integers(len(classes))]).flatten().nonzero()
    row, column = divmod(int(pixels[random.integers(len(pixels))]), labels.shape[1])
    return row, column


def present(labels: Tensor, ignore_index: int) -> list[int]:
    """The classes in a label map, in ascending order."""
    found: list[int] = torch.bincount(labels.flatten()).nonzero().flatten().tolist()
    return [each for each in found if each != ignore_index]


class _Window(NamedTuple):
    """What a crop, or the larger canvas that it is turned on, shows of an image along one of its sides."""

    cut: slice
    """The pixels of the image."""
    size: int
    """How many pixels of the canvas they become."""
    start: int
    """The first of these; the others are padding."""

    @classmethod
    def draw(
        cls, random: Generator, length: int, shown: int, canvas: int, factor: float, kept: float, over: int | None
    ) -> _Window:
        """Draw where a crop of `shown` pixels lies on an image of `length` pixels that is resized by `factor`.

        It shows the pixel `over`, if there is one to show, in the part `kept` of its middle.
        """
        window = max(1, round(shown / factor))
        low, high = sorted((length - window, 0))
        if over is not None:
            margin = min(math.ceil((1 - kept) * window / 2), (window - 1) // 2)
            low, high = (min(max(end, over - window + 1 + margin), over - margin) for end in (low, high))
        more = round((canvas - shown) / 2 / factor)
        first = int(random.integers(low, high + 1)) - more
        window += 2 * more
        cut = slice(max(first, 0), min(first + window, length))
        pixels = cut.stop - cut.start
        size = canvas if pixels == window else min(canvas, max(1, round(pixels * factor)))
        return cls(cut, size, min(round(max(-first, 0) * factor), canvas - size))


def _turned_size(size: tuple[int, int], angle: float) -> tuple[tuple[int, int], float]:
    """Height and width of a canvas that holds the crop upright and turned, and which part of its middle both show."""
    if not angle:
        return size, 1.0
    (height, width), cosine, sine = size, abs(math.cos(angle)), abs(math.sin(angle))
    rows, columns = height * cosine + width * sine, width * cosine + height * sine
    # The same number of pixels on either side, so that the middle stays where it is.
    more = (max(0, math.ceil((rows - height) / 2)), max(0, math.ceil((columns - width) / 2)))
    return (height + 2 * more[0], width + 2 * more[1]), min(1, height / rows, width / columns)


def _pad(pair: Pair, rows: _Window, columns: _Window, size: tuple[int, int], ignore_index: int) -> Pair:
    image, labels = pair
    if (rows.size, columns.size) == size:
        return pair
    padded = torch.tensor(MEAN_COLOUR, dtype=image.dtype, device=image.device)[:, None, None].repeat(1, *size)
    void = torch.full(size, ignore_index, dtype=labels.dtype, device=labels.device)
    where = slice(rows.start, rows.start + rows.size), slice(columns.start, columns.start + columns.size)
    padded[:, *where], void[where] = image, labels
    return padded, void


def _turn(pair: Pair, angle: float, size: tuple[int, int]) -> Pair:
    """The middle of a canvas, turned counter-clockwise: `(3, h, w)` and `(h, w)`."""
    (image, labels), (height, width) = pair, size
    rows, columns = labels.shape
    cosine, sine = math.cos(angle), math.sin(angle)
    to_canvas = [
        [cosine * width / columns, -sine * height / columns, 0],
        [sine * width / rows, cosine * height / rows, 0],
    ]
    grid = affine_grid(torch.tensor([to_canvas]), [1, 1, height, width], align_corners=False).to(image.device)
    turned = grid_sample(image[None].float(), grid, "bilinear", "border", align_corners=False)
    ids = grid_sample(labels[None, None].float(), grid, "nearest", "border", align_corners=False)
    return turned[0].round().to(image.dtype), ids[0, 0].to(labels.dtype)
