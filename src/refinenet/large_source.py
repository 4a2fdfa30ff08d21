"""Image files of any size, read a few rows at a time. H is height, W width.

Files are read by GDAL through `rasterio`, which knows georeferencing, writes tiled TIFF by parts, and reads no more
than it is asked for: 20,000x15,000 pixels in order from the top at a peak of 156 MB for the whole process and at an
even speed from the first row to the last, in 4 s from striped and tiled TIFF, in 14 s from JPEG and in 22 s from PNG.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.image_files import MAX_PIXELS, RGB
from refinenet.images import over_black, to_bytes
from refinenet.png_checksums import SIGNATURE, is_changed_stream
from refinenet.threads import warnings_ignored

CACHE = 64 * 2**20
"""Bytes of decoded blocks that GDAL keeps."""
MAX_BLOCK = 256 * 2**20
"""The most bytes of a part of a file that can only be decoded as one."""
PIECE = 128
"""Rows that are decoded at once, where a file's blocks are lower."""

_STARTS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    **{SIGNATURE[:4]: "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP"},
}
_BANDS = {
    ("gray",): "grey",
    ("undefined",): "grey",
    ("palette",): "palette",
    ("gray", "alpha"): "grey with alpha",
    ("red", "green", "blue"): "RGB",
    ("red", "green", "blue", "alpha"): "RGB with alpha",
}
_WANTED = "8 or 16 bits of grey or RGB, with or without alpha, or a palette"


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Where on Earth an image lies, in rasterio's terms; all fields are empty where nobody said so."""

    crs: Any = None
    transform: Any = None
    gcps: Any = None
    """Ground control points with their own reference system."""
    rpcs: Any = None
    tags: dict[str, str] = field(default_factory=dict)
    """Whether a coordinate is of a pixel's corner or its middle."""

    @property
    def is_known(self) -> bool:
        """Whether there is anything to keep."""
        return any(value is not None for value in (self.crs, self.transform, self.gcps, self.rpcs))


