"""Configuration of decoders: everything in which the published ones differ. Nothing here needs PyTorch.

Sources: as in `decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, Literal

from refinenet.settings import Range, Settings

Upsampling = Literal["bilinear", "bilinear_aligned", "bicubic"]
"""Resizing before the fusion: bilinear as everywhere else in this package, bilinear with the corners' centres aligned
(the published PyTorch networks), or bicubic with a = -0.5 (the published MATLAB networks)."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Settings):
    """Configuration of a decoder: everything in which the published ones differ."""

    _title = "options of the decoder"

    kernel_size: Literal[1, 3] = 1
    """Kernel size of all convolutions."""
    widths: tuple[
        Annotated[int, Range(1)], Annotated[int, Range(1)], Annotated[int, Range(1)], Annotated[int, Range(1)]
    ] = (512, 256, 256, 256)
    """Channels of the feature maps at strides 32, 16, 8, 4. A block has the least of the maps that enter it."""
    cascade: tuple[Literal[1], Literal[1, 2], Literal[1, 2, 3], Literal[1, 2, 3, 4]] = (1, 2, 3, 4)
    """The block that the feature maps at strides 32, 16, 8, 4 enter: (1, 2, 3, 4) for the published networks with four
    blocks, (1, 1, 2, 2) for two blocks, (1, 1, 1, 1) for a single one (CVPR 2017, section 4.3)."""
    adaptive_units: Annotated[int, Range(0)] = 0
    """Residual conv units for each encoder feature map before the fusion."""
    output_units: Annotated[int, Range(0)] = 0
    """Residual conv units after the pooling."""
    bottleneck_units: bool = False
    """Whether residual conv units are bottlenecks (1x1, 3x3, 1x1 with half the channels between), as in the ablation
    of Light-Weight RefineNet with such units (RCU-LW)."""
    fusion_convolution: bool = True
    """Whether encoder feature maps pass one more convolution before they are fused with others."""
    upsampling: Upsampling = "bilinear_aligned"
    """How coarser maps are resized before the fusion."""
    activation: Literal["relu", "relu6"] = "relu"
    """Activation after the fusion."""
    pooling_links: Annotated[int, Range(1, 16)] = 4
    """Links of the chained residual pooling: 4, or 2 in the first MATLAB release."""
    pooling_order: Literal["pool_first", "convolution_first"] = "pool_first"
    """Order in each link of the pooling. In "convolution_first" (improved residual pooling of the MATLAB networks of
    2018), the pooled map is what is added and passed on."""
    depthwise_last_pooling: bool = False
    """Whether the convolutions of the finest block's pooling are depthwise, as in the multi-task network."""
    batch_norm: bool = False
    """Whether batch norm follows the first convolution of each encoder feature map, those of the pooling, and the last
    one of each block. It makes training from pretrained encoders faster, and is folded into the convolutions for
    inference. The published networks have none."""
    sum_blocks: bool = False
    """Whether the heads read the sum of the results of all blocks, resized to the finest, instead of the last block's
    alone: the coarse blocks then learn directly, as in feature pyramid networks (Kirillov et al., Panoptic Feature
    Pyramid Networks, CVPR 2019). The published networks have no such sum."""
    neck_channels: Annotated[int, Range(1)] | None = None
    """Channels of the map that the heads read, if it is a sum over all blocks: of each, a 1x1 convolution of its result
    and its finest encoder feature maps, with batch norm, is resized to the next finer one's and added to it; a ReLU
    follows. The coarse blocks and the encoder then learn directly, as from the head of SegFormer (Xie et al.,
    NeurIPS 2021), and narrow decoders suffice. None for no such sum, as in the published networks."""
    encoder_dropout: Annotated[float, Range(0, below=1)] = 0.5
    """Dropout probability of the encoder feature maps at strides 32 and 16."""
    classifier_dropout: Annotated[float, Range(0, below=1)] = 0.0
    """Dropout probability of the feature map that the heads read."""
    depthwise_heads: bool = False
    """Whether a head begins with a depthwise 1x1 convolution and the activation, as in the multi-task network."""
    initial_deviation: Annotated[float, Range(above=0)] | None = None
    """Standard deviation of the initial weights of decoder and heads: 0.01 in the MATLAB and the multi-task network.
    None for PyTorch's default."""

    def _conflicts(self) -> list[str]:
        conflicts: list[str] = []
        if any(not 0 <= finer - coarser <= 1 for coarser, finer in pairwise(self.cascade)):
            conflicts.append(f"cascade must rise by 0 or 1 from map to map, not {self.cascade}")
        if self.sum_blocks and len(set(self.widths[1:])) > 1:
            conflicts.append(f"sum_blocks needs equal widths at strides 16, 8 and 4, not {self.widths}")
        if self.sum_blocks and self.neck_channels is not None:
            conflicts.append("sum_blocks and neck_channels are two ways of summing the blocks: give one of them")
        if self.bottleneck_units and not self.adaptive_units + self.output_units:
            conflicts += self._unused(("bottleneck_units",), "there are no residual conv units")
        return conflicts

    def changed(self, options: Mapping[str, Any]) -> DecoderConfig:
        """Return this configuration with other values for some fields; lists count as tuples.

        Raises:
            ValueError: A name is unknown, or a value is not allowed.
        """
        checked = DecoderConfig.from_dict({"kernel_size": self.kernel_size, **options})
        return replace(self, **{name: getattr(checked, name) for name in options})


FULL = DecoderConfig(kernel_size=3, adaptive_units=2, output_units=3, classifier_dropout=0.5)
LIGHTWEIGHT = DecoderConfig()
LIGHTWEIGHT_MOBILE = DecoderConfig(
    widths=(256, 256, 256, 256), fusion_convolution=False, activation="relu6", encoder_dropout=0.0
)

MATLAB = {"upsampling": "bicubic", "initial_deviation": 0.01}
DECODER_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "multitask": {
            "upsampling": "bilinear",
            "depthwise_last_pooling": True,
            "depthwise_heads": True,
            "initial_deviation": 0.01,
        },
        "single": {"cascade": (1, 1, 1, 1)},
        "two-cascade": {"cascade": (1, 1, 2, 2)},
        "rcu-lw": {"adaptive_units": 2, "output_units": 3, "bottleneck_units": True},
        "matlab": MATLAB,
        "matlab-2016": {**MATLAB, "pooling_links": 2},
        "matlab-2018": {**MATLAB, "pooling_order": "convolution_first"},
    }
)
"""Named options of the papers' other networks, as changes of the decoder of a model type."""
