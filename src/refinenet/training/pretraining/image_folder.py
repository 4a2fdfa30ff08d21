"""Images sorted into one folder per class, as in ImageNet. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from refinenet.datasets.catalog import IMAGE_SUFFIXES, list_files
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import RGB

TRAIN, VAL = "train", "val"
HELD_OUT = 10
"""In a folder without splits, every tenth image of each class, from the first on, is used for validation."""


class LabelledImage(NamedTuple):
    """An image file and its class."""

    file: Path
    label: int
    """Number of its class, from 0, in alphabetical order of the names."""

    def read(self) -> RGB:
        """Read the image, `(H, W, 3)` uint8 RGB, upright.

        Raises:
            ValueError: It is damaged or not an image; it is named.
            OSError: It cannot be read.
        """
        return decode(self.file)


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Images of a folder with their classes."""

    path: Path
    classes: tuple[str, ...]
    """Names of the classes and of their folders, in alphabetical order."""
    train: tuple[LabelledImage, ...]
    """Training images, class after class."""
    val: tuple[LabelledImage, ...]
    """Validation images."""

    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of the names of the images, in their order, and of their sizes in bytes.

        The folder itself is not included and may be moved; no image is opened.

        Raises:
            OSError: An image is missing.
        """
        digest = hashlib.sha256()
        for part in (self.train, self.val):
            entries = [
                [str(image.file.relative_to(self.path)), image.label, image.file.stat().st_size] for image in part
            ]
            digest.update(f"{json.dumps(entries)}\n".encode())
        return digest.hexdigest()


def open_image_folder(folder: str | os.PathLike[str]) -> ImageFolder:
    """List the images of a folder; none of them is opened.

    Args:
        folder: Holds `train/CLASS/IMAGE` and `val/CLASS/IMAGE`; or `CLASS/IMAGE`, of which the first and every tenth
            image of each class, in alphabetical order, is used for validation.

    Raises:
        FileNotFoundError: There is no such folder, or no folder in it.
        ValueError: There is only one class, a class has too few images (one, or two if one is needed for validation),
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
            f"there, or pass {root / parts[0]} itself, and every tenth of its images is used for validation."
        )
    train, val = (_list_classes(root / name, least=1) for name in (TRAIN, VAL))
    if train.keys() != val.keys():
        raise ValueError(
            f"{root / TRAIN} and {root / VAL} must hold the same classes; only one of them holds "
            f"{_enumerate(sorted(train.keys() ^ val.keys()))}."
        )
    return ImageFolder(path=root, classes=tuple(train), train=_label(train), val=_label(val))


def _hold_out(root: Path, images: Mapping[str, Sequence[Path]]) -> ImageFolder:
    held_out = {name: files[::HELD_OUT] for name, files in images.items()}
    others = {name: [file for k, file in enumerate(files) if k % HELD_OUT] for name, files in images.items()}
    return ImageFolder(path=root, classes=tuple(images), train=_label(others), val=_label(held_out))


def _list_classes(root: Path, least: int) -> dict[str, list[Path]]:
    """Return the image files of each class, both in alphabetical order."""
    names = _folders(root)
    if not names:
        raise FileNotFoundError(f"{root} holds no folders: put the images of each class into a folder with its name.")
    if len(names) == 1:
        raise ValueError(f"{root} holds one class only, {names[0]!r}: a classifier needs at least two.")
    images = {name: sorted(list_files(root / name, IMAGE_SUFFIXES)) for name in names}
    poor = [f"{name!r} ({len(files)})" for name, files in images.items() if len(files) < least]
    if poor:
        needed = "an image" if least == 1 else f"{least} images, one of them for validation"
        raise ValueError(
            f"In {root} each class needs at least {needed} (files ending in {', '.join(IMAGE_SUFFIXES)}, not in "
            f"subfolders). Too few are in {_enumerate(poor)}. Add images or remove the folders."
        )
    return images


def _folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, if it is one, in alphabetical order, without hidden ones."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _label(files: Mapping[str, Sequence[Path]]) -> tuple[LabelledImage, ...]:
    return tuple(LabelledImage(file, label) for label, name in enumerate(files) for file in files[name])


def _enumerate(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
