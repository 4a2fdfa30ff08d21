"""The model file: one safetensors file with a JSON header that says all that is needed to use the weights.

The header's metadata holds, under the key "refinenet", a JSON object: format version, architecture, label set,
preprocessing, scores with their protocol, licence, recipe, package version and the SHA-256 of the weights; and, where
one was fitted, the temperature that makes confidence mean what it says.

Since format version 2 it also holds "header_sha256": the SHA-256 of the whole safetensors header (each tensor's type,
shape and place, and all metadata) as JSON with sorted keys, `json.dumps(header, sort_keys=True)` in Python, in which
64 zeros stand for this hash itself. Version 1 has no such hash; its files are read as before.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from refinenet._version import __version__
from refinenet.io.files import write_atomically
from refinenet.io.sample_values import ValueRange, check_value_range
from refinenet.labels import LabelSet
from refinenet.models.encoders.encoder import FEATURE_INFO, base_name
from refinenet.models.network import Architecture, Network
from refinenet.models.tensor_files import check_tensors, digest, printable, read_safetensors, refuse_doubled_keys

FORMAT_VERSION = 2
"""Of new model files."""
UNSEALED_VERSION = 1
"""Of model files before, whose header had no hash, and of the headers in exported files, which have a hash of their own
(`exported.seal`)."""
BUNDLED = ("camvid",)
"""Models that ship inside the package, by name."""

_DOMAINS: Mapping[str, str] = {"camvid": "urban street scenes seen from a car"}
"""What the training images of the bundled models show."""

HEADER_KEY = "refinenet"
_HEADER_TYPES: Mapping[str, type] = {
    "architecture": dict,
    "format_version": int,
    "label_set": dict,
    "licence": str,
    "package_version": str,
    "preprocessing": dict,
    "recipe": dict,
    "scores": dict,
    "weights_sha256": str,
}
_SEAL = "header_sha256"
_NO_HASH = "0" * 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTIONAL_TYPES: Mapping[str, type] = {"temperature": float, "value_range": list}
"""Entries that are written only where they say something."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model file says of its weights.

    Raises:
        ValueError: the architecture and the label set are not of the same number of classes, or the temperature is not
            above 0.
    """

    architecture: Architecture
    label_set: LabelSet
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Measured figures and the protocol that they were measured by; empty when nothing was measured."""
    licence: str = "not stated"
    """Terms under which the weights may be used."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How the weights were made."""
    weights_sha256: str = ""
    """Hexadecimal SHA-256 of the weights as stored (`digest`); empty for weights that were never saved."""
    temperature: float = 1.0
    """What logits are divided by before they become probabilities (`temperature.fit_temperature`); above 0."""
    value_range: ValueRange | None = None
    """The stored values of images that were black and white in training; None for those of their types."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature is a number above 0, not {self.temperature!r}")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))
        if len(self.label_set) != self.architecture.num_classes:
            raise ValueError(
                f"the label set names {len(self.label_set)} classes, the network tells "
                f"{self.architecture.num_classes} apart"
            )


def bundled_path(name: str) -> Path:
    """Where a model that ships inside the package lies."""
    return Path(str(resources.files("refinenet"))) / "models" / "pretrained" / f"{name}.safetensors"


def save(
    path: str | os.PathLike[str], network: Network, card: ModelCard, dtype: Literal["float32", "float16"]
) -> ModelCard:
    """Write a model file, whole or not at all.

    Args:
        path: Where; missing folders are made.
        network: The weights to store.
        card: What to say of them.
        dtype: "float16" halves the file: kernels and matrices; normalisation and biases stay float32.

    Returns:
        The card with the stored weights' hash.

    Raises:
        ValueError: a weight is not a finite number, or has none in float16.
        OSError: the file cannot be written.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"Weights are stored as float32 or float16, not {dtype!r}.")
    stored = {name: _as_stored(tensor, dtype) for name, tensor in network.state_dict().items()}
    check_tensors(stored, stored, f"the model to be saved to {path}")
    header = make_header(network, card, digest(stored))
    sealed = {**header, "format_version": FORMAT_VERSION, _SEAL: _NO_HASH}
    content = safetensors.torch.save(stored, {HEADER_KEY: json.dumps(sealed, sort_keys=True, allow_nan=False)})
    write_atomically(path, _seal_header(content))
    return replace(card, weights_sha256=header["weights_sha256"])


