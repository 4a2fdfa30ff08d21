"""Decoder: one RefineBlock per stride, coarse to fine.

Shape letters: N batch, C channels, h and w height and width of a feature map.
Sources: Lin et al., RefineNet, CVPR 2017; Nekrasov et al., Light-Weight RefineNet, BMVC 2018; Nekrasov et al.,
Real-Time Joint Semantic Segmentation and Depth Estimation, ICRA 2019 ("multi-task").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.models.decoder_config import DecoderConfig, Upsampling

VALUES_PER_BAND = 2**20
"""Number of values that `MaxPool5x5` pools at a time on a CPU."""

_BLOCKS = 4
_INITIAL_POOLING = 0.1
"""Initial factors of the batch norms of the pooling. With ones, the four pooled maps outweigh the input that they are
added to, and training starts slowly. In `benchmarks/frontier.py --epochs 15 --seeds 1` 128 channels reached 52.0 % mIoU
with ones and 58.6 % with factors of 0.2; 64 channels 52.3 % with 0.2 and 53.0 % with 0.1."""


def make_activation(config: DecoderConfig) -> nn.Module:
    """Return a new activation module."""
    return nn.ReLU6() if config.activation == "relu6" else nn.ReLU()


def _convolution(channels_in: int, channels_out: int, kernel_size: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=bias)


def _norms(channels: int, config: DecoderConfig) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if config.batch_norm else []


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


class BottleneckConvUnit(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, each after a ReLU, with half the channels between, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = _convolution(channels, channels // 2, 1)
        self.convolution = _convolution(channels // 2, channels // 2, 3)
        self.expansion = _convolution(channels // 2, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same shape."""
        residual = self.convolution(functional.relu(self.reduction(functional.relu(features))))
        refined: Tensor = features + self.expansion(functional.relu(residual))
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
    """Chain of 5x5 max pooling and convolution; each link reads the previous one, and all are added to the input.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Kernel size of the convolutions.
        links: Number of links.
        convolution_first: Whether each link convolves before it pools.
        depthwise: Whether the convolutions are depthwise.
        batch_norm: Whether batch norm follows each convolution.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        links: int = 4,
        convolution_first: bool = False,
        depthwise: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.convolution_first = convolution_first
        self.pool = MaxPool5x5()
        groups = channels if depthwise else 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=False, groups=groups)
            for _ in range(links)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) if batch_norm else nn.Identity() for _ in range(links))
        for norm in self.norms:
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.constant_(norm.weight, _INITIAL_POOLING)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same shape."""
        link = total = features
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            link = self.pool(norm(convolution(link))) if self.convolution_first else norm(convolution(self.pool(link)))
            total = total + link
        return total


@dataclass(frozen=True, kw_only=True)
class FeaturePath:
    """Encoder feature map that enters a block."""

    channels: int
    width: int
    """Channels after the first convolution."""
    dropout: float = 0.0
    """Dropout probability."""
    is_finest: bool = True
    """Whether the map has the size of the block's output; others are resized to it."""


