"""Small folders of drawn images, one folder per class: stripes that differ in direction and tint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

DIRECTIONS = {"flat": (1.0, 0.0), "slanted": (0.7, 0.7), "upright": (0.0, 1.0)}
"""Classes in alphabetical order, and along which axes, rows and columns, their stripes change."""

SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "accumulation": 2,
    "crop_size": 32,
    "ema_decay": 0.9,
    "hue": 0.1,
    "precision": "float32",
    "loggers": (),
}
"""Settings of pre-training that take seconds."""


def draw_stripes(name: str, seed: int, size: int = 40) -> npt.NDArray[np.uint8]:
    """Noisy stripes of random colours, one channel the brightest, `(size, size + 8, 3)` uint8 RGB."""
    channel = sorted(DIRECTIONS).index(name)
    random = np.random.default_rng([seed, channel])
    down, across = DIRECTIONS[name]
    rows, columns = np.mgrid[:size, : size + 8]
    waves = np.sin((down * rows + across * columns) * random.uniform(0.6, 1.2) + random.uniform(0, 6))
    colours = random.uniform(0, 100, (2, 3))
    colours[:, channel] += 150
    pixels = np.where(waves[..., None] > 0, *colours) + random.normal(0, 10, (size, size + 8, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def write_class_folders(root: Path, images: int, first: int = 0) -> Path:
    """Write `root/CLASS/NUMBER.png`, this number of images of each class."""
    for name in DIRECTIONS:
        (root / name).mkdir(parents=True)
        for number in range(first, first + images):
            Image.fromarray(draw_stripes(name, number)).save(root / name / f"{number:03d}.png")
    return root
