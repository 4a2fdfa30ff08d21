"""Invalid entries of annotation files, collected so that all of them are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_KEPT = 1000
"""Entries per file that are described; further ones are only counted."""
MAX_SHOWN = 20
"""Entries listed in a message."""


@dataclass(kw_only=True)
class InvalidLabels:
    """Invalid entries of one or several files."""

    count: int = 0
    described: list[str] = field(default_factory=list)
    """The first `MAX_KEPT` entries, each with its place in the file and the problem."""

    def add(self, description: str) -> None:
        """Add an entry."""
        self.count += 1
        if len(self.described) < MAX_KEPT:
            self.described.append(description)

    def extend(self, other: InvalidLabels, prefix: str = "") -> None:
        """Add the entries of another file; `prefix` names it."""
        self.described += [prefix + one for one in other.described[: MAX_KEPT - len(self.described)]]
        self.count += other.count

    def list_lines(self) -> str:
        """Return up to `MAX_SHOWN` entries, one per line, and the number of further ones."""
        shown = self.described[:MAX_SHOWN]
        more = self.count - len(shown)
        return "\n".join([*shown, *([f"and {more:,} more"] if more else [])])


class InvalidLabelsError(ValueError):
    """A file has invalid entries; the message lists them."""

    def __init__(self, path: Path, invalid: InvalidLabels) -> None:
        if invalid.count == 1:
            text = f"{path}: {invalid.described[0]}"
        else:
            text = f"{path}: {invalid.count:,} entries cannot be used.\n{invalid.list_lines()}"
        super().__init__(text)
        self.path, self.invalid = path, invalid

    def __reduce__(self) -> tuple[type[InvalidLabelsError], tuple[Path, InvalidLabels]]:
        return type(self), (self.path, self.invalid)
