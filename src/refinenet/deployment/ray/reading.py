"""Reading of images in Ray's processes, and a count of the processes that died on an image; nothing here needs PyTorch.

Tables are PyArrow's, with one row.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from typing import Any

import numpy as np

from refinenet.deployment.ray.storage import find_stamps, is_here, read_content
from refinenet.io.console import describe_error
from refinenet.io.images.codec import read_image
from refinenet.io.images.sample_values import Decoded, Reading

DEATHS = 3
"""Number of processes that may die on an image before it is given up."""


class Deaths:
    """Counter of the processes that died on each image, in a separate process, since a killed one cannot count itself.

    Ray retries the work of a killed process until it succeeds, which would never happen with an image that kills every
    process.
    """

    def __init__(self) -> None:
        self._current: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()

    def begin(self, process: str, work: str) -> int:
        """Record that a process begins some work, and return how many others died on it."""
        # A process announces each next piece of work, so another one that is still listed with this one is dead.
        for dead in [other for other, theirs in self._current.items() if theirs == work and other != process]:
            del self._current[dead]
            self._deaths[work] += 1
        self._current[process] = work
        return self._deaths[work]


def read_row(table: Any, deaths: Any, reading: Reading) -> Any:
    """Read an image outside the workers, so that they do not wait for disks, networks and decoders.

    Args:
        table: A row with "index", "image" and "output".
        deaths: Ray's handle of a `Deaths`.
        reading: Bands and value range to read.

    Returns:
        The row with "pixels" and "valid" (bytes; "valid" is packed to bits, or None for data everywhere), "height",
        "width", "notes" (JSON), "read" (the file's stamp), and "error", which is None on success.
    """
    row = table.to_pylist()[0]
    error, image, stamp = give_up(row, begin(deaths, "read", row)), Decoded(pixels=np.zeros((0, 0, 3), np.uint8)), ""
    if error is None:
        try:
            # Before reading: a file that is replaced meanwhile then differs from its journal entry, and is redone.
            stamp = find_stamps([row["image"]]).get(row["image"], "")
            image = _read(row["image"], reading)
        except (ValueError, OSError) as failure:
            error = describe_error(failure)
    height, width, _ = image.pixels.shape
    facts = {"height": height, "width": width, "notes": json.dumps(image.notes), "read": stamp, "error": error}
    valid = None if image.valid is None else np.packbits(image.valid).tobytes()
    return as_table({**row, **facts, "pixels": image.pixels.tobytes(), "valid": valid})


def _read(image: str, reading: Reading) -> Decoded:
    if is_here(image):
        return read_image(image, reading=reading)
    content = read_content(image)
    try:
        return read_image(content, reading=reading)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def begin(deaths: Any, work: str, row: dict[str, Any]) -> int:
    """Begin work on an image, and return how many processes have died on it.

    Args:
        deaths: Ray's handle of a `Deaths`.
        work: Name of the work.
        row: The image: "index" and "image".
    """
    import ray

    process = f"{socket.gethostname()}:{os.getpid()}"
    count: int = ray.get(deaths.begin.remote(process, f"{work} {row['index']}"))
    return count


def give_up(row: dict[str, Any], count: int) -> str | None:
    """Return a message if too many processes have died on an image."""
    if count < DEATHS:
        return None
    return (
        f"{row['image']} is skipped: {count} processes died while processing it, perhaps out of memory. Resize it, "
        "or use fewer --workers, so that each has more memory."
    )


def as_table(row: dict[str, Any]) -> Any:
    """Return a PyArrow table of one row."""
    import pyarrow

    # Arrow's usual bytes end at 2 GB, which the pixels of several images may exceed.
    kinds = {"pixels": pyarrow.large_binary(), "valid": pyarrow.large_binary(), "error": pyarrow.string()}
    return pyarrow.table({key: pyarrow.array([value], kinds.get(key)) for key, value in row.items()})
