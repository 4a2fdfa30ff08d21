"""What a folder of results remembers: by what it was made, and which images are done, so that a run can go on.

`deploy.json` says once what all results are made by. `deploy.jsonl` gets a line for each image whose results are
written; a line that was cut off by a crash counts as none.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinenet.files import make_folders, write_atomically
from refinenet.locks import sole_owner

SETTINGS_FILE, JOURNAL_FILE = "deploy.json", "deploy.jsonl"
_LOCK_FILE = ".deploy.lock"
REPLACES = "replaces"
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


class FolderRecord:
    """The record of a folder of results that is being written; see `open_record`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], begun: _Begun | None) -> None:
        self._folder, self._settings, self._begun = folder, settings, begun
        self._writing = threading.Lock()

    def find_done(self, place: str, source: Path, targets: Sequence[Path]) -> Mapping[str, Any] | None:
        """What is noted of an image whose results are there, made from the file as it is now; else None.

        Raises:
            ValueError: there are files in the way that are not this image's results.
        """
        there = [target for target in targets if target.exists()]
        if not there or (self._begun is not None and self._begun.replaces and place not in self._begun.entries):
            return None
        entry = self._begun.entries.get(place) if self._begun is not None else None
        if entry is None:
            # What a killed run wrote and could not note any more is younger than its beginning.
            if self._begun is None or min(path.stat().st_mtime_ns for path in there) < self._begun.time:
                raise ValueError(f"{there[0]} is there, and not a result of this command. {_OTHERWISE}")
            return None
        if entry.get("source") != _name(source):
            raise ValueError(f"{there[0]} is the result of {entry.get('source')}, not of {source}. {_OTHERWISE}")
        is_same = all(entry.get(key) == value for key, value in file_state(source).items())
        return entry if is_same and len(there) == len(targets) else None

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
    with sole_owner(folder / _LOCK_FILE, f"Images are being deployed into {folder}"):
        yield FolderRecord(folder, settings, _Begun(replaces=True) if overwrite else _read_begun(folder, settings))


def _read_begun(folder: Path, settings: Mapping[str, Any]) -> _Begun | None:
    path = folder / SETTINGS_FILE
    noted = _read_settings(path)
    if noted is None:
        return None
    _refuse_others(folder, noted, json.loads(json.dumps(settings)))
    return _Begun(
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
    return os.fspath(source.resolve())


def file_state(source: Path) -> FileState:
    """By what a file that was changed or replaced is known; of what is no file, nothing."""
    if not source.is_file():
        return {"bytes": None, "mtime_ns": None}
    facts = source.stat()
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def _shorten(value: object, limit: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."
