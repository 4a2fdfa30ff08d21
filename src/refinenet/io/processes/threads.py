"""Locks for threads that survive copies and forks, and PyTorch's threads after a fork."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from refinenet.io.console import print_note

_HOME = os.getpid()
_LOCKS: weakref.WeakSet[ThreadLock] = weakref.WeakSet()
_LIMITED = threading.local()
_COMPUTING = threading.Event()
"""Set once a thread besides the main one has computed with PyTorch in this process."""
_FORK_PATIENCE = 0.5
"""Seconds that a fork waits at most for other threads to come to rest."""


class ThreadLock:
    """Re-entrant lock for the threads of one process; copies and locks in a forked child are released."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[ThreadLock], tuple[()]]:
        return ThreadLock, ()

    def renew(self) -> None:
        """Release the lock in a forked child, where the thread that held it does not exist."""
        self._lock = threading.RLock()


def _renew_locks() -> None:
    for lock in list(_LOCKS):
        lock.renew()


def _wait_for_threads() -> None:
    """Delay a fork while other threads run, at most for half a second.

    PyTorch's MKL locks its list of buffers while a thread ends, which is after Python has joined it. A child that is
    forked at that moment inherits the lock and waits for ever in its first matrix product.
    """
    if not _COMPUTING.is_set():
        return
    end = time.monotonic() + _FORK_PATIENCE
    while _other_thread_runs() and time.monotonic() < end:
        time.sleep(0.001)


def _other_thread_runs() -> bool:
    """Return whether the kernel would run another thread of this process now; False where it does not say."""
    own = str(threading.get_native_id())
    for task in Path("/proc/self/task").glob("[0-9]*"):
        with suppress(OSError):  # of a thread that has just ended
            # "tid (name) state ...", where the name may hold any character.
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
            if state in (b"R", b"D") and task.name != own:
                return True
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_threads, after_in_child=_renew_locks)

TRACING = ThreadLock()
"""Lock for tracing and compiling by PyTorch, which change global state."""
_WARNINGS = ThreadLock()


@contextmanager
def warnings_ignored(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings of a category, one thread at a time, because `warnings.catch_warnings` changes global state."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def survive_fork() -> None:
    """Prepare this thread to compute with PyTorch in a process that forks or was forked.

    PyTorch's OpenMP threads do not survive a fork, and it would wait for them for ever, so it computes with one thread
    in a process that was forked from one that had loaded this package. Processes that are started by "spawn" or
    "forkserver" have all their threads. This call costs nothing elsewhere.
    """
    if "torch" not in sys.modules:
        return
    if threading.current_thread() is not threading.main_thread():
        _COMPUTING.set()
    process = os.getpid()
    if process == _HOME or getattr(_LIMITED, "process", None) == process:
        return
    torch = sys.modules["torch"]
    if not hasattr(_LIMITED, "process") and torch.get_num_threads() > 1:
        print_note(
            "This process was forked: PyTorch uses one thread here, because threads do not survive a fork. Start "
            'processes by "spawn" or "forkserver" to use all threads.'
        )
    torch.set_num_threads(1)
    _LIMITED.process = process


def choose_threads() -> int | None:
    """Return the number of threads for an engine: as PyTorch was told, or `OMP_NUM_THREADS`; None for the engine's own.

    A program that limits PyTorch's threads, by its function or by this variable, means all that computes for it.
    """
    if "torch" in sys.modules:
        threads: int = sys.modules["torch"].get_num_threads()
        return threads
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(named) if named.isdecimal() and int(named) else None
