"""Encoders: the published ones, timm networks with feature maps at strides 4, 8, 16 and 32, and vision transformers.

Shape letters: N batch, B bands of an image, C channels, H height, W width of the image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.io.images.bands import Band
from refinenet.models.encoders.band_weights import normalise_bands, usual_spread
from refinenet.models.encoders.feature_info import (
    IMAGENET,
    MOBILENETV2,
    PUBLISHED_RESNETS,
    STRIDES,
    EncoderFacts,
    FeatureInfo,
    Normalisation,
    base_name,
)
from refinenet.models.encoders.mobilenetv2 import MobileNetV2, replace_strided_depthwise
from refinenet.models.encoders.resnet import BLOCKS, MATCONVNET, ResNet

MOBILENETV2_FEATURES = (
    FeatureInfo(module="blocks.1", channels=24, stride=4),
    FeatureInfo(module="blocks.2", channels=32, stride=8),
    FeatureInfo(module="blocks.3", channels=64, stride=16),
    FeatureInfo(module="blocks.4", channels=96, stride=16),
    FeatureInfo(module="blocks.5", channels=160, stride=32),
    FeatureInfo(module="blocks.6", channels=320, stride=32),
)
"""Feature maps of MobileNetV2 in Light-Weight RefineNet, with two at strides 16 and 32 each (BMVC 2018)."""

RESNET_FEATURES = (
    FeatureInfo(module="layer1", channels=256, stride=4),
    FeatureInfo(module="layer2", channels=512, stride=8),
    FeatureInfo(module="layer3", channels=1024, stride=16),
    FeatureInfo(module="layer4", channels=2048, stride=32),
)

MATCONVNET_RESNETS = tuple(f"{MATCONVNET}{depth}" for depth in PUBLISHED_RESNETS)
"""ResNets of the MATLAB networks; timm does not have them."""
MATCONVNET_NORMALISATION: Normalisation = ((128 / 255,) * 3, (1 / 255,) * 3)
"""The MATLAB networks take RGB in [0, 255] minus 128."""

FEATURE_INFO: Mapping[str, tuple[FeatureInfo, ...]] = MappingProxyType(
    {MOBILENETV2: MOBILENETV2_FEATURES, **dict.fromkeys((*BLOCKS, *MATCONVNET_RESNETS), RESNET_FEATURES)}
)
"""Feature maps of the encoders of the papers, by timm name; of other encoders the last map of each stride is read."""


class Encoder(nn.Module):
    """Encoder without its classification head: a published one, or any of timm.

    Args:
        name: Name of a timm model, such as "resnet50" or "mobilenetv2_100".
        pretrained: Whether to load timm's ImageNet weights (downloads them the first time), which are for RGB.
        bands: Bands of the images; none for RGB.

    Raises:
        ValueError: timm has no such model, it has neither feature maps at strides 4, 8, 16 and 32 nor patches of 14 or
            16 pixels, it cannot take images of any size, or its ImageNet weights cannot be downloaded.
    """

    mean: tuple[float, ...]
    """Means of the bands, in [0, 1]: of colours those that the ImageNet weights expect, of others 0."""
    std: tuple[float, ...]
    """Standard deviations of the bands: of colours those that the ImageNet weights expect, of others 1."""
    spread: float
    """Standard deviation of natural colours after the normalisation that the encoder expects."""

    def __init__(self, name: str, *, pretrained: bool = False, bands: Sequence[Band] = ()) -> None:
        super().__init__()
        assert not (pretrained and bands)  # `Network.with_bands` converts weights
        facts = _find_facts(name)
        self.feature_info, self.size_multiple = facts.features, facts.size_multiple
        self.features = _build_features(name, facts, pretrained=pretrained, in_channels=len(bands) or 3)
        replace_strided_depthwise(self.features)
        # Transformers such as Swin return (N, H, W, C), and declare it.
        self.channels_last = getattr(self.features, "output_fmt", "NCHW") == "NHWC"
        rgb = _find_normalisation(name)
        self.mean, self.std = normalise_bands(bands, rgb)
        self.spread = usual_spread(rgb)

    @property
    def channels(self) -> tuple[tuple[int, ...], ...]:
        """Channels of the feature maps, a group per stride 4, 8, 16, 32."""
        return tuple(tuple(info.channels for info in self.feature_info if info.stride == stride) for stride in STRIDES)

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """Encode normalised images `(N, B, H, W)`.

        Returns:
            A group of feature maps `(N, C, ceil(H/s), ceil(W/s))` for each stride s of 4, 8, 16, 32.
        """
        features = self.features(self._pad(images))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return [
            [
                self._crop(feature, images, stride)
                for info, feature in zip(self.feature_info, features, strict=True)
                if info.stride == stride
            ]
            for stride in STRIDES
        ]

    def _pad(self, images: Tensor) -> Tensor:
        """Pad at the bottom and right with the mean colour (0 after normalisation) to a multiple of `size_multiple`."""
        if self.size_multiple == 1:
            return images
        height, width = images.shape[-2:]
        below = _round_up(height, self.size_multiple) - height
        beside = _round_up(width, self.size_multiple) - width
        return functional.pad(images, (0, beside, 0, below))

    def _crop(self, feature: Tensor, images: Tensor, stride: int) -> Tensor:
        """Crop the cells of a feature map that lie completely on padding."""
        if self.size_multiple == 1:
            return feature
        height, width = images.shape[-2:]
        return feature[..., : _round_up(height, stride) // stride, : _round_up(width, stride) // stride]


def _round_up(length: int, multiple: int) -> int:
    """Round up to a multiple, in a form that torch.export can reason about for symbolic lengths."""
    return (length + multiple - 1) // multiple * multiple


def feature_info(name: str) -> tuple[FeatureInfo, ...]:
    """Return the feature maps of an encoder that the decoder reads, fine to coarse.

    Raises:
        ValueError: timm has no such model, or RefineNet cannot use it (`timm_facts.find_facts`).
    """
    return _find_facts(name).features


def _find_facts(name: str) -> EncoderFacts:
    if name not in FEATURE_INFO:
        from refinenet.models.encoders.timm import check_name

        check_name(name)
    published = FEATURE_INFO.get(base_name(name))
    if published is not None:
        return EncoderFacts(features=published, size_multiple=1)
    from refinenet.models.encoders.timm_facts import find_facts

    return find_facts(name)


def _find_normalisation(name: str) -> Normalisation:
    if name in MATCONVNET_RESNETS:
        return MATCONVNET_NORMALISATION
    if name in FEATURE_INFO:
        return IMAGENET
    from refinenet.models.encoders.timm import find_normalisation

    return find_normalisation(name)


def _build_features(name: str, facts: EncoderFacts, *, pretrained: bool, in_channels: int) -> nn.Module:
    base = base_name(name)
    if base not in FEATURE_INFO:
        from refinenet.models.encoders.timm import build_features

        return build_features(name, facts, pretrained=pretrained, in_channels=in_channels)
    features = MobileNetV2(in_channels) if base == MOBILENETV2 else ResNet(base, in_channels)
    if pretrained and base in MATCONVNET_RESNETS:
        raise ValueError(
            f"There are no ImageNet weights for {name!r}. Pass encoder_weights=FILE, or None for random ones."
        )
    if pretrained:
        from refinenet.models.encoders.timm import fetch_weights

        expected = features.state_dict()
        renamed = {name_in_features(key, expected): tensor for key, tensor in fetch_weights(name).items()}
        given = {key: tensor for key, tensor in renamed.items() if key in expected}
        features.load_state_dict({**added_tensors(expected), **given})
    return features


@lru_cache(maxsize=64)
def find_image_kernels(name: str) -> tuple[str, ...]:
    """Return the names of the kernels of an encoder that are applied to the image, of shapes (out, B, kh, kw)."""
    with torch.device("meta"):  # only shapes are needed
        few, many = (
            _build_features(name, _find_facts(name), pretrained=False, in_channels=count).state_dict()
            for count in (3, 4)
        )
    return tuple(key for key, tensor in few.items() if tensor.shape != many[key].shape)


def name_in_features(name: str, expected: Mapping[str, Tensor]) -> str:
    """Return the name of a tensor in an encoder, where `blocks.0.0.bn1.weight` is called `blocks_0.0.bn1.weight`.

    Args:
        name: Name in the network of timm or torchvision.
        expected: Tensors of the encoder.
    """
    flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name)
    # The first block of the published MobileNetV2 lies inside the added expand convolution's module.
    grafted = flat.replace("blocks_0.0.", "blocks_0.0.block.", 1)
    # timm's networks of other kinds of feature maps lie whole in a module, and transformers beside their pyramid.
    inner = f"model.{name}", f"transformer.{name}"
    return next((candidate for candidate in (name, flat, grafted, *inner) if candidate in expected), name)


def added_tensors(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that published weights lack: MobileNetV2's expand convolution, a transformer's pyramid."""
    return {n: tensor for n, tensor in expected.items() if "_expand." in n or n.startswith("pyramid.")}
