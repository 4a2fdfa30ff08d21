"""Parallel maps over many items in worker processes, with results in order."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_PER_WORKER = 4
"""Chunks in flight per process, including results that wait to be read, so that memory stays bounded."""


def map_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None, chunk: int = 8
) -> Iterator[Result]:
    """Do `map(function, items)` in worker processes, with results in order.

    Args:
        function: Function of an item; function, items and results have to be picklable.
        items: Items, read lazily.
        workers: Number of processes; by default one per core that this process may use. 0 works in this process.
        chunk: Items that are sent to a process at once.

    Raises:
        RuntimeError: A process was killed.
        Exception: Whatever `function` raises.
    """
    count = _cores() if workers is None else workers
    if count < 1:
        yield from map(function, items)
        return
    # Forked processes, where forking is safe, need no `if __name__ == "__main__":` in scripts.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    chunks = _batched(items, chunk)
    with ProcessPoolExecutor(count, context, _Worker.begin, (function,)) as pool:
        running: deque[Future[list[Any]]] = deque()
        try:
            for part in chunks:
                running.append(pool.submit(_Worker.work, part))
                if len(running) >= count * WAITING_PER_WORKER:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            # A caller that stops early should not wait for chunks that have not started.
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Exit with the parent; a worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Worker:
    """State of a worker process. The function is sent once, not with every chunk, as it may hold a whole listing."""

    function: Callable[[Any], Any]

    @classmethod
    def begin(cls, function: Callable[[Any], Any]) -> None:
        cls.function = function
        threading.Thread(target=_end_with_parent, daemon=True).start()

    @classmethod
    def work(cls, items: tuple[Any, ...]) -> list[Any]:
        return [cls.function(item) for item in items]


def _batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    iterator = iter(items)
    while part := tuple(itertools.islice(iterator, size)):
        yield part


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


TIME_LIMIT = 120
"""Seconds after which a worker gives up on an item; on Windows there is no limit."""


def map_safely(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int | None = None, seconds: int = TIME_LIMIT
) -> Iterator[Result | None]:
    """Do `map_parallel(function, items)`, with None for items whose process was killed or took too long.

    Args:
        function: Function of an item.
        items: Items.
        workers: Number of processes, as for `map_parallel`; with 0 nothing is caught.
        seconds: Time limit for an item.
    """
    limited = partial(_with_limit, function, seconds)
    done = 0
    while done < len(items):
        try:
            for result in map_parallel(limited, items[done:], workers=workers):
                yield result
                done += 1
        except BrokenProcessPool:
            # Several items were in flight, and which one killed its process is unknown: try them one by one.
            for survivor in _one_by_one(limited, items[done:]):
                yield survivor
                done += 1


def _one_by_one(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result | None]:
    for item in items:
        result: list[Result | None] = [None]
        with suppress(BrokenProcessPool):
            result = list(map_parallel(function, [item], workers=1))
        yield from result
        if result == [None]:
            return


def _with_limit(function: Callable[[Item], Result], seconds: int, item: Item) -> Result:
    if multiprocessing.parent_process() is None or not hasattr(signal, "alarm"):
        return function(item)
    # Without a handler the alarm kills this process, even inside a decoder that never returns to Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        return function(item)
    finally:
        signal.alarm(0)