def _seal_header(content: bytes) -> bytes:
    """A safetensors file whose header states its own hash instead of zeros."""
    end = 8 + int.from_bytes(content[:8], "little")
    start, body = content[:end], content[end:]
    escaped = rf"\"{_SEAL}\": \"".encode("ascii")  # our JSON is a text inside the header's JSON
    assert start.count(escaped + _NO_HASH.encode("ascii")) == 1
    found = _hash_header(json.loads(start[8:]), _NO_HASH).encode("ascii")
    return start.replace(escaped + _NO_HASH.encode("ascii"), escaped + found) + body


def _hash_header(header: Mapping[str, Any], stated: str) -> str:
    """SHA-256, hexadecimal, of a safetensors header with zeros for the hash that it states."""
    metadata = header["__metadata__"]
    opened = metadata[HEADER_KEY].replace(f'"{_SEAL}": "{stated}"', f'"{_SEAL}": "{_NO_HASH}"')
    content = {**header, "__metadata__": {**metadata, HEADER_KEY: opened}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()


def _as_stored(tensor: Tensor, dtype: Literal["float32", "float16"]) -> Tensor:
    halved = dtype == "float16" and tensor.ndim in (2, 4) and tensor.is_floating_point()
    stored = tensor.detach().cpu().to(torch.float16 if halved else tensor.dtype)
    return stored.contiguous(memory_format=torch.contiguous_format)


def load(path: Path) -> tuple[Network, ModelCard]:
    """Read a model file.

    Returns:
        The network, float32 on the CPU, in evaluation mode, and what the file says of it.

    Raises:
        ValueError: the file is damaged, was not written by this package, or its parts contradict each other.
        OSError: the file cannot be read.
    """
    tensors, index = read_safetensors(path)
    try:
        card, preprocessing = _read_sealed_header(index)
        with torch.device("meta"):  # shapes first: a file cannot make us allocate more than it holds
            network = Network(card.architecture)
    except (ValueError, TypeError, RecursionError) as error:
        reason = printable(str(error), limit=500)
        raise ValueError(f"{path} is no usable model file of this package: {reason}") from error
    expected = network.state_dict()
    check_tensors(tensors, expected, path)
    found = digest(tensors)
    if found != card.weights_sha256:
        raise ValueError(
            f"{path} is damaged: its weights have the SHA-256 {found}, its header says {card.weights_sha256}. "
            "Copy or download it again."
        )
    # A published network is its weights alone, and needs no random ones first; timm's may hold tables beside.
    published = base_name(card.architecture.encoder) in FEATURE_INFO
    network = network if published else Network(card.architecture)
    own = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in tensors.items()}
    network.load_state_dict(own, assign=published)
    if _preprocessing(network) != preprocessing:
        raise ValueError(
            f"{path} contradicts itself: its header says the images are prepared by "
            f"{printable(json.dumps(preprocessing), limit=300)}, its weights by {json.dumps(_preprocessing(network))}."
        )
    return network.eval(), card


def describe_bundled(name: str) -> str:
    """What a bundled model knows: how many classes, of which scenes, and their names."""
    with safetensors.safe_open(bundled_path(name), "pt") as stream:
        header = _parse_header(stream.metadata() or {}, (UNSEALED_VERSION, FORMAT_VERSION))
    header.pop(_SEAL, None)  # compared where the model is loaded
    card, _ = _read_entries(header)
    return f"{len(card.label_set)} classes of {_DOMAINS[name]} ({', '.join(card.label_set.names)})"


