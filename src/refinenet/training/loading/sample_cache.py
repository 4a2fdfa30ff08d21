"""Decoded images and label maps that wait for their next epoch, in memory or on disk.

A sample is read from its files once; from then on it lies as raw values in a folder, from which every process reads it
in a fraction of the time. "memory" is such a folder in the system's memory (/dev/shm).
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset
from refinenet.io.console import print_note

SHARED_MEMORY = Path("/dev/shm")
KEPT_FREE = 2**30
"""Bytes that stay free where the cache lies; past that, samples are read from their files each time."""
_PREFIX = "refinenet-cache-"
_FULL, _LOCK = "full", "lock"


@contextmanager
def cache_samples(dataset: Dataset, kind: str, folder: Path) -> Iterator[Dataset]:
    """The dataset with its samples kept decoded until the end.

    Args:
        dataset: Whose samples to keep.
        kind: "none", "memory" or "disk".
        folder: Where "disk" keeps them; it is emptied first and removed at the end.

    Raises:
        ValueError: there is no memory that processes share by name (only Linux has /dev/shm), or too little of it.
    """
    if kind == "none":
        yield dataset
        return
    with _memory_folder() if kind == "memory" else _disk_folder(folder) as place:
        numbers = {item: number for number, item in enumerate(dataset.items)}
        yield replace(
            dataset,
            read_image=partial(_read_kept, place, "image", numbers, dataset.read_image),
            read_labels=partial(_read_kept, place, "labels", numbers, dataset.read_labels),
        )
        if (place / _FULL).exists():
            print_note(
                f"The {kind} had no room for all samples of {dataset.name} {dataset.split}: some were read each time."
            )


@contextmanager
def _disk_folder(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _memory_folder() -> Iterator[Path]:
    """A folder in memory; what killed processes have left there is removed."""
    if not SHARED_MEMORY.is_dir():
        raise ValueError(
            "cache='memory' needs /dev/shm, which only Linux has. Use cache='disk': the system keeps it in memory."
        )
    if _free(SHARED_MEMORY) < KEPT_FREE:
        raise ValueError(
            f"cache='memory' needs more than {KEPT_FREE:,} bytes in /dev/shm; {_free(SHARED_MEMORY):,} are free. Use "
            "cache='disk', or give a container more by --shm-size."
        )
    for left in SHARED_MEMORY.glob(f"{_PREFIX}*"):
        # Another process may have removed it, or another user made it.
        with suppress(FileNotFoundError, PermissionError), _lock(left) as is_ours:
            if is_ours:
                shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as stack:
        folder = _make_marked(stack)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make_marked(stack: ExitStack) -> Path:
    """A new folder in memory, marked as in use until the stack ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=SHARED_MEMORY))
        # Before it is marked, another process may take it for a left one and remove it: then another one is made.
        with suppress(FileNotFoundError), ExitStack() as attempt:
            if attempt.enter_context(_lock(folder)) and (folder / _LOCK).exists():
                stack.push(attempt.pop_all())
                return folder


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Mark a folder as in use by this process and its children; False where another one uses it.

    The system takes the mark away when the process ends, however it does.
    """
    import fcntl  # Windows has none, and no /dev/shm

    with (folder / _LOCK).open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _read_kept(
    folder: Path, kind: str, numbers: Mapping[str, int], read: Callable[[str], npt.NDArray[Any]], item: str
) -> npt.NDArray[Any]:
    path = folder / f"{numbers[item]}-{kind}.npy"
    try:
        kept: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        return kept
    except FileNotFoundError:
        values = read(item)
    with suppress(OSError):  # Whatever is wrong with the disk, training can do without the cache.
        _keep(path, values)
    return values


def _keep(path: Path, values: npt.NDArray[Any]) -> None:
    if _free(path.parent) < KEPT_FREE + values.nbytes:
        (path.parent / _FULL).touch()
        return
    # Not by `write_atomically`: a cache need not outlive a power cut, and waiting for the disk would cost more than it.
    content = io.BytesIO()
    np.save(content, values)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.getvalue())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        (path.parent / _FULL).touch()
