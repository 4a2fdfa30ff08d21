"""Encoders from timm: any of its networks that offers feature maps at strides 4, 8, 16 and 32.

Importing timm takes more than a second, as it imports torchvision: this file is imported only where timm is needed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn

from refinenet.models.encoders.feature_info import IMAGENET, STRIDES, FeatureInfo, Normalisation


def check_name(name: str) -> None:
    """Refuse what timm has no network for.

    Raises:
        ValueError: it has none of this name, or no weights of its tag; similar ones are named.
    """
    if timm.is_model(name):
        try:
            timm.models.get_pretrained_cfg(name)
        except RuntimeError as error:
            base, _, tag = name.partition(".")
            known = ", ".join(timm.list_models(f"{base}.*", pretrained=True))
            raise ValueError(f"timm has no weights {tag!r} for the encoder {base!r}. It has {known}.") from error
        return
    models = timm.list_models()
    longer = [model for model in models if name and model.startswith(name)]
    close = longer[:3] or difflib.get_close_matches(name, models, n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise ValueError(f"timm has no encoder named {name!r}.{hint} timm.list_models() lists all.")


def find_taps(name: str) -> tuple[FeatureInfo, ...]:
    """The last feature map of each stride, fine to coarse.

    Raises:
        ValueError: the network lacks a feature map at stride 4, 8, 16 or 32.
    """
    with torch.device("meta"):  # its facts are wanted, not its weights
        try:
            info = timm.create_model(name, features_only=True).feature_info
        except (
            RuntimeError,
            AttributeError,
            NotImplementedError,
            TypeError,
            ValueError,
            AssertionError,
        ) as error:  # timm's, of networks without such maps
            raise ValueError(f"The encoder {name!r} offers no feature maps: {error}") from error
    strides = info.reduction()
    missing = [stride for stride in STRIDES if stride not in strides]
    if missing:
        raise ValueError(
            f"The encoder {name!r} cannot carry a RefineNet: it has feature maps at strides {sorted(set(strides))}, "
            f"none at {missing}, and strides 4, 8, 16 and 32 are needed."
        )
    _refuse_fixed_size(name)
    last = [max(index for index, value in enumerate(strides) if value == stride) for stride in STRIDES]
    names, channels = info.module_name(), info.channels()
    return tuple(FeatureInfo(module=names[i], channels=channels[i], stride=strides[i]) for i in last)


def find_normalisation(name: str) -> Normalisation:
    """Channel means and standard deviations, RGB in [0, 1], of the images that the network's weights expect."""
    config = timm.models.get_pretrained_cfg(name)
    return (config.mean, config.std) if config else IMAGENET


def build_features(name: str, taps: Sequence[FeatureInfo], *, pretrained: bool) -> nn.Module:
    """A network cut down to its feature maps.

    Raises:
        ValueError: as `fetch_weights`.
    """
    with torch.device("meta"):
        offered = timm.create_model(name, features_only=True).feature_info.module_name()
    indices = tuple(offered.index(tap.module) for tap in taps)
    features: nn.Module = _create(name, pretrained, features_only=True, out_indices=indices, **_size_options(name))
    return features


def _size_options(name: str) -> dict[str, bool]:
    """Networks built for one image size (Swin) can be told to take any."""
    config = timm.models.get_pretrained_cfg(name)
    return {"strict_img_size": False} if config and config.fixed_input_size else {}


def _refuse_fixed_size(name: str) -> None:
    """Refuse a network that cannot be told to take images of any size.

    Raises:
        ValueError: timm cannot build it so, or it fails on an image of another size than its own.
    """
    options = _size_options(name)
    if not options:
        return
    try:
        with torch.device("meta"), torch.no_grad():
            features = timm.create_model(name, features_only=True, **options).eval()
            features(torch.empty(1, 3, 320, 96))
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:  # timm's, PyTorch's
        raise ValueError(
            f"The encoder {name!r} cannot be built by timm for images of any size, as a RefineNet takes. Choose "
            "another, such as resnet50, convnext_tiny or swin_tiny_patch4_window7_224."
        ) from error


def fetch_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of a classification network; PyTorch's generator stays as it is.

    Raises:
        ValueError: there are none, or they cannot be fetched.
    """
    with torch.random.fork_rng(devices=()):
        weights: dict[str, Tensor] = _create(name, True).state_dict()
    return weights


def _create(name: str, pretrained: bool, **options: object) -> nn.Module:
    config = timm.models.get_pretrained_cfg(name)
    if pretrained and not (config and config.has_weights):
        raise ValueError(
            f"timm has no ImageNet weights for {name!r}. Pass encoder_weights=FILE, or None for random ones."
        )
    try:
        created: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except OSError as error:  # huggingface_hub's errors for an unreachable or empty hub are OSErrors
        raise ValueError(
            f"The ImageNet weights of {name!r} could not be fetched from the Hugging Face hub (no network?): {error}. "
            "Pass encoder_weights=FILE to take them from a file, or encoder_weights=None to start from random weights."
        ) from error
    return created
