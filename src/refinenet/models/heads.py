"""Heads: small networks on the decoder's map, one for each output.

Shape letters: N batch, C channels of the decoder's map, D channels of an output, h and w height and width of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refinenet.models.decoder import make_activation
from refinenet.models.decoder_config import DecoderConfig
from refinenet.outputs import OutputSpec


class ScaledHead(nn.Module):
    """Head of quantities with units: its layers predict standardised values.

    Args:
        layers: From the decoder's map to standardised values, perhaps followed by the logarithms of their scales.
        count: Number of quantities, D.
    """

    scale: Tensor
    """`(D, 1, 1)`: standard deviation of each quantity in the training data, in its unit."""
    offset: Tensor
    """`(D, 1, 1)`: mean of each quantity in the training data, in its unit."""

    def __init__(self, layers: nn.Module, count: int) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("scale", torch.ones(count, 1, 1))
        self.register_buffer("offset", torch.zeros(count, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, C, h, w)` to quantities `(N, D, h, w)` in their units, perhaps followed by as many log scales."""
        maps: Tensor = self.layers(features)
        if maps.shape[1] == len(self.scale):
            return maps * self.scale + self.offset
        values, log_scales = maps.chunk(2, dim=1)
        # The scale of errors is multiplied as they are, and its logarithm is shifted.
        return torch.cat([values * self.scale + self.offset, log_scales + self.scale.log()], 1)


def build_stem(channels: int, config: DecoderConfig) -> nn.Sequential:
    """Build what comes before the 3x3 convolution of a head: a depthwise 1x1 one and an activation, or nothing."""
    if not config.depthwise_heads:
        return nn.Sequential()
    depthwise = nn.Conv2d(channels, channels, kernel_size=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, make_activation(config))


def build_head(spec: OutputSpec, channels: int, config: DecoderConfig) -> nn.Module:
    """Build the head of an output of quantities, `channels` being C; a network has the head of its classes itself."""
    maps = spec.count_maps(0)
    layers = nn.Sequential(*build_stem(channels, config), nn.Conv2d(channels, maps, kernel_size=3, padding=1))
    return ScaledHead(layers, spec.count_channels(0)) if spec.info.is_scaled else layers
