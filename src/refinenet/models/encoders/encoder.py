"""Encoders: the published ones, and any timm network that offers feature maps at strides 4, 8, 16 and 32.

Shape letters: N batch, C channels, H height, W width of the image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional

from refinenet.models.encoders.feature_info import IMAGENET, STRIDES, FeatureInfo, Normalisation
from refinenet.models.encoders.mobilenetv2 import MobileNetV2, replace_strided_depthwise
from refinenet.models.encoders.resnet import BLOCKS, ResNet

PUBLISHED_RESNETS = tuple(int(name.removeprefix("resnet")) for name in BLOCKS)

MOBILENETV2 = "mobilenetv2_100"

MOBILENETV2_TAPS = (
    FeatureInfo(module="blocks.1", channels=24, stride=4),
    FeatureInfo(module="blocks.2", channels=32, stride=8),
    FeatureInfo(module="blocks.3", channels=64, stride=16),
    FeatureInfo(module="blocks.4", channels=96, stride=16),
    FeatureInfo(module="blocks.5", channels=160, stride=32),
    FeatureInfo(module="blocks.6", channels=320, stride=32),
)
"""Where Light-Weight RefineNet reads a MobileNetV2: two maps at strides 16 and 32 (BMVC 2018)."""

RESNET_TAPS = (
    FeatureInfo(module="layer1", channels=256, stride=4),
    FeatureInfo(module="layer2", channels=512, stride=8),
    FeatureInfo(module="layer3", channels=1024, stride=16),
    FeatureInfo(module="layer4", channels=2048, stride=32),
)

FEATURE_INFO: Mapping[str, tuple[FeatureInfo, ...]] = MappingProxyType(
    {MOBILENETV2: MOBILENETV2_TAPS, **dict.fromkeys(BLOCKS, RESNET_TAPS)}
)
"""Encoders of the papers, built here, by timm's names; of all others timm's last map of each stride is read."""


class Encoder(nn.Module):
    """A network cut down to its feature maps: a published one, or any of timm's.

    Args:
        name: A timm model name, such as "resnet50" or "mobilenetv2_100".
        pretrained: Whether to fetch timm's ImageNet weights (needs a network the first time).

    Raises:
        ValueError: timm has no such model, it lacks a feature map at stride 4, 8, 16 or 32, or its ImageNet
            weights cannot be fetched.
    """

    mean: tuple[float, float, float]
    """Channel means, RGB in [0, 1], of the images that its ImageNet weights expect."""
    std: tuple[float, float, float]
    """Channel standard deviations that go with `mean`."""

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__()
        self.taps = feature_info(name)
        # The published encoders take any size; the others get images padded to whole cells of their coarsest map.
        self.size_multiple = 1 if base_name(name) in FEATURE_INFO else STRIDES[-1]
        self.features = _build_features(name, self.taps, pretrained=pretrained)
        replace_strided_depthwise(self.features)
        # Transformers such as Swin put out (N, H, W, C) and say so.
        self.channels_last = getattr(self.features, "output_fmt", "NCHW") == "NHWC"
        self.mean, self.std = _find_normalisation(name)

    @property
    def channels(self) -> tuple[tuple[int, ...], ...]:
        """Channels of the feature maps, a group for each stride 4, 8, 16, 32."""
        return tuple(tuple(tap.channels for tap in self.taps if tap.stride == stride) for stride in STRIDES)

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """Encode normalised images `(N, 3, H, W)`.

        Returns:
            For each stride s of 4, 8, 16, 32 its group of feature maps `(N, C, ceil(H/s), ceil(W/s))`.
        """
        features = self.features(self._pad(images))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return [
            [
                self._crop(feature, images, stride)
                for tap, feature in zip(self.taps, features, strict=True)
                if tap.stride == stride
            ]
            for stride in STRIDES
        ]

    def _pad(self, images: Tensor) -> Tensor:
        """Add the mean colour (0 after normalisation) at the bottom and right, up to a multiple of `size_multiple`."""
        if self.size_multiple == 1:
            return images
        height, width = images.shape[-2:]
        below = _round_up(height, self.size_multiple) - height
        beside = _round_up(width, self.size_multiple) - width
        return functional.pad(images, (0, beside, 0, below))

    def _crop(self, feature: Tensor, images: Tensor, stride: int) -> Tensor:
        """Take off a map's cells that lie wholly on what `_pad` added."""
        if self.size_multiple == 1:
            return feature
        height, width = images.shape[-2:]
        return feature[..., : _round_up(height, stride) // stride, : _round_up(width, stride) // stride]


def _round_up(length: int, multiple: int) -> int:
    """The next multiple, in a form that torch.export can reason about for a length that it does not know."""
    return (length + multiple - 1) // multiple * multiple


def base_name(name: str) -> str:
    """A timm name without the tag of its weights: "resnet50" of "resnet50.tv_in1k"."""
    return name.partition(".")[0]


def feature_info(name: str) -> tuple[FeatureInfo, ...]:
    """The feature maps that the decoder reads from an encoder, fine to coarse.

    Raises:
        ValueError: timm has no such model, or it lacks a feature map at stride 4, 8, 16 or 32.
    """
    if name in FEATURE_INFO:
        return FEATURE_INFO[name]
    from refinenet.models.encoders.timm import check_name, find_taps

    check_name(name)
    return FEATURE_INFO.get(base_name(name)) or find_taps(name)


def _find_normalisation(name: str) -> Normalisation:
    if name in FEATURE_INFO:
        return IMAGENET
    from refinenet.models.encoders.timm import find_normalisation

    return find_normalisation(name)


def _build_features(name: str, taps: tuple[FeatureInfo, ...], *, pretrained: bool) -> nn.Module:
    base = base_name(name)
    if base not in FEATURE_INFO:
        from refinenet.models.encoders.timm import build_features

        return build_features(name, taps, pretrained=pretrained)
    features = ResNet(base) if base in BLOCKS else MobileNetV2()
    if pretrained:
        from refinenet.models.encoders.timm import fetch_weights

        expected = features.state_dict()
        renamed = {name_in_features(key, expected): tensor for key, tensor in fetch_weights(name).items()}
        given = {key: tensor for key, tensor in renamed.items() if key in expected}
        features.load_state_dict({**added_tensors(expected), **given})
    return features


def name_in_features(name: str, expected: Mapping[str, Tensor]) -> str:
    """A tensor's name in a network cut down to its features: `blocks.0.0.bn1.weight` is `blocks_0.0.bn1.weight` there.

    Args:
        name: That of timm or torchvision.
        expected: The tensors of the network cut down.
    """
    flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name)
    grafted = flat.replace("blocks_0.0.", "blocks_0.0.block.", 1)
    return next((candidate for candidate in (name, flat, grafted) if candidate in expected), name)


def added_tensors(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the expand convolution of the published MobileNetV2, which classification networks lack."""
    return {name: tensor for name, tensor in expected.items() if "_expand." in name}