def _read_sealed_header(index: Mapping[str, Any]) -> tuple[ModelCard, dict[str, Any]]:
    """As `read_header`, of a model file, whose header is compared with its own hash where it has one."""
    header = _parse_header(index.get("__metadata__") or {}, (UNSEALED_VERSION, FORMAT_VERSION))
    if header["format_version"] == FORMAT_VERSION:
        stated = header.pop(_SEAL, None)
        if not (isinstance(stated, str) and _SHA256.fullmatch(stated)):
            raise ValueError(f"its header has no {_SEAL!r} of 64 hexadecimal digits: it is damaged")
        found = _hash_header(index, stated)
        if found != stated:
            raise ValueError(
                f"it is damaged: its header has the SHA-256 {found} and states {stated}. Copy or download it again, "
                "or save the model again with this package to change what it says"
            )
    return _read_entries(header)


def make_header(network: Network, card: ModelCard, weights_sha256: str) -> dict[str, Any]:
    """What a file says of a network: JSON-ready values, which `read_header` reads again.

    Args:
        network: What the file holds.
        card: What is said of it.
        weights_sha256: Hexadecimal SHA-256 of its weights.
    """
    return {
        "format_version": UNSEALED_VERSION,
        "architecture": card.architecture.to_dict(),
        "label_set": card.label_set.to_dict(),
        "preprocessing": _preprocessing(network),
        "scores": dict(card.scores),
        "licence": card.licence,
        "recipe": dict(card.recipe),
        "package_version": __version__,
        "weights_sha256": weights_sha256,
        **({"temperature": card.temperature} if card.temperature != 1 else {}),
        **({"value_range": list(card.value_range)} if card.value_range is not None else {}),
    }


def _preprocessing(network: Network) -> dict[str, Any]:
    """How images become what the first layer sees: (value - mean) / std of each channel."""
    return {
        "channel_order": "RGB",
        "range": [0.0, 1.0],
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
    }


def read_header(metadata: Mapping[str, str]) -> tuple[ModelCard, dict[str, Any]]:
    """The card and the preprocessing that a file's metadata state.

    Args:
        metadata: Of which the entry "refinenet" is the text of `make_header`'s JSON.

    Raises:
        ValueError, TypeError, RecursionError: they state neither, or what is not allowed.
    """
    return _read_entries(_parse_header(metadata, (UNSEALED_VERSION,)))


def _parse_header(metadata: Mapping[str, str], versions: Sequence[int]) -> dict[str, Any]:
    if HEADER_KEY not in metadata:
        raise ValueError(f"its header has no entry {HEADER_KEY!r}")
    header = json.loads(metadata[HEADER_KEY], object_pairs_hook=refuse_doubled_keys, parse_constant=_refuse_constant)
    if not isinstance(header, dict):
        raise ValueError(f"its header's {HEADER_KEY!r} is not a JSON object")
    version = header.get("format_version")
    if type(version) is not int or version not in versions:  # first: another version may have other entries
        raise ValueError(
            f"its format version is {printable(repr(version))}, this package reads "
            f"{' and '.join(map(str, versions))}; a newer package may read it"
        )
    return header


def _read_entries(header: Mapping[str, Any]) -> tuple[ModelCard, dict[str, Any]]:
    if set(header) - set(_OPTIONAL_TYPES) != set(_HEADER_TYPES):
        optional = ", ".join(_OPTIONAL_TYPES)
        raise ValueError(f"its header should have exactly the entries {sorted(_HEADER_TYPES)}, and perhaps {optional}")
    for key, kind in {**_HEADER_TYPES, **_OPTIONAL_TYPES}.items():
        if key in header and not isinstance(header[key], kind):
            raise ValueError(f"its header's {key!r} is not a {kind.__name__}")
    card = ModelCard(
        architecture=Architecture(**header["architecture"]),
        label_set=LabelSet.from_dict(header["label_set"]),
        scores=header["scores"],
        licence=header["licence"],
        recipe=header["recipe"],
        weights_sha256=header["weights_sha256"],
        temperature=header.get("temperature", 1.0),
        value_range=header.get("value_range"),
    )
    return card, header["preprocessing"]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
