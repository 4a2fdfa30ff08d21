"""Problems of targets as the rules find them, collected by kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Pair, name_pair, shorten
from refinenet.datasets.doctor.scan import Facts
from refinenet.datasets.doctor.targets.scan import TargetFacts


@dataclass(frozen=True, slots=True)
class Seen:
    """A target that was read."""

    fact: Facts
    target: TargetFacts

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.target.path or f"{name_pair(self.fact.pair)}, {self.target.name}"


class Notes:
    """Problems by kind, with the files that have them."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._names: dict[str, dict[str, str]] = defaultdict(dict)
        self.left_out: dict[Pair, str] = {}
        self.unfixable: set[str] = set()
        """Kinds that a repaired copy cannot repair here, unlike elsewhere."""

    def add(self, kind: str, one: Seen, message: str = "", *, partner: str = "", leaves_out: bool = False) -> None:
        """Record a problem of a file; the first line of a message becomes part of the meaning, others of the advice."""
        name = shorten(one.name, self._root) + (f" = {shorten(partner, self._root)}" if partner else "")
        self.add_name(kind, name, message.replace(one.name, shorten(one.name, self._root)))
        if leaves_out:
            self.left_out.setdefault(one.fact.pair, f"{kind}: {name}")

    def add_name(self, kind: str, name: str, message: str = "") -> None:
        """Record a problem of a target as a whole."""
        self._names[kind].setdefault(name, message)

    def make(self) -> list[Finding]:
        """Return the findings."""
        return [self._find(kind, names) for kind, names in sorted(self._names.items())]

    def _find(self, kind: str, names: Mapping[str, str]) -> Finding:
        message, _, lines = next(iter(names.values())).partition("\n")
        fixable = False if kind in self.unfixable else None
        return find(kind, sorted(names), fixable=fixable, message=message, lines=lines)
