"""The table of datasets: `open_dataset` turns a name or a folder into a function from split names to datasets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from refinenet.datasets import street_scenes
from refinenet.datasets.band_reading import read_for_model
from refinenet.datasets.dataset import UNLABELLED, Dataset, Sample, Splits, no_labels, with_value_range
from refinenet.datasets.folder.classes_file import read_classes_file
from refinenet.datasets.folder.folder import FolderSplits
from refinenet.datasets.folder.layouts import find_layout, find_splits
from refinenet.datasets.joining import join
from refinenet.datasets.metadata import DatasetInfo, Download, PublishedDataset, Server
from refinenet.datasets.published.ade20k import ADE20K
from refinenet.datasets.published.camvid import CAMVID
from refinenet.datasets.published.cityscapes import CITYSCAPES
from refinenet.datasets.published.coco import COCO, COCO_STUFF
from refinenet.datasets.published.context import CONTEXT, CONTEXT_59
from refinenet.datasets.published.nyu import NYU, NYU_RAW
from refinenet.datasets.published.person_part import PERSON_PART
from refinenet.datasets.published.prepared_masks import open_fastest, prepared_folder
from refinenet.datasets.published.sunrgbd import SUNRGBD
from refinenet.datasets.published.voc import SBD, VOC, VOC_AUG
from refinenet.io.files import refuse_address
from refinenet.io.images.bands import Band
from refinenet.io.images.image_files import IMAGE_SUFFIXES, has_suffix, list_files
from refinenet.io.images.sample_values import ValueRange
from refinenet.labels import LabelSet

__all__ = [
    "IMAGE_SUFFIXES",
    "NAMES",
    "PUBLISHED",
    "UNLABELLED",
    "Dataset",
    "DatasetInfo",
    "DatasetSource",
    "Download",
    "PublishedDataset",
    "Sample",
    "Server",
    "Splits",
    "TrainingSource",
    "as_sources",
    "check_dataset",
    "choose_classes",
    "find_root",
    "find_server",
    "has_suffix",
    "is_drawn",
    "is_folder_dataset",
    "is_unlabelled",
    "list_files",
    "no_labels",
    "open_dataset",
    "open_training_datasets",
    "prepared_folder",
    "read_classes",
    "read_for_model",
    "with_value_range",
]

PUBLISHED: Mapping[str, PublishedDataset] = MappingProxyType(
    {
        "nyu": NYU,
        "nyu:raw": NYU_RAW,
        "voc": VOC,
        "sbd": SBD,
        "voc_aug": VOC_AUG,
        "coco": COCO,
        "coco:stuff": COCO_STUFF,
        "cityscapes": CITYSCAPES,
        "ade20k": ADE20K,
        "context": CONTEXT,
        "context:59": CONTEXT_59,
        "person_part": PERSON_PART,
        "sunrgbd": SUNRGBD,
        "camvid": CAMVID,
    }
)
"""The published datasets by name; where a dataset has several sets of classes or depths, a colon separates the two."""
NAMES = (*PUBLISHED, "streets")
"""Datasets known by name; anything else is a folder."""


_COPY = "Copy the dataset to this machine and pass its folder."

DatasetSource = str | os.PathLike[str] | Splits
"""How users refer to a dataset; see `open_dataset`."""
TrainingSource = DatasetSource | Sequence[DatasetSource]
"""One dataset or several; see `open_training_datasets`."""


def as_sources(dataset: TrainingSource) -> Sequence[DatasetSource]:
    """Return one dataset or several as a sequence.

    Raises:
        ValueError: The argument is neither.
    """
    if isinstance(dataset, str | os.PathLike) or callable(dataset):
        return [dataset]
    if not isinstance(dataset, Sequence):
        raise ValueError(f"A dataset must be a name, a folder, or a list of these, not {dataset!r}.")
    return dataset


def is_drawn(name: str) -> bool:
    """Return whether a name refers to images that the package draws."""
    return name.partition(":")[0] == "streets"


def open_training_datasets(
    dataset: TrainingSource,
    root: str | os.PathLike[str] | None = None,
    *,
    value_range: ValueRange | None = None,
    bands: Sequence[Band] = (),
) -> tuple[Dataset, Dataset]:
    """Open the dataset to train on and the one to validate on, with images as a model takes them.

    Args:
        dataset: See `open_dataset`. Several datasets must have the same classes: their training splits are joined and
            the validation split of the first one is used.
        root: The folder of the first one.
        value_range: See `read_for_model`.
        bands: See `read_for_model`; each dataset finds them in files of its own.

    Raises:
        ValueError: See `open_dataset` and `read_for_model`; or no dataset is given, or their classes differ.
        FileNotFoundError: See `open_dataset`.
    """
    sources = as_sources(dataset)
    if not sources:
        raise ValueError("Pass at least one dataset.")
    first = open_dataset(sources[0], root)
    # Each by itself: once joined, nothing would know which files hold the bands of which dataset.
    train_sets = [
        read_for_model(splits("train"), value_range, bands) for splits in [first, *map(open_dataset, sources[1:])]
    ]
    train_set = train_sets[0] if len(train_sets) == 1 else join(train_sets)
    val_set = read_for_model(first("val"), value_range, bands)
    if val_set.label_set.names != train_set.label_set.names:
        raise ValueError(f"The splits train and val of {val_set.name} have different classes.")
    return train_set, val_set


def choose_classes(dataset: object, classes: str) -> str:
    """Return the name of a published dataset with one of its sets of classes, `NAME:CLASSES`.

    Raises:
        ValueError: The dataset has no such set of classes.
    """
    chosen = f"{dataset}:{classes}"
    if chosen not in PUBLISHED:
        others = [n for n in PUBLISHED if read_classes(n) != read_classes(n.partition(":")[0])]
        choices = ", ".join(" with classes=".join(map(repr, name.split(":"))) for name in others)
        raise ValueError(f"There is no dataset {dataset!r} with classes={classes!r}. There are {choices}.")
    return chosen


def read_classes(source: str) -> LabelSet:
    """Return the label set of a dataset known by name, or of a `classes.yaml`.

    Raises:
        ValueError: The name is unknown, or the file is damaged.
        OSError: The file cannot be read.
    """
    if source in PUBLISHED:
        return PUBLISHED[source].info.label_set
    if Path(source).suffix not in (".yaml", ".yml"):
        raise ValueError(f"Class names come from {', '.join(PUBLISHED)} or a classes.yaml file, not from {source!r}.")
    return read_classes_file(Path(source)).label_set


def is_folder_dataset(name: str) -> bool:
    """Return whether a name is the path of a folder, or of a YAML file that describes one."""
    path = Path(name)
    return path.is_dir() or (path.is_file() and path.suffix in (".yaml", ".yml"))


def open_dataset(dataset: DatasetSource, root: str | os.PathLike[str] | None = None) -> Splits:
    """Turn a dataset name, folder or function into a function from split names ("train", "val", ...) to datasets.

    Args:
        dataset: One of `NAMES`; "streets:COUNT" or "streets:COUNT:WIDTHxHEIGHT" for that many drawn images in each
            split; a folder or YAML file (see `datasets.folder.layouts`); or such a function itself.
        root: The folder of a named dataset. By default the folder in the environment variable `REFINENET_<NAME>`, such
            as `REFINENET_CAMVID`, or else `data/<name>`.

    Raises:
        ValueError: The name is unknown, or also that of a folder here, or a root is given that is not used.
        FileNotFoundError: The data are missing (raised when a split is opened; the message says how to get them).
    """
    if callable(dataset):
        return dataset
    name = os.fspath(dataset)
    refuse_address("A dataset", name, _COPY)
    _refuse_two_meanings(name, root)
    if name in PUBLISHED:
        return partial(_open_published, name, find_root(name, root))
    if is_drawn(name) or is_folder_dataset(name):
        if root is not None:
            raise ValueError(f"root={os.fspath(root)!r} has no effect: {name!r} is not a published dataset.")
        return street_scenes.parse(name) if is_drawn(name) else FolderSplits(Path(name))
    raise ValueError(
        f"There is no dataset {name!r}: no folder has this name, and the named datasets are {', '.join(NAMES)}. "
        "A custom folder contains images/ and masks/ with matching file names; see docs/formats.md for other layouts."
    )


def _refuse_two_meanings(name: str, root: str | os.PathLike[str] | None) -> None:
    """Refuse a name of `NAMES` that is also a folder with a dataset in it, as either could be meant."""
    if name not in NAMES or not _holds_dataset(Path(name)):
        return
    if is_drawn(name):
        other = f"{name}:400 for the images that the package draws"
    elif root is None and f"REFINENET_{name.partition(':')[0].upper()}" not in os.environ and find_root(name).is_dir():
        other = f"{name} with root={os.fspath(find_root(name))!r} (--root) for the published dataset"
    else:
        return
    raise ValueError(
        f"{name!r} is both a known dataset and a folder here. Write {Path(name).resolve()} for the folder, or {other}. "
        "To resume a run that was started with this name, change to another working folder."
    )


def _holds_dataset(folder: Path) -> bool:
    """Return whether a folder has a known layout; that of a run or of results, say, has none."""
    try:
        find_layout(folder)
    except (ValueError, OSError):
        return False
    return True


def check_dataset(
    dataset: str, root: str | os.PathLike[str] | None = None, classes: str | None = None, split: str | None = None
) -> None:
    """Refuse a dataset that clearly does not exist, from names and folders alone, before a model is loaded for it.

    Args:
        dataset: A name, a folder or a YAML file; see `open_dataset`.
        root: The folder of a named dataset.
        classes: Its set of classes.
        split: The split that is needed; by default any, of published datasets "train".

    Raises:
        ValueError: There is no such dataset, split or set of classes.
        FileNotFoundError: Its folder is missing, or of an unknown layout.
    """
    source = dataset if classes is None else choose_classes(dataset, classes)
    opened = open_dataset(source, root)
    if isinstance(opened, FolderSplits):
        find_layout(opened.source) if split is None else opened.find_split(split)
    elif source in PUBLISHED and not find_root(source, root).is_dir():
        opened(split or "train")


def find_root(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a published dataset, without its variant: `root`, the environment variable or `data/<name>`.

    Raises:
        ValueError: `root` is a URL.
    """
    refuse_address("root", root, _COPY)
    plain = name.partition(":")[0]
    return Path(root or os.environ.get(f"REFINENET_{plain.upper()}") or Path("data") / plain)


