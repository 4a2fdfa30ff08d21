"""Arrays that are NumPy's or tensors of PyTorch, and arrays as `.npz` files, equal bytes for equal values.

Images and maps on the CPU are NumPy arrays, so that exported graphs run without PyTorch; those of a network on a GPU
are tensors that stay there. Code for both uses what the two libraries have in common: indexing, arithmetic, and
functions of the same names and positional arguments, such as `library(maps).exp(maps)`.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any
"""A NumPy array, or a tensor of PyTorch on any device."""


def library(values: Array) -> Any:
    """Return the module with the functions for an array: `numpy` or `torch`."""
    return np if isinstance(values, np.ndarray) else sys.modules["torch"]


def as_numpy(values: Array) -> npt.NDArray[Any]:
    """Return an array as one of NumPy, which shares its memory unless the values are on another device."""
    numpy: npt.NDArray[Any] = values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()
    return numpy


def like(values: npt.NDArray[Any], example: Array) -> Array:
    """Return a NumPy array as an array of the library, and on the device, of an example."""
    return values if isinstance(example, np.ndarray) else library(example).from_numpy(values).to(example.device)


def new_array(example: Array, shape: Sequence[int]) -> Array:
    """Return an array, not yet filled, of the library, type and device of an example."""
    if isinstance(example, np.ndarray):
        return np.empty(shape, example.dtype)
    return example.new_empty(tuple(shape))


def copy_array(values: Array) -> Array:
    """Return a copy with the same order of the axes in memory."""
    return values.copy("K") if isinstance(values, np.ndarray) else values.clone()


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the content of a compressed `.npz` file of named arrays, which `numpy.load` reads without pickles."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date, unlike numpy.savez
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return content.getvalue()
