"""Folders of photographs with id masks that are hard to outline: nested islands, thin parts, corners, void."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Ids = npt.NDArray[np.uint8]

NAMES = ("sky", "road", "car", "tree")
WITH_BACKGROUND = ("background", "road", "car", "tree")
STEMS = ("drive_001", "drive_002", "town/street_7")
SIZE = (40, 56)


def draw_ids(seed: int, size: tuple[int, int] = SIZE) -> Ids:
    """Draw a label map of four classes and void (255)."""
    noise = np.random.default_rng(seed).standard_normal((4, *size))
    ids: Ids = np.stack([ndimage.gaussian_filter(one, 3) for one in noise]).argmax(0).astype(np.uint8)
    ids[2:5, 3:20] = 255
    ids[10:30, 10:34] = 2
    ids[13:26, 14:28] = 0
    ids[16:20, 18:22] = 2  # an island in the hole of a region of the same class
    ids[12, 12] = 1
    ids[28, 11:33] = 3  # thin
    ids[32:34, 40:42] = [[1, 3], [3, 1]]  # regions that touch at a corner only
    return ids


def write_photographs(folder: Path) -> Path:
    """Write the images, and return their folder."""
    for number, stem in enumerate(STEMS):
        path = folder / "photographs" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(100 + number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder / "photographs"


def write_ids(folder: Path, names: tuple[str, ...] = NAMES) -> dict[str, Ids]:
    """Write the masks with a classes.yaml to `ids/`, and return them by stem."""
    found = {stem: draw_ids(number) for number, stem in enumerate(STEMS)}
    for stem, ids in found.items():
        path = folder / "ids" / "masks" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(path)
    (folder / "ids" / "classes.yaml").write_text(f"names: [{', '.join(names)}]\n")
    return found


def read_ids(path: Path) -> Ids:
    """Read a mask as it is stored."""
    return np.array(Image.open(path))


def component(ids: Ids, row: int, column: int) -> npt.NDArray[np.bool_]:
    """Return the 4-connected region of a pixel, by SciPy."""
    numbers, _ = ndimage.label(ids == ids[row, column])
    found: npt.NDArray[np.bool_] = numbers == numbers[row, column]
    return found
