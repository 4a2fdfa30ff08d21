"""Parallel maps: in order, lazily, and with errors and killed processes reported."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest

from refinenet.io.processes.parallel import map_parallel

ENDLESS = """
import os, time
from refinenet.io.processes.parallel import map_parallel

def items():
    yield from range(16)
    time.sleep(60)

for pid in map_parallel(lambda _: os.getpid(), items(), workers=2, chunk=2):
    print(pid, flush=True)
"""


def square(number: int) -> int:
    return number * number


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven is not allowed")
    return number


def die_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def tell_process(number: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 2, 3, None])
@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_results_come_in_order(workers: int | None, chunk: int) -> None:
    assert list(map_parallel(square, range(50), workers=workers, chunk=chunk)) == [k * k for k in range(50)]
    assert list(map_parallel(square, [], workers=workers, chunk=chunk)) == []


def test_processes_do_the_work() -> None:
    assert os.getpid() not in set(map_parallel(tell_process, range(20), workers=2))
    assert set(map_parallel(tell_process, range(20), workers=0)) == {os.getpid()}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_reaches_the_caller_after_the_results_before_it(workers: int) -> None:
    results = map_parallel(refuse_seven, range(100), workers=workers, chunk=1)
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match="seven is not allowed"):
        next(results)


def test_a_killed_process_is_told_and_nothing_hangs() -> None:
    with pytest.raises(BrokenProcessPool):
        list(map_parallel(die_at_seven, range(100), workers=2))


def test_items_are_taken_no_faster_than_they_are_worked_on() -> None:
    """Of an endless stream only what is waiting in the processes is read ahead."""
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken = number + 1
            yield number

    results = map_parallel(square, count(), workers=2, chunk=3)
    assert next(results) == 0
    assert taken <= 2 * 4 * 3


def test_a_large_function_reaches_a_process_once() -> None:
    """Ten million characters with each of a thousand chunks would take minutes."""
    listing = "x" * 10_000_000
    assert sum(map_parallel(partial(pick, listing), range(1000), workers=2, chunk=1)) == 1000


def pick(listing: str, index: int) -> int:
    return len(listing[index])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_when_their_parent_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(2)}
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path("/proc", str(pid)).exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path("/proc", str(pid)).exists()]
