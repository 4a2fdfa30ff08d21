"""Child processes behind a pipe: starting, asking and ending them, their messages, and limits on what they may take.

A message is JSON-ready facts and named bytes. Nothing is pickled, so that a child that decodes hostile files and is
taken over by one cannot run code in this program.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_LENGTH = struct.Struct("<Q")
_START = "import sys; sys.path[:] = {path!r}; from {module} import main; main{arguments!r}"
_BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)
"""Exceptions of an exchange with a process that has ended, or that does not keep to the format of messages."""


def pack_message(facts: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Join JSON-ready facts and files into bytes that `unpack_message` takes apart."""
    sizes = {name: len(content) for name, content in files.items()}
    return json.dumps({"facts": facts, "sizes": sizes}).encode() + b"\n" + b"".join(files.values())


def unpack_message(message: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the facts and files of `pack_message`.

    Raises:
        ValueError, KeyError: The message was not made by `pack_message`.
    """
    end = message.index(b"\n")
    header = json.loads(message[:end])
    files, start = {}, end + 1
    for name, size in header["sizes"].items():
        files[name] = message[start : start + size]
        start += size
    if start != len(message):
        raise ValueError(f"a message of {len(message)} bytes instead of {start}")
    return header["facts"], files


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Write a message of `pack_message` to a pipe."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes], largest: int = sys.maxsize) -> bytes:
    """Read what `write_message` wrote.

    Args:
        stream: The pipe.
        largest: Number of bytes that a message may have.

    Raises:
        EOFError: The pipe was closed before the end of the message.
        ValueError: The message is larger.
    """
    length = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))[0]
    if length > largest:
        raise ValueError(f"a message of {length} bytes; at most {largest} are allowed")
    return _read_exactly(stream, length)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


class ChildEndedError(RuntimeError):
    """A child process that does not reply.

    Args:
        happened: What happened to it, as the predicate of a sentence, such as "has ended".
        is_timeout: Whether it was ended because it took too long.
    """

    def __init__(self, happened: str, *, is_timeout: bool = False) -> None:
        super().__init__(happened)
        self.is_timeout = is_timeout


class ChildProcess:
    """A module of this package in a process of its own, which replies to one message after the other.

    It is asked by one thread at a time; any thread may end it. It ends with this object.

    Args:
        module: Name of the module, whose function `main` is called; see `open_replies` and `answer_messages`.
        arguments: Arguments of `main`.

    Raises:
        ChildEndedError: The system cannot start a process.
    """

    def __init__(self, module: str, *arguments: int) -> None:
        start = _START.format(path=sys.path, module=module, arguments=arguments)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", start],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except TimeoutError:  # of the caller's signal handler: the system has no such error here
            raise
        except OSError as error:
            raise ChildEndedError(f"cannot be started ({error.strerror})") from error
        weakref.finalize(self, self._process.kill)
        self._is_waiting = False

    @property
    def identifier(self) -> int:
        """Process ID."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked: it runs, and owes no reply."""
        # It still owes one to a call that was interrupted too early to end it, or by the handler that asks now.
        return not self._is_waiting and self._process.poll() is None

    def ask(
        self, message: bytes, *, seconds: float | None = None, largest: int = sys.maxsize
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Send a message and return the facts and files of the reply.

        Any exception ends the process: whatever is left of this reply would be taken for the next one.

        Args:
            message: What `main` reads.
            seconds: Time for the reply; None for any.
            largest: Number of bytes that the reply may have.

        Raises:
            ChildEndedError: The process has ended, took too long, or sent what is no reply.
            BaseException: Whatever interrupts the exchange: too little memory, or a signal handler of the caller.
        """
        limit = _TimeLimit(self._process, seconds)
        try:
            with limit:
                reply = self._exchange(message, largest)
            if limit.is_over:  # just after the reply was read
                raise EOFError
        except BaseException as error:
            self.end()
            self._drop_unsent()
            # No pipe raises TimeoutError, but handlers of signals do.
            if isinstance(error, _BROKEN) and not isinstance(error, TimeoutError):
                happened = f"took longer than {seconds:g} s" if limit.is_over else "has ended"
                raise ChildEndedError(happened, is_timeout=limit.is_over) from error
            raise
        return reply

    def _exchange(self, message: bytes, largest: int) -> tuple[dict[str, Any], dict[str, bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self.is_ready:
            raise EOFError
        self._is_waiting = True
        write_message(self._process.stdin, message)
        reply = unpack_message(read_message(self._process.stdout, largest))
        self._is_waiting = False
        return reply

    def _drop_unsent(self) -> None:
        """Close the pipe, so that no later attempt to send the rest of a message reports an error."""
        assert self._process.stdin is not None
        with suppress(OSError, RuntimeError):  # the latter if a signal handler of this thread interrupts the sending
            self._process.stdin.close()

    def end(self) -> None:
        """End the process; a thread that asks it gets `ChildEndedError`."""
        self._process.kill()  # also one that was stopped by a signal
        self._process.wait()


class _TimeLimit:
    """Context that a process is killed in if it takes too long, and never afterwards.

    Args:
        process: The process.
        seconds: Time for what happens in the context; None for any.
    """

    is_over = False
    """Whether the process was killed."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float | None) -> None:
        self._process, self._lock, self._is_left = process, threading.Lock(), False
        # A timer works on all systems; only some can wait for a pipe with a time limit.
        self._timer = None if seconds is None else threading.Timer(seconds, self._stop)

    def _stop(self) -> None:
        with self._lock:
            if not self._is_left:
                self.is_over = True
                self._process.kill()

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_left = True
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def open_replies() -> Iterator[IO[bytes]]:
    """Return a stream for the replies of this process, which nothing else can write to.

    What libraries print to standard output goes to standard error.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield replies


def answer_messages(replies: IO[bytes], answer: Callable[[dict[str, Any], dict[str, bytes]], bytes]) -> None:
    """Reply to the messages that `ChildProcess.ask` sends, until the process that asks closes the pipe.

    Args:
        replies: Stream of `open_replies`.
        answer: Function of the facts and files of a message that returns a message of `pack_message`.
    """
    while True:
        try:
            asked, files = unpack_message(read_message(sys.stdin.buffer))
        except EOFError:
            return
        write_message(replies, answer(asked, files))


def set_limit(kind: str, wanted: int) -> None:
    """Limit what this process may take, by the name of a constant of `resource`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    which = getattr(resource, kind)
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def used_addresses() -> int:
    """Return the size of this process's address space in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
