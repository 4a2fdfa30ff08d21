"""Encoders: any timm network that offers feature maps at strides 4, 8, 16 and 32.

Shape letters: N batch, C channels, H height, W width of the image.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import timm
import torch
from timm.layers import BatchNormAct2d
from timm.models import FeatureListNet
from torch import Tensor, nn
from torch.nn import functional

from refinenet.depthwise import replace_strided_depthwise

STRIDES = (4, 8, 16, 32)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PUBLISHED_RESNETS = (50, 101, 152)


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A feature map that the decoder reads."""

    module: str
    """Name of the timm module that puts it out."""
    channels: int
    stride: int
    """Image pixels per feature pixel, along each axis."""


MOBILENETV2_TAPS = (
    Tap(module="blocks.1", channels=24, stride=4),
    Tap(module="blocks.2", channels=32, stride=8),
    Tap(module="blocks.3", channels=64, stride=16),
    Tap(module="blocks.4", channels=96, stride=16),
    Tap(module="blocks.5", channels=160, stride=32),
    Tap(module="blocks.6", channels=320, stride=32),
)
"""Where Light-Weight RefineNet reads a MobileNetV2: two maps at strides 16 and 32 (BMVC 2018)."""

PUBLISHED_TAPS: Mapping[str, tuple[Tap, ...]] = MappingProxyType({"mobilenetv2_100": MOBILENETV2_TAPS})
"""Encoders with taps of their own; all others give the last map of each stride."""

EXACT_SIZE_ENCODERS = frozenset({"mobilenetv2_100", *(f"resnet{depth}" for depth in PUBLISHED_RESNETS)})
"""The published encoders take any size as it is; the others get images padded to whole cells of their coarsest map."""


class Encoder(nn.Module):
    """A timm network cut down to its feature maps.

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
        self.taps = describe_taps(name)
        self.size_multiple = 1 if base_name(name) in EXACT_SIZE_ENCODERS else STRIDES[-1]
        self.features = _build_features(name, self.taps, pretrained)
        replace_strided_depthwise(self.features)
        # Transformers such as Swin put out (N, H, W, C) and say so.
        self.channels_last = getattr(self.features, "output_fmt", "NCHW") == "NHWC"
        config = timm.models.get_pretrained_cfg(name)
        self.mean, self.std = (config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD)

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


def describe_taps(name: str) -> tuple[Tap, ...]:
    """The feature maps that the decoder reads from timm's `name`, fine to coarse.

    Raises:
        ValueError: timm has no such model, or it lacks a feature map at stride 4, 8, 16 or 32.
    """
    if not timm.is_model(name):
        models = timm.list_models()
        longer = [model for model in models if name and model.startswith(name)]
        close = longer[:3] or difflib.get_close_matches(name, models, n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"timm has no encoder named {name!r}.{hint} timm.list_models() lists all.")
    if base_name(name) in PUBLISHED_TAPS:
        return PUBLISHED_TAPS[base_name(name)]
    with torch.device("meta"):  # its facts are wanted, not its weights
        try:
            info = timm.create_model(name, features_only=True).feature_info
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            raise ValueError(f"The encoder {name!r} offers no feature maps: {error}") from error
    strides = info.reduction()
    missing = [stride for stride in STRIDES if stride not in strides]
    if missing:
        raise ValueError(
            f"The encoder {name!r} cannot carry a RefineNet: it has feature maps at strides {sorted(set(strides))}, "
            f"none at {missing}, and strides 4, 8, 16 and 32 are needed."
        )
    last = [max(index for index, value in enumerate(strides) if value == stride) for stride in STRIDES]
    names, channels = info.module_name(), info.channels()
    return tuple(Tap(module=names[i], channels=channels[i], stride=strides[i]) for i in last)


def _build_features(name: str, taps: Sequence[Tap], pretrained: bool) -> nn.Module:
    config = timm.models.get_pretrained_cfg(name)
    if pretrained and not (config and config.has_weights):
        raise ValueError(
            f"timm has no ImageNet weights for {name!r}. Pass encoder_weights=FILE, or None for random ones."
        )
    try:
        if base_name(name) in PUBLISHED_TAPS:
            return _build_mobilenetv2(name, taps, pretrained)
        return _build_last_of_each_stride(name, taps, pretrained)
    except OSError as error:  # huggingface_hub's errors for an unreachable or empty hub are OSErrors
        raise ValueError(
            f"The ImageNet weights of {name!r} could not be fetched from the Hugging Face hub (no network?): {error}. "
            "Pass encoder_weights=FILE to take them from a file, or encoder_weights=None to start from random weights."
        ) from error


def _build_last_of_each_stride(name: str, taps: Sequence[Tap], pretrained: bool) -> nn.Module:
    with torch.device("meta"):
        offered = timm.create_model(name, features_only=True).feature_info.module_name()
    indices = tuple(offered.index(tap.module) for tap in taps)
    config = timm.models.get_pretrained_cfg(name)
    # Networks built for one image size (Swin) can be told to take any.
    options = {"strict_img_size": False} if config and config.fixed_input_size else {}
    features: nn.Module = timm.create_model(
        name, features_only=True, out_indices=indices, pretrained=pretrained, **options
    )
    return features


def _build_mobilenetv2(name: str, taps: Sequence[Tap], pretrained: bool) -> nn.Module:
    """MobileNetV2 as Light-Weight RefineNet was published: the first block has an expand convolution, too."""
    network = timm.create_model(name, pretrained=pretrained)
    network.blocks[0][0] = _ExpandedFirstBlock(network.blocks[0][0])
    network.feature_info = [{"module": tap.module, "num_chs": tap.channels, "reduction": tap.stride} for tap in taps]
    features: nn.Module = FeatureListNet(network, out_indices=tuple(range(len(taps))), flatten_sequential=True)
    return features


class _ExpandedFirstBlock(nn.Module):
    """A 1x1 expand convolution that starts as the identity, before timm's first block.

    Behind ReLU6 the identity changes nothing, so weights trained without it give the same features.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv_expand = nn.Conv2d(32, 32, kernel_size=1, bias=False)
        self.bn_expand = BatchNormAct2d(32, act_layer=nn.ReLU6)
        self.block = block
        with torch.no_grad():
            self.conv_expand.weight.copy_(torch.eye(32)[:, :, None, None])
            self.bn_expand.running_var.fill_(1 - self.bn_expand.eps)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, 32, h, w)` to `(N, 16, h, w)`."""
        expanded: Tensor = self.block(self.bn_expand(self.conv_expand(features)))
        return expanded
