"""Random geometry of training crops: scale, rotation, position, mirroring; applied to image and label map jointly.

Shape letters: H height and W width of an image, h and w of the crop, D channels of all targets together.
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
from refinenet.training.augmentation.targets import NO_RULES, TargetRules


class Pair(NamedTuple):
    """An image with its ground truth."""

    image: Tensor
    """`(3, H, W)` uint8 RGB, or `(B, H, W)` float32 in [0, 1], bands."""
    labels: Tensor
    """`(H, W)` uint8 or int32 ids."""
    targets: Tensor | None = None
    """`(D, H, W)` float32: the targets of all further outputs, NaN where there is no ground truth; None without any."""


Point = tuple[int, int]
"""Row and column of a pixel."""

_NEAREST = v2.InterpolationMode.NEAREST_EXACT
Fill = Sequence[float]
"""Value of each band of an image in hidden or missing parts."""
MEAN_COLOUR: Fill = (124, 116, 104)
"""Fill of RGB: the mean of ImageNet, which the network's normalisation makes nearly 0."""


def place(
    pair: Pair,
    config: AugmentationConfig,
    ignore_index: int,
    random: Generator,
    over: Point | None,
    rules: TargetRules = NO_RULES,
    fill: Fill = MEAN_COLOUR,
) -> Pair:
    """Resize, rotate, crop and mirror an image with its ground truth.

    Args:
        pair: The image, on any device.
        config: Ranges of the parameters.
        ignore_index: Id of pixels outside the image.
        random: Generator of the draws.
        over: Pixel of the image that the crop has to contain.
        rules: Channels of the targets whose values change.
        fill: Values of pixels outside the image.

    Returns:
        The crop `(3, h, w)` or `(B, h, w)`, its ids and its targets, of the same types as before.
    """
    factor = random.uniform(*config.scale)
    angle = math.radians(random.uniform(-config.rotation, config.rotation)) if config.rotation else 0.0
    canvas, retained = _rotated_size(config.crop_size, angle)
    # Only the pixels that the crop will show are resized: they are cut out first.
    rows, columns = (
        _Window.draw(random, length, shown, larger, factor, retained, pixel)
        for length, shown, larger, pixel in zip(
            pair.labels.shape, config.crop_size, canvas, over or (None, None), strict=True
        )
    )
    size = [rows.size, columns.size]
    image = v2.functional.resize(pair.image[:, rows.cut, columns.cut], size, antialias=True)
    # torchvision's default for masks, "nearest", rounds down, which shifts them against the image by half a pixel.
    labels = v2.functional.resize(pair.labels[None, rows.cut, columns.cut], size, _NEAREST)[0]
    targets = pair.targets
    if targets is not None:
        targets = rules.zoom(v2.functional.resize(targets[:, rows.cut, columns.cut], size, _NEAREST), factor)
    placed = _pad(Pair(image, labels, targets), rows, columns, canvas, ignore_index, fill)
    if angle:
        placed = _rotate(placed, angle, config.crop_size, rules)
    if config.flip and random.random() < 0.5:
        placed = _mirror(placed, rules)
    return placed


def _mirror(pair: Pair, rules: TargetRules) -> Pair:
    targets = None if pair.targets is None else rules.mirror(pair.targets.flip(-1))
    return Pair(pair.image.flip(-1), pair.labels.flip(-1), targets)


def draw_pixel(labels: Tensor, ignore_index: int, random: Generator, among: Sequence[int] = ()) -> Point | None:
    """Draw a pixel of a class that is drawn uniformly from those in a label map.

    Args:
        labels: `(H, W)` uint8 or int32 ids.
        ignore_index: Id that is not a class.
        random: Generator of the draws.
        among: Classes to choose from; by default all.

    Returns:
        Row and column, or None if the label map has no such class.
    """
    classes = [each for each in present(labels, ignore_index) if not among or each in among]
    if not classes:
        return None
    pixels = (labels == classes[random.integers(len(classes))]).flatten().nonzero()
    row, column = divmod(int(pixels[random.integers(len(pixels))]), labels.shape[1])
    return row, column


