"""The power fails after each file operation: what was not flushed (fsync) may be on the disk, in part, or not at all.

A kill leaves all that was written, so it says nothing of a flush that is missing. Here the operations of some saves are
followed, and what a disk may hold after a loss of power at each moment is made from them: of a file that was not
flushed nothing, a part or all, and of the changes in a folder that was not flushed any selection.

The idea is that of "All File Systems Are Not Created Equal", OSDI 2014.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from file_calls import REAL, redirected
from trials import Tally, contents, is_whole

from refinenet.training.records.checkpoints import Checkpoints


@dataclass
class _File:
    written: bytes = b""
    flushed: bytes = b""

    def find(self, parts: tuple[str, ...]) -> _File | _Folder:
        assert not parts, "a file holds no files"
        return self


_Change = tuple[str, "_File | _Folder | None", str]
"""A name and what is there now; or nothing, and the name that it has instead, or ""."""


@dataclass
class _Folder:
    flushed: dict[str, _File | _Folder] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)
    """Not flushed yet."""

    def entries(self, changes: list[_Change]) -> dict[str, _File | _Folder]:
        """What is there where some changes have reached the disk."""
        entries = dict(self.flushed)
        for name, node, new_name in changes:
            if node is not None:
                entries[name] = node
            elif (moved := entries.pop(name, None)) and new_name:
                entries[new_name] = moved
        return entries

    def find(self, parts: tuple[str, ...]) -> _File | _Folder:
        return self.entries(self.changes)[parts[0]].find(parts[1:]) if parts else self


@dataclass
class _Disk:
    """Follows the operations on a real folder."""

    folder: Path
    look: Callable[[str], None]
    """Called after each operation that changes something, with its name."""
    root: _Folder = field(default_factory=_Folder)
    opened: dict[int, _File | _Folder] = field(default_factory=dict)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        answer = REAL[name](*arguments, **options)
        if isinstance(arguments[0], int):
            if arguments[0] in self.opened:
                self.note_by_descriptor(name, self.opened[arguments[0]], arguments, answer)
        elif options.get("dir_fd") in self.opened:
            self.note(name, self.opened[options["dir_fd"]], (str(arguments[0]),), arguments, answer)
        elif Path(arguments[0]).is_relative_to(self.folder):
            self.note(name, self.root, Path(arguments[0]).relative_to(self.folder).parts, arguments, answer)
        return answer

    def note_by_descriptor(self, name: str, node: _File | _Folder, arguments: tuple[Any, ...], answer: Any) -> None:
        if name == "close":
            del self.opened[arguments[0]]
        elif name == "write" and isinstance(node, _File):
            node.written += bytes(arguments[1][:answer])
        elif name == "fsync" and isinstance(node, _File):
            node.flushed = node.written
        elif name == "fsync" and isinstance(node, _Folder):
            node.flushed, node.changes = node.entries(node.changes), []
        if name in ("write", "fsync"):
            self.look(name)

    def note(
        self, name: str, start: _File | _Folder, parts: tuple[str, ...], arguments: tuple[Any, ...], answer: Any
    ) -> None:
        made: _File | _Folder | None = None
        new_name = ""
        if name == "open":
            made = self.opened[answer] = _File() if arguments[1] & os.O_CREAT else start.find(parts)
            if not arguments[1] & os.O_CREAT:
                return
        elif name == "mkdir":
            made = _Folder()
        elif name in ("rename", "replace"):
            assert Path(arguments[1]).parent == Path(arguments[0]).parent, "moves between folders are not followed"
            new_name = Path(arguments[1]).name
        elif name not in ("unlink", "remove", "rmdir"):
            return
        parent = start.find(parts[:-1])
        assert isinstance(parent, _Folder)
        parent.changes.append((parts[-1], made, new_name))
        self.look(name)


def _write(node: _File | _Folder, path: Path, chance: random.Random | None) -> None:
    """Write what the disk may hold: without `chance` only what was flushed, or else any part of the rest too."""
    if isinstance(node, _File):
        rest = node.written[len(node.flushed) :]
        path.write_bytes(node.flushed + rest[: chance.choice((0, len(rest) // 2, len(rest))) if chance else 0])
        return
    path.mkdir()
    changes = [change for change in node.changes if chance and chance.random() < 0.7]
    for name, below in node.entries(changes).items():
        _write(below, path / name, chance)


def lose_power(seed: int, folder: Path, disks: int = 4) -> Tally:
    """Save some steps; after each operation load from what some disks may hold."""
    chance = random.Random(seed)
    tally = Tally(f"a loss of power after the N-th operation, seed {seed}")
    acknowledged = 0

    def look(operation: str) -> None:
        for number in range(disks):
            tally.trials += 1
            place = folder / f"disk-{tally.trials}"
            _write(disk.root, place, chance if number else None)
            _judge(place / "checkpoints", acknowledged, f"after {operation}, {place.name}", tally)

    (folder / "run").mkdir(parents=True)
    disk = _Disk(folder / "run", look)
    for step, keep in ((1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (5, 3)):
        with redirected(disk.call):
            Checkpoints(folder / "run" / "checkpoints", keep).save(step, contents(step, 300))
        acknowledged = step
        look(f"the save of step {step}")
    return tally


def _judge(folder: Path, acknowledged: int, case: str, tally: Tally) -> None:
    try:
        found = Checkpoints(folder).load_newest()
    except ValueError as error:
        tally.lost.append(f"{case}: {error}")
        return
    step = found.step if found else 0
    if step < acknowledged:
        tally.lost.append(f"{case}: step {acknowledged} was acknowledged, {step} is the newest")
    if found and not is_whole(found, 300):
        tally.lost.append(f"{case}: step {step} is not what was saved")
    if found and found.quarantined:
        tally.other.append(f"{case}: a false alarm: {found.quarantined}")
