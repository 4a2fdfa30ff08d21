"""What long work shows on a terminal: progress bars on standard error, tables on standard output."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def progress_bar(enabled: bool) -> Progress:
    """A bar with a count, elapsed and remaining time, where standard error is a terminal.

    Tasks carry the field `status`, a short text.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not (enabled and console.is_terminal),
        transient=True,
    )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first column to the left and the others to the right; texts are shown as they are."""
    table = Table(title=escape(title), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def describe_error(error: BaseException) -> str:
    """An error in words: of the system's errors without their numbers; never empty."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return str(error).strip() or type(error).__name__


def say(what: Any) -> None:
    """Print a text on standard output as it is, or other values as JSON, for machines.

    Of the processes that torchrun starts, which all have the same to say, the first one speaks.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    print(what if isinstance(what, str) else json.dumps(what, indent=2))


def print_note(text: str, *, enabled: bool = True) -> None:
    """Print a line on standard error, as it is."""
    if enabled:
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
