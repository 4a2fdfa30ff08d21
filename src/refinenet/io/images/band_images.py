"""Images for models of named bands: stored samples, scaled to [0, 1] by the range of each band.

A pixel has no data where no band has any: by the nodata value or the mask of a file, or because it is not a finite
number. Where only some bands have none, these are 0 there and the pixel is used.

Shape letters: H height, W width, C bands as stored, B bands of the model.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.io.extras import install_extra
from refinenet.io.files import quote_controls, refuse_address
from refinenet.io.images.bands import Band, choose_shown, name_bands
from refinenet.io.images.image_files import (
    DEEP_MODES,
    DOWNLOAD,
    IMAGE_SUFFIXES,
    Picture,
    convert,
    load_picture,
    open_file,
    open_verified,
)
from refinenet.io.images.image_headers import count_pages, needs_gdal
from refinenet.io.images.image_sources import (
    ImageSource,
    Readable,
    TensorLike,
    as_bytes,
    detach,
    not_an_image,
    read_stream,
)
from refinenet.io.images.sample_values import RGB, Decoded, Mask, Note, Pixels, Reading
from refinenet.io.images.stored_values import read_stored
from refinenet.io.raster.reader import is_installed, read_bands

NUMPY_MAGIC = b"\x93NUMPY"
"""First bytes of a NumPy file."""
ARRAY_SUFFIX = ".npy"
"""Suffix of NumPy files."""
BAND_SUFFIXES = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
"""Suffixes of files of images of any bands, in lower case."""

_TYPE_RANGES = {np.dtype(np.bool_): (0, 1), np.dtype(np.uint8): (0, 255), np.dtype(np.uint16): (0, 65_535)}


def decode_bands(image: ImageSource, reading: Reading) -> Decoded:
    """Read an image for a model of named bands from a path, bytes, a file object, a Pillow image, array or tensor.

    Args:
        image: The source; arrays are `(H, W, C)` or `(H, W)`, tensors `(C, H, W)` or `(H, W)`, of any numbers.
        reading: The bands of the model, and perhaps which of the C bands these are.

    Raises:
        ValueError, OSError: See `read_band_file`.
        TypeError: It is no such source.
    """
    if isinstance(image, np.ndarray):
        return scale_bands(image, None, "The array", reading)
    if isinstance(image, TensorLike):
        array = detach(image)
        return scale_bands(np.moveaxis(array, 0, -1) if array.ndim == 3 else array, None, "The tensor", reading)
    if isinstance(image, Image.Image):
        picture = load_picture(image, "The Pillow image")
        return scale_bands(stored_samples(picture), None, picture.name, reading)
    if isinstance(image, str | os.PathLike):
        refuse_address("An image", image, DOWNLOAD)
        return read_band_file(Path(image), quote_controls(image), reading)
    if isinstance(image, bytes | bytearray | memoryview):
        content = as_bytes(image)
        name = f"The image of {len(content):,} bytes"
    elif isinstance(image, Readable):
        name, content = read_stream(image)
    else:
        raise not_an_image(image)
    with tempfile.TemporaryDirectory(prefix="refinenet-") as folder:
        copy = Path(folder) / ("image.npy" if content.startswith(NUMPY_MAGIC) else "image")
        copy.write_bytes(content)
        return read_band_file(copy, name, reading)


def read_band_file(path: Path, name: str, reading: Reading) -> Decoded:
    """Read a file as the bands of a model.

    Args:
        path: A GeoTIFF, TIFF, PNG, JPEG or other image, or an array `(H, W)` or `(H, W, C)` in a NumPy file.
        name: Its name in messages.
        reading: The bands of the model, and perhaps which bands of the file these are.

    Returns:
        `(H, W, B)` float32 in [0, 1], with where it has data.

    Raises:
        ValueError: The file cannot be read as an image, has another number of bands, or a band needs a range.
        OSError: The file is missing, a folder, or not readable.
    """
    values, valid = read_samples(path)
    return scale_bands(values, valid, name, reading)


def read_samples(path: Path) -> tuple[npt.NDArray[Any], Mask | None]:
    """Read the samples of an image of any bands as they are stored.

    Returns:
        `(H, W, C)`, and where each band has data, `(H, W, C)` bool, or None if everywhere.

    Raises:
        ValueError, OSError: See `read_band_file`.
    """
    if path.suffix.lower() == ARRAY_SUFFIX:
        return read_stored(path)
    with open_file(path) as stream:
        is_raster = needs_gdal(stream)
        pages = count_pages(stream) if stream.peek(2)[:2] in (b"II", b"MM") else 1
    if pages > 1:
        raise ValueError(f"{path} has {pages} pages: the bands of an image must be in one page.")
    if is_raster and is_installed():
        return read_bands(path)
    picture = open_verified(path)
    if is_raster and picture.image.mode not in DEEP_MODES:
        raise ValueError(f"{path}: bands of more than 8 bits are read by rasterio: {install_extra('large')}")
    return stored_samples(picture), None


def stored_samples(picture: Picture) -> npt.NDArray[Any]:
    """Return the samples of a picture as stored, `(H, W, C)`: grey, RGB, or with transparency as a further band."""
    image = picture.image
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        values = np.asarray(image)
        return values[..., np.newaxis] if image.mode == "L" else values
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        is_short = image.mode != "F" and values.min() >= 0 and values.max() <= 65_535
        return (values.astype(np.uint16) if is_short else values)[..., np.newaxis]
    return convert(picture)


def scale_bands(values: npt.NDArray[Any], valid: Mask | None, name: str, reading: Reading) -> Decoded:
    """Scale stored samples to the bands of a model.

    Args:
        values: `(H, W, C)` or `(H, W)` numbers.
        valid: `(H, W, C)` bool: where each band has data; None for everywhere. NaN and infinities never are data.
        name: Name of the image in messages.
        reading: The bands of the model, and perhaps which of the C bands these are.

    Raises:
        ValueError: There are other bands than the model takes, or a band needs a range.
    """
    bands = reading.model_bands
    if values.ndim == 2:
        values = values[..., np.newaxis]
    if values.ndim != 3 or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}: an image must be (H, W, bands), with at least one pixel.")
    values, valid = _choose(values, valid, name, reading)
    known = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, np.bool_)
    if valid is not None:
        known &= valid
    scaled = np.empty(values.shape, np.float32)
    notes: list[Note] = []
    for k, band in enumerate(bands):
        scaled[..., k], note = _scale(values[..., k], known[..., k], band, name)
        notes += note
    somewhere: Mask = np.asarray(known.any(axis=2))
    return Decoded(pixels=scaled, valid=None if somewhere.all() else somewhere, notes=tuple(notes))


def _choose(
    values: npt.NDArray[Any], valid: Mask | None, name: str, reading: Reading
) -> tuple[npt.NDArray[Any], Mask | None]:
    count, bands = values.shape[2], reading.model_bands
    if reading.bands is None:
        if count != len(bands):
            more = " Choose them with bands (--bands 1,2,3: numbers from 1)." if count > len(bands) else ""
            raise ValueError(f"The model takes {name_bands(bands)}; {name} has {count}.{more}")
        return values, valid
    if max(reading.bands) > count:
        raise ValueError(f"{name} has {count} bands: there is no band {max(reading.bands)}. Choose from 1 to {count}.")
    chosen = [number - 1 for number in reading.bands]
    return values[..., chosen], None if valid is None else valid[..., chosen]


def _scale(
    values: npt.NDArray[Any], known: Mask, band: Band, name: str
) -> tuple[npt.NDArray[np.float32], Sequence[Note]]:
    """Return one band `(H, W)` in [0, 1], 0 where it is not known, and notes."""
    limits = band.range or find_range(values.dtype)
    samples: npt.NDArray[np.float64] = np.where(known, values, 0 if limits is None else limits[0]).astype(np.float64)
    if limits is None or (
        band.range is None and values.dtype.kind == "f" and not 0 <= samples.min() <= samples.max() <= 1
    ):
        raise ValueError(
            f"{name}: the band {band.name} holds {values.dtype} from {samples.min():g} to {samples.max():g}. Say which "
            f"values become 0 and 1 when you create the network: {band.name}:LOW:HIGH, such as {band.name}:0:10000."
        )
    low, high = limits
    outside = int(np.count_nonzero((samples < low) | (samples > high)))
    note = Note(
        f"clipped-{band.name}",
        f"{name}: {outside:,} of {samples.size:,} values ({outside / samples.size:.2%}) of the band {band.name} are "
        f"outside its range {low:g} to {high:g} and are clipped to it.",
    )
    scaled: npt.NDArray[np.float32] = ((np.clip(samples, low, high) - low) / (high - low)).astype(np.float32)
    return scaled, [note] if outside else []


def find_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Return the values of a stored type that become 0 and 1; None if it has no such range."""
    return (0, 1) if dtype.kind == "f" else _TYPE_RANGES.get(dtype)


def as_picture(pixels: Pixels, bands: Sequence[Band]) -> RGB:
    """Return an image as a picture for people, `(H, W, 3)` uint8.

    Args:
        pixels: RGB of 8 bits, which is returned as it is, or `(H, W, B)` float32 in [0, 1], of which red, green and
            blue are shown, or grey, or else the first band or the first three.
        bands: Its bands; none for RGB.
    """
    if pixels.dtype == np.uint8:
        return pixels
    shown: RGB = np.rint(pixels[..., list(choose_shown(bands))] * np.float32(255)).astype(np.uint8)
    return shown
