"""The decoder: one RefineBlock for each stride, coarse to fine.

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
"""Values that `MaxPool5x5` pools at a time on a CPU."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """All in which the published decoders differ."""

    kernel_size: Literal[1, 3]
    """Side of every convolution's kernel."""
    widths: tuple[int, int, int, int] = (512, 256, 256, 256)
    """Channels of the blocks at strides 32, 16, 8, 4."""
    adaptive_units: int = 0
    """Residual conv units that each tap passes before the fusion."""
    output_units: int = 0
    """Residual conv units after the pooling."""
    fusion_convolution: bool = True
    """Whether taps that meet a coarser block pass one more convolution before the sum."""
    activation: type[nn.ReLU] | type[nn.ReLU6] = nn.ReLU
    encoder_dropout: float = 0.5
    """Probability, in training, of dropping a value of the taps at strides 32 and 16."""
    classifier_dropout: float = 0.0
    """Probability, in training, of dropping a value of the map that the classifier reads."""


FULL = DecoderConfig(kernel_size=3, adaptive_units=2, output_units=3, classifier_dropout=0.5)
LIGHTWEIGHT = DecoderConfig(kernel_size=1)
LIGHTWEIGHT_MOBILE = DecoderConfig(
    kernel_size=1, widths=(256,) * 4, fusion_convolution=False, activation=nn.ReLU6, encoder_dropout=0.0
)


def _convolution(channels_in: int, channels_out: int, kernel_size: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=bias)


class ResidualConvUnit(nn.Module):
    """Two convolutions, each behind a ReLU, added to the input, whose sign is kept: no ReLU works in place."""

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
    """The largest value of each 5x5 square, stride 1, same size."""

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same shape."""
        if features.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._pool(features)
        # PyTorch makes an int64 index for each value, wanted or not. Bands of rows keep these in the processor's cache
        # and below the size from which each allocation costs fresh pages: six times the speed at 128x128.
        height = features.shape[2]
        rows = max(4, VALUES_PER_BAND // (features.numel() // height))
        pooled = torch.empty_like(features)
        for top in range(0, height, rows):
            bottom, margin = min(top + rows, height), min(top, 2)
            band = self._pool(features[:, :, top - margin : bottom + 2])
            pooled[:, :, top:bottom] = band[:, :, margin : margin + bottom - top]
        return pooled

    @staticmethod
    def _pool(features: Tensor) -> Tensor:
        """A maximum over columns of maxima over rows is the maximum over the square, at 10 comparisons for 25.

        In this order the gradient goes, among equal values, to the first of the square, row by row: where it goes from
        one 5x5 pool.
        """
        rows = functional.max_pool2d(features, (1, 5), stride=1, padding=(0, 2))
        return functional.max_pool2d(rows, (5, 1), stride=1, padding=(2, 0))


class ChainedResidualPooling(nn.Module):
    """A chain of 5x5 max pooling and convolution; each link reads the link before, and all are added to the input."""

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
    """Adapt the taps of one stride, fuse them with the coarser block's result, pool, refine.

    Args:
        tap_channels: Channels of each tap of this stride.
        dropout: Probability of dropping a tap's value in training.
        width: Channels inside the block.
        width_out: Channels that the next, finer block takes; None for the last block, which hands on `width` as it is.
        fuses: Whether a coarser block's result comes in.
        config: The decoder's data.
    """

    def __init__(
        self,
        tap_channels: Sequence[int],
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

        self.adaptations = nn.ModuleList(adaptation(channels) for channels in tap_channels)
        self.activation = config.activation()
        self.pooling = ChainedResidualPooling(width, config.kernel_size)
        hand_on = [_convolution(width, width_out, config.kernel_size)] if width_out is not None else []
        self.output = nn.Sequential(*units(config.output_units), *hand_on)

    def forward(self, taps: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """Refine `coarser` `(N, width, h', w')` with this stride's taps `(N, C, h, w)` into `(N, width_out, h, w)`."""
        paths = [adapt(tap) for adapt, tap in zip(self.adaptations, taps, strict=True)]
        if coarser is not None:
            paths.append(upsample(coarser, taps[0], align_corners=True))
        fused = paths[0]
        for path in paths[1:]:
            fused = fused + path
        refined: Tensor = self.output(self.pooling(self.activation(fused)))
        return refined


def upsample(features: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to the height and width of `like`."""
    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


class Decoder(nn.Module):
    """Four RefineBlocks, from stride 32 to stride 4.

    Args:
        channels: Channels of the taps, a group for each stride 4, 8, 16, 32, as `Encoder.channels` gives them.
        config: The decoder's data.
    """

    def __init__(self, channels: Sequence[Sequence[int]], config: DecoderConfig) -> None:
        super().__init__()
        self.channels = config.widths[-1]
        self.blocks = nn.ModuleList(
            RefineBlock(
                tap_channels,
                dropout=config.encoder_dropout if index < 2 else 0.0,
                width=config.widths[index],
                width_out=config.widths[index + 1] if index < 3 else None,
                fuses=index > 0,
                config=config,
            )
            for index, tap_channels in enumerate(reversed(channels))
        )

    def forward(self, groups: Sequence[Sequence[Tensor]]) -> Tensor:
        """Groups of feature maps at strides 4, 8, 16, 32 to one map `(N, channels, h, w)` at stride 4."""
        return self.stages(groups)[-1]

    def stages(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """As `forward`, but what each block puts out, `(N, width_out, h, w)` at strides 32, 16, 8, 4."""
        refined: list[Tensor] = []
        for block, taps in zip(self.blocks, reversed(groups), strict=True):
            refined.append(block(taps, refined[-1] if refined else None))
        return refined