def present(labels: Tensor, ignore_index: int) -> list[int]:
    """Return the classes in a label map, in ascending order."""
    ids: list[int] = torch.bincount(labels.flatten()).nonzero().flatten().tolist()
    return [each for each in ids if each != ignore_index]


class _Window(NamedTuple):
    """Part of an image, along one axis, that a crop shows, or the larger canvas on which the crop is rotated."""

    cut: slice
    """The pixels of the image."""
    size: int
    """Number of pixels of the canvas that they become."""
    start: int
    """First of these on the canvas; the others are padding."""

    @classmethod
    def draw(
        cls, random: Generator, length: int, shown: int, canvas: int, factor: float, retained: float, over: int | None
    ) -> _Window:
        """Draw the position of a crop of `shown` pixels on an image of `length` pixels that is resized by `factor`.

        The crop contains the pixel `over`, if there is one, within the central share `retained` of its length.
        """
        window = max(1, round(shown / factor))
        low, high = sorted((length - window, 0))
        if over is not None:
            margin = min(math.ceil((1 - retained) * window / 2), (window - 1) // 2)
            low, high = (min(max(end, over - window + 1 + margin), over - margin) for end in (low, high))
        more = round((canvas - shown) / 2 / factor)
        first = int(random.integers(low, high + 1)) - more
        window += 2 * more
        cut = slice(max(first, 0), min(first + window, length))
        pixels = cut.stop - cut.start
        size = canvas if pixels == window else min(canvas, max(1, round(pixels * factor)))
        return cls(cut, size, min(round(max(-first, 0) * factor), canvas - size))


def _rotated_size(size: tuple[int, int], angle: float) -> tuple[tuple[int, int], float]:
    """Return height and width of a canvas that holds the crop upright and rotated, and the central share in both."""
    if not angle:
        return size, 1.0
    (height, width), cosine, sine = size, abs(math.cos(angle)), abs(math.sin(angle))
    rows, columns = height * cosine + width * sine, width * cosine + height * sine
    # The same number of pixels on either side, so that the centre stays where it is.
    more = (max(0, math.ceil((rows - height) / 2)), max(0, math.ceil((columns - width) / 2)))
    return (height + 2 * more[0], width + 2 * more[1]), min(1, height / rows, width / columns)


def _pad(pair: Pair, rows: _Window, columns: _Window, size: tuple[int, int], ignore_index: int, fill: Fill) -> Pair:
    image, labels, targets = pair
    if (rows.size, columns.size) == size:
        return pair
    padded = torch.tensor(fill, dtype=image.dtype, device=image.device)[:, None, None].repeat(1, *size)
    void = torch.full(size, ignore_index, dtype=labels.dtype, device=labels.device)
    where = slice(rows.start, rows.start + rows.size), slice(columns.start, columns.start + columns.size)
    padded[:, *where], void[where] = image, labels
    if targets is None:
        return Pair(padded, void)
    unknown = targets.new_full((len(targets), *size), math.nan)
    unknown[:, *where] = targets
    return Pair(padded, void, unknown)


def _rotate(pair: Pair, angle: float, size: tuple[int, int], rules: TargetRules) -> Pair:
    """Return the centre of a canvas rotated counter-clockwise, h by w."""
    (image, labels, targets), (height, width) = pair, size
    rows, columns = labels.shape
    cosine, sine = math.cos(angle), math.sin(angle)
    # `affine_grid` has coordinates from -1 to 1 along each axis, hence the ratios of the sides.
    to_canvas = [
        [cosine * width / columns, -sine * height / columns, 0],
        [sine * width / rows, cosine * height / rows, 0],
    ]
    grid = affine_grid(torch.tensor([to_canvas]), [1, 1, height, width], align_corners=False).to(image.device)
    rotated = grid_sample(image[None].float(), grid, "bilinear", "border", align_corners=False)
    ids = grid_sample(labels[None, None].float(), grid, "nearest", "border", align_corners=False)
    if targets is not None:
        moved = grid_sample(targets[None], grid, "nearest", "border", align_corners=False)[0]
        targets = rules.rotate(moved, angle)
    moved_image = rotated[0] if image.is_floating_point() else rotated[0].round().to(image.dtype)
    return Pair(moved_image, ids[0, 0].to(labels.dtype), targets)
