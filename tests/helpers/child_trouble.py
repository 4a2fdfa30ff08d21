"""Trouble for a process that talks to child processes: interruptions, and too little of what the system has."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InterruptedByTestError(Exception):
    """What the handler of a signal raises in the middle of a call."""


def children() -> set[int]:
    """Processes whose parent this one is."""
    found = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for pids in found for pid in pids}


@contextmanager
def called_after(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call a function in the main thread after some time, wherever that is, as handlers of signals are called."""
    before = signal.signal(signal.SIGALRM, lambda *_: function())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def raised_after(seconds: float, error: type[BaseException] = InterruptedByTestError) -> Iterator[None]:
    """Raise an exception in the main thread after some time, as handlers of signals do."""

    def handle() -> None:
        raise error

    with called_after(seconds, handle):
        yield


@contextmanager
def limited(kind: str, value: int) -> Iterator[None]:
    """Limit this process, by the name of a constant of `resource`, which Windows does not have."""
    import resource

    which = getattr(resource, kind)
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


def run_fresh(script: str, *options: str) -> str:
    """Run a script in a new interpreter, and return what it prints; it may print no error.

    A process that has run other tests holds free memory, in spite of a limit that is set later.
    """
    command = [sys.executable, *options, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stderr == ""
    return done.stdout


@contextmanager
def no_new_files() -> Iterator[None]:
    """Let this process open no file and no pipe, so that it cannot start processes either."""
    with limited("RLIMIT_NOFILE", 3):
        yield


@contextmanager
def no_new_threads() -> Iterator[None]:
    """Let this process start no thread: each would ask for more memory than there are addresses."""
    before = threading.stack_size(2**47)
    try:
        yield
    finally:
        threading.stack_size(before)
