"""Terminal output: progress bars and notes on standard error, tables and results on standard output."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from refinenet.io.files import quote_controls
from refinenet.io.recent_times import Pace


class _LastingStream(io.FileIO):
    """Standard output or error that keeps the first failure to write instead of raising it.

    Its reader may be gone (`| head`), or the disk may be full, and neither should stop the work.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write as much as possible, and report all as written."""
        view = memoryview(data).cast("B")
        written = 0
        while self.failure is None and written < len(view):
            try:
                written += super().write(view[written:]) or 0
            except BlockingIOError:
                continue
            except OSError as error:
                self.failure = error
        return len(view)


_CLOSED: set[str] = set()


def secure_streams() -> None:
    """Make standard output and error safe to print to.

    Closed streams (`>&-`, a daemon, pythonw) become the null device: otherwise the next file that is opened would get
    their number, and whatever other libraries print would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _CLOSED.add(name)
            null = os.open(os.devnull, os.O_RDWR)
            if null != number and not _is_open(number):
                os.dup2(null, number)
                os.close(null)
                null = number
            # If Python itself has opened a file under the number, that file stays, and is not printed to.
            setattr(sys, name, _reopen(null, "utf-8") if number else os.fdopen(null))
        elif number and _is_own(stream, number):
            setattr(sys, name, _reopen(number, stream.encoding))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _is_own(stream: Any, number: int) -> bool:
    """Whether a stream is the original one, not a replacement by a test or a notebook, nor a Windows console."""
    is_usual = type(stream) is io.TextIOWrapper and stream in (sys.__stdout__, sys.__stderr__)
    return is_usual and stream.fileno() == number and not (sys.platform == "win32" and stream.isatty())


def _reopen(number: int, encoding: str) -> io.TextIOWrapper:
    raw = _LastingStream(number, "w", closefd=False)
    # File names may hold arbitrary bytes, which no encoding can represent.
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=number == 2 or raw.isatty()
    )


def check_output(*, is_result: bool = False) -> None:
    """Check that everything printed to standard output was written.

    Args:
        is_result: Whether the result itself goes there, so that a reader that closes early is an error, too.

    Raises:
        OSError: It could not be written, except for a reader that closed early; or it is closed and `is_result`.
    """
    if is_result and "stdout" in _CLOSED:
        raise OSError(errno.EBADF, "Standard output is closed, so the result cannot be written to it")
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _LastingStream):
        return
    sys.stdout.flush()
    if raw.failure is not None and (is_result or not isinstance(raw.failure, BrokenPipeError)):
        raise OSError(raw.failure.errno, f"Standard output cannot be written: {raw.failure.strerror}")


class _WordsColumn(ProgressColumn):
    """Column with a plain text of each task, without markup or control characters."""

    def __init__(self, read: Callable[[Task], object], style: str = "") -> None:
        super().__init__()
        self._read, self._style = read, style

    def render(self, task: Task) -> Text:
        """Return the text of a task."""
        return Text(quote_controls(self._read(task)), self._style)


def _describe_status(task: Task) -> str:
    run = task.fields.get("run")
    return f"{task.fields['status']}{f', run {run}' if run else ''}"


FIRST_LINE, LATER_LINES = 10.0, 30.0
"""Seconds of silence before the first line of progress, and before later ones, where there is no terminal."""


