"""Draws the files of datasets in miniature: 3x1 images, and masks, lists and annotations as they are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from refinenet.datasets.dataset import Dataset

NAMES = "names: [a, b, c]\n"


def save_image(path: Path, width: int = 3, height: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 90, 90)).save(path)


def save_mask(path: Path, values: object) -> None:
    """Ids `(H, W)`, or colours `(H, W, 3)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def save_pair(image: Path, mask: Path, identifier: int) -> None:
    save_image(image)
    save_mask(mask, [[identifier, 0, 255]])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, values: object) -> Path:
    return write(path, json.dumps(values))


def labels_of(dataset: Dataset) -> dict[str, list[list[int]]]:
    """The labels of every sample; images are read, too."""
    return {sample.name: sample.labels.tolist() for sample in dataset}
