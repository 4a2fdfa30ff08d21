"""Files of JSON lines: what a crash, an earlier version or a stranger left in them."""

from __future__ import annotations

from pathlib import Path

from refinenet.io import append_json_line, parse_json_lines, read_json_lines


def test_the_last_line_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read_json_lines(path, "name") == {}
    assert not path.exists()
    for name, value in (("one", 1), ("two", 2), ("one", 3)):
        append_json_line(path, {"name": name, "value": value})
    assert read_json_lines(path, "name") == {
        "one": {"name": "one", "value": 3},
        "two": {"name": "two", "value": 2},
    }


def test_a_torn_line_does_not_run_into_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    append_json_line(path, {"name": "one"})
    whole = path.read_bytes()
    append_json_line(path, {"name": "two"})
    for end in range(len(whole) + 1, len(path.read_bytes())):
        torn = tmp_path / f"{end}.jsonl"
        torn.write_bytes(path.read_bytes()[:end])
        assert read_json_lines(torn, "name").keys() == {"one"}
        assert torn.read_bytes() == whole
        append_json_line(torn, {"name": "three"})
        assert read_json_lines(torn, "name").keys() == {"one", "three"}


def test_lines_that_are_none_are_skipped() -> None:
    invalid = (b"", b"{", b"[]", b"null", b'{"name": 3}', b'{"other": "x"}', b"\xff\xfe", b"[" * 100_000, b"{" * 10)
    lines = [line + b"\n" for line in (*invalid, b'{"name": "one"}')]
    assert list(parse_json_lines(lines, "name")) == [{"name": "one"}]
