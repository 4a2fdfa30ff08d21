"""The journal of a results folder: the settings of its results and the finished images, so that a run can be resumed.

`deploy.json` holds the settings that all results share. `deploy.jsonl` gets a line for each image whose results are
written; a line torn by a crash is ignored.
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

from refinenet.deployment.setting_changes import find_setting_changes
from refinenet.io.files import make_folders, refuse_blocked, write_atomically
from refinenet.io.json_lines import append_json_line, read_json_lines
from refinenet.io.processes.locks import sole_owner

SETTINGS_FILE, JOURNAL_FILE = "deploy.json", "deploy.jsonl"
_LOCK_FILE = ".deploy.lock"
_PLACE = "place"
REPLACES = "replaces"
LABEL_FILES = "label_files"
"""Setting for how `labels` are stored. Folders started before it existed hold label files with a palette."""
GREY = "grey"
FileState = Mapping[str, int | None]
_ADVICE = "Choose another folder, or replace the results there with --overwrite (in Python overwrite=True)."


@dataclass(frozen=True, kw_only=True)
class _EarlierRun:
    """The earlier run that left the results in a folder, or an empty one that lets them be replaced."""

    time: int = 0
    """Start of the run, in nanoseconds by the clock of the folder's file system."""
    replaces: bool
    """Whether it may replace foreign files."""
    is_recorded: bool = False
    """Whether the settings file records it."""
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Journal entries of finished images, by place."""
    has_palettes: bool = False
    """Whether it was started before label files became grey, by version 1.0.0a1."""


class Journal:
    """The journal of a results folder in use; see `open_journal`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], earlier: _EarlierRun | None) -> None:
        self._folder, self._settings, self._earlier = folder, settings, earlier
        self._writing = threading.Lock()
        has_bytes = settings.get("label_set", {}).get("ignore_index") == 255
        self.has_palettes = earlier is not None and earlier.has_palettes and has_bytes
        """Whether label files are written with a palette, like those that the folder holds already."""

    def find_done(
        self, place: str, source: Path, targets: Sequence[Path], files: Sequence[Path] = ()
    ) -> Mapping[str, Any] | None:
        """Return the entry of a finished image, or None if one of its files has changed or a result is missing.

        Raises:
            ValueError: foreign files are in the way.
            OSError: a link or a folder is in the way, or the system does not allow the name of a result.
        """
        there = [target for target in targets if os.path.lexists(target)]
        entry = self._earlier.entries.get(place) if self._earlier is not None else None
        if entry is not None and there and entry.get("source") != _name(source):
            raise ValueError(f"{there[0]} is the result of {entry.get('source')}, not of {source}. {_ADVICE}")
        if entry is not None and all(os.path.isfile(target) for target in targets):
            is_same = all(entry.get(key) == value for key, value in file_state(*(files or (source,))).items())
            if is_same:
                return entry
        self._refuse_blocked(targets)
        # A killed run may have written results without their entries: files younger than its start are its own.
        started = 0 if self._earlier is None else self._earlier.time
        is_known = entry is not None or self._replaces or not there
        if not is_known and (not started or min(path.lstat().st_mtime_ns for path in there) < started):
            raise ValueError(f"{there[0]} exists, but is not a result of this command. {_ADVICE}")
        return None

    @property
    def _replaces(self) -> bool:
        return self._earlier is not None and self._earlier.replaces

    def _refuse_blocked(self, targets: Sequence[Path]) -> None:
        for target in targets:
            if not (self._replaces and target.is_symlink()):
                refuse_blocked(target)

    def clear_targets(self, targets: Sequence[Path]) -> None:
        """Remove links at the paths of results where allowed; they are never followed.

        Raises:
            OSError: as `find_done`.
        """
        self._refuse_blocked(targets)
        for target in targets:
            if target.is_symlink():
                target.unlink()

    def is_caseless(self) -> bool:
        """Return whether the folder's file system ignores case in names."""
        return os.path.lexists(self._folder / _LOCK_FILE.upper())

    def begin(self) -> None:
        """Record the settings of the run, unless the folder has them already."""
        if self._earlier is None or not self._earlier.is_recorded:
            # The old journal goes first: after a crash in between, no entry belongs to settings that did not make it.
            (self._folder / JOURNAL_FILE).unlink(missing_ok=True)
            self._write_settings(replaces=self._earlier is not None)

    def finish(self) -> None:
        """Record that all jobs are done: from now on, foreign files are no longer replaced."""
        if self._earlier is not None and self._earlier.replaces:
            self._write_settings(replaces=False)

    def _write_settings(self, *, replaces: bool) -> None:
        settings = {**self._settings, REPLACES: replaces}
        write_atomically(self._folder / SETTINGS_FILE, (json.dumps(settings, indent=2) + "\n").encode())

    def append(self, place: str, source: Path, state: FileState, facts: Mapping[str, Any]) -> None:
        """Append the entry of an image whose results are written. Thread-safe.

        Args:
            place: Place of the results.
            source: The image file.
            state: Its `file_state` from before it was read.
            facts: Further fields of the entry.

        Raises:
            OSError: the line cannot be written.
        """
        with self._writing:
            append_json_line(self._folder / JOURNAL_FILE, {_PLACE: place, "source": _name(source), **state, **facts})


