"""Depthwise convolutions with a stride, fast to train in bfloat16 on a CPU.

Shape letters: N batch, C channels, h and w height and width of a feature map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OPTIONS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
"""What a convolution is made from, besides its weights."""


class StridedDepthwiseConvolution(nn.Conv2d):
    """A depthwise convolution that trains in float32 on a CPU, whatever autocast says.

    oneDNN has no fast kernel for its gradient in bfloat16: 81 ms instead of 6 ms for 96 channels of 160x160 in a batch
    of 8, a tenth of a training step of MobileNetV2.
    """

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to `(N, C, h', w')`, in the type that autocast asks for."""
        if features.device.type != "cpu" or not (torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()):
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            convolved = super().forward(features.float())
        return convolved.to(torch.get_autocast_dtype("cpu"))


def replace_strided_depthwise(network: nn.Module) -> None:
    """Make every depthwise convolution with a stride inside `network` a `StridedDepthwiseConvolution`, same weights."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            # Subclasses, such as those that pad as TensorFlow does, stay what they are.
            if type(child) is nn.Conv2d and 1 < child.in_channels == child.groups and child.stride != (1, 1):
                parent.add_module(name, _with_weights_of(child))


def _with_weights_of(convolution: nn.Conv2d) -> StridedDepthwiseConvolution:
    options: dict[str, Any] = {name: getattr(convolution, name) for name in OPTIONS}
    # On the meta device no random numbers are drawn: networks start from the same weights as without this.
    replacement = StridedDepthwiseConvolution(**options, device="meta")
    replacement.weight, replacement.bias = convolution.weight, convolution.bias
    return replacement.train(convolution.training)
