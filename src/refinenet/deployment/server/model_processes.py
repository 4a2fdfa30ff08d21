"""The network in child processes, which may crash or hang without the server.

Shape letters: N batch, H height, W width, C channels of the maps, h and w their height and width.
"""

from __future__ import annotations

import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from refinenet.inference.segmenter import Backend
from refinenet.io.arrays import Array, as_numpy
from refinenet.io.processes.child_process import (
    ChildEndedError,
    ChildProcess,
    answer_messages,
    open_replies,
    pack_message,
    read_message,
    set_limit,
    write_message,
)

_LOADING_SECONDS = 300.0
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before each attempt to start a process again; the last one is repeated."""
_WARM_UP = (1, 64, 64)


class ModelEndedError(RuntimeError):
    """The process that ran the model crashed, was ended because it took too long, or could not be started.

    Args:
        message: What happened.
        is_timeout: Whether it took too long.
    """

    def __init__(self, message: str, *, is_timeout: bool = False) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout


class ModelProcesses:
    """A backend that runs another one in child processes. May be used from several threads.

    A process that ends or takes too long fails the image that it has, and another one takes its place. So it does if
    another exception interrupts the exchange, as the rest of the reply would be taken for that of the next image.

    Args:
        backend: What each process runs, in its own memory.
        count: Number of processes.
        seconds: Time for an image.
        observe_restart: Called whenever a process is replaced.
    """

    def __init__(
        self, backend: Backend, count: int, *, seconds: float, observe_restart: Callable[[], object] = lambda: None
    ) -> None:
        self._content = pickle.dumps(backend)
        self._count, self._seconds, self._observe_restart = count, seconds, observe_restart
        self._idle: queue.LifoQueue[_ModelProcess] = queue.LifoQueue()
        self._loaded: set[_ModelProcess] = set()
        self._lock, self._is_closing = threading.Lock(), threading.Event()
        self._lost = threading.Semaphore(0)

    @property
    def device(self) -> str:
        """Device on which images must be; each process moves them to that of its network."""
        return "cpu"

    @property
    def is_ready(self) -> bool:
        """Whether a process has loaded the model."""
        return bool(self._loaded)

    @property
    def identifiers(self) -> Sequence[int]:
        """Process IDs of those that have loaded the model."""
        with self._lock:
            return [each.identifier for each in self._loaded]

    def start(self) -> None:
        """Start all processes, and wait until they have loaded the model.

        Raises:
            ValueError: one of them cannot be started, or cannot load it.
        """
        try:
            # Threads for restarts are started now: when a process is lost, the system may be short of threads, too.
            for _ in range(self._count):
                threading.Thread(target=self._keep_open, name="refinenet-model-restart", daemon=True).start()
            with ThreadPoolExecutor(self._count) as threads:
                for _ in threads.map(lambda _: self._open(), range(self._count)):
                    pass
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):  # `ModelEndedError`, or a thread that the system does not start
                advice = "Is there enough memory for --model-processes?"
                raise ValueError(f"The model cannot be loaded in a process of its own. {advice}") from error
            raise

    def __call__(self, images: Array) -> Array:
        """Map images `(N, 3, H, W)` float32 in [0, 1] to maps `(N, C, h, w)` float32.

        Raises:
            ValueError: the backend cannot run on these images.
            ModelEndedError: the process ended or took too long, or none has started again yet.
        """
        try:
            process = self._idle.get(timeout=self._seconds)
        except queue.Empty:
            raise ModelEndedError("No process that runs the model is free. Try again later.") from None
        try:
            maps = process.run(images, self._seconds)
        except ValueError:
            self._idle.put(process)
            raise
        except BaseException:
            self._replace(process)
            raise
        self._idle.put(process)
        return maps

    def _open(self) -> None:
        process = _ModelProcess(self._content)
        with self._lock:
            self._loaded.add(process)
        self._idle.put(process)
        if self._is_closing.is_set():
            process.end()

    def _replace(self, process: _ModelProcess) -> None:
        with self._lock:
            self._loaded.discard(process)
        self._lost.release()
        process.end()
        self._observe_restart()

    def _keep_open(self) -> None:
        while not self._is_closing.is_set():
            self._lost.acquire()
            self._open_again()

    def _open_again(self) -> None:
        attempt = 0
        while not self._is_closing.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)]):
            try:
                self._open()
            except (RuntimeError, MemoryError):  # `ModelEndedError`, or a thread that the system does not start
                attempt += 1
            else:
                return

    def close(self) -> None:
        """End all processes; those that compute end with an error."""
        self._is_closing.set()
        self._lost.release(self._count)  # the threads for restarts end
        with self._lock:
            for process in self._loaded:
                process.end()


class _ModelProcess:
    """A child process that has loaded the model.

    Args:
        content: The pickled backend. It comes from this program, never from a client.

    Raises:
        ModelEndedError: it ended, or took too long.
    """

    def __init__(self, content: bytes) -> None:
        with _endings_explained():
            self._child = ChildProcess(__name__)
            self._child.ask(content, seconds=_LOADING_SECONDS)

    @property
    def identifier(self) -> int:
        return self._child.identifier

    def run(self, images: Array, seconds: float) -> Array:
        pixels = np.ascontiguousarray(as_numpy(images).transpose(0, 2, 3, 1))
        message = pack_message({"shape": pixels.shape}, {"pixels": pixels.tobytes()})
        with _endings_explained():
            facts, files = self._child.ask(message, seconds=seconds)
        if "failed" in facts:
            raise ValueError(facts["failed"])
        maps = np.frombuffer(files["maps"], np.float32).reshape(facts["shape"]).copy()  # writable
        return maps.transpose(0, 3, 1, 2)

    def end(self) -> None:
        self._child.end()


@contextmanager
def _endings_explained() -> Iterator[None]:
    """Turn the error of a process that has ended into that of this module."""
    try:
        yield
    except ChildEndedError as error:
        message = f"The process that runs the model {error}; another one takes its place. Try again."
        raise ModelEndedError(message, is_timeout=error.is_timeout) from error


def main() -> None:
    """Read a backend from standard input, then images one after the other, and write their maps to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the server, which finishes its requests
    set_limit("RLIMIT_CORE", 0)
    with open_replies() as replies:
        backend: Backend = pickle.loads(read_message(sys.stdin.buffer))  # noqa: S301 - from the server's own pipe
        backend(np.zeros((_WARM_UP[0], 3, *_WARM_UP[1:]), np.float32))

        def answer(asked: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
            pixels = np.frombuffer(files["pixels"], np.float32).reshape(asked["shape"]).copy()
            return _answer(backend, pixels.transpose(0, 3, 1, 2))

        write_message(replies, pack_message({}, {}))
        answer_messages(replies, answer)


def _answer(backend: Backend, images: Array) -> bytes:
    try:
        maps = np.ascontiguousarray(as_numpy(backend(images)).transpose(0, 2, 3, 1), np.float32)
    except ValueError as error:
        return pack_message({"failed": str(error)}, {})
    return pack_message({"shape": maps.shape}, {"maps": maps.tobytes()})
