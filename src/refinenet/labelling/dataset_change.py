"""A change of a dataset: all of it is prepared first, and every file that it replaces is copied.

What could be refused (an encoding that cannot hold the labels, a mask in a format that is not written) is found while
the masks are prepared in a folder of their own, so that nothing is changed if one of them cannot be taken.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets.doctor import write_classes
from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.datasets.split import write_lists
from refinenet.io.files import write_atomically
from refinenet.labelling.dataset_growth import GrowingDataset
from refinenet.labels import LabelMap

LOG_FILE = "labels_taken.jsonl"
"""File in the dataset with a line for each image whose labels were taken."""
BEFORE = ".before"
"""Hidden folder in the dataset with copies of replaced files, in a numbered folder for each time."""
_ELSEWHERE = "elsewhere"
"""Folder for copies of files that lie outside of the dataset's folder."""


@dataclass(frozen=True, kw_only=True)
class NewSample:
    """A sample to write into a dataset."""

    stem: str
    split: str | None
    """None if it is not yet known."""
    image: Path
    """The image, to be copied if it is new."""
    labels: LabelMap


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A file to write."""

    source: Path
    target: Path


class DatasetChange:
    """A change of a dataset: samples are prepared, then written; files to be replaced are copied before.

    Args:
        dataset: The dataset.
        scratch: Folder for prepared masks, outside of the dataset; created if missing.
    """

    def __init__(self, dataset: GrowingDataset, scratch: Path) -> None:
        self._dataset, self._scratch = dataset, scratch
        self._steps: list[_Step] = []
        folder = dataset.root / BEFORE
        numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()] if folder.is_dir() else []
        self.copies = folder / f"{max(numbers, default=0) + 1:04d}"
        """Where the copies of replaced files are."""

    def prepare(self, sample: NewSample) -> None:
        """Encode the mask of a sample, to be written by `write`.

        Raises:
            ValueError: The mask cannot be written in the dataset's encoding, or the one there is not a PNG file.
            OSError: The prepared mask cannot be written.
        """
        dataset = self._dataset
        mask = self._find_mask(sample)
        if mask.suffix.lower() != ".png":
            raise ValueError(
                f"{mask} is not a PNG file. Nothing was changed. Make a copy with PNG masks: refinenet data check "
                f"{dataset.root} --fix COPY."
            )
        try:
            content = dataset.encode_mask(sample.labels)
        except ValueError as error:
            raise ValueError(f"The labels of {sample.stem} cannot be written: {error} Nothing was changed.") from error
        is_new = sample.stem not in dataset.members
        if is_new and sample.image not in dataset.find_strays(sample.stem).images:
            place = dataset.image_place(sample.stem, sample.image.suffix, sample.split)
            self._steps.append(_Step(source=sample.image, target=place))
        self._scratch.mkdir(parents=True, exist_ok=True)
        prepared = self._scratch / f"{len(self._steps)}.png"
        prepared.write_bytes(content)
        self._steps.append(_Step(source=prepared, target=mask))

    def _find_mask(self, sample: NewSample) -> Path:
        """Return the mask to write: that of the sample, one of its name that belonged to none, or a new one."""
        member = self._dataset.members.get(sample.stem)
        if member is None:
            strays = self._dataset.find_strays(sample.stem).masks
            return strays[0] if strays else self._dataset.mask_place(sample.stem, sample.split)
        found = member.dataset.label_file(sample.stem)
        assert found is not None
        return found

    def write(self) -> None:
        """Write all that was prepared: the masks, and the images that are new.

        Raises:
            OSError: A file cannot be read or written.
        """
        for step in self._steps:
            self._replace(step.target, step.source.read_bytes())

    def _replace(self, path: Path, content: bytes) -> None:
        """Write a file, of which a copy is kept if it exists."""
        self._keep(path)
        write_atomically(path, content)

    def _keep(self, path: Path) -> None:
        place = self.copies / _find_place(path, self._dataset.root)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)

    def extend_lists(self, splits: Mapping[str, str]) -> None:
        """Add new samples to the lists of their splits, where there are lists or a deal to be kept."""
        if splits and self._dataset.keeps_deal:
            homes = {stem: member.split for stem, member in self._dataset.members.items()} | dict(splits)
            names = sorted(set(homes.values()))
            self.write_lists({split: sorted(stem for stem in homes if homes[stem] == split) for split in names})
            return
        for split in sorted(set(splits.values())):
            path = self._dataset.list_file(split)
            if path is None:
                continue
            text = path.read_text("utf-8-sig")
            listed = {line.strip() for line in text.splitlines()}
            new = sorted(stem for stem, name in splits.items() if name == split and stem not in listed)
            end = "" if text.endswith("\n") or not text else "\n"
            self._replace(path, f"{text}{end}{''.join(f'{stem}{chr(10)}' for stem in new)}".encode())

    def write_lists(self, splits: Mapping[str, Sequence[str]]) -> None:
        """Write the lists of a folder that has none."""
        for split in splits:
            self._keep(self._dataset.root / f"{split}.txt")
        write_lists(self._dataset.root, splits)

    def write_classes(self) -> None:
        """Write the classes of a new dataset."""
        self._replace(self._dataset.root / CLASSES_FILE, write_classes(self._dataset.encoding).encode())

    def log(self, lines: Iterable[Mapping[str, object]]) -> None:
        """Append lines to the log."""
        path = self._dataset.root / LOG_FILE
        before = path.read_bytes() if path.is_file() else b""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(path, before + text.encode())


def _find_place(path: Path, root: Path) -> Path:
    """Return the place of a copy below the folder of copies: that of the file in the dataset."""
    if path.is_relative_to(root) and ".." not in path.relative_to(root).parts:
        return path.relative_to(root)
    return Path(_ELSEWHERE, *path.resolve().parts[1:])  # a classes.yaml may name folders outside
