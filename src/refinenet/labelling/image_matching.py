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
from refinenet.datasets.formats.lookup import find_background
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

    def find(self, *names: str) -> str | None:
        """Return the stem that the names of an image mean, or None."""
        for name in names:
            if name in self._stems:
                return name
        for name in names:
            same = self._by_name.get(name.rpartition("/")[2], [])
            if len(same) == 1:
                return same[0]
        return None


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
        self._drafts = drafts
        self._drafted = {one.stem: one for one in drafts.images} if drafts is not None else {}
        names = walk_names(images, IMAGE_SUFFIXES) if images is not None else ()
        self._images = {strip_suffix(name): Path(str(images)) / name for name in names}
        self._draft_stems, self._image_stems = _Stems(self._drafted), _Stems(self._images)
        self._member_stems = _Stems(dataset.members)

    def match(self) -> tuple[list[MatchedImage], dict[str, str]]:
        """Return the items with an image, and the reason for each of the others.

        Raises:
            ValueError: No item has an image, or there are drafts, and none is of an item.
        """
        matched, reasons = [], dict(self._export.skipped)
        first: dict[str, str] = {}
        self._refuse_other_drafts()
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

    def _refuse_other_drafts(self) -> None:
        items = self._export.items
        if self._drafts is None or not items or any(self._draft_stems.find(*self._names(item)) for item in items):
            return
        drafted = self._drafts.images[0].name if self._drafts.images else "nothing"
        raise ValueError(
            f"{self._export.path} has labels of {len(items)} images, such as {items[0]}, none of which has a draft in "
            f"{self._drafts.folder} (of {drafted} and others): what nobody changed would count as a person's work. "
            "Pass the folder of the drafts that were corrected (--drafts), or none. Nothing was changed."
        )

    def _names(self, item: str) -> list[str]:
        """Return the names, without suffix, that an item may stand for, the usual one first."""
        names = [item, *([self._export.other_names[item]] if item in self._export.other_names else [])]
        return [_RENAMED.sub("", strip_suffix(name) if has_suffix(name, _SUFFIXES) else name) for name in names]

    def _find(self, item: str) -> MatchedImage | str:
        names = self._names(item)
        if len(meant := [name for name in names if name in self._drafted]) > 1:
            return f"its name may stand for {' or '.join(meant)}: write their drafts again"
        draft = self._drafted.get(self._draft_stems.find(*names) or "")
        stem = draft.stem if draft is not None else self._image_stems.find(*names)
        if stem is None:
            stem = next((name for name in names if name in self._dataset.members), names[0])
        if PurePosixPath(stem).is_absolute() or not {"..", ""}.isdisjoint(stem.split("/")) or "\\" in stem:
            return "its name leads out of the dataset"
        image = self._find_image(item, stem, draft)
        member = self._find_member(stem, draft, image)
        if item in self._export.cleared and (reason := self._refuse_cleared(is_known=bool(draft or member))):
            return reason
        if member is not None:
            return MatchedImage(item, member, draft, image)
        return self._place(item, stem, draft, image)

    def _refuse_cleared(self, *, is_known: bool) -> str:
        """Return why an image without shapes has no labels; empty if it is background of a known size."""
        if not is_known:
            return "it has no shapes, which would tell the size of the image: pass the drafts (--drafts)"
        label_set = self._dataset.label_set
        has_background = find_background(label_set) != label_set.ignore_index
        return "" if has_background else "it has no shapes, and no class of the dataset is background"

    def _find_member(self, stem: str, draft: DraftImage | None, image: Path | None) -> str | None:
        """Return the sample of the dataset that an image is, if it is one."""
        member = self._member_stems.find(stem)
        if member is None:
            return self._find_twin(image) if image is not None else None
        if draft is None or image is None or self._shows(member, image):
            return member
        return self._find_twin(image)

    def _place(self, item: str, stem: str, draft: DraftImage | None, image: Path | None) -> MatchedImage | str:
        """Return a new sample under a free name, or with a file of that name that no list names, if it is the same."""
        if image is None:
            return _describe_no_image(self._dataset.find_strays(stem).images)
        reason = ""
        for place in (stem, *([self._below_folder(stem, image)] if draft is not None else [])):
            if place is None:
                continue
            found, problem = self._occupy(place, image)
            if found is not None:
                return MatchedImage(item, place, draft, found)
            reason = reason or problem
        return reason

    def _occupy(self, stem: str, image: Path) -> tuple[Path | None, str]:
        """Return the image file of a new sample of a name; or None and the reason why there can be none."""
        if stem in self._dataset.members:
            return None, f"the dataset has another image of the name {stem}: rename one of them"
        strays = self._dataset.find_strays(stem)
        others = [path for path in strays.masks if path.suffix != ".png"] + list(strays.masks[1:])
        if others:
            return None, f"{others[0]} has its name, belongs to no split and is in the way: move it away"
        if not strays.images:
            return image, ""
        if len(strays.images) == 1 and _is_same(strays.images[0], image):
            return strays.images[0], ""
        return None, f"{strays.images[0]}, which is in no split, is another image of this name: rename one of them"

    def _find_image(self, item: str, stem: str, draft: DraftImage | None) -> Path | None:
        places = (
            None if draft is None else draft.file,
            self._export.image_files.get(item),
            self._images.get(self._image_stems.find(stem) or ""),
        )
        return next((path for path in places if path is not None and path.is_file()), None)

    def _below_folder(self, stem: str, image: Path) -> str | None:
        """Return a stem below the name of the image's folder; None if that would look like a split."""
        folder = image.resolve().parent.name
        is_usable = bool(folder) and name_split(folder) not in ("train", "val", "test")
        return f"{folder}/{stem}" if is_usable else None

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
        return path is None or _shows_same(path, image)


def _describe_no_image(strays: tuple[Path, ...]) -> str:
    if strays:
        return f"{strays[0]} has its name and is in no split: if it is the image, pass its folder (--images)"
    return "there is no image of this name: pass its folder (--images), or the drafts (--drafts)"


def _is_same(path: Path, image: Path) -> bool:
    """Whether two files show the same; not if one of them cannot be read."""
    try:
        return _shows_same(path, image)
    except ValueError:
        return False


def _shows_same(path: Path, image: Path) -> bool:
    if path.resolve() == image.resolve() or filecmp.cmp(path, image, shallow=False):
        return True
    one, other = decode(path), decode(image)
    return one.shape == other.shape and bool(np.abs(one.astype(int) - other).mean() <= _CLOSE)
