"""From what users name a model by to a network and its card."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from refinenet.distributed import local_device
from refinenet.io.files import refuse_address
from refinenet.labels import LabelSet
from refinenet.models.encoders.encoder import PUBLISHED_RESNETS
from refinenet.models.importers import import_checkpoint, load_encoder_weights
from refinenet.models.inference_graph import EXPORTED_SUFFIXES
from refinenet.models.model_file import BUNDLED, ModelCard, bundled_path, load
from refinenet.models.network import Architecture, ModelType, Network
from refinenet.models.tensor_files import is_safetensors
from refinenet.settings import DEFAULT_SEED

DOWNLOAD = "Download it first (with `hf download OWNER/NAME` from Hugging Face), and pass the file."

DEFAULT_CLASSES = 21
"""Classes of an untrained network when nobody says: PASCAL VOC's, as the networks were published."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a user says of the network to begin with; None leaves it to the model file, or to what is usual.

    Raises:
        ValueError: a value is not allowed, or two contradict each other.
    """

    model_type: ModelType | None = None
    num_layers: int | None = None
    encoder: str | None = None
    num_classes: int | None = None
    model: str | os.PathLike[str] | None = None
    encoder_weights: str | os.PathLike[str] | None = None
    seed: int | None = None
    """From which the random weights of a new network follow."""

    def __post_init__(self) -> None:
        for key, value in (("model", self.model), ("encoder_weights", self.encoder_weights)):
            refuse_address(key, value, DOWNLOAD)
        if self.model is not None and not (isinstance(self.model, str | os.PathLike) and os.fspath(self.model)):
            raise ValueError(
                f"model is a file, or the name of a model that ships with the package, not {self.model!r}."
            )
        if self.encoder == "":
            raise ValueError("encoder is the name of a network, such as 'mobilenetv2_100', not ''.")
        if self.num_layers is not None and not (type(self.num_layers) is int and self.num_layers in PUBLISHED_RESNETS):
            raise ValueError(f"num_layers is one of {PUBLISHED_RESNETS}, not {self.num_layers!r}.")
        if self.num_layers is not None and self.encoder is not None:
            raise ValueError(
                f"num_layers={self.num_layers} means a ResNet, encoder={self.encoder!r} another: pass one of the two."
            )
        if self.model is not None and self.encoder_weights is not None:
            raise ValueError("A saved model has its encoder's weights: pass model or encoder_weights, not both.")
        if self.model is not None and self.seed is not None:
            raise ValueError("A saved model has its weights: pass model or seed, not both.")
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 2**63):
            raise ValueError(f"seed is a whole number from 0 to 2^63 - 1, not {self.seed!r}.")

    @property
    def encoder_name(self) -> str | None:
        """The encoder that is asked for, by timm's name."""
        return self.encoder if self.num_layers is None else f"resnet{self.num_layers}"

    @property
    def origin(self) -> Mapping[str, Any]:
        """The arguments of `RefineNet` that make the same network again, for a dataset that says its classes."""
        asked = {
            "model": self.model,
            "model_type": self.model_type,
            "num_layers": self.num_layers,
            "encoder": self.encoder,
            "encoder_weights": self.encoder_weights,
            "seed": self._seed if self.model is None else None,
        }
        return {key: value for key, value in asked.items() if value is not None}

    @property
    def _seed(self) -> int:
        return DEFAULT_SEED if self.seed is None else self.seed

    def open(
        self, device: str | torch.device | None, calibration_images: Callable[[], torch.Tensor]
    ) -> tuple[Network, ModelCard]:
        """Open the network, on a device and in evaluation mode, with its card.

        Args:
            device: As for `choose_device`.
            calibration_images: As for `load_encoder_weights`.

        Raises:
            ValueError: an argument contradicts the model file, or a file cannot be used.
            OSError: a file cannot be read.
        """
        chosen = choose_device(device)
        network, card = self._open_network(calibration_images)
        return network.to(chosen).eval(), card

    def _open_network(self, calibration_images: Callable[[], torch.Tensor]) -> tuple[Network, ModelCard]:
        if self.model is not None:
            network, card = open_model(self.model)
            self.check(card)
            return network, card
        name = self.encoder_name
        architecture = Architecture(
            model_type=self.model_type or ("full" if self.encoder is None else "lightweight"),
            encoder=name or "resnet50",
            num_classes=DEFAULT_CLASSES if self.num_classes is None else self.num_classes,
        )
        return new_model(architecture, self.encoder_weights, self._seed, calibration_images)

    def check(self, card: ModelCard) -> None:
        """Refuse a model file that is not what was asked for.

        Raises:
            ValueError: as `check_asked`.
        """
        assert self.model is not None
        asked = {"model_type": self.model_type, "encoder": self.encoder_name, "num_classes": self.num_classes}
        check_asked(card, self.model, **asked)


def open_model(model: str | os.PathLike[str]) -> tuple[Network, ModelCard]:
    """Load a bundled model by its name, a model file, or a published checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no model, is damaged, or is an exported one, which is no network any more.
    """
    refuse_address("model", model, DOWNLOAD)
    if Path(model).suffix.lower() in EXPORTED_SUFFIXES:
        raise ValueError(told_as_exported(model))
    path = bundled_path(str(model)) if str(model) in BUNDLED else Path(model)
    try:
        if is_safetensors(path):
            return load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Models that ship inside the package: {', '.join(BUNDLED)}.") from error
    network = import_checkpoint(path)
    return network, _nameless_card(network.architecture)


def locate_model(model: str | os.PathLike[str]) -> str:
    """What `open_model` takes for the same model from any working folder."""
    named = os.fspath(model)
    return named if named in BUNDLED else str(Path(named).resolve())


def told_as_exported(model: str | os.PathLike[str]) -> str:
    """Why an exported file does not do, and what does."""
    return (
        f"{model} is an exported graph: it segments and can be measured, but has no weights to train, calibrate, save "
        "or convert. Use the model file (.safetensors) that it was exported from, and export again."
    )


def check_asked(card: ModelCard, model: str | os.PathLike[str], **asked: str | int | None) -> None:
    """Hold what a user asked for against what a model is; None asks for nothing.

    Raises:
        ValueError: the two contradict each other.
    """
    found = card.architecture.to_dict()
    for key, value in asked.items():
        if value is not None and value != found[key]:
            raise ValueError(f"{model} has {key}={found[key]!r}, not {value!r}. Leave {key} out: the file says it.")


def new_model(
    architecture: Architecture,
    encoder_weights: str | os.PathLike[str] | None,
    seed: int,
    calibration_images: Callable[[], torch.Tensor],
) -> tuple[Network, ModelCard]:
    """Build an untrained network, its encoder from "imagenet", a file, or random weights (None).

    Random weights follow from the seed alone; PyTorch's own generator stays as it is.

    Raises:
        ValueError: the encoder or its weights cannot be used.
        OSError: the file cannot be read.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        network = Network(architecture, pretrained=encoder_weights == "imagenet")
    if encoder_weights is not None and encoder_weights != "imagenet":
        load_encoder_weights(network, Path(encoder_weights), calibration_images)
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
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch's, by the kind of device
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device {str(device)!r} cannot be used here ({reason}). Try 'cpu'.") from error
    return chosen


def _nameless_card(architecture: Architecture) -> ModelCard:
    return ModelCard(architecture=architecture, label_set=LabelSet.numbered(architecture.num_classes))
