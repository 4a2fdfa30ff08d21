"""Named tensors from files: read into private memory without running code, and checked before use."""

from __future__ import annotations

import errno
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from refinenet.io.console import print_note
from refinenet.models.files.file_checks import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    enumerate_names,
    printable,
)
from refinenet.models.files.model_card import refuse_doubled_keys
from refinenet.models.recognition import hash_tensors

WRAPPERS = ("segmenter", "model", "weights", "state_dict")
"""Keys under which training scripts store the weights in `torch.save` files."""
_ARCHIVE_START = b"PK\x03\x04"

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

CORRUPT_FILE_ERRORS = (
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of torch.load on damaged or hostile files."""

_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (type(np.float64(0)).__reduce__(np.float64(0))[0], "numpy.core.multiarray.scalar"),
    (type(np.float64(0)).__reduce__(np.float64(0))[0], "numpy._core.multiarray.scalar"),
]
"""Types of NumPy numbers, which training scripts saved as their best score beside the weights."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file into private memory, so that later changes of the file have no effect.

    Returns:
        The tensors by name, and the header: type, shape and offsets of each tensor, and texts under "__metadata__".

    Raises:
        ValueError: The file is damaged, or its header is too long or has a repeated name.
    """
    content = path.read_bytes()
    # Checked before parsing: a false length must not make JSON read the whole file.
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"{path} is damaged: its header claims {length} bytes.")
    try:
        header = json.loads(content[8 : 8 + length], object_pairs_hook=refuse_doubled_keys)
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
    return tensors, header


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `torch.save` file, without wrappers and `module.` prefixes; its code is never run.

    Raises:
        ValueError: The file is damaged, would run code, or does not hold named tensors.
    """
    try:
        # An open file, because torch.load infers the format from the suffix of a path.
        with path.open("rb") as stream, torch.serialization.safe_globals(_NUMPY_SCALARS):
            has_checksums = check_archive(stream)
            stream.seek(0)
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except CORRUPT_FILE_ERRORS as error:
        # torch's own messages advise users to switch the protection off, so they are not shown
        reason = f": {error}" if type(error) is ValueError else ""
        raise ValueError(
            f"{path} cannot be read as a model: it is damaged, or it is a pickle that holds more than weights, "
            f"and code in model files is never run. ({type(error).__name__}{reason})"
        ) from error
    if not has_checksums:
        print_note(
            f"{path} has no checksums (torch.save wrote none before PyTorch 1.6): "
            "damage to its weights cannot be detected."
        )
    tensors = _unwrap(content, path)
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def check_archive(stream: BinaryIO) -> bool:
    """Check the CRC-32 of the parts of a `torch.save` archive, which `torch.load` does not check.

    Returns:
        Whether the file is an archive; older formats have no checksums.

    Raises:
        ValueError, zipfile.BadZipFile, zlib.error, RuntimeError: A part is damaged, compressed by another method than
            deflate, or larger than a model file may be. Archives may be compressed a thousandfold; `torch.save` never
            compresses, but `torch.load` unpacks.
    """
    stream.seek(0)
    looks_like_archive = stream.read(4) == _ARCHIVE_START  # torch.load checks no more than this
    if not looks_like_archive and not zipfile.is_zipfile(stream):
        return False
    try:
        damaged = _find_damaged_part(stream)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ValueError("its table of contents points outside the file") from error
    if damaged is not None:
        raise ValueError(f"the CRC-32 of its part {printable(repr(damaged))} differs: copy or download it again")
    return True


_FOLDER_ATTRIBUTE = 0x10
"""Bit of a folder in the attributes of MS-DOS, which archives store for each part."""


def _find_damaged_part(stream: BinaryIO) -> str | None:
    with zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > MAX_FILE_BYTES:
            raise ValueError(f"unpacked, it has {unpacked} bytes; a model file has at most {MAX_FILE_BYTES}")
        if len({part.filename for part in parts}) != len(parts):
            raise ValueError("two parts of the archive have the same name")
        if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
            raise ValueError("it is compressed by a method that torch.save does not use")
        # PyTorch's reader takes such a part for a folder and leaves its tensor unread, whatever its CRC-32.
        if any(part.is_dir() or part.external_attr & _FOLDER_ATTRIBUTE for part in parts):
            raise ValueError("a part of it is marked as a folder")
        return archive.testzip()  # reads 1 MiB at a time


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for _ in WRAPPERS:
        if not isinstance(content, Mapping):
            break
        wrapped = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not wrapped:
            break
        content = wrapped[0]
    if not isinstance(content, Mapping) or not content:
        found = "an empty map" if isinstance(content, Mapping) else f"an object of type {type(content).__name__}"
        raise ValueError(f"{path} holds {found}, not the weights of a network.")
    foreign = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if foreign:
        raise ValueError(
            f"{path} does not hold tensors by name; these are not tensors: {enumerate_names(map(str, foreign))}. "
            f"Weights may be at the top level or under one of the keys {', '.join(WRAPPERS)}."
        )
    return dict(content)


def check_tensors(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    """Check the tensors of a file against those of a network; only shapes and types of `expected` are used.

    Raises:
        ValueError: Tensors are missing, unexpected, of another shape or type, or not finite. All are named.
    """
    shared = sorted(set(given) & set(expected))
    misshapen = [name for name in shared if given[name].shape != expected[name].shape]
    fitting = [name for name in shared if given[name].shape == expected[name].shape]
    mistyped = [name for name in fitting if not _has_type_for(given[name], expected[name])]
    broken = [name for name in fitting if name not in mistyped and not _is_finite(given[name])]
    problems = [
        ("missing", sorted(set(expected) - set(given))),
        ("unexpected", sorted(set(given) - set(expected))),
        (
            "of another shape",
            [f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}" for name in misshapen],
        ),
        ("of another type", [f"{name} {given[name].dtype} instead of {expected[name].dtype}" for name in mistyped]),
        ("with values that are not finite numbers", broken),
    ]
    descriptions = [f"{len(names)} {kind}: {enumerate_names(names)}" for kind, names in problems if names]
    if descriptions:
        raise ValueError(
            f"The tensors of {source} do not fit the network they seem to be made for. " + "; ".join(descriptions)
        )


def _has_type_for(given: Tensor, expected: Tensor) -> bool:
    """Whether a tensor has a type that can be converted: floats to floats, integers to integers."""
    allowed = _FLOATS if expected.is_floating_point() else _WHOLE_NUMBERS
    return given.layout == torch.strided and given.dtype in allowed


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither infinities nor NaN."""
    values = tensor.detach().cpu()
    # NumPy, because PyTorch would synchronise its threads for each of hundreds of small tensors.
    return bool(np.isfinite((values.float() if values.dtype == torch.bfloat16 else values).numpy()).all())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal SHA-256 over name, type, shape and little-endian bytes of all tensors, sorted by name."""
    return hash_tensors(
        (name, str(tensors[name].dtype), tuple(tensors[name].shape), _bytes_of(tensors[name]))
        for name in sorted(tensors)
    )


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
