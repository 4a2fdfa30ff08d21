"""Recognition of a model file: its card, and the hash of the network in it, without building the network.

Nothing here needs PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from refinenet.models.files.file_checks import MAX_HEADER_BYTES, is_safetensors
from refinenet.models.files.model_card import ModelCard, read_sealed_header, refuse_doubled_keys

Arrays = Mapping[str, npt.NDArray[Any]]
_TYPES: Mapping[str, str] = {"F16": "torch.float16", "F32": "torch.float32", "I64": "torch.int64"}
"""Types of the tensors that `model_file.save` writes, as safetensors and PyTorch name them."""


def recognise(path: Path) -> tuple[ModelCard, str] | None:
    """Return the card of an undamaged model file, and the hexadecimal SHA-256 of its network in float32.

    The hash is that of `digest(network.state_dict())`, the network as `model_file.load` returns it.

    Returns:
        None for a file that this cannot vouch for. `model_file.load` says what is wrong with it, or reads it after all.
    """
    try:
        if not is_safetensors(path):
            return None
        content = path.read_bytes()
        header = _read_header(content)
        card, preprocessing = read_sealed_header(header)
        arrays = safetensors.numpy.load(content)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, safetensors.SafetensorError):
        return None
    types = {name: header[name]["dtype"] for name in arrays}
    if _digest(arrays, types) != card.weights_sha256 or not _fits(preprocessing, arrays):
        return None
    halves = [name for name in arrays if types[name] == "F16"]
    if not halves:
        return card, card.weights_sha256
    widened = {**arrays, **{name: arrays[name].astype(np.float32) for name in halves}}
    return card, _digest(widened, {**types, **dict.fromkeys(halves, "F32")})


def _read_header(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"its header claims {length} bytes")
    header: dict[str, Any] = json.loads(content[8 : 8 + length], object_pairs_hook=refuse_doubled_keys)
    others = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} - set(_TYPES)
    if others:
        raise ValueError(f"it has tensors of the types {others}")
    return header


def _digest(arrays: Arrays, types: Mapping[str, str]) -> str:
    """Return what `tensor_files.digest` returns for the same tensors: both hash by `hash_tensors`."""
    return hash_tensors(
        (name, _TYPES[types[name]], arrays[name].shape, arrays[name].tobytes()) for name in sorted(arrays)
    )


def hash_tensors(tensors: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """Return the hexadecimal SHA-256 over name, type, shape and little-endian bytes of tensors.

    Args:
        tensors: Name, PyTorch's name of the type, shape and bytes of each, sorted by name.
    """
    total = hashlib.sha256()
    for name, kind, shape, content in tensors:
        total.update(f"{name} {kind} {shape}\n".encode())
        total.update(content)
    return total.hexdigest()


def _fits(preprocessing: Mapping[str, Any], arrays: Arrays) -> bool:
    """Whether the preprocessing in the header is that of the weights."""
    stated = {name: preprocessing.get(name) for name in ("mean", "std")}
    return stated == {name: arrays[name].ravel().tolist() if name in arrays else None for name in stated}
