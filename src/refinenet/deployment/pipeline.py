"""A pipeline that reads ahead and writes behind, in threads, while the caller's thread works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Done = TypeVar("Done")
Result = TypeVar("Result")

READERS = 2
WRITERS = 2
AHEAD = 4
"""Most items being read or waiting for the network; bounds memory."""
BEHIND = 4
"""Most results being written or waiting to be written."""


def pipeline(
    items: Iterable[Item],
    read: Callable[[Item], Loaded],
    work: Callable[[Loaded], Done],
    write: Callable[[Done], Result],
) -> Generator[Result]:
    """Yield `write(work(read(item)))` for each item, in order, with reading and writing in threads.

    Closing the iterator early waits for results that are being written and drops items that were only read.

    Args:
        items: Consumed as needed.
        read: Runs ahead in a thread. It should wait for files or release the interpreter's lock.
        work: The heavy part, in the caller's thread, one item at a time.
        write: Runs behind in a thread, like `read`.

    Raises:
        Exception: whatever the functions raise.
    """
    remaining = iter(items)
    reading: deque[Future[Loaded]] = deque()
    writing: deque[Future[Result]] = deque()
    readers, writers = ThreadPoolExecutor(READERS, "read"), ThreadPoolExecutor(WRITERS, "write")

    def read_ahead() -> None:
        while len(reading) < AHEAD:
            for item in remaining:
                reading.append(readers.submit(read, item))
                break
            else:
                return

    try:
        read_ahead()
        while reading or writing:
            if reading:
                done = work(reading.popleft().result())
                # The next read starts before this result is handed over, so that the readers never idle.
                read_ahead()
                writing.append(writers.submit(write, done))
                del done  # else the largest arrays of this item live until the next one is done
            # Results leave in the order of the items: only the oldest is ever waited for.
            while writing and (len(writing) >= BEHIND or not reading or writing[0].done()):
                yield writing.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown()  # without cancelling: each result is written whole or not at all
