"""Folders of three pictures of 3x2 pixels, and files of targets for them in several formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image

from refinenet.datasets import (
    open_dataset,
)

NAN = float("nan")
NAMES = ("a", "b")
DEPTH = np.array([[1500, 0, 2500], [500, 65535, 1]], np.uint16)


def _folder(root: Path, *, has_masks: bool = True) -> Path:
    """A folder with the pictures a and b of 3x2 pixels in train, and c in val."""
    for split, names in (("train", NAMES), ("val", ("c",))):
        for kind in ("images", "masks") if has_masks else ("images",):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", (3, 2), (10, 20, 30)).save(root / "images" / split / f"{name}.png")
            if has_masks:
                Image.fromarray(np.eye(2, 3, dtype=np.uint8)).save(root / "masks" / split / f"{name}.png")
    if has_masks:
        (root / "classes.yaml").write_text("names: [road, sky]\n")
    return root


def _save(path: Path, values: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".png" and (values.ndim == 2 or values.dtype == np.uint8):
        Image.fromarray(values).save(path)
    else:
        bands = values[..., np.newaxis] if values.ndim == 2 else values
        driver = "PNG" if path.suffix == ".png" else "GTiff"
        height, width, count = bands.shape
        with rasterio.open(
            path, "w", driver=driver, height=height, width=width, count=count, dtype=bands.dtype
        ) as file:
            file.write(bands.transpose(2, 0, 1))
    return path


def _declare(root: Path, text: str) -> None:
    (root / "targets.yaml").write_text(text)


def _read(root: Path, name: str = "depth", split: str = "train", index: int = 0) -> npt.NDArray[np.float32]:
    return open_dataset(root)(split).with_targets([name])[index].targets[name]


def _equal(found: npt.NDArray[Any], expected: Any, tolerance: float = 0.0) -> bool:
    return bool(np.allclose(found, np.array(expected, np.float64), rtol=tolerance, atol=tolerance, equal_nan=True))
