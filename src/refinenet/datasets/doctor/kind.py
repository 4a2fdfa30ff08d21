"""What the findings of one kind have in common, and the wording that many kinds share."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """What findings of a kind have in common."""

    stops: bool
    fixable: bool
    meaning: str
    """May contain {placeholders}, filled by `find`."""
    advice: str


FIX = "`--fix OUT` writes a copy "
AGAIN = "Get new copies of the files, or remove both image and mask; " + FIX + "without these samples."
