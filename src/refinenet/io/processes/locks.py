"""File locks, so that one process works at a time; the system releases them when the holder dies.

filelock is not used because its native locks cannot report the holder, which a blocked user needs to know. Where a
file system has no locks it writes marker files, which outlive a killed process and then block the next one, or raises
an error; here work continues without a lock. And it leaves the lock file in place afterwards.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR_BYTE = 1 << 30
"""Byte that is locked on Windows: one beyond the end of the file, because others cannot read a locked byte."""
_OPEN: weakref.WeakSet[FileIO] = weakref.WeakSet()


def _close_inherited() -> None:
    """Close lock files in a forked child, which would keep the locks after the death of its parent."""
    for stream in list(_OPEN):
        stream.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def only_one(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a lock inside the context; others that ask for it meanwhile wait.

    On file systems without locks nobody waits.

    Args:
        path: The lock file, which is created, and removed afterwards.
        waiting: Called once if the lock is held by another.
    """
    has_reported = False

    def take(stream: FileIO) -> bool:
        nonlocal has_reported
        try:
            return _lock(stream, wait=False)
        except BlockingIOError:
            if not has_reported:
                waiting()
            has_reported = True
            return _lock(stream, wait=True)

    with _held(path, take):
        yield


@contextmanager
def sole_owner(path: Path, claim: str) -> Iterator[None]:
    """Hold a lock inside the context; others that ask for it meanwhile are refused at once.

    On file systems without locks nobody is refused.

    Args:
        path: The lock file, which is created, names the holder, and is removed afterwards.
        claim: Beginning of the error for others, such as "RUN is being trained in".

    Raises:
        ValueError: Another process holds the lock; the message names it.
        OSError: The lock file cannot be created.
    """
    with _held(path, lambda stream: _take_or_refuse(stream, claim)) as stream:
        with suppress(OSError):  # the name is only for the error message, so a full disk must not stop the work
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def _take_or_refuse(stream: FileIO, claim: str) -> bool:
    try:
        return _lock(stream, wait=False)
    except BlockingIOError as error:
        stream.seek(0)
        holder = stream.read(200).decode(errors="replace") or "another process"
        raise ValueError(f"{claim} by {holder}. Wait for it, stop it, or choose another folder.") from error


@contextmanager
def _held(path: Path, take: Callable[[FileIO], bool]) -> Iterator[FileIO]:
    while True:
        with _open(path) as stream:
            _OPEN.add(stream)
            if not take(stream):
                yield stream
                return
            # The previous holder may have removed the file meanwhile; a lock on a removed file excludes nobody.
            if _is_still(path, stream.fileno()):
                try:
                    yield stream
                finally:
                    with suppress(OSError):  # Windows does not remove open files
                        path.unlink(missing_ok=True)
                return


def _open(path: Path) -> FileIO:
    try:
        return FileIO(path, "a+b")
    except OSError as error:
        raise type(error)(error.errno, f"Cannot write into {path.parent}: {error.strerror}") from error


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(stream: FileIO, *, wait: bool) -> bool:
    """Lock an open file; return False if the file system has no locks.

    Raises:
        BlockingIOError: Another process has locked it, and `wait` is off.
    """
    try:
        if sys.platform == "win32":
            _lock_on_windows(stream, wait=wait)
        else:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


if sys.platform == "win32":

    def _lock_on_windows(stream: FileIO, *, wait: bool) -> None:
        while True:
            stream.seek(_FAR_BYTE)
            try:
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except PermissionError as error:
                if not wait:
                    raise BlockingIOError(error.errno, error.strerror) from error
            time.sleep(0.2)
