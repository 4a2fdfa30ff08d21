"""Mean of the times that recent steps of some work have taken, from which its remaining time is estimated."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

WARM_UP = 5
"""Measurements that are left out at the start, at most half of them: the first ones start processes, fill caches and
compile."""
RECENT = 50
"""Number of recent measurements that count in a `Pace`."""
SHORTEST = 0.1
"""Seconds of a measurement of a `Pace`, at least: shorter steps are measured together."""


class RecentTimes:
    """Mean of recent times, without those of the warm-up.

    Args:
        most: Number of measurements that count.
    """

    def __init__(self, most: int) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=most)
        self.count = 0
        """Number of measurements."""
        self.total = 0.0
        """Their sum in seconds."""

    def add(self, seconds: float, steps: float = 1) -> None:
        """Add a measurement: the time of some steps together."""
        self._recent.append((seconds, steps))
        self.count += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        """Mean of the times that count, in seconds per step; there must be one."""
        forgotten = self.count - len(self._recent)
        left_out = max(min(WARM_UP, self.count // 2) - forgotten, 0)
        seconds, steps = zip(*islice(self._recent, left_out, None), strict=True)
        return math.fsum(seconds) / math.fsum(steps)


class Pace:
    """Remaining time of work whose progress is noted again and again.

    Args:
        now: Time of the start, in seconds of a monotonic clock.
        completed: Number of steps done before it.
    """

    def __init__(self, now: float, completed: float = 0) -> None:
        self._restart(now, completed)

    def _restart(self, now: float, completed: float) -> None:
        self._since, self._completed = now, completed
        self._times = RecentTimes(RECENT)

    def note(self, now: float, completed: float) -> None:
        """Note how many steps are done at a time."""
        if completed < self._completed:  # the work starts again
            self._restart(now, completed)
        elif completed > self._completed and now - self._since >= SHORTEST:
            self._times.add(now - self._since, completed - self._completed)
            self._since, self._completed = now, completed

    def remaining(self, steps: float) -> float | None:
        """Return the seconds that further steps will take; None while only the first, slow measurement is known."""
        return self._times.mean * steps if self._times.count > 1 else None
