"""Raster files written from top to bottom: cloud-optimised GeoTIFF, or PNG. H is height, W width."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refinenet.io.files import replacing, scratch_file
from refinenet.io.processes.threads import warnings_ignored
from refinenet.io.raster.reader import CACHE, Georeference, require_rasterio
from refinenet.labels import Colour

TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*TIFF_SUFFIXES, ".png")
TILE = 512
"""Side of the tiles of TIFF files, in pixels."""


class RasterWriter:
    """Raster file that is written from top to bottom; see `open_target`.

    Rows are buffered until they fill tiles, because a tile that is written twice leaves its first version in the file.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._buffered: list[npt.NDArray[Any]] = []
        self._top = 0

    def begin(self) -> None:
        """Continue at the top, with other columns."""
        self._top = 0

    def write(self, rows: npt.NDArray[Any], left: int) -> None:
        """Write the next rows.

        Args:
            rows: `(H, W)` ids or `(H, W, 3)` RGB, of all columns or of some that begin and end where tiles do.
            left: The first of these columns.

        Raises:
            OSError: The file cannot be written.
        """
        self._buffered.append(rows)
        height = sum(len(rows) for rows in self._buffered)
        is_last = self._top + height == self._dataset.height
        whole = height if is_last else height // TILE * TILE
        if whole == 0:
            return
        joined = np.concatenate(self._buffered)
        self._buffered = [] if is_last else [joined[whole:].copy()]
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
    nodata: float | None = None,
    text: Mapping[str, str] | None = None,
    overviews: Literal["mode", "average"] = "average",
    bands: Sequence[tuple[str, str]] = (),
) -> Iterator[RasterWriter]:
    """Open a raster file for writing; it replaces `path` at the end of the block, unless that raises.

    The file is converted at the end from a temporary TIFF beside it, because the overviews of a cloud-optimised GeoTIFF
    (https://cogeo.org) precede its pixels. The georeferencing of a PNG file is written to `NAME.png.aux.xml`, where
    GDAL and QGIS look for it.

    Args:
        path: `.tif`, `.tiff` or `.png`.
        shape: `(H, W)`, `(H, W, 3)` for RGB, or `(H, W, D)` for float32.
        dtype: uint8, uint16, or for TIFF float32.
        placing: Georeferencing to write.
        palette: Colours of uint8 ids.
        nodata: Value that a TIFF file declares as standing for no data.
        text: Texts by keyword that the file holds: as tags of a TIFF, as text chunks of a PNG.
        bands: Name and unit of each band of a TIFF, if they have any.
        overviews: How a TIFF is reduced for its overviews: to the most frequent value, for ids, or to the mean.

    Raises:
        ValueError: Another suffix, or `path` is a pipe or a device.
        OSError: The file cannot be written.
    """
    check_suffix(path)
    with _as_os_error(Path(path)), replacing(path) as temporary:
        is_tiff = Path(path).suffix.lower() in TIFF_SUFFIXES
        with scratch_file(Path(path).resolve()) as tiff:
            with _open_tiff(tiff, shape, dtype, placing, palette) as dataset:
                if is_tiff and nodata is not None:
                    dataset.nodata = nodata
                dataset.update_tags(**(text or {}))
                for number, (name, unit) in enumerate(bands, start=1):
                    dataset.set_band_description(number, name)
                    dataset.set_band_unit(number, unit)
                yield RasterWriter(dataset)
            if is_tiff:
                _convert_to_cloud_optimised(tiff, temporary, overviews, is_float=np.dtype(dtype).kind == "f")
            else:
                _convert_to_png(tiff, temporary, Path(path), placing, has_text=bool(text))


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    errors = require_rasterio().errors
    try:
        yield
    except errors.RasterioError as error:
        raise OSError(f"Cannot write {path}: {error.__cause__ or error}") from error


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Check the suffix of a raster file to be written.

    Raises:
        ValueError: The suffix is not `.tif`, `.tiff` or `.png`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"In windows, pictures are written as .tif, .tiff or .png, not as {os.fspath(path)!r}.")


@contextmanager
def _open_tiff(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, placing: Georeference, palette: Sequence[Colour] | None
) -> Iterator[Any]:
    rasterio = require_rasterio()
    count, is_float = (shape[2] if len(shape) == 3 else 1), np.dtype(dtype).kind == "f"
    photometric = "palette" if palette is not None else "rgb" if count == 3 and not is_float else "minisblack"
    options: dict[str, Any] = {"height": shape[0], "width": shape[1], "count": count}
    options |= {"dtype": np.dtype(dtype).name, "photometric": photometric, "interleave": "pixel"}
    options |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "bigtiff": "if_safer"}
    options |= {"predictor": 3} if is_float else {}
    options |= {"crs": placing.crs, "transform": placing.transform, "rpcs": placing.rpcs}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        with warnings_ignored(rasterio.errors.NotGeoreferencedWarning):  # no longer than this: it blocks other threads
            dataset = stack.enter_context(rasterio.open(path, "w", driver="GTiff", **options))
        if placing.gcps is not None:
            dataset.gcps = placing.gcps
        dataset.update_tags(**placing.tags)
        if palette is not None:
            colours = [*palette, *[(0, 0, 0)] * (256 - len(palette))]
            dataset.write_colormap(1, dict(enumerate(colours)))
        yield dataset


def _convert_to_cloud_optimised(tiff: Path, target: Path, overviews: str, *, is_float: bool) -> None:
    rasterio = require_rasterio()
    options: dict[str, Any] = {"blocksize": TILE, "compress": "deflate", "bigtiff": "if_safer"}
    options |= {"overview_resampling": overviews, "predictor": "floating_point" if is_float else "no"}
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE),
        warnings_ignored(rasterio.errors.NotGeoreferencedWarning),
    ):
        rasterio.shutil.copy(tiff, target, driver="COG", **options)


def _convert_to_png(tiff: Path, png: Path, target: Path, placing: Georeference, *, has_text: bool) -> None:
    rasterio = require_rasterio()
    notes, final_notes = png.with_name(f"{png.name}.aux.xml"), target.with_name(f"{target.name}.aux.xml")
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_PAM_ENABLED=placing.is_known),
            warnings_ignored(rasterio.errors.NotGeoreferencedWarning),
        ):
            rasterio.shutil.copy(tiff, png, driver="PNG", **({"WRITE_METADATA_AS_TEXT": "YES"} if has_text else {}))
        if placing.is_known:
            notes.replace(final_notes)
        else:
            final_notes.unlink(missing_ok=True)  # belongs to the file that is replaced
    finally:
        notes.unlink(missing_ok=True)
