"""Pictures of any size, written a few rows at a time: tiled and compressed TIFF, or PNG. H is height, W width."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.files import replacing, scratch_file
from refinenet.io.raster import CACHE, Placing, require_rasterio
from refinenet.io.threads import warnings_ignored
from refinenet.labels import Colour

TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*TIFF_SUFFIXES, ".png")
TILE = 512
"""Side of the tiles of TIFF files, in pixels."""


class LargeTarget:
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
    placing: Placing,
    palette: Sequence[Colour] | None = None,
    nodata: int | None = None,
) -> Iterator[LargeTarget]:
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
                yield LargeTarget(dataset)
            return
        with scratch_file(Path(path).resolve()) as tiff:
            with _open_tiff(tiff, shape, dtype, placing, palette) as dataset:
                yield LargeTarget(dataset)
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
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, placing: Placing, palette: Sequence[Colour] | None
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


def _convert_to_png(tiff: Path, png: Path, target: Path, placing: Placing) -> None:
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
