"""Files of measurements, such as depths: the numbers as they are stored. H is height, W width, C channels."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.extras import install_extra
from refinenet.io.files import quote_controls
from refinenet.io.images.image_files import DEEP_MODES, MAX_PIXELS, grey_step, open_file, open_verified, too_large
from refinenet.io.images.image_headers import needs_gdal
from refinenet.io.images.sample_values import Mask
from refinenet.io.raster.reader import is_installed, read_bands

STORED_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""Suffixes of files of measurements, in lower case."""
# NumPy reads the header of an array with Python's own parser, whose errors it lets through.
_HEADER_ERRORS = (ValueError, EOFError, SyntaxError, TypeError, KeyError, RecursionError, tokenize.TokenError)


def read_stored(path: Path) -> tuple[npt.NDArray[Any], Mask | None]:
    """Read the numbers in a file.

    Args:
        path: A PNG of 8 or 16 bits, a TIFF of integers or floating-point numbers, or an array `(H, W)` or `(H, W, C)`
            in a NumPy file.

    Returns:
        Integers or floating-point numbers `(H, W, C)`, as stored; and where the file, by its nodata value or a mask,
        has data, `(H, W, C)` bool, or None if everywhere.

    Raises:
        ValueError: The file is damaged, too large, lossy or of another kind, or needs rasterio, which is not installed.
        OSError: The file is missing, a folder, or not readable.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path), None
    with open_file(path) as stream:
        is_raster = needs_gdal(stream)
    # Pillow reads the usual kinds of one channel, too, but not their nodata values.
    if is_raster and is_installed():
        return read_bands(path)
    return _read_picture(path), None


def _read_array(path: Path) -> npt.NDArray[Any]:
    name = quote_controls(path)
    with open_file(path) as stream:
        try:
            shape, dtype = _read_header(stream)
            if dtype.kind not in "uif" or len(shape) not in (2, 3) or 0 in shape:
                raise ValueError(
                    f"it has shape {shape} and type {dtype}; numbers of shape (H, W) or (H, W, C) are read"
                )
            if shape[0] * shape[1] > MAX_PIXELS:
                raise too_large(name, f"{shape[1]} x {shape[0]}")
            array: npt.NDArray[Any] = np.load(stream, allow_pickle=False)
        except _HEADER_ERRORS as error:
            raise ValueError(f"{name} is not a NumPy file of measurements: {error}.") from error
    return array if array.ndim == 3 else array[..., np.newaxis]


def _read_header(stream: io.BufferedReader) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of the array in a NumPy file, and return to the start of the file."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > size:
        raise ValueError(f"its header declares the shape {shape}, which is more than it holds")
    return shape, dtype


def _read_picture(path: Path) -> npt.NDArray[Any]:
    picture = open_verified(path)
    image = picture.image
    if picture.is_lossy or picture.format not in ("PNG", "TIFF"):
        raise ValueError(
            f"{picture.name} is lossy or of another format ({picture.format}): measurements must be PNG or TIFF."
        )
    if image.mode not in ("L", "RGB", *DEEP_MODES) or picture.is_white_zero:
        raise ValueError(
            f"{picture.name} has Pillow's mode {image.mode}: measurements must be grey or RGB, without palette or "
            "alpha."
        )
    if image.mode == "RGB" and (";16" in picture.raw_mode or picture.bits > 8):
        raise ValueError(f"{picture.name}: 16-bit colours are read by rasterio: {install_extra('large')}")
    values = np.asarray(image)
    if image.mode == "L":
        values = values.view(np.int8) if picture.is_signed else values // np.uint8(grey_step(picture))
    return values if values.ndim == 3 else values[..., np.newaxis]
