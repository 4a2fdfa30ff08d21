"""Names that an archive may use: those that mean the same plain place below a folder on every system."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

MAX_PART = 255
MAX_NAME = 1024
"""Bytes in UTF-8: of each part of a name, and of the whole."""
RESERVED = ".unpack"
"""How the names of our own markers and temporary folders begin."""


class Names:
    """The names met so far in one archive."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}

    def place(self, name: str, *, is_folder: bool) -> PurePosixPath:
        """The place that a name means, relative to the folder.

        Args:
            name: As the archive has it.
            is_folder: Whether it is a folder's.

        Raises:
            ValueError: the name leads outside, is unusual, or was met before, if only in another spelling.
        """
        parts = _parts(name)
        if not parts and not is_folder:
            raise ValueError(f"a file has the name {_short(name)}, which is none")
        for depth in range(1, len(parts) + 1):
            self._register("/".join(parts[:depth]), is_folder or depth < len(parts))
        return PurePosixPath(*parts)

    def _register(self, place: str, is_folder: bool) -> None:
        key = _fold(place)
        known, was_folder = self._seen.get(key, (place, True))
        if known != place:
            raise ValueError(
                f"the names {_short(known)} and {_short(place)} differ only in case or in how letters are encoded, and "
                "are one on some systems"
            )
        if key in self._seen and not (is_folder and was_folder):
            raise ValueError(f"the name {_short(place)} stands there twice")
        self._seen[key] = (place, is_folder)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    problem = None
    if not name.isprintable():
        problem = "has characters that cannot be printed, or is no UTF-8"
    elif "\\" in name or ":" in name:
        problem = "has a backslash or a colon"
    elif name.startswith("/"):
        problem = "is absolute"
    elif ".." in parts:
        problem = "leads upwards"
    elif any(part.endswith((".", " ")) for part in parts):
        problem = "has a part that ends in a dot or a space"
    elif len(name.encode()) > MAX_NAME or any(len(part.encode()) > MAX_PART for part in parts):
        problem = f"is too long (at most {MAX_PART} bytes for each part, {MAX_NAME} in all)"
    elif parts and parts[0].lower().startswith(RESERVED):
        problem = "is reserved"
    if problem:
        raise ValueError(f"the name {_short(name)} {problem}")
    return parts


def _fold(place: str) -> str:
    return unicodedata.normalize("NFC", place.casefold())


def _short(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]}...")
