"""Images that two datasets have in common: the same bytes, whatever their folders and names are.

Duplicates and near duplicates within one dataset are found by `doctor.split_rules`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from refinenet.datasets.dataset import Dataset


def find_common_images(dataset: Dataset, other: Dataset) -> Iterator[int]:
    """Find the images of a dataset that another one has as well.

    Files are compared by their bytes; images that are not files, such as drawn ones, by their names.

    Args:
        dataset: The dataset.
        other: The other one.

    Yields:
        Indices in `dataset`, ascending.

    Raises:
        OSError: A file cannot be read.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    names = set()
    for item in other.items:
        file = other.image_file(item)
        if file is None:
            names.add(_plain(item))
        else:
            by_size[file.stat().st_size].append(file)
    hashes: dict[int, set[str]] = {}
    for index, item in enumerate(dataset.items):
        file = dataset.image_file(item)
        if file is None:
            if _plain(item) in names:
                yield index
            continue
        size = file.stat().st_size
        if size in by_size:  # files of a size that the other dataset does not have need not be read
            if size not in hashes:
                hashes[size] = set(_digest_all(by_size[size]))
            if _digest(file) in hashes[size]:
                yield index


def _plain(item: str) -> str:
    """Return a name without the number that joined datasets put before it."""
    number, slash, rest = item.partition("/")
    return rest if slash and number.isdecimal() else item


def _digest_all(files: Iterable[Path]) -> Iterator[str]:
    return map(_digest, files)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
