"""From what users name a model by to a network and its card."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from refinenet.convert import import_checkpoint
from refinenet.distributed import local_device
from refinenet.encoder_weights import load_encoder_weights
from refinenet.labels import LabelSet
from refinenet.model_file import BUNDLED, ModelCard, bundled_path, load
from refinenet.network import Architecture, Network
from refinenet.tensors import is_safetensors


def open_model(model: str | os.PathLike[str]) -> tuple[Network, ModelCard]:
    """Load a bundled model by its name, a model file, or a published checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no model, or is damaged.
    """
    path = bundled_path(str(model)) if str(model) in BUNDLED else Path(model)
    try:
        if is_safetensors(path):
            return load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Models that ship inside the package: {', '.join(BUNDLED)}.") from error
    network = import_checkpoint(path)
    return network, _nameless_card(network.architecture)


def check_asked(card: ModelCard, model: str | os.PathLike[str], **asked: str | int | None) -> None:
    """Hold what a user asked for against what a model is; None asks for nothing.

    Raises:
        ValueError: the two contradict each other.
    """
    found = card.architecture.to_dict()
    for key, value in asked.items():
        if value is not None and value != found[key]:
            raise ValueError(f"{model} has {key}={found[key]!r}, not {value!r}. Leave {key} out: the file says it.")


def new_model(architecture: Architecture, encoder_weights: str | os.PathLike[str] | None) -> tuple[Network, ModelCard]:
    """Build an untrained network, its encoder from "imagenet", a file, or random weights (None).

    Raises:
        ValueError: the encoder or its weights cannot be used.
        OSError: the file cannot be read.
    """
    network = Network(architecture, pretrained=encoder_weights == "imagenet")
    if encoder_weights is not None and encoder_weights != "imagenet":
        load_encoder_weights(network, Path(encoder_weights))
    return network, _nameless_card(architecture)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or else a GPU where there is one; of several processes each has its own.

    Raises:
        ValueError: there is no such device here.
    """
    if device is None:
        return local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        chosen = local_device(torch.device(device))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device {str(device)!r} cannot be used here ({reason}). Try 'cpu'.") from error
    return chosen


def _nameless_card(architecture: Architecture) -> ModelCard:
    return ModelCard(architecture=architecture, label_set=LabelSet.numbered(architecture.num_classes))
