"""Random colour and sharpness augmentation: drawn per image, applied to whole batches on the device.

Shape letters: N batch, h and w height and width of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor
from torchvision.transforms import v2

from refinenet.io.images.bands import Band, find_colour
from refinenet.training.augmentation.config import AugmentationConfig

BLUR_SIGMAS = (0.3, 2.0)
"""Range of the standard deviations, in pixels, of the Gaussian that blurs."""
_BLUR_SIZE = 13
_LUMA = (0.2989, 0.587, 0.114)
"""Weights of RGB in grey, by ITU-R BT.601, as in Pillow and torchvision."""
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""From RGB to luma and the two colour axes of NTSC."""


class ColourChange(NamedTuple):
    """Parameters of the change of an image; those of a batch are a tensor `(N, 6)`."""

    brightness: float = 1.0
    """Factor."""
    contrast: float = 1.0
    """Factor of the difference from the image's mean grey."""
    saturation: float = 1.0
    """Factor of the difference from each pixel's grey."""
    hue: float = 0.0
    """Turn of the colour circle, as a fraction of the circle."""
    gamma: float = 1.0
    """Exponent."""
    sigma: float = 0.0
    """Standard deviation of the blur in pixels; 0 for none."""


def draw_colour(config: AugmentationConfig, random: Generator) -> ColourChange:
    """Draw the change of an image."""
    low, high = 1 - config.colour_jitter, 1 + config.colour_jitter
    exponent = math.log1p(config.gamma)
    return ColourChange(
        brightness=random.uniform(low, high),
        contrast=random.uniform(low, high),
        saturation=random.uniform(low, high),
        hue=random.uniform(-config.hue, config.hue),
        gamma=math.exp(random.uniform(-exponent, exponent)),
        sigma=random.uniform(*BLUR_SIGMAS) if random.random() < config.blur else 0.0,
    )


def vary_colour(images: Tensor, changes: Tensor) -> Tensor:
    """Change the colours and the sharpness of each image of a batch.

    Brightness, contrast, saturation are torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_saturation`, in
    this order; then hue, a turn about the axis of greys in YIQ, which keeps luma; then gamma and blur, torchvision's
    `adjust_gamma` and `gaussian_blur`. Values are clamped once, before gamma.

    Args:
        images: `(N, 3, h, w)` RGB, uint8 or float32 in [0, 1].
        changes: `(N, 6)` float32 on the CPU, each row a `ColourChange`.

    Returns:
        `(N, 3, h, w)` float32 in [0, 1].
    """
    hue, gamma, sigma = changes.T[3:]
    brightness, contrast, saturation = changes.T[:3, :, None, None].to(images.device)
    luma = torch.tensor(_LUMA, device=images.device)
    # All of these are linear in a pixel's colour: together they are one matrix and, for the contrast, an offset. One
    # product per batch replaces six passes over the images.
    mixing = saturation * torch.eye(3, device=images.device) + (1 - saturation) * luma
    if hue.any():
        mixing = _turns(hue).to(images.device) @ mixing
    white = 1 if images.is_floating_point() else 255
    values = images.flatten(2).float()
    mean_luma = (values.mean(2) @ luma)[:, None, None]
    offset = (1 - contrast) * brightness * mean_luma / white
    varied = torch.baddbmm(offset.expand(-1, 3, 1), brightness * contrast / white * mixing, values)
    varied = varied.clamp_(0, 1).view(images.shape)
    if (gamma != 1).any():
        varied = varied.pow_(gamma[:, None, None, None].to(images.device))
    for index in sigma.nonzero().flatten().tolist():
        varied[index] = _blur(varied[index], float(sigma[index]))
    return varied


def vary_bands(images: Tensor, changes: Tensor, bands: Sequence[Band]) -> Tensor:
    """Change the colours of images of named bands: red, green and blue, or grey; all other bands stay as they are.

    Args:
        images: `(N, B, h, w)` float32 in [0, 1].
        changes: As for `vary_colour`.
        bands: The B bands.

    Returns:
        `(N, B, h, w)` float32 in [0, 1].
    """
    colour = find_colour(bands)
    if colour is None:
        return images
    varied = images.clone()
    # Of grey all three channels are the same, before and after: hue and saturation do not change it.
    varied[:, list(colour)] = vary_colour(images[:, list(colour)], changes)
    return varied


def _turns(hues: Tensor) -> Tensor:
    """Return `(N, 3, 3)` matrices that turn the hue of RGB colours."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    angles = -2 * math.pi * hues.double()
    turns = torch.eye(3, dtype=torch.float64).repeat(len(hues), 1, 1)
    turns[:, 1, 1] = turns[:, 2, 2] = angles.cos()
    turns[:, 2, 1] = angles.sin()
    turns[:, 1, 2] = -angles.sin()
    return (to_yiq.inverse() @ turns @ to_yiq).float()


def _blur(image: Tensor, sigma: float) -> Tensor:
    # Columns, then rows: the same as both at once, in far fewer multiplications.
    rows, columns = (min(_BLUR_SIZE, 2 * length - 1) for length in image.shape[1:])
    blurred: Tensor = v2.functional.gaussian_blur(image, [1, rows], [sigma, sigma])
    blurred = v2.functional.gaussian_blur(blurred, [columns, 1], [sigma, sigma])
    # The sum of the rounded weights may be above 1, and white then too.
    return blurred.clamp_(0, 1)
