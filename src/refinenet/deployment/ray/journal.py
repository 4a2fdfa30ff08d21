"""The journal of runs over many machines, which lets another run skip finished images.

`deployment.journal` appends to one file, which object stores do not support; here each part of the journal is a new
file that is never changed. Both recognise an image and its result by size and modification time.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinenet.deployment.ray.storage import find_stamps, is_here, join, list_names, read_content, write_content
from refinenet.io.console import describe_error
from refinenet.io.files import make_folders, sweep_leftovers
from refinenet.io.json_lines import parse_json_lines
from refinenet.io.processes.locks import sole_owner

FOLDER = ".refinenet"
"""Folder of the journal in a results folder."""
_OUTPUT = "output"
_ROWS, _SECONDS = 512, 5.0
"""Lines of a part, and time since the last part, after which a part of the journal is written."""


@dataclass(frozen=True, kw_only=True)
class RayResult:
    """Outcome for one image."""

    image: str
    output: str
    areas: Mapping[str, float] | None
    """Share of the image's pixels with data by class name, in [0, 1]; None if it was not segmented."""
    error: str | None
    """Reason of the failure; None on success."""
    is_new: bool
    """Whether this run made the result; otherwise an earlier run did."""
    no_data: float = 0.0
    """Share of the image's pixels without data, in [0, 1]; they have no class."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "output": self.output,
            "areas": dict(self.areas or {}),
            **({"no_data": self.no_data} if self.no_data > 0 else {}),
            "was_there": not self.is_new,
        }


def failed(image: str, output: str, error: ValueError | OSError) -> RayResult:
    """Return the result of a skipped image."""
    return RayResult(image=image, output=output, areas=None, error=describe_error(error), is_new=True)


class RayJournal:
    """The journal of all runs into one folder: a line of JSON for each image, in files that are written once.

    An image is done if a line with the same settings says so, and neither the image nor its result has been replaced
    since.

    Args:
        folder: The results folder; None keeps no journal.
        settings: What results depend on besides the image, as a short text.
        classes: Names of the classes.
        settings_before: `settings` as written by versions whose label files had a palette. A folder with results of
            such a version only is continued in this form.
    """

    def __init__(
        self, folder: str | None, settings: str, classes: Sequence[str], settings_before: str | None = None
    ) -> None:
        self._folder = None if folder is None else join(folder, FOLDER)
        self._settings, self._classes, self._settings_before = settings, classes, settings_before
        self.has_palettes = False
        """Whether label files are written with a palette, like those in the folder; known after `find_done`."""
        self._lines: list[str] = []
        self._written_at = time.monotonic()

    @property
    def is_kept(self) -> bool:
        """Whether there is a results folder, which holds the journal."""
        return self._folder is not None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, if it is on this machine, against other runs; on exit the journal is complete.

        Raises:
            ValueError: another run is writing into the folder.
            OSError: the journal cannot be written.
        """
        if self._folder is None or not is_here(self._folder):
            with self._flushed():
                yield
            return
        make_folders(Path(self._folder))
        with sole_owner(Path(self._folder) / "lock", f"{Path(self._folder).parent} is being written to"):
            with self._flushed():
                yield
            sweep_leftovers(Path(self._folder))

    @contextmanager
    def _flushed(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._flush()

    def find_done(self, pairs: Sequence[tuple[str, str]]) -> list[RayResult | None]:
        """Return for each image and output the result of an earlier run if it is still valid, otherwise None.

        Raises:
            OSError: the journal cannot be read.
        """
        known = self._read()
        if not known:
            return [None] * len(pairs)
        noted = {line.get("settings") for line in known.values() if "areas" in line}
        if self._settings_before in noted and self._settings not in noted:
            assert self._settings_before is not None
            self._settings, self.has_palettes = self._settings_before, True
        stamps = find_stamps(place for pair in pairs for place in pair)
        return [self._check(image, output, known.get(output), stamps) for image, output in pairs]

    def _check(
        self, image: str, output: str, line: Mapping[str, Any] | None, stamps: Mapping[str, str]
    ) -> RayResult | None:
        now = {
            "image": image,
            "settings": self._settings,
            "read": stamps.get(image),
            "made": stamps.get(output),
        }
        if line is None or None in now.values() or any(line.get(key) != value for key, value in now.items()):
            return None
        return RayResult(
            image=image,
            output=output,
            areas=self._all(line["areas"]),
            error=None,
            is_new=False,
            no_data=line.get("no_data", 0.0),
        )

    def _read(self) -> dict[str, Mapping[str, Any]]:
        """Return the last line for each output; invalid lines are skipped, so that their images are redone."""
        known: dict[str, Mapping[str, Any]] = {}
        if self._folder is None:
            return known
        for name in list_names(self._folder, (".jsonl",)):
            lines = read_content(join(self._folder, name)).splitlines()
            known |= {
                line[_OUTPUT]: line
                for line in parse_json_lines(lines, _OUTPUT)
                if isinstance(line.get("areas", {}), dict)
            }
        return known

    def add(self, image: str, output: str, outcome: Mapping[str, Any]) -> RayResult:
        """Record the outcome of an image, without "notes"; see `tasks.Worker`.

        Raises:
            OSError: the journal cannot be written.
        """
        line = {"image": image, _OUTPUT: output, "settings": self._settings, **outcome}
        self._lines.append(json.dumps(line))
        if len(self._lines) >= _ROWS or time.monotonic() - self._written_at > _SECONDS:
            self._flush()
        error = outcome.get("error")
        return RayResult(
            image=image,
            output=output,
            areas=self._all(outcome["areas"]) if error is None else None,
            error=error,
            is_new=True,
            no_data=outcome.get("no_data", 0.0),
        )

    def _flush(self) -> None:
        if self._folder is not None and self._lines:
            # Names sort by time, since the last line for an output counts; the random part keeps two runs apart.
            name = f"{time.time_ns():020}-{secrets.token_hex(4)}.jsonl"
            write_content(join(self._folder, name), "".join(f"{line}\n" for line in self._lines).encode())
        self._lines.clear()
        self._written_at = time.monotonic()

    def _all(self, areas: Mapping[str, float]) -> dict[str, float]:
        """Return the areas of all classes, 0 for those that do not occur."""
        return {name: areas.get(name, 0.0) for name in self._classes}
