"""Limits of model files, and texts from them that are safe to print. Nothing here needs PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

MAX_FILE_BYTES = 2 * 1024**3
MAX_HEADER_BYTES = 10 * 1024**2
UNOPENED: Mapping[str, str] = MappingProxyType(
    {
        ".pt2": "a program of PyTorch, which torch.export.load opens",
        ".triton": "a model repository, which Triton serves",
        **dict.fromkeys((".engine", ".plan", ".trt"), "a TensorRT engine, a program, which only TensorRT runs"),
    }
)
"""Exports that are not opened here, and other files of their kind: what they are, by suffix."""
_BEST = "best.safetensors"
"""Model of a run's best validation, in its folder."""


def is_safetensors(path: Path) -> bool:
    """Whether a file starts like a safetensors file: 8 bytes of length, then a JSON object.

    Raises:
        ValueError: The file is empty or larger than 2 GiB, or an export that is not opened here.
        OSError: The file is missing, a folder, or not readable.
    """
    if path.suffix.lower() in UNOPENED:
        raise ValueError(
            f"{path} is {UNOPENED[path.suffix.lower()]}. Pass the model file that it was exported from, or an export "
            "to .onnx or .xml."
        )
    if path.is_dir():
        inside = path / _BEST
        hint = f" Did you mean {inside}?" if inside.exists() else ""
        raise IsADirectoryError(f"{path} is a folder, not a model file.{hint}")
    if not path.exists():
        last = path.with_name("last.safetensors")
        exists = path.name == _BEST and last.exists()
        hint = f" The run has not been validated yet; after its last epoch it had {last}." if exists else ""
        raise FileNotFoundError(f"There is no model file {path}.{hint}")
    if not 0 < path.stat().st_size <= MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; a model file has 1 to {MAX_FILE_BYTES}.")
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:9] == b"{"


def printable(text: str, limit: int = 100) -> str:
    """Return the beginning of a text from a file, with control characters escaped."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= limit else shown[:limit] + "..."


def enumerate_names(names: Iterable[str], limit: int = 8) -> str:
    """List the first `limit` names, safe to print, and the number of others."""
    listed = [printable(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
