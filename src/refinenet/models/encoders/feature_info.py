"""What is between an encoder and the rest: how images are to be normalised for it, which maps a decoder reads."""

from __future__ import annotations

from dataclasses import dataclass

STRIDES = (4, 8, 16, 32)
"""Image pixels per feature pixel, along each axis, of the maps that every encoder has to have."""

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Channel means and standard deviations of images, RGB in [0, 1]."""
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """A feature map that the decoder reads."""

    module: str
    """Timm's name of the module that puts it out."""
    channels: int
    stride: int
    """One of `STRIDES`."""
