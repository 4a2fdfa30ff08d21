"""Heads: small networks on the decoder's map, one for each output, and what finishes their values.

Shape letters: N batch, C channels of the decoder's map, D channels of an output, H and W height and width of an image,
h and w those of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.models.decoder import DecoderConfig
from refinenet.outputs import LIKELIHOODS, OutputSpec


def _finish_depth(values: Tensor, spec: OutputSpec) -> Tensor:
    # The absolute value, as in the published multi-task network, whose head is linear, too.
    assert spec.range is not None
    return values.abs().clamp(*spec.range)


def _finish_normals(values: Tensor, spec: OutputSpec) -> Tensor:  # noqa: ARG001 - the same parameters for all kinds
    return functional.normalize(values, dim=1)


FINISH: dict[str, Callable[[Tensor, OutputSpec], Tensor]] = {"depth": _finish_depth, "normals": _finish_normals}
"""Functions that make the values of a kind valid, `(N, D, H, W)` to the same shape; other kinds need none."""


def finish(values: Tensor, spec: OutputSpec) -> Tensor:
    """Make the values of an output valid.

    Args:
        values: `(N, D, H, W)` float32, the maps of the output, resized; any log scales after them are left out.
        spec: Specification of the output.

    Returns:
        `(N, D, H, W)`: depths within their range, in metres; normals of length 1; other kinds unchanged.
    """
    if spec.likelihood is not None:
        values = values[:, : values.shape[1] // 2]
    return FINISH[spec.kind](values, spec) if spec.kind in FINISH else values


def finish_deviations(values: Tensor, spec: OutputSpec) -> Tensor:
    """Return the standard deviations of the errors of an output with a likelihood.

    Args:
        values: `(N, 2 D, H, W)` float32, the maps of the output, resized: values, then log scales.
        spec: Specification of the output.

    Returns:
        `(N, D, H, W)`, in the unit of the output.
    """
    assert spec.likelihood is not None
    return LIKELIHOODS[spec.likelihood] * values[:, values.shape[1] // 2 :].clamp(*_LOG_SCALES).exp()


def split_maps(maps: Tensor, outputs: Sequence[OutputSpec], num_classes: int) -> dict[str, Tensor]:
    """Split the maps of a network, `(N, all channels, h, w)`, into those of each output `(N, D, h, w)`, by name."""
    parts = torch.split(maps, [spec.count_maps(num_classes) for spec in outputs], dim=1)
    return {spec.name: part for spec, part in zip(outputs, parts, strict=True)}


_LOG_SCALES = (-30.0, 30.0)
"""Least and largest log scale; others are moved to these, so that scales are finite and above 0."""


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
    return nn.Sequential(depthwise, config.make_activation())


def build_head(spec: OutputSpec, channels: int, config: DecoderConfig) -> nn.Module:
    """Build the head of an output of quantities, `channels` being C; a network has the head of its classes itself."""
    maps = spec.count_maps(0)
    layers = nn.Sequential(*build_stem(channels, config), nn.Conv2d(channels, maps, kernel_size=3, padding=1))
    return ScaledHead(layers, spec.count_channels(0)) if spec.info.is_scaled else layers
