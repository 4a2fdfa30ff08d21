"""What is known of a published dataset: data, in the package's own `datasets/<name>.json`, not code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from refinenet.datasets.dataset import UNLABELLED, Dataset
from refinenet.labels import Colour, LabelSet


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that its owner offers for download."""

    url: str
    file: str
    """Its name below the dataset's root."""
    unpack: bool
    """Whether it is an archive, to be unpacked into the root."""
    sha256: str | None = None
    """Where it is known, in hexadecimal digits; so far no owner states one. Without any hash a file is held to the
    length that the server announces, and on later runs to the address and the size recorded when it came."""
    md5: str | None = None
    """As its owner or a well-kept library states it; good against damage, not against malice."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a dataset is, and how one gets it."""

    title: str
    protocol: str
    """How its owners, or those who quote figures on it, measure, in words."""
    label_set: LabelSet
    images: Mapping[str, int]
    """Number of images by split, as published; a split whose number is not known is left out."""
    size: str
    """Of the downloads together, in words."""
    licence: str
    page: str
    """The owner's page."""
    downloads: tuple[Download, ...]
    """Nothing where the owner wants a registration or has no plain file."""
    how_to_get: str
    """What to download and how it lies below the root, in sentences."""
    more: Mapping[str, Any]
    """What only this dataset has, such as its map from stored values to classes."""


def read_info(name: str) -> DatasetInfo:
    """The facts in the package's `datasets/<name>.json`."""
    text = (resources.files("refinenet.datasets.published") / f"{name}.json").read_text("utf-8")
    values: dict[str, Any] = json.loads(text)
    label_set = LabelSet.from_dict({key: values.pop(key) for key in ("names", "colours", "ignore_index")})
    downloads = tuple(Download(**download) for download in values.pop("downloads"))
    known = {key: values.pop(key) for key in ("title", "protocol", "images", "size", "licence", "page", "how_to_get")}
    return DatasetInfo(label_set=label_set, downloads=downloads, more=values, **known)


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where a dataset's owners measure on images whose labels they keep, and the file of label maps that it takes."""

    page: str
    """Where files are handed in."""
    test_images: int
    """Number of images of the split `dataset.UNLABELLED`, as published."""
    how_to_get: str
    """What to download for these and how it lies below the root, in sentences."""
    archive: Literal["zip", "tgz"]
    """What the label maps are packed into, each of them a PNG of 8 bits with one channel."""
    place: Callable[[str, str], str]
    """From a split and an item to the path of its PNG in the archive."""
    values: tuple[int, ...]
    """What the PNG holds for each class, 0 to 255."""
    palette: tuple[Colour, ...] | None = None
    """RGB colours of these values, where the PNG has a palette; else it is grey."""


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """A published dataset: its facts, and how its owner's files are read."""

    facts: DatasetInfo
    open_split: Callable[[Path, str], Dataset]
    """From the dataset's root and the name of one of its splits to the dataset; it raises FileNotFoundError, naming
    what it looked for, where the data are not there, and ValueError where they are damaged."""
    splits: tuple[str, ...] = ("train", "val")
    """The splits with labels that it can open."""
    server: Server | None = None
    """Where there is one, `open_split` opens the images of `dataset.UNLABELLED`, too."""

    def has_unlabelled(self, split: str) -> bool:
        """Whether a split is one of images without labels."""
        return self.server is not None and split == UNLABELLED
