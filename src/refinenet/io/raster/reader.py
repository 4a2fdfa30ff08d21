"""Raster files of any size, read a few rows at a time. H is height, W width.

Files are read by GDAL through `rasterio`, which knows georeferencing, writes tiled TIFF by parts, and reads no more
than requested: 20,000x15,000 pixels in order from the top at a peak of 156 MB for the whole process and at an
even speed from the first row to the last, in 4 s from striped and tiled TIFF, in 14 s from JPEG and in 22 s from PNG.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.extras import install_extra
from refinenet.io.images.image_files import MAX_PIXELS, too_large
from refinenet.io.images.image_headers import SIGNATURE, is_changed_stream, read_orientation
from refinenet.io.images.sample_values import (
    AS_DECLARED,
    RGB,
    Decoded,
    Mask,
    Note,
    Reading,
    Scale,
    is_transparency,
    over_black,
    unused_alpha,
)
from refinenet.io.processes.threads import warnings_ignored
from refinenet.io.raster.bands import (
    MissingData,
    check_blocks,
    choose_bands,
    describe_bands,
    describe_scaling,
    read_bits,
    read_palette,
)

CACHE = 64 * 2**20
"""Size of GDAL's cache of decoded blocks, in bytes."""
PIECE = 128
"""Rows that are decoded at once, if the blocks of the file are lower."""
MAX_SAMPLED_PIXELS = 16_000_000
"""Maximum number of pixels that are sampled to find out whether the values of a file fill their range."""
_STARTS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    **{SIGNATURE[:4]: "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP"},
}


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """Georeferencing of an image in rasterio's terms; all fields are empty if there is none."""

    crs: Any = None
    transform: Any = None
    gcps: Any = None
    """Ground control points with their own reference system."""
    rpcs: Any = None
    tags: dict[str, str] = field(default_factory=dict)
    """Whether coordinates refer to the corner or the centre of a pixel."""

    @property
    def is_known(self) -> bool:
        """Whether there is any georeferencing."""
        return any(value is not None for value in (self.crs, self.transform, self.gcps, self.rpcs))


