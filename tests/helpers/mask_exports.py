"""A dataset of two drives, and exports and drafts of masks for `label take`."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refinenet.datasets.catalog import open_dataset

NAMES = "names: [road, car, tree]\n"


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)


def mask(columns: int) -> Any:
    ids = np.zeros((24, 32), np.uint8)
    ids[:, columns:] = 1
    ids[18:] = 2
    return ids


def write_pair(root: Path, stem: str, ids: Any, images: str = "images", masks: str = "masks") -> None:
    for folder, pixels in ((images, picture(zlib.crc32(stem.encode()))), (masks, ids)):
        path = root / folder / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def write_dataset(root: Path) -> None:
    """Write a dataset of two drives, one of them for validation."""
    for stem in ("north_1", "north_2", "north_3", "south_1"):
        write_pair(root, stem, mask(10))
    (root / "classes.yaml").write_text(NAMES)
    (root / "train.txt").write_text("north_1\nnorth_2\nnorth_3\n")
    (root / "val.txt").write_text("south_1\n")


def write_export(root: Path, **masks: Any) -> None:
    """Write an export of masks, without images."""
    for stem, ids in masks.items():
        path = root / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(path)
    (root / "classes.yaml").write_text(NAMES)


def read(path: Path) -> Any:
    return np.array(Image.open(path))


def list_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def splits_of(root: Path) -> dict[str, set[str]]:
    return {split: set(open_dataset(root)(split).items) for split in ("train", "val")}


def write_drafts(folder: Path, call_refinenet: Any, *stems: str) -> Path:
    """Write drafts of photographs, as PNG files; return the folder of these."""
    for stem in stems:
        write_pair(folder / "photographs", stem, mask(5), ".", "../ids/masks")
    (folder / "ids" / "classes.yaml").write_text(NAMES)
    options = ("photographs", "--masks", "ids", "-o", "todo", "--format", "png", "--min-area", "0")
    assert call_refinenet("label", "write", *options).returncode == 0
    return folder / "todo" / "png" / "masks"


TAKE = ("label", "take", "todo/png", "--drafts", "todo", "--into")
