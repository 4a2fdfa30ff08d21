"""Files that cannot be opened for a while, as on a disk that does not respond, and processes that wait for them."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 100) -> None:
    """Wait for something that happens in another process.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


@contextmanager
def held(path: Path) -> Iterator[Callable[[], bool]]:
    """Whoever opens the file waits until the context ends (by a lease of Linux, which lasts 45 s at most).

    Yields:
        Whether somebody waits.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # else the holder is told by a signal that ends it
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield lambda: fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    return bool(int(_status(pid)["SigCgt"], 16) >> (number - 1) & 1)


def copies(pid: int) -> list[int]:
    """The processes that a process has forked."""
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [other for other in found if is_there(other) and _status(other)["PPid"] == str(pid) and _runs(other, pid)]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}/status").exists()


def _runs(pid: int, other: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes() == Path(f"/proc/{other}/cmdline").read_bytes()


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return {"PPid": "", "SigCgt": "0"}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
