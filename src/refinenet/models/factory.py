"""Networks and model cards from user requests: names, files, or options for a new network."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from refinenet.distributed import local_device
from refinenet.io.files import refuse_address
from refinenet.labels import NO_CLASSES, LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.files.file_checks import is_safetensors
from refinenet.models.files.hub import fetch_model, is_hub_address, pin
from refinenet.models.files.model_card import BUNDLED, ModelCard, bundled_path, read_card
from refinenet.models.files.model_file import load
from refinenet.models.importers import import_network
from refinenet.models.importers.encoder_weights import load_encoder_weights
from refinenet.models.model_spec import (
    DOWNLOAD,
    EXPORTED_SUFFIXES,
    IMAGENET_WEIGHTS,
    ModelSpec,
    exported_model_message,
)
from refinenet.models.network import Network
from refinenet.outputs import OutputSpec


def open_network(
    spec: ModelSpec, device: str | torch.device | None, calibration_images: Callable[[], torch.Tensor]
) -> tuple[Network, ModelCard]:
    """Create or load a network, on a device and in evaluation mode, with its card.

    Args:
        spec: What is requested.
        device: As for `choose_device`.
        calibration_images: As for `load_encoder_weights`.

    Raises:
        ValueError: An argument contradicts the model file, or a file cannot be used.
        OSError: A file cannot be read.
    """
    chosen = choose_device(device)
    network, card = _open_network(spec, calibration_images)
    return network.to(chosen).eval(), card


def _open_network(spec: ModelSpec, calibration_images: Callable[[], torch.Tensor]) -> tuple[Network, ModelCard]:
    if spec.model is None:
        return new_model(spec.architecture(), spec.encoder_weights, spec.random_seed, calibration_images)
    network, card = open_model(spec.model)
    outputs = card.architecture.outputs if spec.outputs is None else spec.name_outputs(card)
    if outputs != card.architecture.outputs:
        network, card = _change_outputs(spec, network, card, outputs)
    if spec.bands is not None and spec.list_bands() != card.architecture.bands:
        network, card = _change_bands(spec, network, card)
    spec.check(card)
    return network, card


def _change_outputs(
    spec: ModelSpec, network: Network, card: ModelCard, outputs: tuple[OutputSpec, ...]
) -> tuple[Network, ModelCard]:
    """Return a model with other outputs: new heads have random weights, all else stays."""
    labels, classes = card.label_set, spec.count_classes(outputs)
    if len(labels) and classes:
        classes = len(labels)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(spec.random_seed)
        network = network.with_outputs(outputs, classes)
    new = _nameless_card(network.architecture)
    labels = labels if classes and len(labels) else new.label_set
    return network, replace(
        new,
        label_set=labels,
        licence=card.licence,
        value_range=card.value_range,
        longest_side=card.longest_side,
    )


def _change_bands(spec: ModelSpec, network: Network, card: ModelCard) -> tuple[Network, ModelCard]:
    """Return a model for images of other bands; see `Network.with_bands`."""
    with torch.random.fork_rng(devices=()):
        network = network.with_bands(spec.list_bands())
    return network, ModelCard(
        architecture=network.architecture,
        label_set=card.label_set,
        licence=card.licence,
        longest_side=card.longest_side,
    )


def open_model(model: str | os.PathLike[str]) -> tuple[Network, ModelCard]:
    """Load a bundled model by its name, a model of the hub by its address, a model file, or a published checkpoint.

    Raises:
        FileNotFoundError: The file is missing.
        OSError: The hub cannot be reached.
        ValueError: The file is not a model, is damaged, or is an exported graph, which is not a network any more.
    """
    if not is_hub_address(model):
        refuse_address("model", model, DOWNLOAD)
        if Path(model).suffix.lower() in EXPORTED_SUFFIXES:
            raise ValueError(exported_model_message(model))
    if str(model) not in BUNDLED:
        read_card(model)  # refuses missing files, folders, and exports for other programs
    path = _local_path(model)
    if is_safetensors(path):
        return load(path)
    network = import_network(path)
    return network, _nameless_card(network.architecture)


def _local_path(model: str | os.PathLike[str]) -> Path:
    """Return the file of a bundled model, of an address on the hub, or of a path.

    Raises:
        ValueError, OSError: As `hub.fetch_model`.
    """
    if str(model) in BUNDLED:
        return bundled_path(str(model))
    if not is_hub_address(model):
        return Path(model)
    path = fetch_model(model).path
    if not is_safetensors(path):  # never as a checkpoint of PyTorch, whatever it holds
        raise ValueError(f"{model} is damaged, or not a safetensors file, which files of the hub have to be.")
    return path


def locate_model(model: str | os.PathLike[str]) -> str:
    """Return the argument of `open_model` for the same model from any working folder."""
    named = os.fspath(pin(model))
    return named if named in BUNDLED or is_hub_address(named) else str(Path(named).resolve())


def new_model(
    architecture: Architecture,
    encoder_weights: str | os.PathLike[str] | None,
    seed: int,
    calibration_images: Callable[[], torch.Tensor],
) -> tuple[Network, ModelCard]:
    """Build an untrained network, with encoder weights from "imagenet", a bundled model, a file, or random ones (None).

    Random weights depend on the seed alone; PyTorch's global generator is not advanced.

    Raises:
        ValueError: The encoder or its weights cannot be used.
        OSError: The file cannot be read.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        is_imagenet = encoder_weights == IMAGENET_WEIGHTS
        # ImageNet's weights are for RGB: those of other bands are made of them.
        network = Network(replace(architecture, bands=()) if is_imagenet else architecture, pretrained=is_imagenet)
        if architecture.bands:
            network = network.with_bands(architecture.bands)
        if encoder_weights is not None and not is_imagenet:
            load_encoder_weights(network, _local_path(encoder_weights), calibration_images)
    return network, _nameless_card(architecture)


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device, or else a GPU if there is one; each of several processes gets its own.

    Raises:
        ValueError: The device is not available.
    """
    if device is None:
        return local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        chosen = local_device(torch.device(device))
        torch.empty(1, device=chosen)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # raised by PyTorch, depending on the kind of device
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device {str(device)!r} cannot be used ({reason}). Try 'cpu'.") from error
    return chosen


def _nameless_card(architecture: Architecture) -> ModelCard:
    classes = architecture.num_classes
    return ModelCard(architecture=architecture, label_set=LabelSet.numbered(classes) if classes else NO_CLASSES)
