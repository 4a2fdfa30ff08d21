"""Decoded images and label maps that wait for their next epoch, in memory or on disk.

A sample is read from its files once; from then on it lies as raw values in a folder, from which every process reads it
in a fraction of the time. "memory" is such a folder in the system's memory (/dev/shm).
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets import Dataset

SHARED_MEMORY = Path("/dev/shm")
KEPT_FREE = 2**30
"""Bytes that stay free where the cache lies; past that, samples are read from their files each time."""
_PREFIX = "refinenet-cache-"


@contextmanager
def cache_samples(dataset: Dataset, kind: str, folder: Path) -> Iterator[Dataset]:
    """The dataset with its samples kept decoded until the end.

    Args:
        dataset: Whose samples to keep.
        kind: "none", "memory" or "disk".
        folder: Where "disk" keeps them; it is emptied first and removed at the end. "memory" takes its name.

    Raises:
        ValueError: the system has no memory that processes share by name (only Linux has /dev/shm).
    """
    if kind == "none":
        yield dataset
        return
    place = _memory_folder(folder.name) if kind == "memory" else folder
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        numbers = {item: number for number, item in enumerate(dataset.items)}
        yield replace(
            dataset,
            read_image=partial(_read_kept, place, "image", numbers, dataset.read_image),
            read_labels=partial(_read_kept, place, "labels", numbers, dataset.read_labels),
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _memory_folder(name: str) -> Path:
    """A folder in memory for this process; what killed processes have left there is removed."""
    if not SHARED_MEMORY.is_dir():
        raise ValueError(
            "cache='memory' needs /dev/shm, which only Linux has. Use cache='disk': the system keeps it in memory."
        )
    for left in SHARED_MEMORY.glob(f"{_PREFIX}*"):
        number = left.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdecimal() and not Path("/proc", number).exists():
            shutil.rmtree(left, ignore_errors=True)
    return SHARED_MEMORY / f"{_PREFIX}{os.getpid()}-{name}"


def _read_kept(
    folder: Path, kind: str, numbers: dict[str, int], read: Callable[[str], npt.NDArray[Any]], item: str
) -> npt.NDArray[Any]:
    path = folder / f"{numbers[item]}-{kind}.npy"
    try:
        kept: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        return kept
    except FileNotFoundError:
        values = read(item)
    if shutil.disk_usage(folder).free > KEPT_FREE + values.nbytes:
        content = io.BytesIO()
        np.save(content, values)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(content.getvalue())
        temporary.replace(path)
    return values
