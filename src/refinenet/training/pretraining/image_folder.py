"""Images sorted into folders by their class, as ImageNet comes: listed and read. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from refinenet.datasets.catalog import IMAGE_SUFFIXES, list_files
from refinenet.io.image_files import RGB
from refinenet.io.images import decode

TRAIN, VAL = "train", "val"
HELD_OUT = 10
"""Where a folder has no parts, one of so many images of each class, the first one first, is kept for validation."""


class LabelledImage(NamedTuple):
    """An image file and its class."""

    file: Path
    label: int
    """The number of its class, from 0, in alphabetical order of the names."""

    def read(self) -> RGB:
        """The image, `(H, W, 3)` uint8 RGB, upright.

        Raises:
            ValueError: it is damaged or no image; it is named.
            OSError: it cannot be read.
        """
        return decode(self.file)


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The images of a folder, with what they show."""

    path: Path
    classes: tuple[str, ...]
    """Names of the classes, which are those of their folders, in alphabetical order."""
    train: tuple[LabelledImage, ...]
    """What to learn from, class after class."""
    val: tuple[LabelledImage, ...]
    """What to measure on."""

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of what the images are called, in their order, and of their sizes in bytes.

        The folder is not in it, which may be moved; no image is opened.

        Raises:
            OSError: an image is gone.
        """
        found = hashlib.sha256()
        for part in (self.train, self.val):
            facts = [[str(image.file.relative_to(self.path)), image.label, image.file.stat().st_size] for image in part]
            found.update(f"{json.dumps(facts)}\n".encode())
        return found.hexdigest()


def open_image_folder(folder: str | os.PathLike[str]) -> ImageFolder:
    """List a folder's images; none of them is opened.

    Args:
        folder: Holds `train/CLASS/IMAGE` and `val/CLASS/IMAGE`; or `CLASS/IMAGE`, of which the first and every tenth
            image of each class, in alphabetical order, is kept for validation.

    Raises:
        FileNotFoundError: there is no such folder, or no folder in it.
        ValueError: there is one class only, a class has no image (or no two, where one is to be kept for validation),
            or the classes of train and val differ; they are named.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    parts = [name for name in (TRAIN, VAL) if _folders(root / name)]
    if not parts:
        return _hold_out(root, _list_classes(root, least=2))
    if len(parts) < 2:
        other = VAL if parts == [TRAIN] else TRAIN
        raise FileNotFoundError(
            f"{root / parts[0]} holds folders of classes, {root / other} does not. Put images of the same classes "
            f"there, or name {root / parts[0]} itself, and every tenth of its images is kept for validation."
        )
    train, val = (_list_classes(root / name, least=1) for name in (TRAIN, VAL))
    if train.keys() != val.keys():
        raise ValueError(
            f"{root / TRAIN} and {root / VAL} must hold the same classes; only one of them holds "
            f"{_enumerate(sorted(train.keys() ^ val.keys()))}."
        )
    return ImageFolder(path=root, classes=tuple(train), train=_label(train), val=_label(val))


def _hold_out(root: Path, found: Mapping[str, Sequence[Path]]) -> ImageFolder:
    kept = {name: files[::HELD_OUT] for name, files in found.items()}
    others = {name: [file for k, file in enumerate(files) if k % HELD_OUT] for name, files in found.items()}
    return ImageFolder(path=root, classes=tuple(found), train=_label(others), val=_label(kept))


def _list_classes(root: Path, least: int) -> dict[str, list[Path]]:
    """The image files of each class, both in alphabetical order."""
    names = _folders(root)
    if not names:
        raise FileNotFoundError(f"{root} holds no folders: put the images of each class into a folder of its name.")
    if len(names) == 1:
        raise ValueError(f"{root} holds one class only, {names[0]!r}: to tell classes apart takes two at least.")
    found = {name: sorted(list_files(root / name, IMAGE_SUFFIXES)) for name in names}
    poor = [f"{name!r} ({len(files)})" for name, files in found.items() if len(files) < least]
    if poor:
        wanted = "an image" if least == 1 else f"{least} images, one of them to be kept for validation"
        raise ValueError(
            f"In {root} each class needs at least {wanted} (files ending in {', '.join(IMAGE_SUFFIXES)}, not in "
            f"further folders). Too few are in {_enumerate(poor)}. Add images or remove the folders."
        )
    return found


def _folders(root: Path) -> list[str]:
    """The names of the folders in a folder, if it is one, in alphabetical order, hidden ones aside."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _label(files: Mapping[str, Sequence[Path]]) -> tuple[LabelledImage, ...]:
    return tuple(LabelledImage(file, label) for label, name in enumerate(files) for file in files[name])


def _enumerate(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