@contextmanager
def open_journal(folder: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[Journal]:
    """Open the journal of a results folder and lock the folder against other runs.

    Args:
        folder: Created if missing.
        settings: What the results depend on, as JSON-ready values.
        overwrite: Whether to start again, whatever the folder holds.

    Raises:
        ValueError: another run is writing into the folder, or its results have other settings, which are named.
        OSError: the folder cannot be read or written.
    """
    make_folders(folder)
    _refuse_links(folder)
    with sole_owner(folder / _LOCK_FILE, f"Images are being deployed into {folder}"):
        earlier = _EarlierRun(replaces=True) if overwrite else _find_earlier(folder, settings)
        has_palettes = earlier is not None and earlier.has_palettes
        yield Journal(folder, _without_label_files(settings) if has_palettes else settings, earlier)


def _refuse_links(folder: Path) -> None:
    """Refuse links in place of the journal's files, but for a journal that was moved and linked."""
    for name in (SETTINGS_FILE, JOURNAL_FILE, _LOCK_FILE):
        path = folder / name
        if path.is_symlink() and (name == _LOCK_FILE or not path.is_file()):
            raise ValueError(f"{path} is a link, so the journal of the folder cannot be written. Remove the link.")


def _without_label_files(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings as recorded by versions whose label files have a palette."""
    return {key: value for key, value in settings.items() if key != LABEL_FILES}


def _find_earlier(folder: Path, settings: Mapping[str, Any]) -> _EarlierRun | None:
    path = folder / SETTINGS_FILE
    recorded = _read_settings(path)
    if recorded is None:
        return None
    has_palettes = LABEL_FILES in settings and LABEL_FILES not in recorded
    _refuse_others(folder, recorded, _without_label_files(settings) if has_palettes else settings)
    return _EarlierRun(
        has_palettes=has_palettes,
        time=path.stat().st_mtime_ns,
        replaces=recorded.get(REPLACES) is True,
        is_recorded=True,
        entries=read_json_lines(folder / JOURNAL_FILE, _PLACE),
    )


def _read_settings(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        recorded = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}), so the settings of the results there are unknown. {_ADVICE}"
        ) from error
    if not isinstance(recorded, dict):
        raise ValueError(f"{path} was not written by this command. {_ADVICE}")
    return recorded


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder whose results were made with other settings than these, which need not be all.

    Raises:
        ValueError: They were, or the file with the settings is damaged.
        OSError: It cannot be read.
    """
    recorded = _read_settings(folder / SETTINGS_FILE)
    if recorded is not None:
        _refuse_others(folder, recorded, settings, is_whole=False)


def _refuse_others(
    folder: Path, recorded: Mapping[str, Any], settings: Mapping[str, Any], *, is_whole: bool = True
) -> None:
    changes = find_setting_changes(recorded, json.loads(json.dumps(settings)), is_whole=is_whole)
    if changes:
        raise ValueError(f"The results in {folder} were made {' and '.join(changes)}. {_ADVICE}")


def _name(source: Path) -> str:
    return os.path.realpath(source)


def file_state(*files: Path) -> FileState:
    """Return size and modification time, summed over several files; they change when a file is replaced.

    Both are None if a path is not a file.
    """
    try:
        facts = [file.stat() for file in files]
    except (OSError, ValueError):  # missing, or not a valid name: the error is reported on reading
        return {"bytes": None, "mtime_ns": None}
    if not all(stat.S_ISREG(each.st_mode) for each in facts):
        return {"bytes": None, "mtime_ns": None}
    return {"bytes": sum(each.st_size for each in facts), "mtime_ns": sum(each.st_mtime_ns for each in facts)}
