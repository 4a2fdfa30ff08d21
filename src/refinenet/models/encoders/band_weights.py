"""Encoders for images of other bands than RGB: the one rule by which their weights and normalisation are made.

Shape letters: S bands of the weights, B bands of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from refinenet.io.images.bands import COLOURS, GREY, Band
from refinenet.models.encoders.feature_info import IMAGENET, Normalisation


def inflate_kernel(kernel: Tensor, source: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Convert a kernel that is applied to an image to one for other bands.

    Bands that the weights know by name keep their part, any other gets the mean of all parts; all are multiplied by
    S / B. So the response to an image whose bands are all equal stays the same if all bands of the weights are wanted,
    or none of them, and is similar otherwise.

    Args:
        kernel: `(out, S, kh, kw)`.
        source: Names of the S bands.
        wanted: Names of the B bands.

    Returns:
        `(out, B, kh, kw)`.
    """
    if tuple(source) == tuple(wanted):
        return kernel
    mean = kernel.mean(1)
    parts = [kernel[:, source.index(name)] if name in source else mean for name in wanted]
    return torch.stack(parts, 1) * (len(source) / len(wanted))


def normalise_bands(bands: Sequence[Band], rgb: Normalisation) -> Normalisation:
    """Return means and standard deviations of bands before training, given those of RGB that the encoder expects.

    Colours have those of RGB, and grey their means. Other bands have 0 and 1 until they are measured.
    """
    if not bands:
        return rgb
    means = {**dict(zip(COLOURS, rgb[0], strict=True)), GREY: fmean(rgb[0])}
    deviations = {**dict(zip(COLOURS, rgb[1], strict=True)), GREY: fmean(rgb[1])}
    return tuple(means.get(band.name, 0.0) for band in bands), tuple(deviations.get(band.name, 1.0) for band in bands)


def usual_spread(rgb: Normalisation) -> float:
    """Return the standard deviation that natural colours have after an encoder's normalisation.

    It is about 1 for ImageNet's deviations, and 58 for the MATLAB networks, which take values up to 127. Other bands
    are normalised to the same spread, so that weights that were inflated for them meet values of their own size.
    """
    return fmean(IMAGENET[1]) / fmean(rgb[1])