class _Silence:
    """Time since the last line on standard error, whoever printed it: lines of progress are for silent work only."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._was_long = False

    def end(self) -> None:
        """Note that a line was printed."""
        self._since = time.monotonic()

    def is_long(self, started: float) -> bool:
        """Whether work that started at a time of `time.monotonic` has been silent for so long that a line is due."""
        limit = LATER_LINES if self._was_long else FIRST_LINE
        return time.monotonic() - max(self._since, started) >= limit

    def break_with(self, text: str) -> None:
        """Print a line of progress; the next ones are rarer."""
        self._was_long = True
        print_note(text)


_SILENCE = _Silence()
"""Of this process, as its standard error is one stream."""


class _PacedProgress(Progress):
    """Progress whose remaining times follow from recent steps, without those of the warm-up."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._paces: dict[TaskID, Pace] = {}

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        """Add a task; see `progress_bar`."""
        task_id = super().add_task(description, *arguments, **options)
        self._paces[task_id] = Pace(time.monotonic(), self._tasks[task_id].completed)
        return task_id

    def update(self, task_id: TaskID, *arguments: Any, **options: Any) -> None:
        """Update a task."""
        super().update(task_id, *arguments, **options)
        self._paces[task_id].note(time.monotonic(), self._tasks[task_id].completed)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task."""
        super().advance(task_id, advance)
        self._paces[task_id].note(time.monotonic(), self._tasks[task_id].completed)

    def find_left(self, task: Task) -> float | None:
        """Return the remaining seconds of a task; None while they are unknown."""
        pace = self._paces.get(task.id)  # a task may be drawn while it is added
        return None if task.remaining is None or pace is None else pace.remaining(task.remaining)


class _BarProgress(_PacedProgress):
    """Progress as bars on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            _WordsColumn(lambda task: task.description),
            BarColumn(bar_width=12),  # a line of training then fits into 80 columns
            MofNCompleteColumn(),
            _WordsColumn(_describe_status),
            _WordsColumn(self._describe_left, style="progress.remaining"),
            TextColumn("left"),
            console=console,
            transient=True,
        )

    def _describe_left(self, task: Task) -> str:
        seconds = 0.0 if task.finished else self.find_left(task)
        if seconds is None:
            return "-:--:--"
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class LineProgress(_PacedProgress):
    """Progress in plain lines, for a standard error that is a file or a pipe: after ten seconds, then rarely."""

    def __init__(self) -> None:
        super().__init__(console=Console(stderr=True))
        self._starts: dict[TaskID, float] = {}

    def start(self) -> None:
        """Draw nothing."""

    def stop(self) -> None:
        """Draw nothing."""

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        """Add a task; see `progress_bar`."""
        task = super().add_task(description, *arguments, **options)
        self._starts[task] = time.monotonic()
        return task

    def update(self, task_id: TaskID, *arguments: Any, **options: Any) -> None:
        """Update a task, and print a line if one is due."""
        super().update(task_id, *arguments, **options)
        self._report(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task, and print a line if one is due."""
        super().advance(task_id, advance)
        self._report(task_id)

    def _report(self, task_id: TaskID) -> None:
        if not self._tasks[task_id].finished and _SILENCE.is_long(self._starts[task_id]):
            _SILENCE.break_with(self._describe(self._tasks[task_id]))

    def _describe(self, task: Task) -> str:
        """Return a line such as "Evaluating on mine val: 12 of 40 images, 0.8 images/s; 35 s left"."""
        unit, each = task.fields.get("unit", ""), task.fields.get("each", 1)
        total = "" if task.total is None else f" of {task.total * each:,.0f}"
        count = f"{task.completed * each:,.0f}{total} {unit}".rstrip()
        left, seconds = task.fields.get("left"), self.find_left(task)
        if left is None and seconds is not None:
            left = f"{in_words(seconds)} left"
        status = task.fields["status"]
        known = count if status in ("", unit) else f"{count}, {status}"
        return f"{task.description}: {known}{f'; {left}' if left else ''}"


def progress_bar(enabled: bool) -> Progress:
    """Return a progress bar with count and remaining time; lines of text if standard error is not a terminal.

    Tasks have the field `status`, a short text, and may have others. On terminals, `run` is the remaining time, in
    words, of a run that the task is a part of. In lines, `unit` names what is counted, `each` is the number of units in
    a step, and `left` replaces the remaining time of the task.
    """
    console = Console(stderr=True)
    if not enabled:
        return Progress(console=console, disable=True)
    return _BarProgress(console) if console.is_terminal else LineProgress()


def in_words(seconds: float) -> str:
    """Return a duration in words, with its two largest units: "45 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 59.5:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if number]
    return " ".join(parts[:2])


def format_speed(value: float) -> str:
    """Return a number of images in a second, or of other things, with one decimal, or two digits below one."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, is_of_text: bool = False) -> None:
    """Print a table; markup is not interpreted.

    Args:
        title: Title above the table.
        columns: Headings.
        rows: Cells of each row.
        is_of_text: Whether all columns hold text, aligned to the left; otherwise all but the first hold numbers,
            aligned to the right.
    """
    table = Table(title=_plain(title), title_justify="left", show_header=any(columns))
    for index, column in enumerate(columns):
        is_left = is_of_text or index == 0
        # A name that is broken up cannot be found or copied.
        is_name = is_of_text and index == 0
        justify: Literal["left", "right"] = "left" if is_left else "right"
        table.add_column(_plain(column), justify=justify, no_wrap=is_name, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    Console().print(table)


def _plain(text: str) -> str:
    return escape(quote_controls(text, keep_lines=True))


def describe_error(error: BaseException) -> str:
    """Describe an error in words, without the error numbers of the system; never empty."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return str(error).strip() or type(error).__name__


def say(what: Any) -> None:
    """Print a text, with control characters escaped, or another value as JSON on standard output.

    Under torchrun only the first process prints.
    """
    if not is_first_process():
        return
    print(quote_controls(what, keep_lines=True) if isinstance(what, str) else json.dumps(what, indent=2))


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes results: always, except under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def print_note(text: str, *, enabled: bool = True) -> None:
    """Print a line on standard error, with control characters escaped."""
    if enabled:
        Console(stderr=True).print(quote_controls(text, keep_lines=True), markup=False, highlight=False, soft_wrap=True)
        _SILENCE.end()


def write_command(words: Sequence[str], system: str = os.name) -> str:
    """Return a command that can be pasted into a shell; `system` is a value of `os.name`, with "nt" for Windows."""
    return subprocess.list2cmdline(words) if system == "nt" else shlex.join(words)
