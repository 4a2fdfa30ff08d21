"""Image files of any size, read a few rows at a time. H is height, W width.

Files are read by GDAL through `rasterio`, which knows georeferencing, writes tiled TIFF by parts, and reads no more
than it is asked for: 20,000x15,000 pixels in order from the top at a peak of 156 MB for the whole process and at an
even speed from the first row to the last, in 4 s from striped and tiled TIFF, in 14 s from JPEG and in 22 s from PNG.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.files import replacing, scratch_file
from refinenet.io.image_files import MAX_PIXELS, SIGNATURE, is_changed_stream, read_orientation, too_large
from refinenet.io.sample_values import (
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
from refinenet.io.threads import warnings_ignored
from refinenet.labels import Colour

CACHE = 64 * 2**20
"""Bytes of decoded blocks that GDAL keeps."""
MAX_BLOCK = 256 * 2**20
"""The most bytes of a part of a file that can only be decoded as one."""
PIECE = 128
"""Rows that are decoded at once, where a file's blocks are lower."""
LOOKED_AT = 16_000_000
"""Pixels at most that are looked at to find out whether the values of a file fill their range."""

_STARTS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    **{SIGNATURE[:4]: "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP"},
}
_WANTED = "8 or 16 bits of grey or RGB, with or without alpha, or a palette"
_COLOURS = ("red", "green", "blue")
_ALPHA = "alpha"


@dataclass(frozen=True, kw_only=True)
class _Bands:
    """Which bands of a file are read, by their numbers from 1."""

    chosen: tuple[int, ...]
    """Those of red, green and blue, or of grey or a palette's indices."""
    alpha: int | None
    """The band that says where the picture is transparent."""
    left_out: tuple[int, ...]
    is_palette: bool = False


@dataclass(frozen=True, kw_only=True)
class Georeference:
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


