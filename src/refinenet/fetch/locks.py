"""One process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a lock, for as long as the context lasts; whoever asks for it meanwhile waits.

    A process that dies gives it back. On Windows, and in file systems that know no locks, nobody waits.

    Args:
        path: The file that stands for the lock; it is made, and removed afterwards.
        waiting: Called once where somebody else holds it.
    """
    if os.name == "nt":
        yield
        return
    import fcntl

    has_told = False
    while True:
        with path.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not has_told:
                    waiting()
                has_told = True
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError:  # The file system knows no locks.
                yield
                return
            # Whoever held it may have removed the file: then this lock is nobody's.
            if _is_still(path, stream.fileno()):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
