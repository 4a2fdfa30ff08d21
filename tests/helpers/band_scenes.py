"""Drawn scenes of five bands, with two classes of equal colour that only near infrared tells apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

BANDS = "red:0:255,green:0:255,blue:0:255,nir:0:4095,height:-5:60"
NAMES = ("ground", "grass", "tarpaulin")
Scene = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]


def draw_scene(seed: int, height: int = 32, width: int = 40) -> Scene:
    """Draw `(H, W, 5)` float32, colours of 8 bits, infrared of 12 bits and metres; and labels `(H, W)` uint8."""
    random, size = np.random.default_rng(seed), (height, width)
    labels = np.zeros(size, np.uint8)
    for label in (1, 2, 1, 2):
        high, wide = random.integers(8, 14, 2)
        top, left = random.integers(0, height - high), random.integers(0, width - wide)
        labels[top : top + high, left : left + wide] = label
    is_object = labels[..., np.newaxis] > 0
    colours = np.where(is_object, [60, 150, 50], [120, 100, 80]) + random.normal(0, 12, (*size, 3))
    infrared = np.array([1600, 3000, 800])[labels] + random.normal(0, 150, size)
    metres = np.where(labels > 0, 10, 2) + random.normal(0, 1, size)
    bands = np.dstack([np.clip(colours, 0, 255), np.clip(infrared, 0, 4095), metres])
    return np.rint(bands).astype(np.float32), labels


def write_tiff(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Write a GeoTIFF."""
    import rasterio
    from rasterio.transform import from_origin

    height, width, count = pixels.shape
    options = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=from_origin(5e5, 5e6, 0.5, 0.5), **options) as file:
        file.write(np.moveaxis(pixels, -1, 0))


def write_folder(root: Path, count: int, suffix: str = ".npy") -> Path:
    """Write a dataset of `count` scenes, each in one file: ".npy" or ".tif"."""
    _start(root, count)
    for seed in range(count):
        pixels, _ = draw_scene(seed)
        if suffix == ".npy":
            np.save(root / "images" / f"{seed:02d}.npy", pixels)
        else:
            write_tiff(root / "images" / f"{seed:02d}{suffix}", pixels)
    return root


def write_several(root: Path, count: int) -> Path:
    """Write the same dataset with a file for colour, infrared and height each, and a bands.yaml."""
    _start(root, count)
    for name in ("nir", "lidar"):
        (root / name).mkdir()
    for seed in range(count):
        pixels, _ = draw_scene(seed)
        Image.fromarray(pixels[..., :3].astype(np.uint8)).save(root / "images" / f"{seed:02d}.png")
        Image.fromarray(pixels[..., 3].astype(np.uint16)).save(root / "nir" / f"{seed:02d}.png")
        np.save(root / "lidar" / f"{seed:02d}.npy", pixels[..., 4])
    (root / "bands.yaml").write_text("images: [red, green, blue]\nnir: nir\nlidar: [height]\n")
    return root


def _start(root: Path, count: int) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(count):
        Image.fromarray(draw_scene(seed)[1]).save(root / "masks" / f"{seed:02d}.png")
    (root / "classes.yaml").write_text(f"names: [{', '.join(NAMES)}]\n")
