"""ResNet encoder (He et al., CVPR 2016), with the stride of a stage in its first 3x3 convolution.

In the ResNets of MatConvNet, as in the paper, it is in the first 1x1 convolution, and the pooling after the first
convolution begins at the upper left pixel.

Tensor names are those of torchvision and timm, and so are the initial values for the same seed.

Shape letters: N batch, B bands of an image, C channels, H height, W width of the image, h and w those of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(
    {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
)
"""Number of blocks per stage (table 1 of the paper)."""
MATCONVNET = "matconvnet_resnet"
"""Beginning of the names of MatConvNet's ResNets, which the depth follows."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions of each stage."""
EXPANSION = 4
"""Ratio of the output channels of a block to those of its 3x3 convolution."""
_CLASSIFIER_DRAWS = EXPANSION * WIDTHS[-1] * 1000 + 1000
"""Random numbers that timm draws for its classifier before it initialises the convolutions."""


class ResNet(nn.Module):
    """ResNet without its classifier.

    Args:
        name: "resnet50", "resnet101" or "resnet152", or "matconvnet_resnet50" and so on.
        in_channels: Number of channels of the images.
    """

    def __init__(self, name: str, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.act1 = nn.ReLU(inplace=True)
        is_matconvnet = name.startswith(MATCONVNET)
        self.maxpool = _UpperLeftMaxPool() if is_matconvnet else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stages = []
        channels = WIDTHS[0]
        for count, width in zip(BLOCKS[name.replace(MATCONVNET, "resnet")], WIDTHS, strict=True):
            stages.append(_make_stage(channels, width, count, stride_first=is_matconvnet))
            channels = EXPANSION * width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `(N, B, H, W)` to maps `(N, C, ceil(H/s), ceil(W/s))` at strides s of 4, 8, 16, 32."""
        features = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
            maps.append(features)
        return maps


class _UpperLeftMaxPool(nn.Module):
    """Max pooling over 3x3 squares with stride 2, whose first square begins at the upper left pixel."""

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)`, not negative, to `(N, C, ceil(h/2), ceil(w/2))`."""
        return functional.max_pool2d(functional.pad(features, (0, 2, 0, 2)), kernel_size=3, stride=2)


def _make_stage(channels: int, width: int, count: int, *, stride_first: bool) -> nn.Sequential:
    stride = 1 if width == WIDTHS[0] else 2
    first = _Bottleneck(channels, width, stride, stride_first=stride_first)
    return nn.Sequential(first, *(_Bottleneck(EXPANSION * width, width, 1) for _ in range(count - 1)))


class _Bottleneck(nn.Module):
    """Three convolutions, 1x1, 3x3 and 1x1, added to the input, which is projected if its shape changes."""

    def __init__(self, channels: int, width: int, stride: int, *, stride_first: bool = False) -> None:
        super().__init__()
        out = EXPANSION * width
        strides = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, stride=strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=strides[1], padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.act3 = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if channels != out:
            projection = nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out))

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, C, h, w)` to `(N, 4 * width, ceil(h/stride), ceil(w/stride))`."""
        residual = self.act1(self.bn1(self.conv1(features)))
        residual = self.act2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        shortcut = features if self.downsample is None else self.downsample(features)
        activated: Tensor = self.act3(residual + shortcut)
        return activated


def _initialise(network: ResNet) -> None:
    """Initialise as He et al.; each block starts as the identity (Goyal et al., 2017, section 5.1)."""
    if network.conv1.weight.is_meta:
        return  # the weights will be read from a file
    torch.rand(_CLASSIFIER_DRAWS)  # so that a seed gives the same weights as in timm
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, _Bottleneck):
            nn.init.zeros_(module.bn3.weight)
