"""Fingerprints of datasets, computed without reading them, by which a resumed run detects changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    band_sizes: str | None = None
    """Hash of the sizes of the files with the bands of the model that a bands.yaml declares; None without."""
    target_sizes: Mapping[str, str] = field(default_factory=dict)
    """By name, for each chosen target that is files: hash of their sizes."""
    declarations: str | None = None
    """Hash of the bands.yaml and targets.yaml in use, which say what the numbers in these files mean; None without."""

    def find_change(self, now: Fingerprint) -> str | None:
        """Describe how a dataset has changed, in words to follow its name; None if it has not.

        Hashes that one of the two lacks, as those of older versions do, are not compared.
        """
        if self.images != now.images:
            return f"had {self.images} images and has {now.images}"
        if self.names != now.names:
            return f"has {now.images} images as before, but different ones, or in a different order"
        hashes = [
            (self.image_sizes, now.image_sizes, "has image files whose sizes have changed"),
            (self.label_sizes, now.label_sizes, "has label files whose sizes have changed"),
            (self.band_sizes, now.band_sizes, "has band files whose sizes have changed"),
            *(
                (sizes, now.target_sizes.get(name), f"has files of {name} whose sizes have changed")
                for name, sizes in self.target_sizes.items()
            ),
            (self.declarations, now.declarations, "has a different bands.yaml or targets.yaml"),
        ]
        return next((words for one, other, words in hashes if None not in (one, other) and one != other), None)


def find_changes(before: Mapping[str, Fingerprint], datasets: Mapping[str, Dataset]) -> list[str]:
    """Describe what has changed in each split since its fingerprint was taken; an empty list if nothing has."""
    changes = [(split, each.find_change(take_fingerprint(datasets[split]))) for split, each in before.items()]
    return [f"{split} {change}" for split, change in changes if change is not None]


def take_fingerprint(dataset: Dataset) -> Fingerprint:
    """Return the fingerprint of a dataset with its bands and targets chosen; no file of a sample is opened.

    Raises:
        OSError: A folder, bands.yaml or targets.yaml may not be read. A missing file is not an error here; it counts
            as a size of -1.
    """
    used = {band.name for band in dataset.bands}
    bands = [files for files in dataset.band_files if not used.isdisjoint(band.name for band in files.bands)]
    targets = [name for name in dataset.chosen_targets if name in dataset.target_files]
    origins = [*(files.origin for files in bands), *(dataset.target_origins if targets else ())]
    return Fingerprint(
        images=len(dataset),
        names=_hash(dataset.items),
        image_sizes=_hash_sizes(dataset.items, dataset.image_file),
        label_sizes=None if dataset.is_slow else _hash_sizes(dataset.items, dataset.label_file),
        band_sizes=_hash(_find_size(files.find, item) for files in bands for item in dataset.items) if bands else None,
        target_sizes={
            name: _hash(_find_size(dataset.target_files[name], item) for item in dataset.items) for name in targets
        },
        declarations=_hash(map(_read, dict.fromkeys(origins))) if origins else None,
    )


def _find_size(find: Callable[[str], Path | None], item: str) -> int:
    try:
        path = find(item)
    except (FileNotFoundError, ValueError):  # there is none, or several: reported when the sample is read
        return -1
    return -1 if path is None else _size(path)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().hex()
    except FileNotFoundError:
        return ""


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
