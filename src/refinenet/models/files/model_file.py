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

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from refinenet.io.files import write_atomically
from refinenet.models.encoders.encoder import FEATURE_INFO
from refinenet.models.encoders.feature_info import base_name
from refinenet.models.files.file_checks import printable
from refinenet.models.files.int8_record import Int8Record
from refinenet.models.files.model_card import (
    BUNDLED,
    FORMAT_VERSION,
    HEADER_KEY,
    NO_HASH,
    OUTPUTS_VERSION,
    SEAL,
    ModelCard,
    bundled_path,
    describe_preprocessing,
    hash_header,
    make_header,
    read_sealed_header,
)
from refinenet.models.files.tensor_files import check_tensors, digest, read_safetensors
from refinenet.models.network import Network


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
    sealed = {**header, **int8, "format_version": version, SEAL: NO_HASH}
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
    escaped = rf"\"{SEAL}\": \"".encode(
        "ascii"
    )  # our JSON is a string inside the JSON of the header, so its quotes are escaped
    assert start.count(escaped + NO_HASH.encode("ascii")) == 1
    actual = hash_header(json.loads(start[8:]), NO_HASH).encode("ascii")
    return start.replace(escaped + NO_HASH.encode("ascii"), escaped + actual) + body


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
        card, preprocessing = read_sealed_header(index)
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
            f"{path} is damaged: its weights have the SHA-256 {actual}, but its header says {card.weights_sha256}. "
            "Copy or download it again."
        )
    # A published network consists of its weights alone, so it needs no initialisation; timm's may hold other tables.
    published = base_name(card.architecture.encoder) in FEATURE_INFO
    network = network if published else Network(card.architecture)
    stored = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in tensors.items()}
    network.load_state_dict(stored, assign=published)
    if describe_preprocessing(network) != preprocessing:
        raise ValueError(
            f"{path} is inconsistent: its header describes the preprocessing as "
            f"{printable(json.dumps(preprocessing), limit=300)}, its weights as "
            f"{json.dumps(describe_preprocessing(network))}."
        )
    return network.eval(), card


def read_dtype(model: str | os.PathLike[str]) -> Literal["float32", "float16"]:
    """Return the type in which a model file, or a bundled model by its name, stores the kernels.

    Raises:
        ValueError: It is not a safetensors file.
        OSError: It cannot be read.
    """
    name = os.fspath(model)
    tensors, _ = read_safetensors(bundled_path(name) if name in BUNDLED else Path(name))
    return "float16" if any(tensor.dtype == torch.float16 for tensor in tensors.values()) else "float32"
