"""MobileNetV2 encoder (Sandler et al., CVPR 2018) as published with Light-Weight RefineNet.

Tensor names are those of timm's "mobilenetv2_100", and so are the initial values for the same seed. Unlike timm's, the
first block also has an expand convolution.

Shape letters: N batch, B bands of an image, C channels, H height, W width of the image, h and w those of a feature map.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

STEM = 32
"""Channels of the first convolution."""


class Stage(NamedTuple):
    """Sequence of blocks with the same number of channels (a line of table 2 in the paper)."""

    expansion: int
    channels: int
    blocks: int
    stride: int


FIRST_CHANNELS = 16
"""Channels of the first block."""
STAGES = (
    Stage(expansion=6, channels=24, blocks=2, stride=2),
    Stage(expansion=6, channels=32, blocks=3, stride=2),
    Stage(expansion=6, channels=64, blocks=4, stride=2),
    Stage(expansion=6, channels=96, blocks=3, stride=1),
    Stage(expansion=6, channels=160, blocks=3, stride=2),
    Stage(expansion=6, channels=320, blocks=1, stride=1),
)
"""Stages after the first block; the feature map of each is returned."""

_EXPAND = STEM * STEM
"""Weights of the added expand convolution; creating it draws a random number for each."""
_HEAD = STAGES[-1].channels * 1280 + 1280 * 1000
"""Weights of timm's last convolution and classifier, which draw random numbers at creation and again at
initialisation."""
_TRIALS = 1000 + 2 * (8 * 8 + 8)
"""Other random numbers that timm draws: biases of the classifier, and layers that it creates only to inspect them."""


class MobileNetV2(nn.Module):
    """The blocks of a MobileNetV2 of width 1, without its classifier, for images of `in_channels` channels."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(in_channels, STEM, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.act1 = nn.ReLU6(inplace=True)
        self.blocks_0 = nn.Sequential(_ExpandedFirstBlock())
        channels = FIRST_CHANNELS
        for number, stage in enumerate(STAGES, start=1):
            blocks = []
            for index in range(stage.blocks):
                stride = 1 if index else stage.stride
                blocks.append(_InvertedResidual(channels, stage.channels, stage.expansion, stride))
                channels = stage.channels
            self.add_module(f"blocks_{number}", nn.Sequential(*blocks))
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `(N, B, H, W)` to feature maps `(N, C, h, w)` of `STAGES`, at strides 4 to 32."""
        features = self.blocks_0(self.act1(self.bn1(self.conv_stem(images))))
        maps = []
        for number in range(1, len(STAGES) + 1):
            features = self.get_submodule(f"blocks_{number}")(features)
            maps.append(features)
        return maps


class _InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel (3x3), project (1x1, linear), and add the input where shapes allow."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.conv_pw = nn.Conv2d(channels, wide, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_dw = nn.Conv2d(wide, wide, kernel_size=3, stride=stride, padding=1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.act2 = nn.ReLU6(inplace=True)
        self.conv_pwl = nn.Conv2d(wide, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.has_shortcut = stride == 1 and channels == out

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, C, h, w)` to `(N, out, ceil(h/stride), ceil(w/stride))`."""
        wide = self.act1(self.bn1(self.conv_pw(features)))
        wide = self.act2(self.bn2(self.conv_dw(wide)))
        projected: Tensor = self.bn3(self.conv_pwl(wide))
        return projected + features if self.has_shortcut else projected


class _ExpandedFirstBlock(nn.Module):
    """First block after a 1x1 expand convolution that starts as the identity.

    After a ReLU6 the identity has no effect, so weights trained without it give the same features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_expand = nn.Conv2d(STEM, STEM, kernel_size=1, bias=False)
        self.bn_expand = nn.BatchNorm2d(STEM)
        self.act_expand = nn.ReLU6(inplace=True)
        self.block = _FirstBlock()

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, 32, h, w)` to `(N, 16, h, w)`."""
        expanded: Tensor = self.block(self.act_expand(self.bn_expand(self.conv_expand(features))))
        return expanded


class _FirstBlock(nn.Module):
    """Filter each channel (3x3), project (1x1, linear)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(STEM, STEM, kernel_size=3, padding=1, groups=STEM, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_pw = nn.Conv2d(STEM, FIRST_CHANNELS, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(FIRST_CHANNELS)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, 32, h, w)` to `(N, 16, h, w)`."""
        projected: Tensor = self.bn2(self.conv_pw(self.act1(self.bn1(self.conv_dw(features)))))
        return projected


@torch.no_grad()
def _initialise(network: MobileNetV2) -> None:
    """Initialise from normal distributions by the fan-out of each kernel; the expand convolution is the identity."""
    if network.conv_stem.weight.is_meta:
        return  # the weights will be read from a file
    first = network.blocks_0[0]
    assert isinstance(first, _ExpandedFirstBlock)
    # Random numbers are skipped, so that a seed gives the same weights as in timm.
    torch.rand(_HEAD + _TRIALS - _EXPAND)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module is not first.conv_expand:
            outputs = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / outputs))
    torch.rand(_HEAD + _EXPAND)
    first.conv_expand.weight.copy_(torch.eye(STEM)[:, :, None, None])
    nn.init.constant_(first.bn_expand.get_buffer("running_var"), 1 - first.bn_expand.eps)


OPTIONS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
"""Arguments of a convolution."""


class StridedDepthwiseConvolution(nn.Conv2d):
    """Depthwise convolution that trains in float32 on a CPU, even under autocast.

    oneDNN has no fast kernel for its gradient in bfloat16: 81 ms instead of 6 ms for 96 channels of 160x160 in a batch
    of 8, a tenth of a training step of MobileNetV2.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, C, h, w)` to `(N, C, h', w')`, in the type of autocast."""
        if features.device.type != "cpu" or not (torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()):
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            convolved = super().forward(features.float())
        return convolved.to(torch.get_autocast_dtype("cpu"))


def replace_strided_depthwise(network: nn.Module) -> None:
    """Make strided depthwise convolutions in `network` `StridedDepthwiseConvolution`s of the same weights."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            # Subclasses, such as those that pad as TensorFlow does, are not replaced.
            if type(child) is nn.Conv2d and 1 < child.in_channels == child.groups and child.stride != (1, 1):
                parent.add_module(name, _with_weights_of(child))


def _with_weights_of(convolution: nn.Conv2d) -> StridedDepthwiseConvolution:
    options: dict[str, Any] = {name: getattr(convolution, name) for name in OPTIONS}
    # On the meta device no random numbers are drawn, so other layers get the same initial weights as without this.
    replacement = StridedDepthwiseConvolution(**options, device="meta")
    replacement.weight, replacement.bias = convolution.weight, convolution.bias
    return replacement.train(convolution.training)