class RasterReader:
    """An image file to be read by parts; see `open_source`."""

    def __init__(self, path: Path, dataset: Any, reading: Reading = AS_DECLARED) -> None:
        self.path, self._dataset = path, dataset
        self.height, self.width = int(dataset.height), int(dataset.width)
        self._bands, bits = _choose_bands(path, dataset, reading), _read_bits(path, dataset)
        _check_blocks(path, dataset)
        self._palette = _read_palette(dataset) if self._bands.is_palette else None
        self._grey_step = 255 // (2**bits - 1) if bits < 8 else 1
        self._type = np.dtype(dataset.dtypes[self._bands.chosen[0] - 1])
        self._scale = Scale(str(path), self._type, reading, bits)
        self._gaps = _Gaps.of(dataset, self._bands.chosen, self._scale.range)
        self.placing = _read_placing(dataset)
        notes = [*_describe_bands(path, dataset, self._bands), *_describe_scaling(path, dataset, self._bands)]
        if dataset.driver == "GTiff" and self._bands.alpha is not None and not self._is_alpha_transparency():
            notes = [unused_alpha(str(path), self._bands.alpha), *notes]
            self._bands = replace(self._bands, alpha=None)
        self._notes = tuple(notes)
        self.original: RasterReader | None = None
        """The file that this is a turned copy of."""
        if self._palette is None and self._type != np.uint8:
            self._look()

    @property
    def may_lack_data(self) -> bool:
        """Whether there may be pixels without data."""
        return bool(self._gaps) or self._bands.alpha is not None or self._palette is not None

    def notes(self) -> tuple[Note, ...]:
        """What is to be reported of the file, by what was read of it up to now."""
        if self.original is not None:
            return self.original.notes()
        return (*self._notes, *self._scale.notes())

    def read(self, rows: slice, columns: slice) -> RGB:
        """A part of the image, `(H, W, 3)` uint8 RGB: scaled to 8 bits, transparency over black, black without data.

        Raises:
            ValueError: the file is damaged.
        """
        return self.read_with_mask(rows, columns)[0]

    def read_with_mask(self, rows: slice, columns: slice) -> tuple[RGB, Mask]:
        """As `read`, and `(H, W)` bool: where there are data.

        Raises:
            ValueError: the file is damaged.
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
        """Rows in pieces that end where a row of blocks ends, so that none is decoded twice."""
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
            seen = colours[..., 3] > 0
            pixels, valid = over_black(colours), seen if valid is None else seen & valid
        else:
            scaled = self._scale(values, valid) * np.uint8(self._grey_step)
            if alpha is not None:
                shown = np.broadcast_to(scaled, (*scaled.shape[:2], 3))
                scaled = np.concatenate([shown, alpha[..., np.newaxis]], axis=2)
            pixels = over_black(scaled)
        if valid is not None:
            pixels[~valid] = 0
        return pixels, valid

    def _read_samples(
        self, rows: slice, columns: slice
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None, Mask | None]:
        """The chosen bands `(H, W, C)` as stored, alpha as bytes, and where there are data."""
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        bands, alpha_band = self._bands.chosen, self._bands.alpha
        with _as_value_error(self.path):
            read = self._dataset.read([*bands, *([] if alpha_band is None else [alpha_band])], window=window)
            values = np.moveaxis(read[: len(bands)], 0, -1)
            valid = self._gaps.find(self._dataset, values, window)
        if alpha_band is None:
            return values, None, valid
        alpha = read[-1]
        full = np.iinfo(alpha.dtype).max
        seen = alpha > 0
        shown = (alpha.astype(np.uint32) + full // 510) // (full // 255)
        return values, shown.astype(np.uint8), seen if valid is None else seen & valid

    def _is_alpha_transparency(self) -> bool:
        """Look through the band until a value says that it is none."""
        for piece in self._pieces(slice(0, self.height)):
            window = ((piece.start, piece.stop), (0, self.width))
            with _as_value_error(self.path):
                if not is_transparency(self._dataset.read(self._bands.alpha, window=window)):
                    return False
        return True

    def _look(self) -> None:
        """Look at the values of the whole image, or of strips of a large one."""
        pieces = list(self._pieces(slice(0, self.height)))
        most = max(1, LOOKED_AT // (self.width * (pieces[0].stop - pieces[0].start)))
        chosen = [pieces[k] for k in sorted({round(k) for k in np.linspace(0, len(pieces) - 1, most)})]
        values, valid = [], []
        for piece in chosen:
            samples, _, mask = self._read_samples(piece, slice(0, self.width))
            values.append(samples)
            valid.append(np.ones(samples.shape[:2], np.bool_) if mask is None else mask)
        self._scale.look(np.concatenate(values), np.concatenate(valid))


@dataclass(frozen=True, kw_only=True)
class _Gaps:
    """How a file says where it has no data, alpha aside."""

    bands: tuple[int, ...]
    nodata: tuple[float | None, ...]
    """Of each band the value that stands for no data."""
    is_outside: tuple[bool, ...]
    """Whether that value cannot be a sample: one band with it is enough then, else all must have theirs."""
    has_mask: bool
    """Whether there is a mask, in the file or in `NAME.msk`."""
    is_float: bool

    @classmethod
    def of(cls, dataset: Any, bands: tuple[int, ...], value_range: tuple[float, float] | None) -> _Gaps:
        flags = [{flag.name for flag in dataset.mask_flag_enums[band - 1]} for band in bands]
        nodata = tuple(dataset.nodatavals[band - 1] for band in bands)
        low, high = value_range or (-np.inf, np.inf)
        usual = (*({"all_valid"}, {"nodata"}), {"per_dataset", "alpha"}, {"alpha"})
        return cls(
            bands=bands,
            nodata=nodata,
            is_outside=tuple(value is not None and not low <= value <= high for value in nodata),
            has_mask=any(flag not in usual for flag in flags)
            or (dataset.driver == "PNG" and any(value is not None for value in nodata)),
            is_float=np.dtype(dataset.dtypes[bands[0] - 1]).kind == "f",
        )

    def __bool__(self) -> bool:
        return self.has_mask or self.is_float or any(value is not None for value in self.nodata)

    def find(self, dataset: Any, values: npt.NDArray[Any], window: Any) -> Mask | None:
        """Where there are data, `(H, W)`; None for everywhere."""
        if not self:
            return None
        valid = np.ones(values.shape[:2], np.bool_)
        if self.has_mask:
            valid &= (dataset.read_masks(list(self.bands), window=window) > 0).any(axis=0)
        if self.is_float:
            valid &= np.isfinite(values).all(axis=-1)
        equal = np.stack([_is_value(values[..., k], value) for k, value in enumerate(self.nodata)], axis=-1)
        valid &= ~(equal.all(axis=-1) | (equal & np.array(self.is_outside)).any(axis=-1))
        return valid


def _is_value(band: npt.NDArray[Any], value: float | None) -> Mask:
    if value is None or np.isnan(value):  # NaN is found by itself
        return np.zeros(band.shape, np.bool_)
    if band.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(band == band.dtype.type(value))
    return np.asarray(band == value)


@contextmanager
def open_source(path: str | os.PathLike[str], reading: Reading = AS_DECLARED) -> Iterator[RasterReader]:
    """Open an image file of any size: TIFF (BigTIFF and GeoTIFF, too), PNG, JPEG or BMP.

    Args:
        path: The file.
        reading: Which bands are read, and which of their values are black and white.

    Raises:
        ValueError: rasterio is not installed, or the file is no such image, damaged, of a kind that is not allowed, or
            made so that it can only be decoded as a whole; the file and the reason are named.
        OSError: the file is missing, a folder, or may not be read.
    """
    name = Path(path)
    with _open_dataset(name) as dataset:
        if dataset.driver == "PNG":
            _check_sums(name)
        yield RasterReader(name, dataset, reading)


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


def _choose_bands(path: Path, dataset: Any, reading: Reading) -> _Bands:
    names = tuple(band.name for band in dataset.colorinterp)
    alphas = [number for number, name in enumerate(names, start=1) if name == _ALPHA]
    is_palette = names[0] == "palette" and reading.bands in (None, (1,))
    chosen = _declared_bands(names) if reading.bands is None else reading.bands
    space = dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE", "RGB")
    is_jpeg = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") in ("JPEG", "YCbCr JPEG")
    types = sorted(
        {dataset.dtypes[number - 1] for number in chosen or range(1, dataset.count + 1) if number <= dataset.count}
    )
    what = f"{dataset.count} bands ({', '.join(names)}) of {', '.join(types)}"
    what += "" if space == "RGB" else f", colours as {space}"
    if chosen is None or (space != "RGB" and not is_jpeg):
        raise ValueError(
            f"{path} has {what}; {_WANTED} are read. "
            "Choose its bands for red, green and blue, or one for grey: --bands 3,2,1 (bands=(3, 2, 1))."
        )
    if max(chosen) > dataset.count:
        raise ValueError(f"{path} has {what}: there is no band {max(chosen)}. Choose bands from 1 to {dataset.count}.")
    _check_types(path, what, types, reading)
    alpha = next((number for number in alphas if number not in chosen), None)
    if alpha is not None and dataset.dtypes[alpha - 1] not in ("uint8", "uint16"):
        alpha = None
    left_out = tuple(k for k in range(1, dataset.count + 1) if k not in chosen and k != alpha)
    return _Bands(chosen=chosen, alpha=alpha, left_out=left_out, is_palette=is_palette)


def _declared_bands(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The bands for red, green and blue, or for grey, by what the file says of them; None where that is not clear."""
    if all(names.count(colour) == 1 for colour in _COLOURS):
        return tuple(names.index(colour) + 1 for colour in _COLOURS)
    others = [name for name in names if name != _ALPHA]
    return (names.index(others[0]) + 1,) if others in (["gray"], ["undefined"], ["palette"]) else None


