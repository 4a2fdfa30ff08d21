"""Tables are read back by pandas as they were; what cannot be written is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
import pytest

from refinenet.io.tables import Row, check_table, to_frame, write_table

ROWS: list[Row] = [
    {"image": 'a "b", c.png', "id": 0, "share": 0.1, "regions": None},
    {"image": "größe.png", "id": 1, "share": None, "regions": None},
]
COLUMNS = ("image", "id", "share", "regions")


@pytest.mark.parametrize(("name", "read"), [("t.csv", pd.read_csv), ("new/t.PARQUET", pd.read_parquet)])
def test_pandas_reads_what_was_written(name: str, read: object, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, ROWS, COLUMNS)
    assert callable(read)
    pd.testing.assert_frame_equal(read(path), to_frame(ROWS, COLUMNS), check_dtype=False)
    assert read(path)["regions"].dtype == "float64"  # without a value, and yet a column of numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (123456789, "123456789"),
        (1 / 3, "0.333333"),
        (2e-9 / 3, "6.66667e-10"),
        (0.99999996, "1.0"),
        (-1234.5678, "-1234.57"),
        (12345678.25, "12345678.25"),
        (98765432.123, "98765432.12"),
        (0.0, "0.0"),
        (5e-324, "5e-324"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_text_has_fractions_of_six_digits_and_two_decimals(value: float, text: str, tmp_path: Path) -> None:
    rows: list[Row] = [{"id": 0, "value": value}]
    assert write_table(tmp_path / "t.csv", rows, ("id", "value")).read_text() == f"id,value\n0,{text}\n"
    exact = pd.read_parquet(write_table(tmp_path / "t.parquet", rows, ("id", "value")))["value"]
    pd.testing.assert_series_equal(exact, pd.Series([value], name="value"), check_exact=True)


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    assert write_table(tmp_path / "t.csv", [], COLUMNS).read_text() == "image,id,share,regions\n"
    assert list(pd.read_parquet(write_table(tmp_path / "t.parquet", [], COLUMNS))) == list(COLUMNS)


def test_a_name_that_is_not_text_is_written(tmp_path: Path) -> None:
    rows: list[Row] = [{"image": "\udcff.png"}]
    assert b"\\udcff.png" in write_table(tmp_path / "t.csv", rows, ["image"]).read_bytes()
    assert "udcff" in pd.read_parquet(write_table(tmp_path / "t.parquet", rows, ["image"]))["image"][0]


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\.csv or \.parquet, not as 't\.xlsx'"):
        check_table("t.xlsx")
