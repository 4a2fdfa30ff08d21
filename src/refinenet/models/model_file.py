"""Model file: a safetensors file with a JSON header that describes everything needed to use the weights.

The metadata of the header hold, under the key "refinenet", a JSON object: format version, architecture, label set,
preprocessing, scores with their protocol, licence, recipe, package version and the SHA-256 of the weights; and the
temperature that calibrates confidence, if one was fitted, and under "int8" what the network needs to run in int8, if it
was quantised (`int8_record`).

Since format version 2 it also holds "header_sha256": the SHA-256 of the whole safetensors header (type, shape and
offsets of each tensor, and all metadata) as JSON with sorted keys, `json.dumps(header, sort_keys=True)` in Python, in
which 64 zeros replace this hash itself. Version 1 has no such hash; its files can still be read.

Version 3 is written only for networks that version 2 cannot describe: with outputs besides classes, other options of
the decoder, several scales of the image, or other bands than RGB of 8 bits. Its architecture has the entries "outputs",
"decoder_options", "input_scales" and "bands", each left out where it is the default, and its label set may be empty.
With bands the "channel_order" of the preprocessing is the list of their names.
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
from refinenet.models.encoders.encoder import FEATURE_INFO
from refinenet.models.encoders.feature_info import base_name
from refinenet.models.int8_record import Int8Record
from refinenet.models.licences import UNSTATED
from refinenet.models.network import Architecture, Network
from refinenet.models.tensor_files import check_tensors, digest, printable, read_safetensors, refuse_doubled_keys

FORMAT_VERSION = 2
"""Format version of new model files of networks that it can describe."""
OUTPUTS_VERSION = 3
"""Format version of model files, and of headers in exported files, of other networks."""
UNSEALED_VERSION = 1
"""Format version without a hash of the header: of earlier model files, and of headers in exported files, which have
their own checksum (`export.loading.checksum`)."""
BUNDLED = ("camvid",)
"""Models that ship inside the package, by name."""

_DOMAINS: Mapping[str, str] = {"camvid": "urban street scenes seen from a car"}
"""Subject of the training images of the bundled models."""

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
_SEALED_VERSIONS = (FORMAT_VERSION, OUTPUTS_VERSION)
_OPTIONAL_TYPES: Mapping[str, type] = {"temperature": float, "value_range": list, "longest_side": int, "int8": dict}
"""Entries that are written only if they differ from the default."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of the weights in a model file.

    Raises:
        ValueError: Architecture and label set differ in the number of classes, or the temperature is not above 0.
    """

    architecture: Architecture
    label_set: LabelSet
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Metrics and the protocol of their evaluation; empty if nothing was evaluated."""
    licence: str = UNSTATED
    """Terms under which the weights may be used."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Record of how the weights were trained."""
    weights_sha256: str = ""
    """Hexadecimal SHA-256 of the weights as stored (`digest`); empty if the weights were never saved."""
    temperature: float = 1.0
    """Divisor of the logits before softmax (`calibration.fit_temperature`); above 0."""
    value_range: ValueRange | None = None
    """Stored values of images that were black and white in training; None for the range of their type."""
    longest_side: int | None = None
    """Length, in pixels, to which the longer side of larger images was reduced in training; None for no limit."""
    int8: Int8Record | None = None
    """How the network runs in int8, if it was quantised; it is saved only with the weights that were."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature must be a number above 0, not {self.temperature!r}")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))
        if self.longest_side is not None and not (type(self.longest_side) is int and self.longest_side >= 1):
            raise ValueError(f"the longest side must be a whole number of at least 1, not {self.longest_side!r}")
        if self.value_range is not None and self.architecture.bands:
            raise ValueError("a network of named bands has a range for each of them, and no value range")
        if len(self.label_set) != self.architecture.num_classes:
            raise ValueError(
                f"the label set names {len(self.label_set)} classes, the network has {self.architecture.num_classes}"
            )


def bundled_path(name: str) -> Path:
    """Return the path of a model that ships inside the package."""
    return Path(str(resources.files("refinenet"))) / "models" / "pretrained" / f"{name}.safetensors"


def save(
    path: str | os.PathLike[str], network: Network, card: ModelCard, dtype: Literal["float32", "float16"]
) -> ModelCard:
    """Write a model file, completely or not at all.

    Args:
        path: The file; missing folders are created.
        network: Network with the weights.
        card: Description of the weights.
        dtype: "float16" halves the file: kernels and matrices; normalisation and biases stay float32.

    Returns:
        The card with the hash of the stored weights.

    Raises:
        ValueError: A weight is not finite, or is not in float16.
        OSError: The file cannot be written.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"Weights are stored as float32 or float16, not {dtype!r}.")
    stored = {name: _as_stored(tensor, dtype) for name, tensor in network.state_dict().items()}
    check_tensors(stored, stored, f"the model to be saved to {path}")
    header = make_header(network, card, digest(stored))
    # The header hash is computed over the encoded file, so zeros of the same length keep its place.
    version = FORMAT_VERSION if card.architecture.is_plain else OUTPUTS_VERSION
    record = _find_record(card, network, stored)
    int8 = {} if record is None else {"int8": record.to_dict()}
    sealed = {**header, **int8, "format_version": version, _SEAL: _NO_HASH}
    content = safetensors.torch.save(stored, {HEADER_KEY: json.dumps(sealed, sort_keys=True, allow_nan=False)})
    write_atomically(path, _seal_header(content))
    return replace(card, weights_sha256=header["weights_sha256"], int8=record)


