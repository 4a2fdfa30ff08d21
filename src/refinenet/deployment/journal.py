"""What a folder of results remembers: by what it was made, and which images are done, so that a run can go on.

`deploy.json` says once what all results are made by. `deploy.jsonl` gets a line for each image whose results are
written; a line that was cut off by a crash counts as none.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinenet.io.files import make_folders, refuse_blocked, write_atomically
from refinenet.io.locks import sole_owner

SETTINGS_FILE, JOURNAL_FILE = "deploy.json", "deploy.jsonl"
_LOCK_FILE = ".deploy.lock"
REPLACES = "replaces"
LABEL_FILES = "label_files"
"""The setting that says how `labels` are stored. Folders begun before it existed hold them with a palette."""
GREY = "grey"
FileState = Mapping[str, int | None]
_OTHERWISE = "Name another folder, or replace what is there by --overwrite (overwrite=True)."


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A run that was begun before, or that is to replace what is there."""

    time: int = 0
    """When it was begun, in nanoseconds by the folder's own clock."""
    replaces: bool
    """Whether it may replace files that are not its own."""
    is_noted: bool = False
    """Whether the folder says so."""
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is noted of the images that are done, by their places."""
    is_before: bool = False
    """Whether it was begun before label files were grey, as by version 1.0.0a1."""


class FolderRecord:
    """The record of a folder of results that is being written; see `open_record`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], begun: _Begun | None) -> None:
        self._folder, self._settings, self._begun = folder, settings, begun
        self._writing = threading.Lock()
        has_bytes = settings.get("label_set", {}).get("ignore_index") == 255
        self.has_palettes = begun is not None and begun.is_before and has_bytes
        """Whether label files are written with a palette, as those that the folder holds already."""

    def find_done(self, place: str, source: Path, targets: Sequence[Path]) -> Mapping[str, Any] | None:
        """What is noted of an image whose results are there, made from the file as it is now; else None.

        Raises:
            ValueError: there are files in the way that are not this image's results.
            OSError: a link or a folder is in the way, or the system does not allow the name of a result.
        """
        there = [target for target in targets if os.path.lexists(target)]
        entry = self._begun.entries.get(place) if self._begun is not None else None
        if entry is not None and there and entry.get("source") != _name(source):
            raise ValueError(f"{there[0]} is the result of {entry.get('source')}, not of {source}. {_OTHERWISE}")
        if entry is not None and all(os.path.isfile(target) for target in targets):
            is_same = all(entry.get(key) == value for key, value in file_state(source).items())
            if is_same:
                return entry
        self._refuse_blocked(targets)
        # What a killed run wrote and could not note any more is younger than its beginning.
        begun = 0 if self._begun is None else self._begun.time
        is_known = entry is not None or self._replaces or not there
        if not is_known and (not begun or min(path.lstat().st_mtime_ns for path in there) < begun):
            raise ValueError(f"{there[0]} is there, and not a result of this command. {_OTHERWISE}")
        return None

    @property
    def _replaces(self) -> bool:
        return self._begun is not None and self._begun.replaces

    def _refuse_blocked(self, targets: Sequence[Path]) -> None:
        for target in targets:
            if not (self._replaces and target.is_symlink()):
                refuse_blocked(target)

    def make_way(self, targets: Sequence[Path]) -> None:
        """Before results are written: a link in the place of one is removed where that may be, never followed.

        Raises:
            OSError: as `find_done`.
        """
        self._refuse_blocked(targets)
        for target in targets:
            if target.is_symlink():
                target.unlink()

    def is_one_name(self) -> bool:
        """Whether the folder's file system takes names that differ in capitals alone for one."""
        return os.path.lexists(self._folder / _LOCK_FILE.upper())

    def begin(self) -> None:
        """Say what results are made by from now on, if it is not said yet."""
        if self._begun is None or not self._begun.is_noted:
            (self._folder / JOURNAL_FILE).unlink(missing_ok=True)
            self._say(replaces=self._begun is not None)

    def finish(self) -> None:
        """Say that all was done: from now on files in the way are not replaced any more."""
        if self._begun is not None and self._begun.replaces:
            self._say(replaces=False)

    def _say(self, *, replaces: bool) -> None:
        noted = {**self._settings, REPLACES: replaces}
        write_atomically(self._folder / SETTINGS_FILE, (json.dumps(noted, indent=2) + "\n").encode())

    def note(self, place: str, source: Path, state: FileState, facts: Mapping[str, Any]) -> None:
        """Note an image whose results are written; may be called from several threads.

        Args:
            place: Of the results.
            source: The image file.
            state: Its `file_state` from before it was read.
            facts: What else is to be known of it.

        Raises:
            OSError: the line cannot be written.
        """
        line = json.dumps({"place": place, "source": _name(source), **state, **facts}) + "\n"
        with self._writing, (self._folder / JOURNAL_FILE).open("ab") as stream:
            stream.write(line.encode())


