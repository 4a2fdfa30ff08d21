"""Memory of the server: memory per image, measured at the start, and what the limits allow in total."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from refinenet.deployment.server.settings import ServerSettings

_SIDES = (224, 400)
"""Sides, in pixels, of the two images whose peaks are compared."""
_LEAST_PIXEL_BYTES = 300.0
"""What is assumed if the difference of the peaks is less, because memory of an earlier peak was used again."""
AROUND_PIXEL_BYTES = 96
"""For each pixel of an image besides the model: a decoder's copies, and results as they are encoded."""
_CHANNEL_BYTES = 12
"""For each pixel and map of an image in windows: float32 values, their shares and float16 probabilities."""
_HEAP_BYTES = 100 * 10**6
"""For each thread: gaps in the heap, which grow when threads run at the same time."""
_DECODER_BYTES = 100 * 10**6
"""Python, NumPy and Pillow in a decoder."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def measure_pixel_bytes(run: Callable[[int], object], processes: Sequence[int], max_pixels: int) -> float | None:
    """Measure how much memory the model takes for each pixel of an image.

    Args:
        run: Runs the model on a square image of a side in pixels.
        processes: Process IDs whose memory counts.
        max_pixels: Largest number of pixels to try.

    Returns:
        Bytes for each pixel by which the peak of the larger of two images exceeds that of the smaller; None where the
        system does not say (only Linux does).
    """
    largest = min(_SIDES[1], math.isqrt(max_pixels))
    sides = (largest * _SIDES[0] // _SIDES[1], largest)
    peaks = []
    try:
        for process in processes:
            Path(f"/proc/{process}/clear_refs").write_text("5")  # the peak becomes the present size
        for side in sides:
            run(side)
            peaks.append(sum(read_bytes("VmHWM", process) for process in processes))
    except OSError:
        return None
    return max(_LEAST_PIXEL_BYTES, (peaks[1] - peaks[0]) / max(1, sides[1] ** 2 - sides[0] ** 2))


def read_bytes(name: str, process: int) -> int:
    """Return a number of a process's status, such as VmRSS, in bytes.

    Raises:
        OSError: the system has no such file.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def estimate_bytes(settings: ServerSettings, held: int, pixel_bytes: float, channels: int) -> int:
    """Return how much memory the limits allow the server to take, in bytes.

    Args:
        settings: The limits.
        held: What its processes hold before the first request.
        pixel_bytes: As `measure_pixel_bytes` returns.
        channels: Number of maps of the network.
    """
    whole = min(settings.max_pixels, settings.window_pixels)
    around = AROUND_PIXEL_BYTES + channels * _CHANNEL_BYTES
    image = whole * (pixel_bytes + AROUND_PIXEL_BYTES) + (settings.max_pixels - whole) * around
    return round(held + settings.threads * (image + _DECODER_BYTES + _HEAP_BYTES) + settings.body_budget)


def read_machine_bytes() -> int | None:
    """Return the memory of this machine, or of this container if that is less; None where the system does not say."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        return None
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(found, int(text))
    return found
