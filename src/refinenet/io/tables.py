"""Tables of results: CSV by the standard library, Parquet by pyarrow, data frames by pandas."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from refinenet.io.extras import install_extra
from refinenet.io.files import write_atomically

Row = Mapping[str, str | int | float | None]
"""Values by column; None if undefined."""
_DIGITS = 6
"""Significant digits of fractions in text, which people read too."""
_DECIMALS = 2
"""Decimals of fractions in text, at least, however large the number is."""


def check_table(path: str | os.PathLike[str]) -> None:
    """Check, before a long computation, that a table can be written under a name.

    Raises:
        ValueError: The suffix is neither `.csv` nor `.parquet`, or pyarrow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise ValueError(f"A table is written as {' or '.join(_WRITERS)}, not as {os.fspath(path)!r}.")
    if suffix == ".parquet":
        _require_pyarrow()


def write_table(path: str | os.PathLike[str], rows: Sequence[Row], columns: Sequence[str]) -> Path:
    """Write a table; missing folders are created, an existing file is replaced.

    Args:
        path: A `.csv` file (UTF-8, comma-separated, empty cells for None, fractions rounded to six significant
            digits, but to no fewer than two decimals) or a `.parquet` file, with numbers as they are.
        rows: Values by column.
        columns: Names of all columns, in order.

    Raises:
        ValueError: As `check_table`.
        OSError: The file cannot be written.
    """
    check_table(path)
    return write_atomically(path, _WRITERS[Path(path).suffix.lower()](rows, columns))


def to_frame(rows: Sequence[Row], columns: Sequence[str]) -> Any:
    """Return a `pandas.DataFrame` of rows; missing numbers are NaN.

    Raises:
        ValueError: pandas is not installed.
    """
    try:
        import pandas as pd  # type: ignore[import-untyped] # pandas has no types of its own
    except ImportError as error:
        raise ValueError(f"Data frames need pandas, which is missing: {install_extra('tables')}") from error
    frame = pd.DataFrame(list(rows), columns=list(columns))
    empty = [name for name in columns if frame[name].isna().all()]
    return frame.astype(dict.fromkeys(empty, float))  # numbers that nobody has, not objects


def _to_csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _shorten(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")  # as `_as_text`


def _shorten(value: str | int | float | None) -> str | int | float | None:
    """Return a value, with digits behind the point only as far as `_DIGITS` and `_DECIMALS` ask for."""
    if not isinstance(value, float) or value == 0 or not math.isfinite(value):
        return value
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return round(value, max(decimals, _DECIMALS))


def _to_parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    pyarrow = _require_pyarrow()
    arrays = {name: pyarrow.array([_as_text(row.get(name)) for row in rows]) for name in columns}
    # A column without a value would have no type, and other programs refuse to join it to one with numbers.
    typed = {n: a.cast(pyarrow.float64()) if pyarrow.types.is_null(a.type) else a for n, a in arrays.items()}
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(typed), stream)
    return stream.getvalue()


def _as_text(value: str | int | float | None) -> str | int | float | None:
    """Return a value, with the bytes of a file name that are not text escaped."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _require_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"Parquet needs pyarrow, which is missing: {install_extra('tables')}; or write a .csv file."
        ) from error
    return pyarrow


_WRITERS: Mapping[str, Callable[[Sequence[Row], Sequence[str]], bytes]] = {".csv": _to_csv, ".parquet": _to_parquet}