def find_server(dataset: DatasetSource) -> Server:
    """Return the evaluation server of a published dataset.

    Raises:
        ValueError: No server is known for the dataset; the message names the datasets that have one.
    """
    servers = {name: published.server for name, published in PUBLISHED.items() if published.server is not None}
    name = "this one" if callable(dataset) else os.fspath(dataset)
    if name not in servers:
        *others, last = sorted(servers)
        raise ValueError(
            f"Submissions are for datasets with an evaluation server, {', '.join(others)} and {last}, "
            f"not for {name!r}. For label maps of any images, use `refinenet deploy FOLDER --output FOLDER`."
        )
    return servers[name]


def is_unlabelled(dataset: str, split: str) -> bool:
    """Return whether a split of a named dataset has images but no labels; no file is opened."""
    return dataset in PUBLISHED and PUBLISHED[dataset].has_unlabelled(split)


def _open_published(name: str, root: Path, split: str) -> Dataset:
    published = PUBLISHED[name]
    server = published.server if published.has_unlabelled(split) else None
    if split not in published.splits and server is None:
        *others, last = published.splits
        more = f", and {UNLABELLED} without labels" if published.server else ""
        raise ValueError(f"{name} has the splits {', '.join(others)} and {last}{more}, not {split!r}.")
    try:
        if server is not None:
            return published.open_split(root, split)
        return open_fastest(root, name, split, published)
    except FileNotFoundError as error:
        plain = name.partition(":")[0]
        how_to_get = published.info.how_to_get if server is None else server.how_to_get
        prepare = (
            f" `refinenet data prepare {name} --root FOLDER` downloads or converts what it can."
            if server is None
            else ""
        )
        own = f" To use your own folder of that name, write {Path(name).resolve()}." if Path(name).is_dir() else ""
        raise FileNotFoundError(
            f"{error} {how_to_get} Then pass the folder as root= (--root), or set the environment variable "
            f"REFINENET_{plain.upper()} to it.{prepare}{own}"
        ) from error


_PLAIN = ("train", "val", "test")


def split_names(source: str) -> tuple[str, ...]:
    """Return the splits of a dataset: train, val, test, and any others that a folder has.

    Splits that combine others, such as VOC's trainval, are left out, since their images would count twice.

    Args:
        source: See `open_dataset`.

    Raises:
        FileNotFoundError, ValueError, OSError: See `find_layout`; for folders only.
    """
    if source in PUBLISHED:
        return tuple(split for split in _PLAIN if split in PUBLISHED[source].splits)
    if source.partition(":")[0] == "streets":
        return tuple(street_scenes.FIRST_SEEDS)
    return find_splits(find_layout(Path(source)))
