"""Entries of annotation files that cannot be used: collected, so that all of them are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_KEPT = 1000
"""Entries of a file that are described; beyond that they are counted."""
MAX_SHOWN = 20
"""Entries that a message lists."""


@dataclass(kw_only=True)
class InvalidLabels:
    """What cannot be used of a file, or of several."""

    count: int = 0
    described: list[str] = field(default_factory=list)
    """The first `MAX_KEPT` of them, each with its place in the file and what is wrong with it."""

    def add(self, description: str) -> None:
        """Note an entry."""
        self.count += 1
        if len(self.described) < MAX_KEPT:
            self.described.append(description)

    def extend(self, other: InvalidLabels, prefix: str = "") -> None:
        """Note the entries of another file; `prefix` names it."""
        self.described += [prefix + one for one in other.described[: MAX_KEPT - len(self.described)]]
        self.count += other.count

    def list_lines(self) -> str:
        """Up to `MAX_SHOWN` of them, one on each line, and how many more there are."""
        shown = self.described[:MAX_SHOWN]
        more = self.count - len(shown)
        return "\n".join([*shown, *([f"and {more:,} more"] if more else [])])


class InvalidLabelsError(ValueError):
    """A file has entries that cannot be used; the message lists them."""

    def __init__(self, path: Path, invalid: InvalidLabels) -> None:
        if invalid.count == 1:
            text = f"{path}: {invalid.described[0]}"
        else:
            text = f"{path}: {invalid.count:,} entries cannot be used.\n{invalid.list_lines()}"
        super().__init__(text)
        self.path, self.invalid = path, invalid

    def __reduce__(self) -> tuple[type[InvalidLabelsError], tuple[Path, InvalidLabels]]:
        return type(self), (self.path, self.invalid)
