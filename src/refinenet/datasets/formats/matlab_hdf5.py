"""MATLAB files of version 7.3, which are HDF5, read by h5py without trust, one array at a time.

Files are opened for each call, so that the readers can travel to other processes; sizes are checked before anything is
read; links out of the file are not followed; what is damaged is a ValueError that names the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from refinenet.io.image_files import MAX_PIXELS

MAX_CHUNK = 2**29
"""The most bytes of a compressed piece, which HDF5 unpacks as a whole."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What h5py raises on damaged files.
_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, OverflowError),
    *(MemoryError, EOFError, RuntimeError),
)


def hdf5_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of a dataset in a version 7.3 file, its axes in the order of HDF5, which is MATLAB's reversed.

    Raises:
        ValueError: not such a file, damaged, or without the dataset.
        OSError: the file cannot be read.
    """
    with _open_hdf5(path) as file:
        return tuple(_member(file, name, path).shape)


def read_hdf5(path: Path, name: str, index: int) -> npt.NDArray[Any]:
    """One element along the first axis of a dataset, as stored.

    Raises:
        ValueError: as `hdf5_shape`, no numbers, too large, or there is no such element.
        OSError: the file cannot be read.
    """
    with _open_hdf5(path) as file:
        dataset = _member(file, name, path)
        if not dataset.shape or not 0 <= index < dataset.shape[0]:
            raise ValueError(f"{path}: {name} of shape {dataset.shape} has no element {index}.")
        _check_size(dataset, dataset.shape[1:], f"{path}: {name}")
        with _clear_errors(path):
            array: npt.NDArray[Any] = dataset[index]
    return array


def read_referenced(path: Path, name: str, index: int) -> npt.NDArray[Any]:
    """The array that one element of a dataset of references, `(N, 1)` as MATLAB stores a cell array, points to.

    Raises:
        ValueError: as `read_hdf5`, or the element is no reference.
        OSError: the file cannot be read.
    """
    import h5py

    with _open_hdf5(path) as file:
        references = _member(file, name, path)
        where = f"{path}: element {index} of {name}"
        if references.ndim != 2 or not 0 <= index < references.shape[0] or references.shape[1] < 1:
            raise ValueError(f"{where} is not there, the shape is {references.shape}.")
        if h5py.check_ref_dtype(references.dtype) is not h5py.Reference:
            raise ValueError(f"{where} is {references.dtype}, not a reference.")
        with _clear_errors(path):
            dataset = file[references[index, 0]]
        _check_dataset(dataset, where)
        _check_size(dataset, dataset.shape, where)
        with _clear_errors(path):
            array: npt.NDArray[Any] = dataset[()]
    return array


@contextmanager
def _open_hdf5(path: Path) -> Iterator[Any]:
    import h5py

    with path.open("rb") as stream:
        # MATLAB's own header of 512 bytes comes before that of HDF5.
        start = stream.read(520)
    if _SIGNATURE not in (start[512:], start[:8]):
        raise ValueError(f"{path} is no MATLAB file of version 7.3: the signature of HDF5 is missing. Get it again.")
    with _clear_errors(path):
        # Many network file systems have no locks; who only reads can do without.
        file = h5py.File(path, "r", locking="best-effort")
    with file:
        yield file


def _member(file: Any, name: str, path: Path) -> Any:
    import h5py

    place = file
    for part in name.split("/"):
        with _clear_errors(path):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
            # A soft or external link leads elsewhere, maybe into another file.
            place = place[part] if isinstance(link, h5py.HardLink) else None
        if place is None:
            raise ValueError(f"{path} has no {name!r}: it is not the file that was published under this name.")
    _check_dataset(place, f"{path}: {name}")
    return place


def _check_dataset(dataset: Any, where: str) -> None:
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.external or dataset.is_virtual:
        raise ValueError(f"{where} is not an array that lies in this file.")


def _check_size(dataset: Any, shape: Sequence[int], where: str) -> None:
    if dataset.dtype.kind not in "buif":
        raise ValueError(f"{where} holds {dataset.dtype}, not numbers.")
    if math.prod(shape) > 3 * MAX_PIXELS or math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize > MAX_CHUNK:
        raise ValueError(f"{where} has the shape {tuple(shape)}: at most {MAX_PIXELS:,} pixels are read.")


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise ValueError(
            f"{path} is no MATLAB file of version 7.3, or damaged or incomplete ({type(error).__name__}: {error}). "
            "Get it again."
        ) from error
