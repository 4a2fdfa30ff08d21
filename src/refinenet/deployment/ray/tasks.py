"""What Ray's tasks do: read images. Tables are PyArrow's, with one row. No PyTorch, so that they start soon."""

from __future__ import annotations

import os
import socket
from collections import Counter
from typing import Any

import numpy as np

from refinenet.deployment.ray.storage import find_stamps, is_here, read_content
from refinenet.io.console import describe_error
from refinenet.io.images import decode

DEATHS = 3
"""How many processes may die over an image before it is given up."""


class Deaths:
    """Counts, in a process of its own, over which images others die: a killed process cannot count for itself.

    Ray begins the work of a killed process again, as often as it takes, which for an image that kills every process
    would be for ever.
    """

    def __init__(self) -> None:
        self._current: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()

    def begin(self, process: str, work: str) -> int:
        """A process begins with some work. How many died over it before?"""
        for dead in [other for other, theirs in self._current.items() if theirs == work and other != process]:
            del self._current[dead]
            self._deaths[work] += 1
        self._current[process] = work
        return self._deaths[work]


def read_image(table: Any, deaths: Any) -> Any:
    """Read an image, apart from the workers, so that these need not wait for disks, networks and decoders.

    Args:
        table: A row with "index", "image" and "output".
        deaths: Ray's handle of a `Deaths`.

    Returns:
        The row with "pixels", "height", "width", "read" (the file's stamp), and "error", None where it could be read.
    """
    row = table.to_pylist()[0]
    error, pixels, stamp = given_up(deaths, "read", row), np.zeros((0, 0, 3), np.uint8), ""
    if error is None:
        try:
            stamp = find_stamps([row["image"]]).get(row["image"], "")
            pixels = _decode(row["image"])
        except (ValueError, OSError) as failure:
            error = describe_error(failure)
    height, width, _ = pixels.shape
    facts = {"height": height, "width": width, "read": stamp, "error": error}
    return as_table({**row, **facts, "pixels": pixels.tobytes()})


def _decode(image: str) -> Any:
    if is_here(image):
        return decode(image)
    content = read_content(image)
    try:
        return decode(content)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def given_up(deaths: Any, work: str, row: dict[str, Any]) -> str | None:
    """Begin with an image; why not, where too many processes have died over it.

    Args:
        deaths: Ray's handle of a `Deaths`.
        work: What is done with it.
        row: The image: "index" and "image".
    """
    import ray

    process = f"{socket.gethostname()}:{os.getpid()}"
    count: int = ray.get(deaths.begin.remote(process, f"{work} {row['index']}"))
    if count < DEATHS:
        return None
    return (
        f"{row['image']} is given up: {count} processes died over it, perhaps for want of memory. "
        "Resize it, or give each worker more with fewer --workers."
    )


def as_table(row: dict[str, Any]) -> Any:
    """A PyArrow table of one row."""
    import pyarrow

    # Pixels of several images may pass the 2 GB of Arrow's usual bytes.
    kinds = {"pixels": pyarrow.large_binary(), "error": pyarrow.string()}
    return pyarrow.table({key: pyarrow.array([value], kinds.get(key)) for key, value in row.items()})
