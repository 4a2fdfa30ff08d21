"""A dataset of a fictitious owner, with labels in text files, and its preparation from a server."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hostile_server import HostileServer, serve
from PIL import Image

from refinenet.datasets.catalog import Dataset, DatasetInfo, Download, PublishedDataset, prepared_folder
from refinenet.datasets.preparation import PrepareReport, prepare
from refinenet.datasets.published.prepared_masks import open_prepared
from refinenet.io.download.download import Patience
from refinenet.labels import LabelMap, LabelSet

LABEL_SET = LabelSet(names=("ground", "tree", "sky"), colours=((1, 2, 3), (0, 255, 0), (0, 0, 255)))
QUICK = Patience(attempts=2, timeout=2, pause=0.01)  # a busy machine answers late
COUNT = 12
SPLITS = {"train": range(8), "val": range(8, COUNT)}
PACE = "REFINENET_TEST_PACE"


def truth(number: int) -> LabelMap:
    """A label map of 6 by 9 pixels, with void in it."""
    labels = ((np.arange(54) * (number + 1)) % 4).reshape(6, 9).astype(np.uint8)
    return np.where(labels == 3, np.uint8(255), labels)


def picture(number: int) -> npt.NDArray[np.uint8]:
    return np.full((6, 9, 3), number * 10, np.uint8)


def read_text_labels(root: Path, item: str) -> LabelMap:
    """Read the labels of the fictitious owner: text files with -1 for void."""
    time.sleep(float(os.environ.get(PACE, "0")))
    values = np.loadtxt(root / f"{item}.txt", int, ndmin=2)
    return np.where(values < 0, 255, values).astype(np.uint8)


def read_picture(root: Path, item: str) -> npt.NDArray[np.uint8]:
    return np.array(Image.open(root / f"{item}.png"))


def find_picture(root: Path, item: str) -> Path:
    return root / f"{item}.png"


def open_text_split(root: Path, split: str, *, in_files: bool = True) -> Dataset:
    folder = root / "data" / split
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    items = sorted(str(path.relative_to(root).with_suffix("")) for path in folder.rglob("*.txt"))
    dataset = Dataset(
        name="texts",
        split=split,
        label_set=LABEL_SET,
        items=items,
        read_image=partial(read_picture, root),
        read_labels=partial(read_text_labels, root),
        slow_sources=sorted(folder.iterdir()),
    )
    return dataclasses.replace(dataset, image_file=partial(find_picture, root)) if in_files else dataset


def owner_files(split: str) -> dict[str, bytes]:
    files = {}
    for number in SPLITS[split]:
        image, text = io.BytesIO(), io.StringIO()
        Image.fromarray(picture(number)).save(image, "PNG")
        np.savetxt(text, np.where(truth(number) == 255, -1, truth(number).astype(int)), "%d")
        files[f"data/{split}/scene {number % 3}/{number:02}.png"] = image.getvalue()
        files[f"data/{split}/scene {number % 3}/{number:02}.txt"] = text.getvalue().encode()
    return files


def as_zip(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def as_tar(files: Mapping[str, bytes], **link: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in link.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


TRAIN, VAL = as_zip(owner_files("train")), as_tar(owner_files("val"))


def published(address: str, downloads: tuple[Download, ...] | None = None) -> PublishedDataset:
    names = ("train.zip", "val.tgz")
    info = DatasetInfo(
        title="Texts, 3 classes",
        protocol="by reading them",
        label_set=LABEL_SET,
        images={"train": 8, "val": 5},
        size="1 kB",
        licence="none",
        page="http://texts.example",
        downloads=tuple(Download(url=f"{address}/{name}", file=name, unpack=True) for name in names)
        if downloads is None
        else downloads,
        how_to_get="Write them yourself.",
        more={},
    )
    return PublishedDataset(info=info, open_split=open_text_split)


def plan(server: HostileServer) -> None:
    server.plan("/train.zip", serve(TRAIN))
    server.plan("/val.tgz", serve(VAL))


def run(
    server: HostileServer, root: Path, *, mirror: str | None = None, download: bool = True, keep_archives: bool = True
) -> PrepareReport:
    return prepare(
        "texts",
        root,
        published=published(server.address),
        mirror=mirror,
        download=download,
        keep_archives=keep_archives,
        workers=0,
        progress=False,
        patience=QUICK,
    )


def check_all(root: Path) -> None:
    """Check the prepared splits against labels computed independently of the owner's files."""
    for split, numbers in SPLITS.items():
        dataset = open_prepared(root, "texts", split, LABEL_SET)
        assert dataset is not None
        assert sorted(item[-2:] for item in dataset.items) == [f"{number:02}" for number in numbers]
        for sample in dataset:
            number = int(sample.name[-2:])
            np.testing.assert_array_equal(sample.labels, truth(number))
            np.testing.assert_array_equal(sample.image, picture(number))
            mask = Image.open(prepared_folder(root, "texts", split) / "masks" / f"{sample.name}.png")
            assert mask.mode == "P"
            assert (mask.getpalette() or [])[:9] == [1, 2, 3, 0, 255, 0, 0, 0, 255]
