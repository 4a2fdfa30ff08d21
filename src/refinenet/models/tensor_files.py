"""Named tensors from files: read without running code, into private memory, and compared before they are used."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from refinenet.io.console import print_note

WRAPPERS = ("segmenter", "model", "weights", "state_dict")
"""Keys under which training scripts kept the weights in their `torch.save` files."""

MAX_FILE_BYTES = 2 * 1024**3
MAX_HEADER_BYTES = 10 * 1024**2
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
"""What torch.load raises on damaged or hostile files."""

_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (type(np.float64(0)).__reduce__(np.float64(0))[0], "numpy.core.multiarray.scalar"),
    (type(np.float64(0)).__reduce__(np.float64(0))[0], "numpy._core.multiarray.scalar"),
]
"""Training scripts saved their best score as a NumPy number beside the weights."""


def is_safetensors(path: Path) -> bool:
    """Whether a file starts as a safetensors file does: 8 bytes of length, then a JSON object.

    Raises:
        ValueError: the file is empty or larger than 2 GiB.
        OSError: there is no such file, it is a folder, or it cannot be read.
    """
    if path.is_dir():
        inside = path / "best.safetensors"
        hint = f" Did you mean {inside}?" if inside.exists() else ""
        raise IsADirectoryError(f"{path} is a folder, not a model file.{hint}")
    if not path.exists():
        raise FileNotFoundError(f"There is no model file {path}.")
    if not 0 < path.stat().st_size <= MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; a model file has 1 to {MAX_FILE_BYTES}.")
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:9] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file into private memory, so that a change of the file later changes nothing here.

    Returns:
        The tensors by name, and the header: each tensor's type, shape and place, and texts under "__metadata__".

    Raises:
        ValueError: the file is damaged, or its header is too long or names something twice.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"{path} is damaged: its header claims {length} bytes.")
    try:
        header = json.loads(content[8 : 8 + length], object_pairs_hook=refuse_doubled_keys)
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    return tensors, header


def refuse_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its parsed pairs: an `object_pairs_hook` that raises ValueError where a name comes twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return values


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a `torch.save` file's tensors by name, wrappers and `module.` prefixes taken off; its code is never run.

    Raises:
        ValueError: the file is damaged, wants to run code, or holds no tensors by name.
    """
    try:
        # An open file, since from a path's suffix torch.load would conclude what the file is.
        with path.open("rb") as stream, torch.serialization.safe_globals(_NUMPY_SCALARS):
            has_checksums = check_archive(stream)
            stream.seek(0)
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except CORRUPT_FILE_ERRORS as error:
        # torch's own texts advise to switch the protection off
        reason = f": {error}" if type(error) is ValueError else ""
        raise ValueError(
            f"{path} cannot be read as a model: it is damaged, or it is a pickle that holds more than weights, "
            f"and code in model files is never run here. ({type(error).__name__}{reason})"
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
    """Compare the parts of a `torch.save` archive with their CRC-32, which `torch.load` does not.

    Returns:
        Whether the file is an archive; older formats have no checksums.

    Raises:
        ValueError, zipfile.BadZipFile, zlib.error, RuntimeError: a part is damaged, compressed by other means than
            deflate, or larger than a model file may be. Archives may be compressed a thousandfold; `torch.save` never
            does it, but `torch.load` unpacks them.
    """
    stream.seek(0)
    looks_like_archive = stream.read(4) == _ARCHIVE_START  # all that torch.load looks at
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


def _find_damaged_part(stream: BinaryIO) -> str | None:
    with zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > MAX_FILE_BYTES:
            raise ValueError(f"unpacked it has {unpacked} bytes, a model file has up to {MAX_FILE_BYTES}")
        if len({part.filename for part in parts}) != len(parts):
            raise ValueError("two parts of the archive have the same name")
        if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
            raise ValueError("it is compressed by a method that torch.save does not use")
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
    strangers = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strangers:
        raise ValueError(
            f"{path} holds no plain map of tensors; not tensors are: {enumerate_names(map(str, strangers))}. "
            f"Weights may lie at the top or under one of the keys {', '.join(WRAPPERS)}."
        )
    return dict(content)


def check_tensors(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    """Compare a file's tensors with those that a network needs; of `expected` only shapes and types are read.

    Raises:
        ValueError: tensors are missing, unexpected, misshapen, of another type or not finite. All are named.
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
    found = [f"{len(names)} {kind}: {enumerate_names(names)}" for kind, names in problems if names]
    if found:
        raise ValueError(
            f"The tensors of {source} do not fit the network they seem to be made for. " + "; ".join(found)
        )


def printable(text: str, limit: int = 100) -> str:
    """The start of a text from a file, in which nothing that steers a terminal is left."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= limit else shown[:limit] + "..."


def _has_type_for(given: Tensor, expected: Tensor) -> bool:
    """Whether a tensor's values can stand for the expected ones: floats for floats, whole numbers for whole numbers."""
    allowed = _FLOATS if expected.is_floating_point() else _WHOLE_NUMBERS
    return given.layout == torch.strided and given.dtype in allowed


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor of a type that is allowed has neither infinities nor NaN."""
    values = tensor.detach().cpu()
    # By NumPy: on a busy machine PyTorch's threads wait for each other, at each of hundreds of small tensors.
    return bool(np.isfinite((values.float() if values.dtype == torch.bfloat16 else values).numpy()).all())


def enumerate_names(names: Iterable[str], limit: int = 8) -> str:
    """The first `limit` names, safe to print, and how many more there are."""
    listed = [printable(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, hexadecimal, over name, type, shape and little-endian bytes of all tensors, ordered by name."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
