"""Simple feature pyramid: the feature maps of a plain vision transformer, which has one stride only.

Shape letters: N batch, C channels of the transformer, h and w height and width of its map.
"""

from __future__ import annotations

import math
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from refinenet.models.encoders.feature_info import STRIDES, FeatureInfo

PATCH_SIZES = (14, 16)
"""Patch sizes of the transformers that are used, in pixels."""
_MIDDLE = 16
"""Stride of the pyramid's map that has the transformer's resolution."""


def pyramid_features(channels: int) -> tuple[FeatureInfo, ...]:
    """Return the feature maps of the pyramid on a transformer of so many channels, fine to coarse."""
    counts = (channels // 4, channels // 2, channels, channels)
    return tuple(
        FeatureInfo(module=f"pyramid.levels.{index}", channels=count, stride=stride)
        for index, (count, stride) in enumerate(zip(counts, STRIDES, strict=True))
    )


class SimpleFeaturePyramid(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32, all made of the last map of a plain vision transformer.

    As in ViTDet (Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022, section 3):
    a map of stride 16 becomes one of stride 4 by two transposed convolutions of size and stride 2, with layer norm and
    GELU between them; of stride 8 by one; of stride 32 by max pooling of size and stride 2. Each transposed convolution
    halves the number of channels. The convolutions that follow in ViTDet are those of the decoder here.

    A map of stride 14 is resized to stride 16 first, bilinearly: its sides are extended to multiples of 8 by repeating
    the last row and column, and multiplied by 7/8. So both maps begin at the same corner of the image, and 112 pixels
    are exactly 8 values of the one and 7 of the other.

    Args:
        channels: Number of channels C of the transformer, a multiple of 4.
        patch_size: Its stride, one of `PATCH_SIZES`.
    """

    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        assert patch_size in PATCH_SIZES
        assert channels % 4 == 0
        self.patch_size = patch_size
        quarter = nn.Sequential(_double(channels), LayerNorm2d(channels // 2), nn.GELU(), _double(channels // 2))
        self.levels = nn.ModuleList([quarter, _double(channels), nn.Identity(), _Half()])

    def forward(self, features: Tensor) -> list[Tensor]:
        """Map `(N, C, h, w)` to four maps, fine to coarse.

        Returns:
            `(N, C/4, 4a, 4b)`, `(N, C/2, 2a, 2b)`, `(N, C, a, b)` and `(N, C, ceil(a/2), ceil(b/2))`: a = h and b = w
            for patches of 16 pixels; for those of 14 pixels h and w are rounded up to multiples of 8, times 7/8.
        """
        middle = features if self.patch_size == _MIDDLE else _resize(features)
        return [level(middle) for level in self.levels]


class _Half(nn.Module):
    """Max pooling of size and stride 2, by which an odd side is rounded up, as everywhere."""

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, C, h, w)` to `(N, C, ceil(h/2), ceil(w/2))`."""
        # Not with `ceil_mode`: OpenVINO refuses maps that are smaller than the kernel.
        below, beside = (side % 2 for side in features.shape[-2:])
        extended = functional.pad(features, (0, beside, 0, below), value=-math.inf)
        return functional.max_pool2d(extended, kernel_size=2)


def _double(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)


def _resize(features: Tensor) -> Tensor:
    """Resize a map of stride 14 to stride 16."""
    height, width = (-(-side // 8) for side in features.shape[-2:])
    below, beside = 8 * height - features.shape[-2], 8 * width - features.shape[-1]
    extended = functional.pad(features, (0, beside, 0, below), mode="replicate")
    return functional.interpolate(extended, size=(7 * height, 7 * width), mode="bilinear", align_corners=False)


class PyramidEncoder(nn.Module):
    """Plain vision transformer with a simple feature pyramid.

    Args:
        transformer: Network of timm, whose head is removed.
        channels: Number of channels C of its last map.
        patch_size: Its stride, one of `PATCH_SIZES`.
    """

    def __init__(self, transformer: nn.Module, channels: int, patch_size: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.pyramid = SimpleFeaturePyramid(channels, patch_size)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of `SimpleFeaturePyramid` for images whose sides are multiples of the patch size."""
        maps: list[Tensor] = self.pyramid(last_map(self.transformer, images))
        return maps


def remove_head(transformer: Any) -> Any:
    """Remove what follows the last norm of a transformer of timm, in place."""
    transformer.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    return transformer


def last_map(transformer: Any, images: Tensor) -> Tensor:
    """Return the patch tokens of a transformer's last block after its last norm, as a map `(N, C, h, w)`."""
    (features,) = transformer.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    assert isinstance(features, Tensor)
    return features
