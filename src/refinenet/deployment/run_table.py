"""Table of the class areas of all images of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from refinenet.deployment.file_results import FileResult
from refinenet.inference.area_table import AREA_COLUMNS, GROUND_COLUMN, area_rows
from refinenet.io.files import refuse_unwritable
from refinenet.io.tables import check_table, write_table


class AreaTable:
    """A row for each image and class, written at the end of a run.

    Args:
        path: The `.csv` or `.parquet` file.

    Raises:
        ValueError: the suffix is not one of these, or a package is missing.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Before the run, which may take hours.
        check_table(path)
        refuse_unwritable(path)
        self._path, self._rows = path, list[dict[str, Any]]()

    def add(self, result: FileResult) -> None:
        """Add the classes of an image; images that failed have no rows."""
        size = round(result.width * result.height * (1 - result.no_data))
        rows = area_rows(result.areas, size, result.regions, result.pixel_area)
        self._rows += [{"image": str(result.image), **row} for row in rows]

    def write(self) -> Path:
        """Write the table; a `.csv` file has a column of square metres only if an image is georeferenced.

        Raises:
            OSError: the file cannot be written.
        """
        is_text = Path(self._path).suffix.lower() == ".csv"  # which people read; programs rely on the columns of others
        is_left_out = is_text and all(row[GROUND_COLUMN] is None for row in self._rows)
        columns = tuple(name for name in AREA_COLUMNS if name != GROUND_COLUMN or not is_left_out)
        rows = [{name: row[name] for name in ("image", *columns)} for row in self._rows]
        return write_table(self._path, rows, ("image", *columns))
