"""Interface of encoders: normalisation of images, and feature maps for the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STRIDES = (4, 8, 16, 32)
"""Strides of the feature maps that every encoder must have: image pixels per feature pixel along each axis."""

PUBLISHED_RESNETS = (50, 101, 152)
"""Depths of the ResNets of the papers."""
MOBILENETV2 = "mobilenetv2_100"
"""timm name of the encoder of the published light-weight network for mobile devices."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Means and standard deviations of the channels of images, in [0, 1]; of RGB unless said otherwise."""
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """Description of a feature map, as in timm."""

    module: str
    """Name of the module that returns the map, in timm or in the pyramid of a plain vision transformer."""
    channels: int
    stride: int
    """One of `STRIDES`."""


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """How a network becomes an encoder."""

    features: tuple[FeatureInfo, ...]
    """Feature maps that the decoder reads, fine to coarse; of a plain vision transformer those of its pyramid."""
    size_multiple: int = STRIDES[-1]
    """Number of pixels of which the sides of images must be multiples; 1 for any size."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options by which timm creates the network, if it is one of timm."""
    patch_size: int | None = None
    """Patch size of a plain vision transformer, which has one stride only; None for hierarchical networks."""


def base_name(name: str) -> str:
    """Return a timm name without the tag of its weights: "resnet50" for "resnet50.tv_in1k"."""
    return name.partition(".")[0]
