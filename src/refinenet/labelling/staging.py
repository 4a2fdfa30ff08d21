"""Labels put aside until the doctor has examined them, so that nothing is changed if it finds errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from refinenet.datasets import doctor
from refinenet.datasets.doctor import write_classes
from refinenet.datasets.folder import of_ids
from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.io.files import write_atomically
from refinenet.io.images.mask_files import read_mask
from refinenet.labelling.dataset_change import NewSample
from refinenet.labelling.dataset_growth import GrowingDataset
from refinenet.labels import LabelMap, LabelSet


class Staging:
    """Labels put aside as a small dataset of their own, for the doctor to examine before anything is changed.

    Args:
        folder: Its folder, which does not exist yet.
        label_set: Its classes.
    """

    def __init__(self, folder: Path, label_set: LabelSet) -> None:
        self._folder = folder
        encoding = of_ids(label_set, list(range(len(label_set))), [], CLASSES_FILE)
        self._dataset = GrowingDataset(root=folder, encoding=encoding, layout=None)
        self._images: dict[str, Path] = {}
        self._names: dict[str, str] = {}

    def add(self, stem: str, image: Path, labels: LabelMap) -> None:
        """Put the labels of an image aside."""
        name = stem.replace("/", "__")
        while name in self._images:
            name += "_"  # "a/b" and "a__b" are two images
        self._names[stem], self._images[name] = name, image
        place = self._folder / "images" / "train" / f"{name}{image.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(image.resolve())
        write_atomically(self._mask(name), self._dataset.encode_mask(labels))

    def _mask(self, name: str) -> Path:
        return self._folder / "masks" / "train" / f"{name}.png"

    def check(self, origin: str, *, progress: bool) -> None:
        """Let the doctor examine them; `origin` replaces the folder's name in its report.

        Raises:
            ValueError: It found something that would stop training.
        """
        if not self._images:
            return
        write_atomically(self._folder / CLASSES_FILE, write_classes(self._dataset.encoding).encode())
        report = doctor.examine(self._folder, workers=0, progress=progress).report
        findings = tuple(finding for finding in report.findings if finding.kind != "split-missing")
        text = replace(report, findings=findings).text("taken")
        if text:
            raise ValueError(f"Nothing was changed. {text.replace(str(self._folder), origin)}")

    def load(self, stem: str, split: str | None) -> NewSample:
        """Return the labels of an image, to be written to a split."""
        name = self._names[stem]
        labels = self._dataset.label_set.cast(read_mask(self._mask(name)))
        return NewSample(stem=stem, split=split, image=self._images[name], labels=labels)