def _check_types(path: Path, what: str, types: Sequence[str], reading: Reading) -> None:
    is_plain = types in (["uint8"], ["uint16"])
    is_number = len(types) == 1 and np.dtype(types[0]).kind in "iuf"
    if is_plain or (is_number and (reading.value_range is not None or types[0].startswith("float"))):
        return
    raise ValueError(
        f"{path} has {what}; {_WANTED} are read. Say which of its values are black and white: "
        "--value-range 0,10000 (value_range=(0, 10000))."
    )


def _read_bits(path: Path, dataset: Any) -> int:
    """Bits of a sample as the file declares them."""
    size = np.dtype(dataset.dtypes[0]).itemsize * 8
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", str(size))
    is_odd = bits not in ("1", "2", "4", "8") and not (bits.isdecimal() and 8 < int(bits) <= 64)
    if is_odd or "MINISWHITE" in dataset.tags(ns="IMAGE_STRUCTURE"):
        raise ValueError(f"{path} has samples of {bits} bits or white as 0; {_WANTED} are read. Save it anew.")
    return int(bits)


def _describe_bands(path: Path, dataset: Any, bands: _Bands) -> list[Note]:
    if not bands.left_out:
        return []
    used = "red, green and blue" if len(bands.chosen) == 3 else "grey"
    left_out = ", ".join(f"{k} ({dataset.colorinterp[k - 1].name})" for k in bands.left_out)
    chosen = ", ".join(map(str, bands.chosen))
    text = f"{path}: bands {chosen} are used for {used}; left out: {left_out}. Others are chosen by --bands (bands)."
    return [Note("bands", text)]