class LargeSource:
    """An image file to be read by parts; see `open_source`."""

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path, self._dataset = path, dataset
        self.height, self.width = int(dataset.height), int(dataset.width)
        self._kind = _check_kind(path, dataset)
        _check_blocks(path, dataset)
        self._palette = _read_palette(dataset) if self._kind == "palette" else None
        bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
        self._grey_step = 255 // (2 ** int(bits) - 1) if int(bits) < 8 else 1
        is_png_with_transparency = dataset.driver == "PNG" and dataset.nodata is not None
        self._is_masked = is_png_with_transparency and self._palette is None
        self.placing = _read_placing(dataset)

    def read(self, rows: slice, columns: slice) -> RGB:
        """A part of the image, `(H, W, 3)` uint8 RGB; 16 bits are scaled to 8, transparency is laid over black.

        Raises:
            ValueError: the file is damaged.
        """
        pixels = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        block = self._dataset.block_shapes[0][0]
        step = block * max(1, PIECE // block)
        start = rows.start
        while start < rows.stop:
            # Ending where a row of blocks ends, so that none is decoded twice.
            stop = min(rows.stop, (start // step + 1) * step)
            pixels[start - rows.start : stop - rows.start] = self._read_piece(slice(start, stop), columns)
            start = stop
        return pixels

    def _read_piece(self, rows: slice, columns: slice) -> RGB:
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with _as_value_error(self.path):
            values = np.moveaxis(self._dataset.read(window=window), 0, -1)
            mask = self._dataset.dataset_mask(window=window) if self._is_masked else None
        if self._palette is not None:
            return over_black(self._palette[values[..., 0]])
        values = to_bytes(values, str(self.path)) * np.uint8(self._grey_step)
        if values.shape[2] == 2:
            values = values[..., [0, 0, 0, 1]]
        pixels = over_black(values)
        if mask is not None:
            pixels[mask == 0] = 0
        return pixels


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[LargeSource]:
    """Open an image file of any size: TIFF (BigTIFF and GeoTIFF, too), PNG, JPEG or BMP.

    Raises:
        ValueError: rasterio is not installed, or the file is no such image, damaged, of a kind that is not allowed, or
            made so that it can only be decoded as a whole; the file and the reason are named.
        OSError: the file is missing, a folder, or may not be read.
    """
    name = Path(path)
    with _open_dataset(name) as dataset:
        if dataset.driver == "PNG":
            _check_sums(name)
        yield LargeSource(name, dataset)


@contextmanager
def _open_dataset(path: Path) -> Iterator[Any]:
    rasterio, driver = require_rasterio(), _find_driver(path)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_ERROR_ON_LIBJPEG_WARNING=True))
        with _as_value_error(path), warnings_ignored(rasterio.errors.NotGeoreferencedWarning):
            dataset = stack.enter_context(rasterio.open(path.resolve(), driver=driver))
        yield dataset


def is_installed() -> bool:
    """Whether large files can be read here."""
    try:
        require_rasterio()
    except ValueError:
        return False
    return True


def needs_windows(path: Path) -> bool:
    """Whether a file can be segmented in windows only: too large to be read as a whole, or a TIFF of 16-bit colours."""
    if not path.is_file() or not is_installed():
        return False
    try:
        with _open_dataset(path) as dataset:
            is_deep = dataset.driver == "GTiff" and dataset.count > 1 and dataset.dtypes[0] == "uint16"
            return bool(is_deep or dataset.height * dataset.width > MAX_PIXELS)
    except (ValueError, OSError):  # whoever reads it as a whole says what is wrong with it
        return False


def require_rasterio() -> Any:
    """The module `rasterio`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.shutil
    except ImportError as error:
        raise ValueError("Images are read in windows by rasterio: pip install 'refinenet[large]'") from error
    return rasterio


def _find_driver(path: Path) -> str:
    if path.is_dir():
        raise IsADirectoryError(f"Cannot read {path}: it is a folder. Name an image file in it.")
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {path}: {error.strerror}") from error
    driver = next((driver for sign, driver in _STARTS.items() if start.startswith(sign)), None)
    if driver is None:
        raise ValueError(f"{path} is not a TIFF, PNG, JPEG or BMP image: in windows, these are read.")
    return driver


def _check_sums(path: Path) -> None:
    """GDAL takes for black what a PNG file lacks that was cut short."""
    with path.open("rb") as stream:
        if is_changed_stream(stream):
            raise ValueError(f"{path} is damaged: its checksums say that it is not what was written. Get it again.")


@contextmanager
def _as_value_error(path: Path) -> Iterator[None]:
    errors = require_rasterio().errors
    try:
        yield
    except errors.RasterioError as error:
        reason = error.__cause__ or error
        raise ValueError(
            f"{path} is damaged, incomplete or of a kind that cannot be read ({reason}). Get it again, or save it anew."
        ) from error


def _check_kind(path: Path, dataset: Any) -> str:
    names = tuple(band.name for band in dataset.colorinterp)
    kind, bits = _BANDS.get(names), dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
    space = dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE", "RGB")
    is_jpeg = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") in ("JPEG", "YCbCr JPEG")
    if kind is None or set(dataset.dtypes) not in ({"uint8"}, {"uint16"}) or (space != "RGB" and not is_jpeg):
        what = f"{dataset.count} bands ({', '.join(names)}) of {', '.join(sorted(set(dataset.dtypes)))}"
        what += "" if space == "RGB" else f", colours as {space}"
        raise ValueError(
            f"{path} has {what}; {_WANTED} are read. "
            "Choose bands by `gdal_translate -b 1 -b 2 -b 3`, scale them by `-ot Byte -scale`."
        )
    if bits not in ("1", "2", "4", "8", "16") or "MINISWHITE" in dataset.tags(ns="IMAGE_STRUCTURE"):
        raise ValueError(f"{path} has samples of {bits} bits or white as 0; {_WANTED} are read. Save it anew.")
    return kind


def _check_blocks(path: Path, dataset: Any) -> None:
    height, width = dataset.block_shapes[0]
    if dataset.driver == "PNG" and _is_interlaced(path):
        height, width = dataset.shape
    if height * width * dataset.count * np.dtype(dataset.dtypes[0]).itemsize > MAX_BLOCK:
        raise ValueError(
            f"{path} can only be decoded in parts of {width} x {height} pixels, too many for bounded memory. "
            "Save it as a tiled TIFF: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
        )


def _is_interlaced(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(29)[28:] == b"\1"


def _read_palette(dataset: Any) -> npt.NDArray[np.uint8]:
    """`(2^bits, 4)` RGBA; indices without a colour are black."""
    palette = np.zeros((2 ** (8 * np.dtype(dataset.dtypes[0]).itemsize), 4), np.uint8)
    for index, colour in dataset.colormap(1).items():
        palette[index] = colour
    return palette


def _read_placing(dataset: Any) -> Placing:
    points, system = dataset.gcps
    tags = {key: value for key, value in dataset.tags().items() if key == "AREA_OR_POINT"}
    return Placing(
        crs=dataset.crs,
        transform=None if dataset.transform.is_identity else dataset.transform,
        gcps=(points, system) if points else None,
        rpcs=dataset.rpcs,
        tags=tags,
    )
