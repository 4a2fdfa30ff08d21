"""Work on files that may kill or hang the process that reads them: the others are worked on all the same."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from typing import TypeVar

from refinenet.io.parallel import map_parallel

Item = TypeVar("Item")
Result = TypeVar("Result")

TIME_LIMIT = 120
"""Seconds after which work on one item is given up; on Windows there is no limit."""


def map_safely(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int | None = None, seconds: int = TIME_LIMIT
) -> Iterator[Result | None]:
    """`map_parallel(function, items)`, with None for an item whose process was killed, or took too long.

    Args:
        function: What to do with an item.
        items: What to do it with.
        workers: Processes, as `map_parallel` takes them; with 0 nothing is caught.
        seconds: The limit for one item.
    """
    limited = partial(_with_limit, function, seconds)
    done = 0
    while done < len(items):
        try:
            for result in map_parallel(limited, items[done:], workers=workers):
                yield result
                done += 1
        except BrokenProcessPool:
            # Which of the items under way it was is not known: they go on one by one until it is found.
            for survivor in _one_by_one(limited, items[done:]):
                yield survivor
                done += 1


def _one_by_one(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result | None]:
    for item in items:
        found: list[Result | None] = [None]
        with suppress(BrokenProcessPool):
            found = list(map_parallel(function, [item], workers=1))
        yield from found
        if found == [None]:
            return


def _with_limit(function: Callable[[Item], Result], seconds: int, item: Item) -> Result:
    if multiprocessing.parent_process() is None or not hasattr(signal, "alarm"):
        return function(item)
    # Nothing handles the alarm, so it kills this process, even inside a decoder that never returns to Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        return function(item)
    finally:
        signal.alarm(0)