def _describe_scaling(path: Path, dataset: Any, bands: _Bands) -> list[Note]:
    declared = [(dataset.scales[k - 1], dataset.offsets[k - 1]) for k in bands.chosen]
    if all(pair == (1.0, 0.0) for pair in declared):
        return []
    scale, offset = next(pair for pair in declared if pair != (1.0, 0.0))
    text = f"{path} declares a scale ({scale:g}) and an offset ({offset:g}) for its values; they are not applied."
    return [Note("scale", f"{text} A value range counts values as they are stored.")]


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


def _read_placing(dataset: Any) -> Georeference:
    points, system = dataset.gcps
    tags = {key: value for key, value in dataset.tags().items() if key == "AREA_OR_POINT"}
    return Georeference(
        crs=dataset.crs,
        transform=None if dataset.transform.is_identity else dataset.transform,
        gcps=(points, system) if points else None,
        rpcs=dataset.rpcs,
        tags=tags,
    )


TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*TIFF_SUFFIXES, ".png")
TILE = 512
"""Side of the tiles of TIFF files, in pixels."""


class RasterWriter:
    """A picture to be written from top to bottom; see `open_target`.

    Rows are held until they fill tiles, because a tile that is written twice leaves its first form in the file.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._held: list[npt.NDArray[Any]] = []
        self._top = 0

    def begin(self) -> None:
        """Begin at the top, with other columns."""
        self._top = 0

    def write(self, rows: npt.NDArray[Any], left: int) -> None:
        """Write the next rows.

        Args:
            rows: `(H, W)` or `(H, W, 3)`: of some columns, which begin and end where tiles do, or the picture.
            left: The first of these columns.

        Raises:
            OSError: the file cannot be written.
        """
        self._held.append(rows)
        height = sum(len(held) for held in self._held)
        is_last = self._top + height == self._dataset.height
        whole = height if is_last else height // TILE * TILE
        if whole == 0:
            return
        joined = np.concatenate(self._held)
        self._held = [] if is_last else [joined[whole:].copy()]
        ready = joined[:whole] if joined.ndim == 3 else joined[:whole, :, np.newaxis]
        window = ((self._top, self._top + whole), (left, left + ready.shape[1]))
        self._dataset.write(np.moveaxis(ready, -1, 0), window=window)
        self._top += whole


@contextmanager
def open_target(
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    placing: Georeference,
    palette: Sequence[Colour] | None = None,
    nodata: int | None = None,
) -> Iterator[RasterWriter]:
    """Open a picture for writing; `path` holds it when the block has ended well, and else what was there before.

    A PNG file is made at the end from a TIFF beside it, which is removed; its georeferencing lies, as GDAL and QGIS
    look for it, in `NAME.png.aux.xml`.

    Args:
        path: `.tif`, `.tiff` or `.png`.
        shape: `(H, W)`, or `(H, W, 3)` for RGB.
        dtype: uint8 or uint16.
        placing: Georeferencing to be kept.
        palette: Colours of uint8 ids.
        nodata: The value that a TIFF file is to declare as standing for no data.

    Raises:
        ValueError: another suffix, or `path` is a pipe or a device.
        OSError: the file cannot be written.
    """
    check_suffix(path)
    with _as_os_error(Path(path)), replacing(path) as temporary:
        if Path(path).suffix.lower() in TIFF_SUFFIXES:
            with _open_tiff(temporary, shape, dtype, placing, palette) as dataset:
                if nodata is not None:
                    dataset.nodata = nodata
                yield RasterWriter(dataset)
            return
        with scratch_file(Path(path).resolve()) as tiff:
            with _open_tiff(tiff, shape, dtype, placing, palette) as dataset:
                yield RasterWriter(dataset)
            _convert_to_png(tiff, temporary, Path(path), placing)


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    errors = require_rasterio().errors
    try:
        yield
    except errors.RasterioError as error:
        raise OSError(f"Cannot write {path}: {error.__cause__ or error}") from error


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse other files than these.

    Raises:
        ValueError: the suffix is none of `.tif`, `.tiff` and `.png`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"In windows, pictures are written as .tif, .tiff or .png, not as {os.fspath(path)!r}.")


@contextmanager
def _open_tiff(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, placing: Georeference, palette: Sequence[Colour] | None
) -> Iterator[Any]:
    rasterio = require_rasterio()
    photometric = "palette" if palette is not None else "rgb" if len(shape) == 3 else "minisblack"
    options: dict[str, Any] = {"height": shape[0], "width": shape[1], "count": 3 if len(shape) == 3 else 1}
    options |= {"dtype": np.dtype(dtype).name, "photometric": photometric, "interleave": "pixel"}
    options |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "bigtiff": "if_safer"}
    options |= {"crs": placing.crs, "transform": placing.transform, "rpcs": placing.rpcs}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        with warnings_ignored(rasterio.errors.NotGeoreferencedWarning):  # not longer: it holds up other threads
            dataset = stack.enter_context(rasterio.open(path, "w", driver="GTiff", **options))
        if placing.gcps is not None:
            dataset.gcps = placing.gcps
        dataset.update_tags(**placing.tags)
        if palette is not None:
            colours = [*palette, *[(0, 0, 0)] * (256 - len(palette))]
            dataset.write_colormap(1, dict(enumerate(colours)))
        yield dataset


def _convert_to_png(tiff: Path, png: Path, target: Path, placing: Georeference) -> None:
    rasterio = require_rasterio()
    notes, kept = png.with_name(f"{png.name}.aux.xml"), target.with_name(f"{target.name}.aux.xml")
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_PAM_ENABLED=placing.is_known),
            warnings_ignored(rasterio.errors.NotGeoreferencedWarning),
        ):
            rasterio.shutil.copy(tiff, png, driver="PNG")
        if placing.is_known:
            notes.replace(kept)
        else:
            kept.unlink(missing_ok=True)  # of the picture that is replaced
    finally:
        notes.unlink(missing_ok=True)


STEP = 512
"""Rows that are turned at once."""


@contextmanager
def open_upright(path: str | os.PathLike[str], reading: Reading = AS_DECLARED) -> Iterator[RasterReader]:
    """As `large_source.open_source`, turned upright as `images.decode` does it.

    What is turned can be read a few rows at a time after it was copied: to the system's folder for temporary files
    (`TMPDIR`), four bytes a pixel, until the end of the block.

    Raises:
        ValueError: as `open_source`, or the image is to be turned and has georeferencing, which would no longer hold.
        OSError: as `open_source`, or the copy cannot be written.
    """
    with open_source(path, reading) as source:
        orientation = read_orientation(path)
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
    """A file in memory as a whole, read as `open_upright` reads it by parts.

    Raises:
        ValueError, OSError: as `open_upright`, or it has more than `image_files.MAX_PIXELS`.
    """
    with open_upright(path, reading) as source:
        if source.height * source.width > MAX_PIXELS:
            raise too_large(str(path), f"{source.width} x {source.height}")
        pixels, valid = source.read_with_mask(slice(0, source.height), slice(0, source.width))
        return Decoded(pixels=pixels, valid=None if valid.all() else valid, notes=source.notes())


def _copy_upright(source: RasterReader, orientation: int, path: Path) -> None:
    rasterio = require_rasterio()
    lies = orientation >= 5
    height, width = (source.width, source.height) if lies else (source.height, source.width)
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
            turned = _turn(np.dstack([pixels, np.where(valid, np.uint8(255), np.uint8(0))]), orientation)
            from_end = orientation in (3, 4, 6, 7)
            place = (source.height - bottom, source.height - top) if from_end else (top, bottom)
            window = ((0, height), place) if lies else (place, (0, width))
            target.write(np.moveaxis(turned, -1, 0), window=window)


def _turn(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Source of the numbers: EXIF 2.32, tag Orientation."""
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (6, 8):
        pixels = np.rot90(pixels, 1 if orientation == 8 else -1)
    if orientation in (3, 4, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
