"""Folders of drawn rooms with depth, normals and two quantities, stored in several ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image

HEIGHT, WIDTH = 72, 96
SPLITS = {"train": tuple(range(12)), "val": tuple(range(12, 20))}
NAMES = "[window, wall, floor, block]"
Array = npt.NDArray[Any]


class Scene(NamedTuple):
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    """`(H, W)` metres, NaN in the window."""
    normals: npt.NDArray[np.float32]
    """`(H, W, 3)`, NaN in the window."""
    values: npt.NDArray[np.float32]
    """`(H, W, 2)`: height above the floor in metres, and a moisture of 0 to 100 %; NaN in the window."""


@cache
def draw(seed: int) -> Scene:
    """A floor 1.5 metres below the camera, a slanted wall behind it, blocks that face the camera, and a window."""
    dice = np.random.default_rng(seed)
    focal = 0.9 * WIDTH
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(x - WIDTH / 2 + 0.5) / focal, (y - HEIGHT / 2 + 0.5) / focal, np.ones_like(x, float)], 2)
    tilt = dice.uniform(-0.4, 0.4)
    planes = [(np.array([np.sin(tilt), 0, -np.cos(tilt)]), dice.uniform(5, 8)), (np.array([0, -1.0, 0]), 1.5)]
    depth, labels, normals = np.full((HEIGHT, WIDTH), np.inf), np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros(rays.shape)
    for label, (normal, distance) in enumerate(planes, start=1):
        with np.errstate(divide="ignore"):
            found = -distance / (rays @ normal)
        nearer = (found > 0) & (found < depth)
        depth[nearer], labels[nearer], normals[nearer] = found[nearer], label, normal
    for _ in range(6):
        distance, left, top = dice.uniform(1.5, 4.5), dice.integers(0, WIDTH - 12), dice.integers(10, HEIGHT - 10)
        block = np.s_[top : top + dice.integers(10, 40), left : left + dice.integers(8, 30)]
        nearer = depth[block] > distance
        depth[block][nearer], labels[block][nearer], normals[block][nearer] = distance, 3, (0, 0, -1)
    window = (labels == 1) & (y < 14) & (x > 60)
    labels[window] = 0
    depth[window] = normals[window] = np.nan
    colours = dice.integers(40, 216, (256, 3))
    codes = np.where(labels == 3, np.rint(np.nan_to_num(depth) * 50), labels).astype(int) % 256
    image = np.clip(colours[codes] + dice.normal(0, 4, rays.shape), 0, 255).astype(np.uint8)
    moisture = np.where(window, np.nan, codes / 3 + dice.uniform(0, 8, labels.shape))
    values = np.stack([1.5 - depth * rays[..., 1], moisture], 2)
    return Scene(image, labels, *(array.astype(np.float32) for array in (depth, normals, values)))


def save(path: Path, values: Array) -> Path:
    """Write an array as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix in (".png", ".jpg") and (values.ndim == 2 or values.dtype == np.uint8):
        Image.fromarray(values).save(path)
    else:
        bands = values[..., np.newaxis] if values.ndim == 2 else values
        driver = "PNG" if path.suffix == ".png" else "GTiff"
        size = {"height": bands.shape[0], "width": bands.shape[1], "count": bands.shape[2]}
        with rasterio.open(path, "w", driver=driver, dtype=bands.dtype, **size) as file:
            file.write(bands.transpose(2, 0, 1))
    return path


def to_integers(depth: Array, scale: float) -> npt.NDArray[np.uint16]:
    """Depths in 16 bits; 0 where there is none, or it is too large."""
    stored = np.rint(np.nan_to_num(depth, nan=0) * scale)
    return np.where(stored > 65535, 0, stored).astype(np.uint16)


def to_colours(normals: Array, dtype: type = np.uint8) -> Array:
    return np.rint((np.nan_to_num(normals, nan=0) + 1) / 2 * np.iinfo(dtype).max).astype(dtype)


def _same(values: Array) -> Array:
    return values


class Stored(NamedTuple):
    """How a folder stores its targets."""

    depth: tuple[str, Callable[[Array], Array]]
    """The suffix, and what is stored of depths."""
    normals: tuple[str, Callable[[Array], Array]]
    values: tuple[str, Callable[[Array], Array]]
    declared: str
    """The targets.yaml."""


QUANTITIES = "[{name: height, unit: m}, {name: moisture, unit: '%'}]"
STORED = {
    "npy": Stored(
        (".npy", _same), (".npy", _same), (".npy", _same), f"values: {{name: soil, quantities: {QUANTITIES}}}\n"
    ),
    "tiff": Stored(
        (".tif", _same), (".tiff", _same), (".tif", _same), f"values: {{name: soil, quantities: {QUANTITIES}}}\n"
    ),
    "png": Stored(
        (".png", lambda depth: to_integers(depth, 100)),
        (".png", to_colours),
        (".npy", lambda values: np.nan_to_num(np.rint(values * 10), nan=-9999).astype(np.int16)),
        "depth: {scale: 100, missing: 0}\nnormals: {encoding: rgb}\nvalues:\n  name: soil\n  quantities:\n"
        "  - {name: height, unit: m, scale: 10, missing: -9999}\n"
        "  - {name: moisture, unit: '%', scale: 10, missing: -9999}\n",
    ),
    "png16": Stored(
        (".png", lambda depth: to_integers(depth, 256)),
        (".png", lambda normals: to_colours(normals * [1, -1, -1], np.uint16)),
        (".tif", lambda values: np.nan_to_num(values, nan=1e20)),
        "depth: {scale: 256, range: [0.5, 250]}\nnormals: {encoding: rgb, flip: [y, z]}\nvalues:\n  name: soil\n"
        "  quantities:\n  - {name: height, unit: m, missing: 1e20}\n  - {name: moisture, unit: '%', missing: 1e20}\n",
    ),
}


def write_folder(root: Path, how: str = "npy", *, has_masks: bool = True) -> Path:
    """A clean folder, with every target in the way `how`."""
    stored = STORED[how]
    for split, seeds in SPLITS.items():
        for seed in seeds:
            scene, name = draw(seed), f"{split}/s{seed}"
            save(root / "images" / f"{name}.png", scene.image)
            if has_masks:
                save(root / "masks" / f"{name}.png", scene.labels)
            save(root / "depth" / f"{name}{stored.depth[0]}", stored.depth[1](scene.depth))
            save(root / "normals" / f"{name}{stored.normals[0]}", stored.normals[1](scene.normals))
            save(root / "values" / f"{name}{stored.values[0]}", stored.values[1](scene.values))
    if has_masks:
        (root / "classes.yaml").write_text(f"names: {NAMES}\n")
    (root / "targets.yaml").write_text(stored.declared)
    return root
