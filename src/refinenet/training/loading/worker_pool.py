"""Persistent worker processes that work on tasks in order; dead workers are detected."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, cast

from refinenet.io.console import print_note

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 2
"""Tasks that each process is given in advance."""
WARN_AFTER = 60.0
"""Seconds of waiting for a result after which a warning is printed."""
GIVE_UP_AFTER = 540.0
"""Seconds of waiting for a result after which it is an error; less than training processes wait for each other
(`distributed.PATIENCE`), so that the error comes from the process that knows the reason."""
_POLL = 0.5
"""Seconds between two polls. Waiting is counted in polls, not by the clock: a run that was stopped (Ctrl-Z) for an
hour has then waited for one poll."""
_SECONDS_TO_END = 5
_GROUP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that terminals and batch systems send to all processes of a process group."""
_NO_SHARED_MEMORY = 28
"""Exit code of a process whose result does not fit into shared memory."""
_SHARED_MEMORY_ADVICE = (
    "Shared memory (/dev/shm) is full: lower batch_size, use workers=0, or give a container more by --shm-size."
)


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection
    given: deque[Any]
    """Tasks without a result yet, the current one first."""


class WorkerPool(Generic[Task, Result]):
    """`map(function, tasks)` in processes that wait for more tasks afterwards. Use it in a `with` block.

    Why not PyTorch's DataLoader: it notices a dead process by a handler of SIGCHLD, which raises at whatever line the
    main thread happens to be, even while it writes a checkpoint or shuts down. This pool raises only where results are
    taken. It also says which process hangs, and on which file.

    Unlike those of an executor, its processes are never restarted: what killed one, such as a full memory, would kill
    the next.

    Args:
        function: Applied to each task; it can be pickled, as can tasks and results. Tensors pass through shared memory.
        workers: Number of processes; with 0 tasks run in this process.
        initializer: Called first in each process.
        describe: From a task to its name in messages.
    """

    def __init__(
        self,
        function: Callable[[Task], Result],
        workers: int,
        initializer: Callable[[], object],
        describe: Callable[[Task], str] = str,
    ) -> None:
        self._function, self._count, self._describe = function, workers, describe
        # Forked processes need no `if __name__ == "__main__":` in scripts; forking is safe on Linux only.
        linux = sys.platform == "linux"
        context = multiprocessing.get_context("fork") if linux else multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()
        # Also runs at the interpreter's exit, before multiprocessing joins its child processes (by the priority).
        self._end = Finalize(self, _end, args=(self._workers,), exitpriority=10)
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(function, initializer, theirs), daemon=True)
            with _blocked_signals():
                process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours, deque()))

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker.process.pid or 0 for worker in self._workers)

    def close(self) -> None:
        """End the processes at once: they have nothing to save."""
        self._end()

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results of tasks, in order.

        Raises:
            ChildProcessError: A process was killed; its id is named.
            TimeoutError: A process has hung for `GIVE_UP_AFTER` seconds; its id and its task are named.
            ValueError: The pool is closed.
        """
        if not self._count:
            yield from map(self._function, tasks)
            return
        if not self._workers:
            raise ValueError("The loading processes have been ended.")
        turns = itertools.cycle(self._workers)
        running: deque[tuple[_Worker, int]] = deque()
        for task in tasks:
            running.append(self._send(next(turns), task))
            if len(running) == AHEAD * len(self._workers):
                yield self._receive(*running.popleft())
        while running:
            yield self._receive(*running.popleft())

    def _send(self, worker: _Worker, task: Task) -> tuple[_Worker, int]:
        number = next(self._numbers)
        with self._watched(worker):
            worker.connection.send((number, task))
        worker.given.append(task)
        return worker, number

    def _receive(self, worker: _Worker, number: int) -> Result:
        received, result = -1, None
        # Lower numbers belong to an earlier call of `map` whose caller stopped before the end.
        while received < number:
            self._wait(worker)
            with self._watched(worker):
                received, result = worker.connection.recv()
            worker.given.popleft()
        return cast(Result, result)

    def _wait(self, worker: _Worker) -> None:
        """Wait until a process has a result, and warn once if it takes long."""
        waited, is_reported = 0.0, False
        ends: list[Any] = [worker.connection, *(each.process.sentinel for each in self._workers)]
        while True:
            waited += 0 if wait(ends, _POLL) else _POLL
            self._check()
            if worker.connection.poll():
                return
            if waited >= GIVE_UP_AFTER:
                raise TimeoutError(
                    f"The {self._describe_hang(worker, waited)} Training was aborted; continue with --resume."
                )
            if waited >= WARN_AFTER and not is_reported:
                pid, is_reported = worker.process.pid, True
                advice = f"If it hangs, end it (kill -9 {pid}) and continue with --resume."
                print_note(f"Warning: the {self._describe_hang(worker, waited)} {advice}")

    def _describe_hang(self, worker: _Worker, seconds: float) -> str:
        task = self._describe(worker.given[0])
        return f"loading process {worker.process.pid} has been busy for {seconds:.0f} s with {task}."

    @contextmanager
    def _watched(self, worker: _Worker) -> Iterator[None]:
        """Raise ChildProcessError if communication with a process fails because it has ended."""
        try:
            yield
        except (EOFError, ConnectionError, FileNotFoundError):
            worker.process.join(_SECONDS_TO_END)
            self._check()
            raise

    def _check(self) -> None:
        for worker in self._workers:
            if not worker.process.is_alive():
                raise ChildProcessError(_describe_end(worker.process))


def _describe_end(process: BaseProcess) -> str:
    code = process.exitcode or 0
    cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    advice = {
        -signal.SIGKILL: "Unless you did that, the system ran out of memory: lower workers, batch_size or crop_size, "
        "or use cache='disk' or 'none'.",
        -getattr(signal, "SIGBUS", 0): _SHARED_MEMORY_ADVICE,
        _NO_SHARED_MEMORY: _SHARED_MEMORY_ADVICE,
    }.get(code, "Its output above may say why; with workers=0 images load in the training process.")
    return f"The loading process {process.pid} {cause}. {advice}"


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block the signals of a process group, so that one that arrives while a process starts does not end it.

    A child inherits the mask, and lifts it once it ignores these signals. On Windows children do not get them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.connection.close()
    workers.clear()


def _work(function: Callable[[Any], Any], initializer: Callable[[], object], connection: Connection) -> None:
    # Ctrl-C and the signals of batch systems reach all processes; the training process alone decides how to react.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None
    initializer()
    # The connection alone would not show that the parent is gone: workers forked later hold its other end as well.
    while connection in wait([connection, parent.sentinel]):
        try:
            number, task = connection.recv()
        except EOFError:
            return
        result = function(task)
        try:
            connection.send((number, result))
        except (RuntimeError, OSError) as error:  # PyTorch raises RuntimeError if shared memory is full
            if "No space left on device" not in str(error) and getattr(error, "errno", 0) != errno.ENOSPC:
                raise
            os._exit(_NO_SHARED_MEMORY)