class RefineBlock(nn.Module):
    """RefineBlock: adapts encoder feature maps, fuses them with the coarser block's result, pools, refines.

    Args:
        paths: The encoder feature maps.
        width_out: Channels of the next, finer block; None for the last block, which returns `width` channels.
        fuses: Whether the block takes the result of a coarser one.
        config: Configuration of the decoder.
    """

    def __init__(
        self, paths: Sequence[FeaturePath], *, width_out: int | None, fuses: bool, config: DecoderConfig
    ) -> None:
        super().__init__()
        self.width = _block_width(paths)
        self.upsampling = config.upsampling
        self.finest = next(index for index, path in enumerate(paths) if path.is_finest)
        self.is_resized = tuple(not path.is_finest for path in paths)
        is_mixed = len({path.width for path in paths}) > 1
        has_fusion = is_mixed or (config.fusion_convolution and (fuses or any(self.is_resized)))
        self.adaptations = nn.ModuleList(self._adapt(path, config, has_fusion=has_fusion) for path in paths)
        self.activation = make_activation(config)
        self.pooling = ChainedResidualPooling(
            self.width,
            config.kernel_size,
            links=config.pooling_links,
            convolution_first=config.pooling_order == "convolution_first",
            depthwise=config.depthwise_last_pooling and width_out is None,
            batch_norm=config.batch_norm,
        )
        projection: list[nn.Module] = []
        if width_out is not None:
            projection = [_convolution(self.width, width_out, config.kernel_size), *_norms(width_out, config)]
        self.output = nn.Sequential(*_units(config.output_units, self.width, config), *projection)

    def _adapt(self, path: FeaturePath, config: DecoderConfig, *, has_fusion: bool) -> nn.Sequential:
        reduction = _convolution(path.channels, path.width, config.kernel_size)
        units = _units(config.adaptive_units, path.width, config)
        fusion = [_convolution(path.width, self.width, config.kernel_size)] if has_fusion else []
        norms = _norms(path.width, config)
        return nn.Sequential(nn.Dropout(path.dropout), reduction, *norms, *units, *fusion)

    def forward(self, features: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """Refine `coarser` `(N, width, h', w')` with feature maps `(N, C, h, w)` into `(N, width_out, h, w)`."""
        like = features[self.finest]
        paths = [adapt(feature) for adapt, feature in zip(self.adaptations, features, strict=True)]
        paths = [
            resize_features(path, like, self.upsampling) if is_resized else path
            for path, is_resized in zip(paths, self.is_resized, strict=True)
        ]
        if coarser is not None:
            paths.append(resize_features(coarser, like, self.upsampling))
        fused = paths[0]
        for path in paths[1:]:
            fused = fused + path
        refined: Tensor = self.output(self.pooling(self.activation(fused)))
        return refined

    def finest_of(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return those of the block's encoder feature maps that have the size of its result."""
        return [feature for feature, is_resized in zip(features, self.is_resized, strict=True) if not is_resized]


def _units(count: int, width: int, config: DecoderConfig) -> list[nn.Module]:
    if config.bottleneck_units:
        return [BottleneckConvUnit(width) for _ in range(count)]
    return [ResidualConvUnit(width, config.kernel_size) for _ in range(count)]


def _block_width(paths: Sequence[FeaturePath]) -> int:
    return min(path.width for path in paths)


def upsample(features: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    """Resize `(N, C, h, w)` bilinearly to the height and width of `like`."""
    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


def resize_features(features: Tensor, like: Tensor, upsampling: Upsampling) -> Tensor:
    """Resize `(N, C, h, w)` to the height and width of `like`."""
    if upsampling == "bicubic":
        # PyTorch's bicubic kernel has a = -0.75; that of its antialiased form, like MATLAB's imresize, a = -0.5.
        return functional.interpolate(features, size=like.shape[-2:], mode="bicubic", antialias=True)
    return upsample(features, like, align_corners=upsampling == "bilinear_aligned")


class Neck(nn.Module):
    """Sum over all blocks of their results and finest encoder feature maps, each after a convolution.

    Args:
        widths: Channels of each block's result and finest encoder feature maps together, coarse to fine.
        channels: Channels of the sum.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(_convolution(width, channels, 1), nn.BatchNorm2d(channels)) for width in widths
        )

    def forward(self, groups: Sequence[Sequence[Tensor]]) -> Tensor:
        """Maps `(N, C, h, w)` of each block, coarse to fine, to one `(N, channels, h, w)` of the finest size."""
        total: Tensor | None = None
        for project, group in zip(self.projections, groups, strict=True):
            projected: Tensor = project(torch.cat(list(group), dim=1))
            total = projected if total is None else projected + upsample(total, projected, align_corners=False)
        assert total is not None
        return functional.relu(total)


class Decoder(nn.Module):
    """Decoder of one to four RefineBlocks, from stride 32 to stride 4.

    Args:
        channels: Channels of the encoder feature maps, a group per stride 4, 8, 16, 32, as in `Encoder.channels`.
        config: Configuration of the decoder.
        reduced_channels: Likewise for feature maps of encoders that see smaller images; these maps are resized.
    """

    def __init__(
        self,
        channels: Sequence[Sequence[int]],
        config: DecoderConfig,
        reduced_channels: Sequence[Sequence[int]] = ((),) * _BLOCKS,
    ) -> None:
        super().__init__()
        self.cascade, self.sum_blocks = config.cascade, config.sum_blocks
        paths: list[list[FeaturePath]] = [[] for _ in range(config.cascade[-1])]
        for level, block in enumerate(config.cascade):
            is_last = level == _BLOCKS - 1 or config.cascade[level + 1] > block
            for group, is_reduced in ((channels, False), (reduced_channels, True)):
                paths[block - 1] += [
                    FeaturePath(
                        channels=count,
                        width=config.widths[level],
                        dropout=config.encoder_dropout if level < 2 else 0.0,
                        is_finest=is_last and not is_reduced,
                    )
                    for count in group[_BLOCKS - 1 - level]
                ]
        widths = [_block_width(group) for group in paths]
        widths_out = [*widths[1:], widths[-1]]
        self.neck: Neck | None = None
        if config.neck_channels is not None:
            shown = [sum(path.channels for path in group if path.is_finest) for group in paths]
            self.neck = Neck([sum(both) for both in zip(widths_out, shown, strict=True)], config.neck_channels)
        self.channels = config.neck_channels or widths[-1]
        self.stage_channels = (*widths_out[:-1], self.channels)
        """Channels of the maps that `stages` returns."""
        self.blocks = nn.ModuleList(
            RefineBlock(group, width_out=width_out, fuses=index > 0, config=config)
            for index, (group, width_out) in enumerate(zip(paths, [*widths[1:], None], strict=True))
        )

    def forward(self, groups: Sequence[Sequence[Tensor]]) -> Tensor:
        """Decode groups of feature maps at strides 4, 8, 16, 32 to one map `(N, channels, h, w)` at stride 4."""
        return self.stages(groups)[-1]

    def stages(self, groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the outputs of all blocks, coarse to fine: `(N, width_out, h, w)`, four at strides 32, 16, 8, 4.

        The last one is a sum over all if the decoder is configured so.
        """
        features: list[list[Tensor]] = [[] for _ in self.blocks]
        for block, group in zip(self.cascade, reversed(groups), strict=True):
            features[block - 1] += group
        refined: list[Tensor] = []
        for refine, entering in zip(self.blocks, features, strict=True):
            refined.append(refine(entering, refined[-1] if refined else None))
        if self.sum_blocks:
            finest = refined[-1]
            for coarser in refined[:-1]:
                refined[-1] = refined[-1] + upsample(coarser, finest, align_corners=False)
        if self.neck is not None:
            read: list[list[Tensor]] = []
            for refine, result, entering in zip(self.blocks, refined, features, strict=True):
                assert isinstance(refine, RefineBlock)
                read.append([result, *refine.finest_of(entering)])
            refined[-1] = self.neck(read)
        return refined
