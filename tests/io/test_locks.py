"""Locks between processes; `tests/training/test_run_folder.py` tries them with real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinenet.io import only_one


def test_an_error_while_reporting_the_wait_is_not_taken_for_a_file_system_without_locks(tmp_path: Path) -> None:
    def report() -> None:
        raise OSError(28, "No space left on device")

    first, second = only_one(tmp_path / "lock", report), only_one(tmp_path / "lock", report)
    with first, pytest.raises(OSError, match="No space left"), second:
        pytest.fail("two hold the lock")
    with only_one(tmp_path / "lock", report):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()
