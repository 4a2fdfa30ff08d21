"""What a dataset looks like without being read, by which a run that is taken up notices that it is another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refinenet.datasets.catalog import Dataset


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Hashes are SHA-256 in hexadecimal. No folder is in them, so that a dataset may be moved."""

    images: int
    """How many there are."""
    names: str
    """Of what the samples are called, in their order."""
    image_sizes: str | None
    """Of the image files' sizes in bytes; None where not every image is a file of its own."""
    label_sizes: str | None
    """Of the sizes of the files that hold the labels; None where these are not known, or slow to read: then `refinenet
    data prepare` may put others in their place."""

    def find_change(self, now: Fingerprint) -> str | None:
        """How a dataset that looks like `now` differs from this one, in words to follow its name; None if it does not.

        What only one of the two knows is not compared.
        """
        if self.images != now.images:
            return f"had {self.images} images and has {now.images}"
        if self.names != now.names:
            return f"has {now.images} images as before, but other ones, or in another order"
        if None not in (self.image_sizes, now.image_sizes) and self.image_sizes != now.image_sizes:
            return "has image files of other sizes"
        if None not in (self.label_sizes, now.label_sizes) and self.label_sizes != now.label_sizes:
            return "has label files of other sizes"
        return None


def describe_looks(datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """The fingerprints of splits by their names, JSON-ready."""
    return {split: asdict(take_fingerprint(dataset)) for split, dataset in datasets.items()}


def find_changes(looks: Mapping[str, Fingerprint], datasets: Mapping[str, Dataset]) -> list[str]:
    """What has changed in each of the splits whose looks were noted, in words; nothing where nothing has."""
    changes = [(split, look.find_change(take_fingerprint(datasets[split]))) for split, look in looks.items()]
    return [f"{split} {change}" for split, change in changes if change is not None]


def take_fingerprint(dataset: Dataset) -> Fingerprint:
    """The fingerprint of a dataset; no file is opened.

    Raises:
        OSError: a folder may not be looked into. A file that is missing is no error here, but a size of its own.
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
    found = hashlib.sha256()
    for value in values:
        found.update(f"{json.dumps(value)}\n".encode())
    return found.hexdigest()
