"""Processes that live as long as a training and work on one task after the other, in order; none can die unnoticed."""

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
"""Tasks that each process is given before its first result is taken."""
WARN_AFTER = 60.0
"""Seconds without the result that is waited for, after which this is said."""
GIVE_UP_AFTER = 540.0
"""Seconds after which it is an error; less than training processes wait for each other (`distributed.PATIENCE`), so
that the one that knows the reason is the one that tells it."""
_GLANCE = 0.5
"""Seconds between two looks at what is waited for; a process that was stopped meanwhile (Ctrl-Z) counts as one look."""
_SECONDS_TO_END = 5
_GROUP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that terminals and batch systems send to all processes of a group."""
_NO_SHARED_MEMORY = 28
"""The exit code of a process that finds no room for its result."""
_SHARED_MEMORY_ADVICE = (
    "Shared memory (/dev/shm) is full: lower batch_size, use workers=0, or give a container more by --shm-size."
)


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection
    given: deque[Any]
    """Tasks without a result yet, the one that it works on first."""


class WorkerPool(Generic[Task, Result]):
    """`map(function, tasks)` in processes that wait for more when it is done. Use it in a `with` block.

    Why it is not PyTorch's DataLoader: that one learns of a dead process by a handler of SIGCHLD, which raises at
    whatever line the main thread happens to be, be it in the middle of writing a checkpoint or of ending a run in
    order. This one raises where results are taken and nowhere else. It also says which process hangs, and with what.

    Unlike those of an executor they are never started anew: a process that is killed takes memory or files with it that
    the next one would miss as well.

    Args:
        function: What to do with a task; it can be pickled, as can tasks and results. Tensors pass through memory that
            is shared.
        workers: Processes; 0 works in this process.
        begin: What each process does first.
        describe: What messages call a task.
    """

    def __init__(
        self,
        function: Callable[[Task], Result],
        workers: int,
        begin: Callable[[], object],
        describe: Callable[[Task], str] = str,
    ) -> None:
        self._function, self._count, self._describe = function, workers, describe
        # Where it is safe, processes start as copies: scripts need no `if __name__ == "__main__":` then.
        linux = sys.platform == "linux"
        context = multiprocessing.get_context("fork") if linux else multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()
        # It also acts when the interpreter ends, before that waits for its child processes.
        self._end = Finalize(self, _end, args=(self._workers,), exitpriority=10)
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(function, begin, theirs), daemon=True)
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
        """The ids of the processes."""
        return tuple(worker.process.pid or 0 for worker in self._workers)

    def close(self) -> None:
        """End the processes, at once: they keep nothing."""
        self._end()

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of tasks, in order.

        Raises:
            ChildProcessError: a process was killed; its id is named.
            TimeoutError: a process has hung for `GIVE_UP_AFTER` seconds; its id and its task are named.
            ValueError: `close` was called before.
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
        # Lower numbers were asked for by somebody who has stopped before the end of the tasks.
        while received < number:
            self._wait(worker)
            with self._watched(worker):
                received, result = worker.connection.recv()
            worker.given.popleft()
        return cast(Result, result)

    def _wait(self, worker: _Worker) -> None:
        """Wait until a process has a result; that it takes long is said once."""
        waited, is_said = 0.0, False
        ends: list[Any] = [worker.connection, *(each.process.sentinel for each in self._workers)]
        while True:
            waited += 0 if wait(ends, _GLANCE) else _GLANCE
            self._check()
            if worker.connection.poll():
                return
            if waited >= GIVE_UP_AFTER:
                raise TimeoutError(f"The {self._describe_hang(worker, waited)} It was given up; --resume goes on.")
            if waited >= WARN_AFTER and not is_said:
                pid, is_said = worker.process.pid, True
                advice = f"Where it hangs, end it (kill -9 {pid}) and go on with --resume."
                print_note(f"Warning: the {self._describe_hang(worker, waited)} {advice}")

    def _describe_hang(self, worker: _Worker, seconds: float) -> str:
        task = self._describe(worker.given[0])
        return f"loading process {worker.process.pid} has been busy for {seconds:.0f} s with {task}."

    @contextmanager
    def _watched(self, worker: _Worker) -> Iterator[None]:
        """Where talking to a process fails because it has ended, say this."""
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
        -signal.SIGKILL: "Where nobody did that, the system ran out of memory: lower workers, batch_size or crop_size, "
        "or use cache='disk' or 'none'.",
        -getattr(signal, "SIGBUS", 0): _SHARED_MEMORY_ADVICE,
        _NO_SHARED_MEMORY: _SHARED_MEMORY_ADVICE,
    }.get(code, "What it printed before may say why; with workers=0 images load in the training process.")
    return f"The loading process {process.pid} {cause}. {advice}"


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Hold back the signals of a group, so that one that arrives while a process starts does not end that process.

    A child inherits the mask and lifts it once it ignores these signals. Windows sends none of them to a child.
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


def _work(function: Callable[[Any], Any], begin: Callable[[], object], connection: Connection) -> None:
    # Ctrl-C and the signals of batch systems reach all processes; the training process decides what follows from them.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None
    begin()
    # The connection alone would not tell that the parent is gone: processes forked later hold its other end, too.
    while connection in wait([connection, parent.sentinel]):
        try:
            number, task = connection.recv()
        except EOFError:
            return
        result = function(task)
        try:
            connection.send((number, result))
        except (RuntimeError, OSError) as error:  # PyTorch's own for a tensor that finds no room in shared memory
            if "No space left on device" not in str(error) and getattr(error, "errno", 0) != errno.ENOSPC:
                raise
            os._exit(_NO_SHARED_MEMORY)
