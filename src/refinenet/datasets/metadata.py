"""Metadata of published datasets, kept as data in `datasets/published/<name>.json` rather than in code."""

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
    """A file that the dataset's owner offers for download."""

    url: str
    file: str
    """Path below the dataset's root."""
    unpack: bool
    """Whether it is an archive to unpack into the root."""
    sha256: str | None = None
    """Hexadecimal digest, if known; no owner publishes one so far. Without a hash, a file is checked against the length
    that the server announces, and on later runs against the address and size recorded at the download."""
    md5: str | None = None
    """As published by the owner or a well-maintained library; protects against damage, not against malice."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Description of a dataset and how to get it."""

    title: str
    protocol: str
    """How the owners, or the papers that report results on it, evaluate, in words."""
    label_set: LabelSet
    images: Mapping[str, int]
    """Number of images per split, as published; splits of unknown size are left out."""
    size: str
    """Total size of the downloads, in words."""
    licence: str
    page: str
    """The owner's page."""
    downloads: tuple[Download, ...]
    """Empty if the owner requires a registration or offers no plain file."""
    how_to_get: str
    """What to download and where to put it below the root, in sentences."""
    paper_shorter_side: tuple[int, int] | None = None
    """Minimum and maximum of an image's shorter side, in pixels, to which RefineNet's published code resizes the
    dataset for its test; None for the range of all other datasets."""
    more: Mapping[str, Any]
    """Entries specific to this dataset, such as its map from stored values to classes."""


def read_info(name: str) -> DatasetInfo:
    """Read the metadata of a published dataset from the package's `datasets/published/<name>.json`."""
    text = (resources.files("refinenet.datasets.published") / f"{name}.json").read_text("utf-8")
    values: dict[str, Any] = json.loads(text)
    label_set = LabelSet.from_dict({key: values.pop(key) for key in ("names", "colours", "ignore_index")})
    downloads = tuple(Download(**download) for download in values.pop("downloads"))
    side = values.pop("paper_shorter_side", None)
    known = {key: values.pop(key) for key in ("title", "protocol", "images", "size", "licence", "page", "how_to_get")}
    return DatasetInfo(
        label_set=label_set,
        downloads=downloads,
        paper_shorter_side=None if side is None else (side[0], side[1]),
        more=values,
        **known,
    )


@dataclass(frozen=True, kw_only=True)
class Server:
    """The evaluation server of a dataset with withheld labels, and the format of submissions."""

    page: str
    """Address of the submission page."""
    test_images: int
    """Number of images in the split `dataset.UNLABELLED`, as published."""
    how_to_get: str
    """What to download for these images and where to put it below the root, in sentences."""
    archive: Literal["zip", "tgz"]
    """Archive format of the label maps, each of them an 8-bit, single-channel PNG."""
    place: Callable[[str, str], str]
    """Maps split and item to the path of the PNG in the archive."""
    values: tuple[int, ...]
    """The PNG value of each class, 0 to 255."""
    palette: tuple[Colour, ...] | None = None
    """RGB colours of these values if the PNG has a palette; None for greyscale."""


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """A published dataset: its info, and how its owner's files are read."""

    info: DatasetInfo
    open_split: Callable[[Path, str], Dataset]
    """Maps the dataset's root and the name of a split to the dataset. Raises FileNotFoundError, naming what it looked
    for, if the data are missing, and ValueError if they are damaged."""
    splits: tuple[str, ...] = ("train", "val")
    """The splits with labels."""
    add_targets: Callable[[Path, Dataset], Dataset] | None = None
    """Adds depth and the like to a split whose images and masks `refinenet data prepare` wrote, given the root; None if
    the dataset has none."""
    server: Server | None = None
    """The evaluation server, if any; `open_split` then also opens the images of `dataset.UNLABELLED`."""

    def has_unlabelled(self, split: str) -> bool:
        """Return whether a split has images but no labels."""
        return self.server is not None and split == UNLABELLED