@contextmanager
def open_record(folder: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[FolderRecord]:
    """Take a folder of results into use; meanwhile nobody else can.

    Args:
        folder: Made where it is missing.
        settings: What results are made by, as JSON-ready values.
        overwrite: Whether to begin anew, whatever is there.

    Raises:
        ValueError: somebody else is writing into it, or what is there was made by other settings; they are named.
        OSError: it cannot be read or written.
    """
    make_folders(folder)
    _refuse_links(folder)
    with sole_owner(folder / _LOCK_FILE, f"Images are being deployed into {folder}"):
        begun = _Begun(replaces=True) if overwrite else _read_begun(folder, settings)
        is_before = begun is not None and begun.is_before
        yield FolderRecord(folder, _as_before(settings) if is_before else settings, begun)


def _refuse_links(folder: Path) -> None:
    """Refuse files of the record that would be written elsewhere; a record that was moved and linked is one, though."""
    for name in (SETTINGS_FILE, JOURNAL_FILE, _LOCK_FILE):
        path = folder / name
        if path.is_symlink() and (name == _LOCK_FILE or not path.is_file()):
            raise ValueError(f"{path} is a link, and the folder's record cannot be kept in its place. Remove the link.")


def _as_before(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings as a version noted them whose label files have a palette."""
    return {key: value for key, value in settings.items() if key != LABEL_FILES}


def _read_begun(folder: Path, settings: Mapping[str, Any]) -> _Begun | None:
    path = folder / SETTINGS_FILE
    noted = _read_settings(path)
    if noted is None:
        return None
    is_before = LABEL_FILES in settings and LABEL_FILES not in noted
    _refuse_others(folder, noted, json.loads(json.dumps(_as_before(settings) if is_before else settings)))
    return _Begun(
        is_before=is_before,
        time=path.stat().st_mtime_ns,
        replaces=noted.get(REPLACES) is True,
        is_noted=True,
        entries=_read_journal(folder / JOURNAL_FILE),
    )


def _read_settings(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        noted = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}), so nobody knows what made the results there. {_OTHERWISE}"
        ) from error
    if not isinstance(noted, dict):
        raise ValueError(f"{path} is none of this command's files. {_OTHERWISE}")
    return noted


def _refuse_others(folder: Path, noted: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    differing = [key for key in settings if noted.get(key) != settings[key]]
    if differing:
        told = "; ".join(f"{key} {_shorten(noted.get(key))}, now {_shorten(settings[key])}" for key in differing)
        raise ValueError(f"The results in {folder} were made otherwise: {told}. {_OTHERWISE}")


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    entries = {}
    with path.open("rb+") as stream:
        whole = 0
        for line in stream:
            if not line.endswith(b"\n"):
                stream.truncate(whole)
                break
            whole += len(line)
            entry = _read_line(line)
            if entry is not None:
                entries[entry["place"]] = entry
    return entries


def _read_line(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("place"), str) else None


def _name(source: Path) -> str:
    return os.path.realpath(source)


def file_state(source: Path) -> FileState:
    """By what a file that was changed or replaced is known; of what is no file, nothing."""
    try:
        facts = source.stat()
    except (OSError, ValueError):  # it is gone, or its name is none: whoever reads it says so
        return {"bytes": None, "mtime_ns": None}
    is_file = stat.S_ISREG(facts.st_mode)
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns} if is_file else {"bytes": None, "mtime_ns": None}


def _shorten(value: object, limit: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."
