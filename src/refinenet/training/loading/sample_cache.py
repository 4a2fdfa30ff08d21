"""Cache of decoded images, label maps and targets, in memory or on disk.

A sample is decoded once; after that, its raw values are stored in a folder, from which every process reads them in a
fraction of the time. With "memory" the folder is in the system's shared memory (/dev/shm).
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
"""Bytes that the cache leaves free; beyond that, samples are read from their files each time."""
_PREFIX = "refinenet-cache-"
_FULL, _LOCK = "full", "lock"


@contextmanager
def cache_samples(dataset: Dataset, kind: str, folder: Path) -> Iterator[Dataset]:
    """Yield the dataset with its samples cached until the context ends.

    Args:
        dataset: Dataset to cache.
        kind: "none", "memory" or "disk".
        folder: Folder of the cache for "disk"; it is emptied first and removed at the end.

    Raises:
        ValueError: There is no shared memory (only Linux has /dev/shm), or too little of it.
    """
    if kind == "none":
        yield dataset
        return
    with _memory_folder() if kind == "memory" else _disk_folder(folder) as place:
        numbers = {item: number for number, item in enumerate(dataset.items)}
        yield replace(
            dataset,
            read_image=partial(_read_cached, place, "image", numbers, dataset.read_image),
            read_labels=partial(_read_cached, place, "labels", numbers, dataset.read_labels),
            target_readers={
                name: partial(_read_cached, place, f"target{index}", numbers, read)
                for index, (name, read) in enumerate(dataset.target_readers.items())
            },
        )
        if (place / _FULL).exists():
            print_note(
                f"The {kind} was too small for all samples of {dataset.name} {dataset.split}: some were read from "
                "their files each time."
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
    """Make a folder in shared memory, and remove those that killed processes have left there."""
    if not SHARED_MEMORY.is_dir():
        raise ValueError(
            "cache='memory' needs /dev/shm, which only Linux has. Use cache='disk': the system keeps it in memory."
        )
    if _free(SHARED_MEMORY) < KEPT_FREE:
        raise ValueError(
            f"cache='memory' needs more than {KEPT_FREE:,} bytes in /dev/shm; {_free(SHARED_MEMORY):,} are free. Use "
            "cache='disk', or give a container more with --shm-size."
        )
    for leftover in SHARED_MEMORY.glob(f"{_PREFIX}*"):
        # Another process may have removed it, or another user made it.
        with suppress(FileNotFoundError, PermissionError), _lock(leftover) as is_ours:
            if is_ours:
                shutil.rmtree(leftover, ignore_errors=True)
    with ExitStack() as stack:
        folder = _make_marked(stack)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make_marked(stack: ExitStack) -> Path:
    """Make a new folder in shared memory, marked as in use until the stack closes."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=SHARED_MEMORY))
        # Until it is marked, another process may take it for a leftover and remove it: then make another one.
        with suppress(FileNotFoundError), ExitStack() as attempt:
            if attempt.enter_context(_lock(folder)) and (folder / _LOCK).exists():
                stack.push(attempt.pop_all())
                return folder


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Mark a folder as in use by this process and its children; yields False if another process uses it.

    The system removes the mark when the process ends, even if it is killed.
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


def _read_cached(
    folder: Path, kind: str, numbers: Mapping[str, int], read: Callable[[str], npt.NDArray[Any]], item: str
) -> npt.NDArray[Any]:
    path = folder / f"{numbers[item]}-{kind}.npy"
    try:
        cached: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        return cached
    except FileNotFoundError:
        values = read(item)
    with suppress(OSError):  # whatever is wrong with the disk, training can do without the cache
        _save(path, values)
    return values


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    if _free(path.parent) < KEPT_FREE + values.nbytes:
        (path.parent / _FULL).touch()
        return
    # Not with `write_atomically`: a cache need not survive a power cut, so it does not wait for the disk. The rename
    # alone makes the file appear as a whole.
    content = io.BytesIO()
    np.save(content, values)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.getvalue())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        (path.parent / _FULL).touch()
