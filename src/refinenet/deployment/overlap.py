"""Reading ahead and writing behind, in threads, while the caller's thread does the heavy part: in order, bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")
Result = TypeVar("Result")

READERS = 2
WRITERS = 2
AHEAD = 4
"""Items that at most are being read or wait to be worked on; memory stays bounded."""
BEHIND = 4
"""Results that at most are being written or wait for it."""


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Read], Done],
    write: Callable[[Done], Result],
) -> Generator[Result]:
    """`write(work(read(item)))` for each item, in order: `work` in this thread, the others beside it in threads.

    Who stops in the middle (closes the iterator) waits for what is being written; what was only read is dropped.

    Args:
        items: Taken as they are needed.
        read: What can be done ahead; it waits for files or frees the interpreter's lock, or nothing is won.
        work: The heavy part, one item after the other.
        write: What can be done behind; as `read`.

    Raises:
        Exception: what the functions raise.
    """
    remaining = iter(items)
    reading: deque[Future[Read]] = deque()
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
                read_ahead()
                writing.append(writers.submit(write, done))
                del done
            while writing and (len(writing) >= BEHIND or not reading or writing[0].done()):
                yield writing.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown()
