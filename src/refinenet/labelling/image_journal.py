"""Journal of a pass over many images: one line per finished image, so that an interrupted pass can continue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refinenet.deployment import Options, find_setting_changes, write_repeated, write_value
from refinenet.io.files import make_folders, write_atomically
from refinenet.io.json_lines import append_json_line, read_json_lines
from refinenet.io.processes.locks import sole_owner

Entry = Mapping[str, Any]
_NAME = "name"


class ImageJournal:
    """Entries of finished images by name, and a file that gets a line for each new one; see `open_image_journal`.

    Args:
        path: The file of lines.
        entries: What it holds already.
    """

    def __init__(self, path: Path, entries: dict[str, Entry]) -> None:
        self._path, self._entries = path, entries

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str, state: Mapping[str, Any]) -> Entry | None:
        """Return the entry of an image; None if there is none or the image has changed since.

        Args:
            name: Name of the image.
            state: A value that changes when its files do, such as their sizes and times.
        """
        entry = self._entries.get(name)
        return entry if entry is not None and all(entry.get(key) == value for key, value in state.items()) else None

    def add(self, name: str, entry: Entry) -> None:
        """Write the entry of an image, whose files are written already.

        Raises:
            OSError: It cannot be written.
        """
        self._entries[name] = entry
        append_json_line(self._path, {_NAME: name, **entry})


@contextmanager
def open_image_journal(folder: Path, purpose: str, settings: Mapping[str, Any]) -> Iterator[ImageJournal]:
    """Open the journal of a folder, and lock the folder against other runs.

    Args:
        folder: Created if missing. The journal is `PURPOSE.jsonl` in it, its settings are `PURPOSE.json`.
        purpose: Name of its files.
        settings: What entries depend on, JSON-ready.

    Raises:
        ValueError: Another run works in the folder, or it holds results of other settings, which are named.
        OSError: The folder cannot be read or written.
    """
    make_folders(folder)
    with sole_owner(folder / f".{purpose}.lock", f"Results are being written into {folder}"):
        described, lines = folder / f"{purpose}.json", folder / f"{purpose}.jsonl"
        if described.exists():
            _refuse_others(described, settings)
        else:
            lines.unlink(missing_ok=True)  # of another run, whose settings are gone
            write_atomically(described, (json.dumps(settings, indent=2) + "\n").encode())
        entries = read_json_lines(lines, _NAME)
        yield ImageJournal(lines, {name: _without_name(entry) for name, entry in entries.items()})


def _without_name(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != _NAME}


def _refuse_others(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        recorded = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): choose another folder, or delete it to begin again.") from error
    before = _flatten(recorded if isinstance(recorded, dict) else {})
    now = _flatten(json.loads(json.dumps(settings)))
    changes = find_setting_changes(before, now, options=_list_options([*before, *now]))
    if changes:
        raise ValueError(
            f"The results in {path.parent} were made {' and '.join(changes)}. Choose another folder (--output), or "
            f"delete {path.name} there to begin again."
        )


def _flatten(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return settings in groups as one mapping, with names such as "network.decoder.widths".

    Settings of trainings are texts, so that `flip=false` is another setting than none.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flatten(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = json.dumps(value) if above == "settings." else value
    return found


def _list_options(names: Iterable[str]) -> Options:
    """Return how settings are given on the command line: "settings.epochs" is --set epochs."""
    options = dict(_OPTIONS)
    for name in names:
        group, _, key = name.partition(".")
        if group in _GROUPS and key:
            options.setdefault(name, _GROUPS[group](key))
    return options


_OPTIONS: Options = {
    "dataset": write_value("the dataset"),
    "splits": write_repeated("--split"),
    "folds": write_value("--folds"),
    "group": write_repeated("--group"),
    "network.size": write_value("--size"),
    "network.model": write_repeated("--start"),
}
_GROUPS: Mapping[str, Callable[[str], Callable[[Any], str]]] = {
    "network": lambda key: write_value(f"network.{key}"),
    "settings": lambda key: lambda value: f"--set {key}={value}",
    "models": lambda file: lambda digest: f"--model {file} ({str(digest)[:8]})",
}
