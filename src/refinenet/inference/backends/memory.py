"""How the process keeps its memory between passes of a network on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**30
"""Freed memory that at most waits for its next use."""


def keep_freed_memory() -> None:
    """Let freed memory wait for its next use instead of going back to the system: on Linux with glibc, for the process.

    A network's pass takes and frees hundreds of megabytes. By its defaults glibc hands them back each time, and the
    system fills them with zeros again, page by page: up to half of a pass's time. Where the environment sets any of
    glibc's own `MALLOC_...` variables, and on other systems, nothing is changed.

    Source: `man 3 mallopt`.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
