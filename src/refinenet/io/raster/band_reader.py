"""Raster files of named bands, read by parts for models of these bands; see `band_images` for their values.

Shape letters: H height, W width, B bands of the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.images.band_images import scale_bands
from refinenet.io.images.bands import name_bands
from refinenet.io.images.image_headers import read_orientation
from refinenet.io.images.sample_values import Mask, Note, Reading
from refinenet.io.raster.bands import MissingData, check_blocks
from refinenet.io.raster.reader import as_value_error, open_raster, read_georeference, require_rasterio


class BandReader:
    """File of named bands that is read by parts, with the methods of `reader.RasterReader`; see `open_bands`."""

    dtype: type[np.uint8 | np.float32] = np.float32
    may_lack_data = True
    """Whether there may be pixels without data."""

    def __init__(self, path: Path, dataset: Any, reading: Reading) -> None:
        self.path, self._dataset, self._reading = path, dataset, reading
        self.height, self.width = int(dataset.height), int(dataset.width)
        self.channels = len(reading.model_bands)
        check_blocks(path, dataset)
        numbers = reading.bands or tuple(range(1, dataset.count + 1))
        if len(numbers) != self.channels:
            more = " Choose them with --bands (bands)." if len(numbers) > self.channels else ""
            raise ValueError(f"The model takes {name_bands(reading.model_bands)}; {path} has {dataset.count}.{more}")
        if max(numbers) > dataset.count:
            raise ValueError(f"{path} has {dataset.count} bands: there is no band {max(numbers)}.")
        self._numbers = list(numbers)
        self._plain = Reading(model_bands=reading.model_bands)
        self._missing = MissingData.read_from(dataset, numbers, None)
        self.placing = read_georeference(dataset)
        self._notes: dict[str, Note] = {}

    def notes(self) -> tuple[Note, ...]:
        """Return what should be reported about the file, from what has been read of it so far."""
        return tuple(self._notes.values())

    def read(self, rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        """Read a part of the image as `(H, W, B)` float32 in [0, 1].

        Raises:
            ValueError: The file is damaged, or a band needs a range.
        """
        return self.read_with_mask(rows, columns)[0]

    def read_with_mask(self, rows: slice, columns: slice) -> tuple[npt.NDArray[np.float32], Mask]:
        """Read a part of the image as `read` does, and where it has data, `(H, W)` bool.

        Raises:
            ValueError: As `read`.
        """
        window = (rows.start, rows.stop), (columns.start, columns.stop)
        with as_value_error(self.path):
            values = self._dataset.read(self._numbers, window=window).transpose(1, 2, 0)
            known = self._missing.find_each(self._dataset, values, window)
        decoded = scale_bands(values, known, str(self.path), self._plain)
        for note in decoded.notes:
            self._notes.setdefault(note.kind, note)
        everywhere = np.ones(values.shape[:2], np.bool_)
        return decoded.pixels, everywhere if decoded.valid is None else decoded.valid


@contextmanager
def open_bands(path: str | os.PathLike[str], reading: Reading) -> Iterator[BandReader]:
    """Open a file whose bands are those of a model.

    Raises:
        ValueError: rasterio is not installed, the file is damaged or stored turned, or has other bands.
        OSError: The file is missing, a folder, or not readable.
    """
    require_rasterio()
    source = Path(path)
    with open_raster(source) as dataset:
        with source.open("rb") as stream:
            if read_orientation(stream) != 1:
                raise ValueError(f"{source} is stored rotated or mirrored. Save it upright.")
        yield BandReader(source, dataset, reading)
