"""Hostile exported files: how each is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinenet import RefineNet

SECRET = "nobody may read or change this"
"""Content of a file that hostile ones point to."""


def refuse(path: Path, message: str) -> None:
    """Assert that a file is refused by name, for this reason, in words that are safe to print."""
    with pytest.raises(ValueError, match=message) as refused:
        RefineNet(model=path)
    told = str(refused.value)
    assert str(path) in told
    assert told.isprintable()
    assert len(told) < 3000
    assert SECRET not in told
