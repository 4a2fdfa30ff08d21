"""Fingerprints of datasets, computed without reading them, by which a resumed run detects changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets.catalog import Dataset


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Fingerprint of a dataset. Hashes are hexadecimal SHA-256 and cover no folders: a dataset may be moved."""

    images: int
    """Number of images."""
    names: str
    """Hash of the names of the samples, in their order."""
    image_sizes: str | None
    """Hash of the sizes of the image files in bytes; None unless every image has its own file."""
    label_sizes: str | None
    """Hash of the sizes of the label files; None if these are unknown, or slow to read: then `refinenet data prepare`
    may replace them."""

    def find_change(self, now: Fingerprint) -> str | None:
        """Describe how a dataset has changed, in words to follow its name; None if it has not.

        Hashes that one of the two lacks are not compared.
        """
        if self.images != now.images:
            return f"had {self.images} images and has {now.images}"
        if self.names != now.names:
            return f"has {now.images} images as before, but different ones, or in a different order"
        if None not in (self.image_sizes, now.image_sizes) and self.image_sizes != now.image_sizes:
            return "has image files of other sizes"
        if None not in (self.label_sizes, now.label_sizes) and self.label_sizes != now.label_sizes:
            return "has label files of other sizes"
        return None


def find_changes(before: Mapping[str, Fingerprint], datasets: Mapping[str, Dataset]) -> list[str]:
    """Describe what has changed in each split since its fingerprint was taken; an empty list if nothing has."""
    changes = [(split, each.find_change(take_fingerprint(datasets[split]))) for split, each in before.items()]
    return [f"{split} {change}" for split, change in changes if change is not None]


def take_fingerprint(dataset: Dataset) -> Fingerprint:
    """Return the fingerprint of a dataset; no file is opened.

    Raises:
        OSError: A folder may not be read. A missing file is not an error here; it counts as a size of -1.
    """
    return Fingerprint(
        images=len(dataset),
        names=_hash(dataset.items),
        image_sizes=_hash_sizes(dataset.items, dataset.image_file),
        label_sizes=None if dataset.is_slow else _hash_sizes(dataset.items, dataset.label_file),
    )


def _hash_sizes(items: Sequence[str], find: Callable[[str], Path | None]) -> str | None:
    files = [path for path in map(find, items) if path is not None]
    return _hash(map(_size, files)) if len(files) == len(items) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _hash(values: Iterable[str | int]) -> str:
    digest = hashlib.sha256()
    for value in values:
        # As JSON, in which no name has a line break: other values never give the same bytes.
        digest.update(f"{json.dumps(value)}\n".encode())
    return digest.hexdigest()
