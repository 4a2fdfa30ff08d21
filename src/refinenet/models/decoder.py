"""Decoder: one RefineBlock per stride, coarse to fine.

Shape letters: N batch, C channels, h and w height and width of a feature map.
Sources: Lin et al., RefineNet, CVPR 2017; Nekrasov et al., Light-Weight RefineNet, BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

POOLING_STAGES = 4

VALUES_PER_BAND = 2**20
"""Number of values that `MaxPool5x5` pools at a time on a CPU."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Configuration of a decoder: everything in which the published ones differ."""

    kernel_size: Literal[1, 3]
    """Kernel size of all convolutions."""
    widths: tuple[int, int, int, int] = (512, 256, 256, 256)
    """Channels of the blocks at strides 32, 16, 8, 4."""
    adaptive_units: int = 0
    """Residual conv units for each encoder feature map before the fusion."""
    output_units: int = 0
    """Residual conv units after the pooling."""
    fusion_convolution: bool = True
    """Whether encoder feature maps pass one more convolution before they are added to the result of a coarser block."""
    activation: type[nn.ReLU] | type[nn.ReLU6] = nn.ReLU
    encoder_dropout: float = 0.5
    """Dropout probability of the encoder feature maps at strides 32 and 16."""
    classifier_dropout: float = 0.0
    """Dropout probability of the feature map that the classifier reads."""


FULL = DecoderConfig(kernel_size=3, adaptive_units=2, output_units=3, classifier_dropout=0.5)
LIGHTWEIGHT = DecoderConfig(kernel_size=1)
LIGHTWEIGHT_MOBILE = DecoderConfig(
    kernel_size=1, widths=(256,) * 4, fusion_convolution=False, activation=nn.ReLU6, encoder_dropout=0.0
)


def _convolution(channels_in: int, channels_out: int, kernel_size: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=bias)


class ResidualConvUnit(nn.Module):
    """Two convolutions, each after a ReLU, added to the input. No ReLU is in place, so the input keeps its sign."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.convolution_1 = _convolution(channels, channels, kernel_size, bias=True)
        self.convolution_2 = _convolution(channels, channels, kernel_size)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same shape."""
        residual = self.convolution_1(functional.relu(features))
        refined: Tensor = features + self.convolution_2(functional.relu(residual))
        return refined


class MaxPool5x5(nn.Module):
    """Max pooling over 5x5 squares with stride 1, same size."""

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same shape."""
        if features.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._pool(features)
        # PyTorch computes an int64 index for each value, needed or not. Bands of rows keep these in the processor's
        # cache and below the size from which each allocation costs new pages: six times the speed at 128x128.
        height = features.shape[2]
        rows = max(4, VALUES_PER_BAND // (features.numel() // height))
        pooled = torch.empty_like(features)
        # A 5x5 square reaches two rows beyond its centre, so each band is read with a margin of two.
        for top in range(0, height, rows):
            bottom, margin = min(top + rows, height), min(top, 2)
            band = self._pool(features[:, :, top - margin : bottom + 2])
            pooled[:, :, top:bottom] = band[:, :, margin : margin + bottom - top]
        return pooled

    @staticmethod
    def _pool(features: Tensor) -> Tensor:
        """Pool rows, then columns: the same maximum with 10 comparisons instead of 25.

        In this order the gradient of equal values goes to the first one of the square, row by row, as in a single 5x5
        pool.
        """
        rows = functional.max_pool2d(features, (1, 5), stride=1, padding=(0, 2))
        return functional.max_pool2d(rows, (5, 1), stride=1, padding=(2, 0))


class ChainedResidualPooling(nn.Module):
    """Chain of 5x5 max pooling and convolution; each link reads the previous one, and all are added to the input."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.pool = MaxPool5x5()
        self.convolutions = nn.ModuleList(_convolution(channels, channels, kernel_size) for _ in range(POOLING_STAGES))

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same shape."""
        link = total = features
        for convolution in self.convolutions:
            link = convolution(self.pool(link))
            total = total + link
        return total


class RefineBlock(nn.Module):
    """RefineBlock: adapts the feature maps of one stride, fuses them with the coarser block's result, pools, refines.

    Args:
        feature_channels: Channels of each encoder feature map of this stride.
        dropout: Dropout probability of the encoder feature maps.
        width: Channels inside the block.
        width_out: Channels of the next, finer block; None for the last block, which returns `width` channels.
        fuses: Whether the block takes the result of a coarser one.
        config: Configuration of the decoder.
    """

    def __init__(
        self,
        feature_channels: Sequence[int],
        *,
        dropout: float,
        width: int,
        width_out: int | None,
        fuses: bool,
        config: DecoderConfig,
    ) -> None:
        super().__init__()

        def units(count: int) -> list[nn.Module]:
            return [ResidualConvUnit(width, config.kernel_size) for _ in range(count)]

        def adaptation(channels: int) -> nn.Sequential:
            fusion = [_convolution(width, width, config.kernel_size)] if fuses and config.fusion_convolution else []
            reduction = _convolution(channels, width, config.kernel_size)
            return nn.Sequential(nn.Dropout(dropout), reduction, *units(config.adaptive_units), *fusion)

        self.adaptations = nn.ModuleList(adaptation(channels) for channels in feature_channels)
        self.activation = config.activation()
        self.pooling = ChainedResidualPooling(width, config.kernel_size)
        projection = [_convolution(width, width_out, config.kernel_size)] if width_out is not None else []
        self.output = nn.Sequential(*units(config.output_units), *projection)

    def forward(self, features: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """Refine `coarser` `(N, width, h', w')` with feature maps `(N, C, h, w)` into `(N, width_out, h, w)`."""
        paths = [adapt(feature) for adapt, feature in zip(self.adaptations, features, strict=True)]
        if coarser is not None:
            paths.append(upsample(coarser, features[0], align_corners=True))
        fused = paths[0]
        for path in paths[1:]:
            fused = fused + path
        refined: Tensor = self.output(self.pooling(self.activation(fused)))
        return refined


def upsample(features: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to the height and width of `like`."""
    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


class Decoder(nn.Module):
    """Decoder of four RefineBlocks, from stride 32 to stride 4.

    Args:
        channels: Channels of the encoder feature maps, a group per stride 4, 8, 16, 32, as in `Encoder.channels`.
        config: Configuration of the decoder.
    """

    def __init__(self, channels: Sequence[Sequence[int]], config: DecoderConfig) -> None:
        super().__init__()
        self.channels = config.widths[-1]
        self.blocks = nn.ModuleList(
            RefineBlock(
                feature_channels,
                dropout=config.encoder_dropout if index < 2 else 0.0,
                width=config.widths[index],
                width_out=config.widths[index + 1] if index < 3 else None,
                fuses=index > 0,
                config=config,
            )
            for index, feature_channels in enumerate(reversed(channels))
        )

    def forward(self, groups: Sequence[Sequence[Tensor]]) -> Tensor:
        """Decode groups of feature maps at strides 4, 8, 16, 32 to one map `(N, channels, h, w)` at stride 4."""
        return self.stages(groups)[-1]

    def stages(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the outputs of all blocks, `(N, width_out, h, w)` at strides 32, 16, 8, 4."""
        refined: list[Tensor] = []
        for block, features in zip(self.blocks, reversed(groups), strict=True):
            refined.append(block(features, refined[-1] if refined else None))
        return refined
