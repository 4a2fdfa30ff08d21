"""Image files of any size, turned upright as their EXIF orientation says. H is height, W width."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.io.image_files import MAX_PIXELS, read_orientation, too_large
from refinenet.io.raster import CACHE, LargeSource, open_source, require_rasterio
from refinenet.io.sample_values import AS_DECLARED, Decoded, Reading
from refinenet.io.threads import warnings_ignored

STEP = 512
"""Rows that are turned at once."""


@contextmanager
def open_upright(path: str | os.PathLike[str], reading: Reading = AS_DECLARED) -> Iterator[LargeSource]:
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


def _copy_upright(source: LargeSource, orientation: int, path: Path) -> None:
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
