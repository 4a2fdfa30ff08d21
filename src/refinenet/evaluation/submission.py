"""Submission files for evaluation servers of datasets whose test labels are secret: a label map for each image.

The format that a server accepts is declared by the dataset (`datasets.Server`). Equal label maps give equal bytes.

Shape letters: H height, W width.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from refinenet.datasets.catalog import UNLABELLED, Dataset, DatasetSource, Sample, Server, find_server
from refinenet.distributed import is_launched
from refinenet.evaluation.evaluator import Prediction, Predictor
from refinenet.inference.segmenter import Segmenter
from refinenet.io.console import progress_bar
from refinenet.io.files import stream_atomically
from refinenet.io.images.codec import encode
from refinenet.labels import LabelMap

AddFile = Callable[[str, bytes], None]
"""Add a file to an archive: its path in the archive, and its content."""
AddLabels = Callable[[str, LabelMap], None]
"""Add the label map, `(H, W)` ids of the dataset's classes, of an item of the dataset."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission file to write."""

    path: Path
    dataset: Dataset
    """Dataset of the images whose label maps it holds."""
    server: Server

    @contextmanager
    def writing(self) -> Iterator[AddLabels]:
        """Open the file for writing; it appears when the `with` block ends, and not at all if the block raises.

        Yields:
            A function that adds the label map of an image.

        Raises:
            ValueError: a pixel has no class, and the message names the image; or the path is a pipe or a device.
            OSError: the file cannot be written.
        """
        values = np.array(self.server.values, np.uint8)

        def add(item: str, labels: LabelMap) -> None:
            void = int((labels >= len(values)).sum())
            if void:
                raise ValueError(
                    f"{item}: {void:,} pixels have no class, but the server of {self.dataset.name} needs a class for "
                    "every pixel. Leave abstain_below (--abstain-below) out."
                )
            picture = encode(values[labels], ".png", palette=self.server.palette)
            add_file(self.server.place(self.dataset.split, item), picture)

        with stream_atomically(self.path) as stream, _PACKERS[self.server.archive](stream) as add_file:
            yield add

    def describe(self) -> str:
        """Return what was written and what to do with it, in words."""
        count, split, wanted = len(self.dataset), self.dataset.split, self.server.test_images
        text = f"Submission: {self.path}, {count:,} images of {self.dataset.name} {split}."
        if split != UNLABELLED:
            return f"{text} The server, {self.server.page}, evaluates the split {UNLABELLED}."
        if count != wanted:
            return f"{text} It is not complete: {wanted:,} images were published, and the server needs all of them."
        return f"{text} Submit it at {self.server.page}."

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON-ready values."""
        return {
            "submission": str(self.path),
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "images": len(self.dataset),
            "images_published": self.server.test_images if self.dataset.split == UNLABELLED else None,
            "server": self.server.page,
        }


@dataclass(frozen=True, kw_only=True)
class SubmissionPlan:
    """A submission file, before the dataset is opened."""

    path: Path
    server: Server

    def of(self, dataset: Dataset) -> Submission:
        """Return the submission of one of the dataset's splits, with labels or without."""
        return Submission(path=self.path, dataset=dataset, server=self.server)


def plan_submission(path: str | os.PathLike[str], source: DatasetSource) -> SubmissionPlan:
    """Check the requirements of the dataset's server, before any data are opened.

    Args:
        path: File to write: `.zip` for Cityscapes and ADE20K, `.tgz` or `.tar.gz` for VOC 2012.
        source: Dataset, as the user names it.

    Raises:
        ValueError: the dataset has no server, the file has another ending, or several processes would write it.
    """
    server, target = find_server(source), Path(path)
    endings = _ENDINGS[server.archive]
    if not target.name.lower().endswith(endings):
        raise ValueError(f"The server of {source} accepts a file {' or '.join(endings)}, not {target.name!r}.")
    if is_launched():
        raise ValueError("A submission is written by one process: run it without torchrun.")
    return SubmissionPlan(path=target, server=server)


def write_submission(segmenter: Segmenter, submission: Submission, *, progress: bool) -> None:
    """Segment all images one by one and write their label maps, without evaluating them.

    Args:
        segmenter: Segmenter with the classes of the dataset.
        submission: The file to write.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: an image cannot be used; the message names the file.
        OSError: the file cannot be written.
    """
    dataset = submission.dataset
    with submission.writing() as add, progress_bar(progress) as bar:
        task = bar.add_task(f"Segmenting {dataset.name} {dataset.split}", total=len(dataset), status="", unit="images")
        for item in dataset.items:
            add(item, segmenter.predict(dataset.read_image(item)))
            bar.advance(task)


def record_predictions(predictor: Predictor, add: AddLabels) -> Predictor:
    """Return a predictor that also passes each label map to `add`, in the order of the calls."""

    def predict(sample: Sample) -> Prediction:
        prediction = predictor.predict(sample)
        assert prediction.labels is not None  # `RefineNet.eval` has checked the classes
        add(sample.name, prediction.labels)
        return prediction

    return replace(predictor, predict=predict)


@contextmanager
def _pack_zip(stream: BinaryIO) -> Iterator[AddFile]:
    with zipfile.ZipFile(stream, "w") as archive:

        def add(name: str, content: bytes) -> None:
            entry = zipfile.ZipInfo(name)  # dated 1 January 1980, so that equal label maps give equal bytes
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on all systems
            archive.writestr(entry, content)

        yield add


@contextmanager
def _pack_tgz(stream: BinaryIO) -> Iterator[AddFile]:
    with (
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)  # dated 1 January 1970, without an owner: equal bytes again
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        yield add


_PACKERS: dict[str, Callable[[BinaryIO], AbstractContextManager[AddFile]]] = {"zip": _pack_zip, "tgz": _pack_tgz}
_ENDINGS = {"zip": (".zip",), "tgz": (".tgz", ".tar.gz")}