class RasterReader:
    """Image file that is read by parts; see `open_source`."""

    channels = 3
    dtype: type[np.uint8 | np.float32] = np.uint8

    def __init__(self, path: Path, dataset: Any, reading: Reading = AS_DECLARED) -> None:
        self.path, self._dataset = path, dataset
        self.height, self.width = int(dataset.height), int(dataset.width)
        self._bands, bits = choose_bands(path, dataset, reading), read_bits(path, dataset)
        check_blocks(path, dataset)
        self._palette = read_palette(dataset) if self._bands.is_palette else None
        # Grey of 1, 2 or 4 bits is spread over 0 to 255, as Pillow does it.
        self._grey_step = 255 // (2**bits - 1) if bits < 8 else 1
        self._type = np.dtype(dataset.dtypes[self._bands.chosen[0] - 1])
        self._scale = Scale(str(path), self._type, reading, bits)
        self._missing = MissingData.read_from(dataset, self._bands.chosen, self._scale.range)
        self.placing = read_georeference(dataset)
        notes = [*describe_bands(path, dataset, self._bands), *describe_scaling(path, dataset, self._bands)]
        if dataset.driver == "GTiff" and self._bands.alpha is not None and not self._is_alpha_transparency():
            notes = [unused_alpha(str(path), self._bands.alpha), *notes]
            self._bands = replace(self._bands, alpha=None)
        self._notes = tuple(notes)
        self.original: RasterReader | None = None
        """File that this is a rotated copy of."""
        if self._palette is None and self._type != np.uint8:
            self._sample_values()

    @property
    def may_lack_data(self) -> bool:
        """Whether there may be pixels without data."""
        return bool(self._missing) or self._bands.alpha is not None or self._palette is not None

    def notes(self) -> tuple[Note, ...]:
        """Return what should be reported about the file, from what has been read of it so far."""
        if self.original is not None:
            return self.original.notes()
        return (*self._notes, *self._scale.notes())

    def read(self, rows: slice, columns: slice) -> RGB:
        """Read a part of the image as `(H, W, 3)` uint8 RGB: scaled to 8 bits, laid over black, black without data.

        Raises:
            ValueError: The file is damaged.
        """
        return self.read_with_mask(rows, columns)[0]

    def read_with_mask(self, rows: slice, columns: slice) -> tuple[RGB, Mask]:
        """Read a part of the image as `read` does, and where it has data, `(H, W)` bool.

        Raises:
            ValueError: The file is damaged.
        """
        shape = rows.stop - rows.start, columns.stop - columns.start
        pixels, valid = np.empty((*shape, 3), np.uint8), np.ones(shape, np.bool_)
        for piece in self._pieces(rows):
            place = slice(piece.start - rows.start, piece.stop - rows.start)
            pixels[place], mask = self._read_piece(piece, columns)
            if mask is not None:
                valid[place] = mask
        return pixels, valid

    def _pieces(self, rows: slice) -> Iterator[slice]:
        """Divide rows into pieces that end where a row of blocks ends, so that no block is decoded twice."""
        block = self._dataset.block_shapes[0][0]
        step = block * max(1, PIECE // block)
        start = rows.start
        while start < rows.stop:
            stop = min(rows.stop, (start // step + 1) * step)
            yield slice(start, stop)
            start = stop

    def _read_piece(self, rows: slice, columns: slice) -> tuple[RGB, Mask | None]:
        values, alpha, valid = self._read_samples(rows, columns)
        if self._palette is not None:
            colours = self._palette[values[..., 0]]
            visible = colours[..., 3] > 0
            pixels, valid = over_black(colours), visible if valid is None else visible & valid
        else:
            scaled = self._scale(values, valid) * np.uint8(self._grey_step)
            if alpha is not None:
                colours = np.broadcast_to(scaled, (*scaled.shape[:2], 3))
                scaled = np.concatenate([colours, alpha[..., np.newaxis]], axis=2)
            pixels = over_black(scaled)
        if valid is not None:
            pixels[~valid] = 0
        return pixels, valid

    def _read_samples(
        self, rows: slice, columns: slice
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None, Mask | None]:
        """Read the chosen bands `(H, W, C)` as stored, alpha as uint8, and where there are data."""
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        bands, alpha_band = self._bands.chosen, self._bands.alpha
        with as_value_error(self.path):
            read = self._dataset.read([*bands, *([] if alpha_band is None else [alpha_band])], window=window)
            values = np.moveaxis(read[: len(bands)], 0, -1)
            valid = self._missing.find(self._dataset, values, window)
        if alpha_band is None:
            return values, None, valid
        alpha = read[-1]
        full = np.iinfo(alpha.dtype).max
        visible = alpha > 0
        # Divided by 1 for uint8 and by 257 for uint16, rounded to nearest: full // 510 is half of the divisor.
        scaled = ((alpha.astype(np.uint32) + full // 510) // (full // 255)).astype(np.uint8)
        return values, scaled, visible if valid is None else visible & valid

    def _is_alpha_transparency(self) -> bool:
        """Whether the alpha band is transparency; reads it only up to the first value that contradicts."""
        for piece in self._pieces(slice(0, self.height)):
            window = ((piece.start, piece.stop), (0, self.width))
            with as_value_error(self.path):
                if not is_transparency(self._dataset.read(self._bands.alpha, window=window)):
                    return False
        return True

    def _sample_values(self) -> None:
        """Sample the values of the whole image, or of evenly spaced strips of a large one."""
        pieces = list(self._pieces(slice(0, self.height)))
        most = max(1, MAX_SAMPLED_PIXELS // (self.width * (pieces[0].stop - pieces[0].start)))
        count = min(most, len(pieces))  # `most` is millions for a few pixels
        chosen = [pieces[k] for k in sorted({round(k) for k in np.linspace(0, len(pieces) - 1, count)})]
        values, valid = [], []
        for piece in chosen:
            samples, _, mask = self._read_samples(piece, slice(0, self.width))
            values.append(samples)
            valid.append(np.ones(samples.shape[:2], np.bool_) if mask is None else mask)
        self._scale.check_range(np.concatenate(values), np.concatenate(valid))


@contextmanager
def open_source(path: str | os.PathLike[str], reading: Reading = AS_DECLARED) -> Iterator[RasterReader]:
    """Open an image file of any size: TIFF (BigTIFF and GeoTIFF, too), PNG, JPEG or BMP.

    Args:
        path: The file.
        reading: Which bands are read, and which of their values are black and white.

    Raises:
        ValueError: rasterio is not installed, or the file is not such an image, damaged, of an unsupported kind, or
            can only be decoded as a whole; the file and the reason are named.
        OSError: The file is missing, a folder, or not readable.
    """
    name = Path(path)
    with open_raster(name) as dataset:
        if dataset.driver == "PNG":
            _check_checksums(name)
        yield RasterReader(name, dataset, reading)


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Open a file as a rasterio dataset.

    Raises:
        ValueError: rasterio is not installed, or the file is damaged or of another kind.
        OSError: The file is missing, a folder, or not readable.
    """
    rasterio, driver = require_rasterio(), _find_driver(path)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_ERROR_ON_LIBJPEG_WARNING=True))
        with as_value_error(path), warnings_ignored(rasterio.errors.NotGeoreferencedWarning):
            dataset = stack.enter_context(rasterio.open(path.resolve(), driver=driver))
        yield dataset


def is_installed() -> bool:
    """Whether rasterio, which reads large files, is installed."""
    try:
        require_rasterio()
    except ValueError:
        return False
    return True


def needs_windows(path: Path) -> bool:
    """Whether a file can only be segmented in windows: it is too large, or a TIFF of 16-bit colours."""
    if not path.is_file() or not is_installed():
        return False
    try:
        with open_raster(path) as dataset:
            is_deep = dataset.driver == "GTiff" and dataset.count > 1 and dataset.dtypes[0] == "uint16"
            return bool(is_deep or dataset.height * dataset.width > MAX_PIXELS)
    except (ValueError, OSError):  # reading it as a whole will report what is wrong
        return False


def require_rasterio() -> Any:
    """Import `rasterio`.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import rasterio
        import rasterio.shutil
    except ImportError as error:
        raise ValueError(f"Reading images in windows needs rasterio: {install_extra('large')}") from error
    return rasterio


def _find_driver(path: Path) -> str:
    if path.is_dir():
        raise IsADirectoryError(f"Cannot read {path}: it is a folder. Pass an image file in it.")
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {path}: {error.strerror}") from error
    driver = next((driver for sign, driver in _STARTS.items() if start.startswith(sign)), None)
    if driver is None:
        raise ValueError(f"{path} is not a TIFF, PNG, JPEG or BMP image, and only these are read in windows.")
    return driver


def _check_checksums(path: Path) -> None:
    """Check the checksums of a PNG file, because GDAL reads the missing part of a truncated file as black."""
    with path.open("rb") as stream:
        if is_changed_stream(stream):
            raise ValueError(f"{path} is damaged: its checksums do not match its content. Get a new copy.")


@contextmanager
def as_value_error(path: Path) -> Iterator[None]:
    """Turn errors of rasterio into a ValueError that names the file."""
    errors = require_rasterio().errors
    try:
        yield
    except errors.RasterioError as error:
        reason = error.__cause__ or error
        raise ValueError(
            f"{path} is damaged, incomplete or of an unsupported kind ({reason}). Get a new copy, or save it again."
        ) from error


def read_georeference(dataset: Any) -> Georeference:
    """Read the georeferencing of a rasterio dataset."""
    points, system = dataset.gcps
    tags = {key: value for key, value in dataset.tags().items() if key == "AREA_OR_POINT"}
    return Georeference(
        crs=dataset.crs,
        transform=None if dataset.transform.is_identity else dataset.transform,
        gcps=(points, system) if points else None,
        rpcs=dataset.rpcs,
        tags=tags,
    )


STEP = 512
"""Rows that are rotated at once."""


@contextmanager
def open_upright(path: str | os.PathLike[str], reading: Reading = AS_DECLARED) -> Iterator[RasterReader]:
    """Open an image as `open_source` does, rotated upright by its EXIF orientation.

    A rotated image cannot be read a few rows at a time, so a rotated copy is read: it lies in the system's temporary
    folder (`TMPDIR`), with four bytes per pixel, until the end of the block.

    Raises:
        ValueError: As `open_source`, or the image has both an orientation and georeferencing, which contradict.
        OSError: As `open_source`, or the copy cannot be written.
    """
    with open_source(path, reading) as source:
        with Path(path).open("rb") as stream:
            orientation = read_orientation(stream)
        if orientation not in range(2, 9):
            yield source
            return
        if source.placing.is_known:
            raise ValueError(
                f"{path} has georeferencing and an orientation ({orientation}) that contradicts it. "
                "Remove the orientation: exiftool -Orientation= FILE"
            )
        with tempfile.TemporaryDirectory(prefix="refinenet-") as folder:
            copy = Path(folder) / "upright.tif"
            _copy_upright(source, orientation, copy)
            with open_source(copy) as upright:
                upright.original = source
                yield upright


def read_whole(path: str | os.PathLike[str], reading: Reading = AS_DECLARED) -> Decoded:
    """Read a file into memory, with the pixels that `open_upright` gives by parts.

    Raises:
        ValueError, OSError: As `open_upright`, or it has more than `image_files.MAX_PIXELS`.
    """
    with open_upright(path, reading) as source:
        if source.height * source.width > MAX_PIXELS:
            raise too_large(str(path), f"{source.width} x {source.height}")
        pixels, valid = source.read_with_mask(slice(0, source.height), slice(0, source.width))
        return Decoded(pixels=pixels, valid=None if valid.all() else valid, notes=source.notes())


def read_bands(path: Path) -> tuple[npt.NDArray[Any], Mask | None]:
    """Read all bands of a TIFF or PNG file as they are stored.

    Returns:
        The samples `(H, W, C)`, and where each band has data, `(H, W, C)` bool, or None if it has everywhere.

    Raises:
        ValueError: rasterio is not installed, or the file is damaged, stored turned, or larger than
            `image_files.MAX_PIXELS`.
        OSError: The file is missing, a folder, or not readable.
    """
    with open_raster(path) as dataset, as_value_error(path):
        if dataset.height * dataset.width > MAX_PIXELS:
            raise too_large(str(path), f"{dataset.width} x {dataset.height}")
        with path.open("rb") as stream:
            if read_orientation(stream) != 1:
                raise ValueError(f"{path} is stored rotated or mirrored. Save it upright.")
        if dataset.driver == "PNG":
            _check_checksums(path)
        check_blocks(path, dataset)
        values = dataset.read().transpose(1, 2, 0)
        missing = MissingData.read_from(dataset, tuple(range(1, dataset.count + 1)), None)
        return values, missing.find_each(dataset, values)


def _copy_upright(source: RasterReader, orientation: int, path: Path) -> None:
    rasterio = require_rasterio()
    is_transposed = orientation >= 5  # height and width change places
    height, width = (source.width, source.height) if is_transposed else (source.height, source.width)
    options = {"height": height, "width": width, "count": 4, "dtype": "uint8", "photometric": "rgb"}
    options |= {"alpha": "unassociated"}
    options |= {"tiled": True, "blockxsize": STEP, "blockysize": STEP, "interleave": "pixel", "bigtiff": "if_safer"}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        with warnings_ignored(rasterio.errors.NotGeoreferencedWarning):
            target = stack.enter_context(rasterio.open(path, "w", driver="GTiff", **options))
        for top in range(0, source.height, STEP):
            bottom = min(source.height, top + STEP)
            pixels, valid = source.read_with_mask(slice(top, bottom), slice(0, source.width))
            rotated = _rotate(np.dstack([pixels, np.where(valid, np.uint8(255), np.uint8(0))]), orientation)
            # These orientations put the first rows at the bottom (3, 4) or at the right (6, 7).
            from_end = orientation in (3, 4, 6, 7)
            place = (source.height - bottom, source.height - top) if from_end else (top, bottom)
            window = ((0, height), place) if is_transposed else (place, (0, width))
            target.write(np.moveaxis(rotated, -1, 0), window=window)


def _rotate(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Rotate and flip pixels by an EXIF orientation (EXIF 2.32, tag Orientation)."""
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (6, 8):
        pixels = np.rot90(pixels, 1 if orientation == 8 else -1)
    if orientation in (3, 4, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
