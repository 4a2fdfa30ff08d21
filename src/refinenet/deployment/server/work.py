"""A bounded queue before the threads that compute."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from refinenet.deployment.server.http.refusals import Refusal

Result = TypeVar("Result")
_MEMORY = 0.1
"""Weight of the last duration in the running mean."""
_LONGEST_RETRY = 60
"""Most seconds after which a refused client is asked to return."""


class WorkQueue:
    """Runs functions in a few threads, off the event loop; more than a few waiting ones are refused.

    Args:
        workers: Number of threads.
        waiting: How many functions may wait for a thread.
        observe: Called with the seconds for which each has waited.
        seconds: Time for which a function may be expected to wait.
    """

    def __init__(
        self, workers: int, waiting: int, observe: Callable[[float], object], seconds: float = math.inf
    ) -> None:
        self._workers, self._capacity, self._observe, self._seconds = workers, workers + waiting, observe, seconds
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="refinenet-serve")
        self._lock, self._pending, self._mean_seconds = Lock(), 0, 1.0
        self._next_place = time.monotonic()

    @property
    def pending(self) -> int:
        """Number of functions that wait or run."""
        return self._pending

    def refuse_if_full(self) -> None:
        """Refuse a request before its body is read, if it could not be served.

        Raises:
            Refusal: the queue is full, or so slow that it would wait for too long.
        """
        expected = self._mean_seconds * (self._pending + 1 - self._workers) / self._workers
        # At once, rather than after a wait in vain: large images may take longer than the queue has places.
        if self._pending >= self._capacity or expected > self._seconds:
            seconds = self._promise_place(max(0.0, expected - self._seconds))
            message = (
                f"The server is busy: {self._pending} requests are being processed or waiting, and no "
                f"more are accepted. Try again in {seconds} s."
            )
            raise Refusal(503, message, "queue_full", {"Retry-After": str(seconds)})

    def _promise_place(self, excess: float) -> int:
        """Return the seconds after which a refused client is likely to find a place.

        Refused clients return one after the other, as fast as places become free: if all were given the same time, they
        would return together, and most would be refused again.

        Args:
            excess: Seconds by which the expected wait is too long.
        """
        with self._lock:
            now = time.monotonic()
            place = max(self._next_place, now + excess) + self._mean_seconds / self._workers
            self._next_place = min(place, now + _LONGEST_RETRY)
            return max(1, math.ceil(self._next_place - now))

    async def run(self, function: Callable[[], Result], seconds: float) -> Result:
        """Run a function in a thread and return its result.

        Args:
            function: Called once, unless its time is over before a thread is free.
            seconds: Time for waiting and running. A function that runs longer keeps its thread until it ends.

        Raises:
            Refusal: the queue is full, or the time is over.
        """
        self.refuse_if_full()
        with self._lock:
            self._pending += 1
        future = self._executor.submit(self._timed, function, time.perf_counter())
        future.add_done_callback(self._release)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            if future.cancelled():
                message = f"The request waited {seconds:g} s for its turn. Try again later."
                raise Refusal(503, message, "waited", {"Retry-After": "5"}) from None
            message = f"The image took longer than {seconds:g} s. Send a smaller one."
            raise Refusal(504, message, "computed_too_long") from None

    def _timed(self, function: Callable[[], Result], asked: float) -> Result:
        started = time.perf_counter()
        self._observe(started - asked)
        try:
            return function()
        finally:
            with self._lock:
                self._mean_seconds += _MEMORY * (time.perf_counter() - started - self._mean_seconds)

    def _release(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1

    def close(self) -> None:
        """Accept no more functions, without waiting for those that run."""
        self._executor.shutdown(wait=False, cancel_futures=True)
