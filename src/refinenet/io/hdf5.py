"""HDF5 files, such as those of MATLAB 7.3, opened with clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# The exceptions that h5py raises on damaged files.
_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, OverflowError),
    *(MemoryError, EOFError, RuntimeError),
)


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file for reading, as an `h5py.File`.

    Raises:
        ValueError: The file is of another kind, or damaged.
        OSError: The file cannot be read.
    """
    import h5py

    with path.open("rb") as stream:
        # MATLAB puts its own header of 512 bytes before that of HDF5.
        start = stream.read(520)
    if _SIGNATURE not in (start[512:], start[:8]):
        raise ValueError(
            f"{path} is not a MATLAB file of version 7.3: the signature of HDF5 is missing. Download it again."
        )
    with clear_errors(path):
        # Many network file systems lack locks, and reading does not need them.
        file = h5py.File(path, "r", locking="best-effort")
    with file:
        yield file


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn the exceptions of h5py for damaged files into a ValueError that names the file."""
    try:
        yield
    except _ERRORS as error:
        raise ValueError(
            f"{path} is not a MATLAB file of version 7.3, or damaged or incomplete ({type(error).__name__}: {error}). "
            "Download it again."
        ) from error