def _find_record(card: ModelCard, network: Network, stored: Mapping[str, Tensor]) -> Int8Record | None:
    """Return the record of int8 if it is of the weights that whoever reads the file gets."""
    if card.int8 is None:
        return None
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    read = digest({name: tensor.to(types[name]) for name, tensor in stored.items()})
    return card.int8 if card.int8.network_sha256 == read else None


def _seal_header(content: bytes) -> bytes:
    """Replace the zeros in the header of a safetensors file by the hash of the header."""
    end = 8 + int.from_bytes(content[:8], "little")
    start, body = content[:end], content[end:]
    escaped = rf"\"{_SEAL}\": \"".encode(
        "ascii"
    )  # our JSON is a string inside the JSON of the header, so its quotes are escaped
    assert start.count(escaped + _NO_HASH.encode("ascii")) == 1
    actual = _hash_header(json.loads(start[8:]), _NO_HASH).encode("ascii")
    return start.replace(escaped + _NO_HASH.encode("ascii"), escaped + actual) + body


def _hash_header(header: Mapping[str, Any], stated: str) -> str:
    """Return the hexadecimal SHA-256 of a safetensors header, with zeros in place of the hash that it states."""
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
        The network, float32 on the CPU, in evaluation mode, and its card.

    Raises:
        ValueError: The file is damaged, was not written by this package, or its parts contradict each other.
        OSError: The file cannot be read.
    """
    tensors, index = read_safetensors(path)
    try:
        card, preprocessing = _read_sealed_header(index)
        with torch.device("meta"):  # shapes first: a file cannot make us allocate more than it holds
            network = Network(card.architecture)
    except (ValueError, TypeError, RecursionError) as error:
        reason = printable(str(error), limit=500)
        raise ValueError(f"{path} is not a usable model file of this package: {reason}") from error
    expected = network.state_dict()
    check_tensors(tensors, expected, path)
    actual = digest(tensors)
    if actual != card.weights_sha256:
        raise ValueError(
            f"{path} is damaged: its weights have the SHA-256 {actual}, its header says {card.weights_sha256}. "
            "Copy or download it again."
        )
    # A published network consists of its weights alone, so it needs no initialisation; timm's may hold other tables.
    published = base_name(card.architecture.encoder) in FEATURE_INFO
    network = network if published else Network(card.architecture)
    stored = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in tensors.items()}
    network.load_state_dict(stored, assign=published)
    if _preprocessing(network) != preprocessing:
        raise ValueError(
            f"{path} is inconsistent: its header describes the preprocessing as "
            f"{printable(json.dumps(preprocessing), limit=300)}, its weights as {json.dumps(_preprocessing(network))}."
        )
    return network.eval(), card


def read_dtype(model: str | os.PathLike[str]) -> Literal["float32", "float16"]:
    """Return the type in which a model file, or a bundled model by its name, stores the kernels.

    Raises:
        ValueError: It is no safetensors file.
        OSError: It cannot be read.
    """
    name = os.fspath(model)
    tensors, _ = read_safetensors(bundled_path(name) if name in BUNDLED else Path(name))
    return "float16" if any(tensor.dtype == torch.float16 for tensor in tensors.values()) else "float32"


def describe_bundled(name: str) -> str:
    """Describe a bundled model: number of classes, kind of scenes, and class names."""
    with safetensors.safe_open(bundled_path(name), "pt") as stream:
        header = _parse_header(stream.metadata() or {}, (UNSEALED_VERSION, *_SEALED_VERSIONS))
    header.pop(_SEAL, None)  # checked when the model is loaded
    card, _ = _read_entries(header)
    return f"{len(card.label_set)} classes of {_DOMAINS[name]} ({', '.join(card.label_set.names)})"


def _read_sealed_header(index: Mapping[str, Any]) -> tuple[ModelCard, dict[str, Any]]:
    """Read the header of a model file as `read_header` does, and check its own hash if it has one."""
    header = _parse_header(index.get("__metadata__") or {}, (UNSEALED_VERSION, *_SEALED_VERSIONS))
    if header["format_version"] in _SEALED_VERSIONS:
        stated = header.pop(_SEAL, None)
        if not (isinstance(stated, str) and _SHA256.fullmatch(stated)):
            raise ValueError(f"its header has no {_SEAL!r} of 64 hexadecimal digits: it is damaged")
        actual = _hash_header(index, stated)
        if actual != stated:
            raise ValueError(
                f"it is damaged: its header has the SHA-256 {actual} and states {stated}. Copy or download it again, "
                "or save the model again with this package to change its header"
            )
    return _read_entries(header)


def make_header(network: Network, card: ModelCard, weights_sha256: str) -> dict[str, Any]:
    """Return the header of a file as JSON-ready values for `read_header`.

    Args:
        network: The network in the file.
        card: Description of the weights.
        weights_sha256: Hexadecimal SHA-256 of the weights.
    """
    return {
        "format_version": UNSEALED_VERSION if card.architecture.is_plain else OUTPUTS_VERSION,
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
        **({"longest_side": card.longest_side} if card.longest_side is not None else {}),
    }


def _preprocessing(network: Network) -> dict[str, Any]:
    """Return the normalisation of images before the first layer: (value - mean) / std per channel."""
    return {
        "channel_order": list(network.architecture.band_names) if network.architecture.bands else "RGB",
        "range": [0.0, 1.0],
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
    }


def read_header(metadata: Mapping[str, str]) -> tuple[ModelCard, dict[str, Any]]:
    """Return the card and the preprocessing from the metadata of a file.

    Args:
        metadata: Metadata, with the JSON of `make_header` under "refinenet".

    Raises:
        ValueError, TypeError, RecursionError: They are missing, or a value is not allowed.
    """
    return _read_entries(_parse_header(metadata, (UNSEALED_VERSION, OUTPUTS_VERSION)))


def _parse_header(metadata: Mapping[str, str], versions: Sequence[int]) -> dict[str, Any]:
    if HEADER_KEY not in metadata:
        raise ValueError(f"its header has no entry {HEADER_KEY!r}")
    header = json.loads(metadata[HEADER_KEY], object_pairs_hook=refuse_doubled_keys, parse_constant=_refuse_constant)
    if not isinstance(header, dict):
        raise ValueError(f"its header's {HEADER_KEY!r} is not a JSON object")
    version = header.get("format_version")
    if (
        type(version) is not int or version not in versions
    ):  # checked first, because another version may have other entries
        raise ValueError(
            f"its format version is {printable(repr(version))}, this package reads "
            f"{', '.join(map(str, versions[:-1]))} and {versions[-1]}; a newer package may read it"
        )
    return header


def _read_entries(header: Mapping[str, Any]) -> tuple[ModelCard, dict[str, Any]]:
    if set(header) - set(_OPTIONAL_TYPES) != set(_HEADER_TYPES):
        optional = ", ".join(_OPTIONAL_TYPES)
        raise ValueError(
            f"its header should have exactly the entries {sorted(_HEADER_TYPES)}, and optionally {optional}"
        )
    for key, kind in {**_HEADER_TYPES, **_OPTIONAL_TYPES}.items():
        if key in header and not isinstance(header[key], kind):
            raise ValueError(f"its header's {key!r} is not a {kind.__name__}")
    architecture = Architecture(**header["architecture"])
    if header["format_version"] < OUTPUTS_VERSION and not architecture.is_plain:
        raise ValueError(f"its architecture has entries that format version {header['format_version']} does not know")
    card = ModelCard(
        architecture=architecture,
        label_set=LabelSet.from_dict(header["label_set"]),
        scores=header["scores"],
        licence=header["licence"],
        recipe=header["recipe"],
        weights_sha256=header["weights_sha256"],
        temperature=header.get("temperature", 1.0),
        value_range=header.get("value_range"),
        longest_side=header.get("longest_side"),
        int8=Int8Record.from_dict(header["int8"]) if "int8" in header else None,
    )
    return card, header["preprocessing"]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
