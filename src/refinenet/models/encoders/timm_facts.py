"""Facts of timm's networks: which feature maps they have, and how they are built for images of any size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import timm
import torch
from torch import Tensor, nn

from refinenet.models.encoders.feature_info import STRIDES, EncoderFacts, FeatureInfo
from refinenet.models.encoders.pyramid import PATCH_SIZES, last_map, pyramid_features, remove_head

ALTERNATIVES = "convnext_tiny, swin_tiny_patch4_window7_224, sam2_hiera_tiny or vit_small_patch16_dinov3"
"""Encoders of different kinds that take images of any size."""

Options = Mapping[str, object]
_ANY_SIZE: Options = MappingProxyType({})
HIERARCHICAL_WAYS: tuple[Options, ...] = (MappingProxyType({"strict_img_size": False}), _ANY_SIZE)
PLAIN_WAYS: tuple[Options, ...] = (MappingProxyType({"dynamic_img_size": True}), _ANY_SIZE)
"""Options by which timm builds a network for images of any size, in the order in which they are tried."""

_REFUSALS = (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""Errors of timm and PyTorch for networks that cannot be built, or do not take a size."""


@lru_cache(maxsize=64)
def find_facts(name: str) -> EncoderFacts:
    """Return the facts of a network of timm.

    A network with a fixed image size is tried with the options by which timm may build it for any. If none works, but
    it takes multiples of its own size, as MaxViT does, whose windows then divide all maps, images are padded to them.

    Raises:
        ValueError: The network has neither feature maps at strides 4, 8, 16 and 32 nor a single stride of 14 or 16, or
            it cannot take images of any size.
    """
    info = _read_info(name)
    strides: list[int] = info.reduction()
    missing = [stride for stride in STRIDES if stride not in strides]
    if not missing:
        return _find_hierarchical(name, info)
    if len(set(strides)) == 1 and strides[0] in PATCH_SIZES:
        return _find_plain(name, strides[0])
    raise ValueError(
        f"The encoder {name!r} does not fit RefineNet: it has feature maps at strides {sorted(set(strides))}, none at "
        f"{missing}, but strides 4, 8, 16 and 32 are needed, or a plain vision transformer with patches of 14 or 16 "
        f"pixels. Choose another, such as {ALTERNATIVES}."
    )


def _read_info(name: str) -> Any:
    """Return timm's description of the feature maps of a network."""
    with torch.device("meta"):  # only the description is needed, not the weights
        try:
            return timm.create_model(name, features_only=True).feature_info
        except _REFUSALS as error:
            raise ValueError(
                f"The encoder {name!r} has no feature maps in timm {timm.__version__}: {error}. A newer timm may have "
                f"them; or choose another, such as {ALTERNATIVES}."
            ) from error


def _find_hierarchical(name: str, info: Any) -> EncoderFacts:
    strides, names, channels = info.reduction(), info.module_name(), info.channels()
    last = [max(index for index, value in enumerate(strides) if value == stride) for stride in STRIDES]
    features = tuple(FeatureInfo(module=names[i], channels=channels[i], stride=strides[i]) for i in last)
    chosen: Options = {"features_only": True, "out_indices": tuple(last)}
    config = timm.models.get_pretrained_cfg(name)
    if not (config and config.fixed_input_size):
        return EncoderFacts(features=features, options=chosen)
    for options in HIERARCHICAL_WAYS:
        if _takes(name, options, strides, (320, 96)):
            return EncoderFacts(features=features, options={**chosen, **options})
    own = math.lcm(STRIDES[-1], *config.input_size[1:])
    if _takes(name, _ANY_SIZE, strides, (2 * own, own)):
        return EncoderFacts(features=features, options=chosen, size_multiple=own)
    raise _refuse(name)


def _find_plain(name: str, patch_size: int) -> EncoderFacts:
    for options in PLAIN_WAYS:
        channels = _count_channels(name, options, (20 * patch_size, 6 * patch_size))
        if channels is not None:
            features = pyramid_features(channels)
            return EncoderFacts(features=features, options=options, size_multiple=patch_size, patch_size=patch_size)
    raise _refuse(name)


def _takes(name: str, options: Options, strides: Sequence[int], size: tuple[int, int]) -> bool:
    """Return whether a network takes images of a size, and its maps have the sizes that their strides demand."""
    try:
        with torch.device("meta"), torch.no_grad():
            network: nn.Module = timm.create_model(name, features_only=True, **options).eval()
            maps: list[Tensor] = network(torch.empty(1, 3, *size))
    except _REFUSALS:
        return False
    axes = (1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else (2, 3)
    expected = [[side // stride for side in size] for stride in strides]
    return [[feature.shape[axis] for axis in axes] for feature in maps] == expected


def _count_channels(name: str, options: Options, size: tuple[int, int]) -> int | None:
    """Return the number of channels of a transformer's last map; None if it does not take images of a size."""
    try:
        with torch.device("meta"), torch.no_grad():
            transformer = remove_head(timm.create_model(name, **options)).eval()
            return last_map(transformer, torch.empty(1, 3, *size)).shape[1]
    except _REFUSALS:
        return None


def _refuse(name: str) -> ValueError:
    return ValueError(
        f"The encoder {name!r} cannot be built by timm for images of any size, which RefineNet needs: its "
        f"layers are made for one size. Choose another, such as {ALTERNATIVES}."
    )
