"""Reports of `deploy` on each image: a text line, JSON at the end, or JSON lines as images finish."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from refinenet.cli.options import STANDARD, complain
from refinenet.io.console import describe_error, say
from refinenet.io.files import quote_controls

if TYPE_CHECKING:
    from refinenet.deployment.file_results import FileResult
    from refinenet.deployment.inputs import JobList

_LISTED = 4
"""Largest number of classes in the line of an image."""


class ImageReport:
    """A printed line for each image, or JSON for all images at the end."""

    def __init__(self, *, is_silent: bool, collects: bool) -> None:
        self._is_silent = is_silent
        self._results: list[dict[str, Any]] | None = [] if collects else None
        self._failures = 0
        # A progress bar redirects standard output to print lines above itself. That is wanted on a terminal only:
        # lines for a file or a pipe go to the stream of before.
        self._stream = None if sys.stdout.isatty() else sys.stdout

    def add(self, result: FileResult) -> None:
        """Report an image."""
        if self._results is not None:
            self._results.append(result.to_dict())
        if result.error is not None:
            self._failures += 1
            complain(quote_controls(describe_error(result.error)))
        elif not self._is_silent:
            written = ", ".join(str(path) for path in result.outputs.values())
            existed = " (already done)" if result.was_there else ""
            areas = f": {_main_areas(result.areas)}" if result.areas else ""
            line = f"{result.image} -> {written}{existed}{areas}"
            print(quote_controls(line), file=self._stream)

    def finish(self, count: int) -> None:
        """Print collected results.

        Raises:
            ValueError: some images could not be segmented.
        """
        if self._results is not None:
            say(self._results)
        if self._failures:
            raise ValueError(f"{self._failures} of {count} images could not be segmented.")


@contextmanager
def json_lines_to(target: str, work: JobList) -> Iterator[Callable[[FileResult], object]]:
    """Yield a function that writes a result as a line of JSON at once."""
    if target == STANDARD:
        stream = sys.stdout
        yield lambda result: print(json.dumps(result.to_dict()), file=stream, flush=True)
        return
    from refinenet.deployment.journal import JOURNAL_FILE, SETTINGS_FILE
    from refinenet.io.files import is_same_file, make_folders

    path = Path(target)
    used = [file for item in work.items for file in (item.source, *item.targets.values())]
    used += [work.folder / own for own in (SETTINGS_FILE, JOURNAL_FILE)] if work.folder is not None else []
    if any(is_same_file(file, path) for file in used):
        raise ValueError(f"--json-lines {path}: this file is an input or output of the command. Choose another file.")
    with ExitStack() as stack:
        opened: list[TextIO] = []

        def write_line(result: FileResult) -> None:
            if not opened:  # opened late, so that a command that fails leaves an existing file as it is
                make_folders(path.parent)
                opened.append(stack.enter_context(path.open("w", encoding="utf-8")))
            print(json.dumps(result.to_dict()), file=opened[0], flush=True)

        yield write_line


def _main_areas(areas: Mapping[str, float]) -> str:
    shown = sorted((each for each in areas.items() if each[1] >= 0.005), key=lambda item: -item[1])
    words = [f"{name} {100 * area:.0f} %" for name, area in shown[:_LISTED]]
    if len(shown) > _LISTED:
        words.append(f"{len(shown) - _LISTED} more")
    return ", ".join(words)
