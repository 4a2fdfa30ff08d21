"""One process at a time: locks on files, which the system gives back when their owner dies, however it dies."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR_BYTE = 1 << 30
"""Windows bars others from reading a locked byte, so it locks one behind the end of the file."""


@contextmanager
def only_one(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a lock, for as long as the context lasts; whoever asks for it meanwhile waits.

    In file systems that know no locks nobody waits.

    Args:
        path: The file that stands for the lock; it is made, and removed afterwards.
        waiting: Called once where somebody else holds it.
    """
    has_told = False

    def take(stream: FileIO) -> None:
        nonlocal has_told
        try:
            _lock(stream, wait=False)
        except BlockingIOError:
            if not has_told:
                waiting()
            has_told = True
            _lock(stream, wait=True)

    with _held(path, take):
        yield


@contextmanager
def sole_owner(path: Path, claim: str) -> Iterator[None]:
    """Hold a lock, for as long as the context lasts; whoever asks for it meanwhile is refused at once.

    In file systems that know no locks nobody is refused.

    Args:
        path: The file that stands for the lock; it is made, says who holds it, and is removed afterwards.
        claim: What nobody else may do meanwhile, to begin the refusal with: "RUN is being trained in".

    Raises:
        ValueError: somebody else holds it, who is named.
        OSError: the file cannot be made.
    """
    with _held(path, lambda stream: _take_or_refuse(stream, claim)) as stream:
        with suppress(OSError):  # only a kindness to whoever is refused, which a full disk may deny
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def _take_or_refuse(stream: FileIO, claim: str) -> None:
    try:
        _lock(stream, wait=False)
    except BlockingIOError as error:
        stream.seek(0)
        holder = stream.read(200).decode(errors="replace") or "another process"
        raise ValueError(f"{claim} by {holder}. Wait for it, stop it, or name another folder.") from error


@contextmanager
def _held(path: Path, take: Callable[[FileIO], None]) -> Iterator[FileIO]:
    while True:
        with _open(path) as stream:
            # A worker process, forked off, would hold the lock for as long as it outlives its parent.
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=stream.close)
            is_locked = True
            try:
                take(stream)
            except OSError:
                is_locked = False  # The file system knows no locks.
            if not is_locked:
                yield stream
                return
            # Whoever held it may have removed the file: then this lock is nobody's.
            if _is_still(path, stream.fileno()):
                try:
                    yield stream
                finally:
                    with suppress(OSError):  # Windows removes no open files
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


def _lock(stream: FileIO, *, wait: bool) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: somebody else has locked it, and `wait` is off.
        OSError: the file system knows no locks.
    """
    if sys.platform == "win32":
        _lock_on_windows(stream, wait=wait)
    else:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


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
