"""Matching of exported labels to images: by name and, where that is not enough, by content.

Tools drop folders and suffixes, and a dataset may have the same image under another name, which could end up in two
splits, or another image of the same name, which would lose its labels.
"""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from refinenet.datasets.folder import name_split
from refinenet.io.images.band_images import BAND_SUFFIXES
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, has_suffix, walk_names
from refinenet.labelling.dataset_growth import GrowingDataset
from refinenet.labelling.drafts import DraftImage, DraftSet
from refinenet.labelling.formats.base import ToolExport, strip_suffix

_RENAMED = re.compile(r"_(jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9A-Za-z]+$")
"""The text that Roboflow appends to the name of an image."""
_SUFFIXES = (*BAND_SUFFIXES, *FOREIGN_SUFFIXES)
"""What tools leave at the end of names or not; any other end, as in "frame.0001", belongs to the name."""
_CLOSE = 8.0
"""Mean difference of pixels (of 255) up to which two files show the same image, one of them compressed again."""


@dataclass(frozen=True)
class MatchedImage:
    """An item of an export and its image."""

    item: str
    stem: str
    """Its stem in the dataset."""
    draft: DraftImage | None
    image: Path | None
    """Its image file outside of the dataset, if it is known."""


class _Stems:
    """Stems with folders, found by themselves or by a name that only one of them has."""

    def __init__(self, stems: Iterable[str]) -> None:
        self._stems = set(stems)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for stem in self._stems:
            self._by_name[stem.rpartition("/")[2]].append(stem)

    def find(self, stem: str) -> str | None:
        """Return the stem that is meant, or None."""
        if stem in self._stems:
            return stem
        same = self._by_name.get(stem.rpartition("/")[2], [])
        return same[0] if len(same) == 1 else None


class ImageMatcher:
    """Finds the images of an export.

    Args:
        export: The export.
        dataset: The dataset that takes the labels.
        drafts: The drafts that were corrected, if they are known.
        images: Folder of images, if the user names one.
    """

    def __init__(
        self, export: ToolExport, dataset: GrowingDataset, drafts: DraftSet | None, images: Path | None
    ) -> None:
        self._export, self._dataset = export, dataset
        self._drafts: Mapping[str, DraftImage] = {one.stem: one for one in drafts.images} if drafts is not None else {}
        names = walk_names(images, IMAGE_SUFFIXES) if images is not None else ()
        self._images = {strip_suffix(name): Path(str(images)) / name for name in names}
        self._draft_stems, self._image_stems = _Stems(self._drafts), _Stems(self._images)
        self._member_stems = _Stems(dataset.members)

    def match(self) -> tuple[list[MatchedImage], dict[str, str]]:
        """Return the items with an image, and the reason for each of the others.

        Raises:
            ValueError: No item has an image.
        """
        matched, reasons = [], dict(self._export.skipped)
        first: dict[str, str] = {}
        for item in self._export.items:
            found = self._find(item)
            if isinstance(found, str):
                reasons[item] = found
            elif (other := first.setdefault(found.stem, item)) != item:
                reasons[item] = f"{other} has labels for the same image: delete one of them"
            else:
                matched.append(found)
        if not matched:
            item, reason = next(iter(reasons.items()), ("no image", "the export is empty"))
            raise ValueError(f"{self._export.path} has no labels that can be taken. {item}: {reason}.")
        return matched, reasons

    def _find(self, item: str) -> MatchedImage | str:
        plain = _RENAMED.sub("", strip_suffix(item) if has_suffix(item, _SUFFIXES) else item)
        draft = self._drafts.get(self._draft_stems.find(plain) or "")
        stem = draft.stem if draft is not None else self._image_stems.find(plain) or plain
        if PurePosixPath(stem).is_absolute() or not {"..", ""}.isdisjoint(stem.split("/")) or "\\" in stem:
            return "its name leads out of the dataset"
        image = self._find_image(item, stem, draft)
        member = self._member_stems.find(stem)
        if member is None and image is not None:
            member = self._find_twin(image)
        elif member is not None and draft is not None and image is not None and not self._shows(member, image):
            other, member = member, self._find_twin(image)
            if member is None:
                free = self._find_free_stem(stem, image)
                if free is None:
                    return f"the dataset has another image of the name {other}: rename one of them"
                stem = free
        if member is None and image is None:
            return "there is no image of this name: pass its folder (--images), or the drafts (--drafts)"
        return MatchedImage(item, member or stem, draft, image)

    def _find_image(self, item: str, stem: str, draft: DraftImage | None) -> Path | None:
        places = (
            None if draft is None else draft.file,
            self._export.image_files.get(item),
            self._images.get(self._image_stems.find(stem) or ""),
        )
        return next((path for path in places if path is not None and path.is_file()), None)

    def _find_free_stem(self, stem: str, image: Path) -> str | None:
        """Return a stem that the dataset does not have: this one, or one below the name of the image's folder.

        None if that name is taken, too, or would look like a split.
        """
        if stem not in self._dataset.members:
            return stem
        folder = image.resolve().parent.name
        longer = f"{folder}/{stem}"
        is_usable = bool(folder) and name_split(folder) not in ("train", "val", "test")
        return longer if is_usable and longer not in self._dataset.members else None

    def _find_twin(self, image: Path) -> str | None:
        """Return the sample whose image file has the same bytes."""
        same = self._by_size.get(image.stat().st_size, [])
        return next((stem for stem, path in same if filecmp.cmp(path, image, shallow=False)), None)

    @cached_property
    def _by_size(self) -> Mapping[int, list[tuple[str, Path]]]:
        found: dict[int, list[tuple[str, Path]]] = defaultdict(list)
        for stem, member in self._dataset.members.items():
            path = member.dataset.image_file(stem)
            if path is not None:
                found[path.stat().st_size].append((stem, path))
        return found

    def _shows(self, stem: str, image: Path) -> bool:
        """Whether a sample of the dataset shows the same as an image file."""
        path = self._dataset.members[stem].dataset.image_file(stem)
        if path is None or path.resolve() == image.resolve() or filecmp.cmp(path, image, shallow=False):
            return True
        one, other = decode(path), decode(image)
        return one.shape == other.shape and bool(np.abs(one.astype(int) - other).mean() <= _CLOSE)
