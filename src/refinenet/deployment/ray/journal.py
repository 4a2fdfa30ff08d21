"""What a run over many machines has done, written down as it goes on, so that another one need not do it again."""

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
from refinenet.io.locks import sole_owner

FOLDER = ".refinenet"
"""Where, in a folder of results, the record lies."""
_ROWS, _SECONDS = 512, 5.0
"""A part of the record is written when it has so many lines, or when so much time has passed since the last one."""


@dataclass(frozen=True, kw_only=True)
class RayResult:
    """What became of one image."""

    image: str
    output: str
    areas: Mapping[str, float] | None
    """Share of the image's pixels by class name, in [0, 1]; None where it could not be segmented."""
    error: str | None
    """Why not; None where it worked."""
    is_new: bool
    """Whether this run made the result; else an earlier one did, and it was left as it is."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "output": self.output,
            "areas": dict(self.areas or {}),
            "was_there": not self.is_new,
        }


def failed(image: str, output: str, error: ValueError | OSError) -> RayResult:
    """An image that was skipped."""
    return RayResult(image=image, output=output, areas=None, error=describe_error(error), is_new=True)


class Record:
    """The record of the runs into one folder: a line of JSON for each image, in files that are written once.

    An image is done where a line says so, of the same settings, and since then neither the image nor its result has
    been replaced.

    Args:
        folder: The folder of the results; None keeps no record.
        settings: What results depend on besides the image, as a short text.
        classes: The names of the classes.
        settings_before: What a version noted in place of `settings` whose label files had a palette. A folder whose
            results are all of that version is continued so.
    """

    def __init__(
        self, folder: str | None, settings: str, classes: Sequence[str], settings_before: str | None = None
    ) -> None:
        self._folder = None if folder is None else join(folder, FOLDER)
        self._settings, self._classes, self._settings_before = settings, classes, settings_before
        self.has_palettes = False
        """Whether label files are written with a palette, as those that the folder holds; known after `find_done`."""
        self._lines: list[str] = []
        self._written_at = time.monotonic()

    @property
    def is_kept(self) -> bool:
        """Whether there is a folder of results, which holds the record."""
        return self._folder is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the context lasts no other run writes into a folder here, and at its end the record is complete.

        Raises:
            ValueError: another run does.
            OSError: the record cannot be written.
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
        """For each image and its output the result of an earlier run, where it still holds, or else None.

        Raises:
            OSError: the record cannot be read.
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
        return RayResult(image=image, output=output, areas=self._all(line["areas"]), error=None, is_new=False)

    def _read(self) -> dict[str, Mapping[str, Any]]:
        """The last line on each output; lines that are none are passed over, which makes their images anew."""
        known: dict[str, Mapping[str, Any]] = {}
        if self._folder is None:
            return known
        for name in list_names(self._folder, (".jsonl",)):
            for text in read_content(join(self._folder, name)).splitlines():
                line = _parse(text)
                if line is not None:
                    known[line["output"]] = line
        return known

    def add(self, image: str, output: str, answer: Mapping[str, Any]) -> RayResult:
        """Write down what a worker says of an image; see `ray_worker.Worker`.

        Raises:
            OSError: the record cannot be written.
        """
        line = {"image": image, "output": output, "settings": self._settings, **answer}
        self._lines.append(json.dumps(line))
        if len(self._lines) >= _ROWS or time.monotonic() - self._written_at > _SECONDS:
            self._flush()
        error = answer.get("error")
        areas = self._all(answer["areas"]) if error is None else None
        return RayResult(image=image, output=output, areas=areas, error=error, is_new=True)

    def _flush(self) -> None:
        if self._folder is not None and self._lines:
            name = f"{time.time_ns():020}-{secrets.token_hex(4)}.jsonl"
            write_content(join(self._folder, name), "".join(f"{line}\n" for line in self._lines).encode())
        self._lines.clear()
        self._written_at = time.monotonic()

    def _all(self, areas: Mapping[str, float]) -> dict[str, float]:
        """Areas with the classes that do not occur."""
        return {name: areas.get(name, 0.0) for name in self._classes}


def _parse(text: bytes) -> Mapping[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    is_line = isinstance(line, dict) and isinstance(line.get("output"), str)
    return line if is_line and isinstance(line.get("areas", {}), dict) else None
