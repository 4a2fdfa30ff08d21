"""Files of the images that a COCO file names; descriptions of missing ones, with their probable location."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets.folder.split_files import SplitFiles, list_folders
from refinenet.io.images.band_images import BAND_SUFFIXES
from refinenet.io.images.image_files import walk_names

_SHOWN = 5
"""Number of missing images that a message names."""


@dataclass(frozen=True, kw_only=True)
class MissingImages:
    """Images that a COCO file names and that do not exist."""

    names: tuple[str, ...]
    """As they are written in the file."""
    text: str
    """How many and which they are, where they were looked for, and where they seem to be."""


def match_images(
    path: Path, root: Path, folder: Path, items: Sequence[str], parts: Iterable[SplitFiles]
) -> tuple[dict[str, str], MissingImages | None]:
    """Map the images of a COCO file to their files; the COCO file may name folders of another computer.

    Args:
        path: The COCO file.
        root: The folder of the dataset.
        folder: The folder of images.
        items: The images that the COCO file names.
        parts: The splits of the dataset that share `folder`.

    Returns:
        The files that exist, relative to `folder`, by name in `items`; and the images without a file, if any.

    Raises:
        ValueError: Two images are one file.
    """
    there = {unicodedata.normalize("NFC", name): name for part in parts for name in part.image_names}
    found: dict[str, str] = {}
    for item in items:
        name = _normalise(item)
        file = there.get(name) or there.get(_base(name))
        if file is not None:
            found[item] = file
    if len(set(found.values())) < len(found):
        raise ValueError(f"{path} lists an image in {folder} twice, under different folders.")
    missing = tuple(item for item in items if item not in found)
    if not missing:
        return found, None
    what = _count(path, root, folder, missing, len(items))
    hints = [*_find_cases(missing, there.values()), *_find_elsewhere(root, folder, missing)]
    return found, MissingImages(names=missing, text=" ".join([what, *hints]))


def _count(path: Path, root: Path, folder: Path, missing: Sequence[str], count: int) -> str:
    # Without a folder of its own, images are looked for in the root, which is not where they are best put.
    place = f"{root}, which has no folder images" if folder == root else str(folder)
    if len(missing) == 1:
        return f"{path} names the image {missing[0]}, which is not in {place}."
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    some = f"{', '.join(missing[:_SHOWN])}{more}"
    if len(missing) == count:
        where = f"put them into {root / 'images'}" if folder == root else "put them there"
        return f"{path} names {count} images, and none of them is in {place}: {where} ({some})."
    return f"{path} names {count} images, and {len(missing)} of them are not in {place}: {some}."


def _find_cases(missing: Sequence[str], files: Iterable[str]) -> Iterator[str]:
    """Name a file whose name differs from that of a missing image in upper and lower case."""
    folded = {_base(_normalise(file)).casefold(): file for file in files}
    pairs = [(item, file) for item in missing if (file := folded.get(_base(_normalise(item)).casefold())) is not None]
    # A file of the same name in a subfolder differs in its folder, not in case.
    pairs = [(item, file) for item, file in pairs if _base(_normalise(file)) != _base(_normalise(item))]
    if pairs:
        more = f" ({len(pairs)} names differ so)" if len(pairs) > 1 else ""
        yield (
            f"There is {pairs[0][1]}, which differs from {pairs[0][0]} in upper and lower case{more}: make the names "
            "equal."
        )


def _find_elsewhere(root: Path, folder: Path, missing: Sequence[str]) -> Iterator[str]:
    """Name the other folder of the dataset that holds most of the missing images."""
    wanted = {_base(_normalise(item)) for item in missing}
    counts = {place: len(wanted & names) for place, names in _list_elsewhere(root, folder).items()}
    best = max(counts, key=lambda place: counts[place], default=root)
    if counts.get(best):
        yield f"{best} holds {counts[best]} files of these names."


def _list_elsewhere(root: Path, folder: Path) -> Mapping[Path, set[str]]:
    """Return the names of the images in the root itself, and below each of its folders, without those in `folder`."""
    places = {place: walk_names(place, BAND_SUFFIXES) for place in list_folders(root).values() if place != folder}
    inner = {place: f"{folder.relative_to(place)}/" for place in places if folder.is_relative_to(place)}
    found = {
        place: {_base(_normalise(name)) for name in names if not (place in inner and name.startswith(inner[place]))}
        for place, names in places.items()
    }
    if folder != root:
        found[root] = {path.name for path in root.iterdir() if path.suffix.lower() in BAND_SUFFIXES}
    return found


def _normalise(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _base(name: str) -> str:
    return name.rpartition("/")[2]
