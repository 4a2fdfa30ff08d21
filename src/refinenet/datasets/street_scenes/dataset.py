"""The dataset `streets`: synthetic images with CamVid's eleven classes, depth and normals, without any files.

Each split has its own range of seeds, so no image is in two splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache, partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, Intrinsics, Splits, Target
from refinenet.datasets.metadata import read_info
from refinenet.datasets.street_scenes import StreetGeometry, draw_street, draw_street_geometry
from refinenet.datasets.street_scenes.canvas import FARTHEST
from refinenet.datasets.street_scenes.scene import LARGEST
from refinenet.labels import LabelMap
from refinenet.outputs import OutputSpec

LABEL_SET = read_info("camvid").label_set
FIRST_SEEDS: Mapping[str, int] = MappingProxyType({"train": 1_000_000, "val": 2_000_000, "test": 3_000_000})
MAX_COUNT = 1_000_000
SMALL = 480 * 360
"""Largest image in pixels of which many are cached, since drawing one takes a third of a second."""
TARGETS = (OutputSpec(name="depth", kind="depth", range=(0.0, FARTHEST)), OutputSpec(name="normals", kind="normals"))
"""The geometry of a scene; see `scene.draw_street_geometry`."""


def parse(text: str) -> Splits:
    """Parse "streets", "streets:COUNT" or "streets:COUNT:WIDTHxHEIGHT"; by default 400 images of 480x360 pixels.

    Raises:
        ValueError: `text` has another form, or asks for no images, more than a million per split, or too large ones.
    """
    match = re.fullmatch(r"streets(?::(\d{1,7})(?::(\d{1,4})x(\d{1,4}))?)?", text)
    if match is None:
        raise ValueError(
            f"Synthetic streets are written as streets, streets:COUNT or streets:COUNT:WIDTHxHEIGHT, not {text!r}."
        )
    count, width, height = (
        int(value or default) for value, default in zip(match.groups(), (400, 480, 360), strict=True)
    )
    if not (1 <= count <= MAX_COUNT and 1 <= width <= LARGEST and 1 <= height <= LARGEST):
        raise ValueError(
            f"A split of synthetic streets has 1 to {MAX_COUNT:,} images of 1x1 to {LARGEST}x{LARGEST} pixels, "
            f"not {text!r}."
        )
    return partial(open_split, count=count, height=height, width=width)


def open_split(split: str, *, count: int = 400, height: int = 360, width: int = 480) -> Dataset:
    """Open a split of `count` drawn images of `height` by `width` pixels: "train", "val" or "test".

    Raises:
        ValueError: There is no such split.
    """
    if split not in FIRST_SEEDS:
        raise ValueError(f"streets has the splits {', '.join(FIRST_SEEDS)}, not {split!r}.")
    items = range(FIRST_SEEDS[split], FIRST_SEEDS[split] + count)
    return Dataset(
        name="streets",
        split=split,
        label_set=LABEL_SET,
        items=[str(seed) for seed in items],
        read_image=partial(_read_image, height, width),
        read_labels=partial(_read_labels, height, width),
        target_specs=TARGETS,
        target_readers={
            "depth": partial(_read_depth, height, width),
            "normals": partial(_read_normals, height, width),
        },
        read_intrinsics=partial(_read_intrinsics, height, width),
    )


def _draw(seed: int, height: int, width: int) -> tuple[npt.NDArray[np.uint8], LabelMap]:
    """Draw image and labels, cached since both are requested in turn, and again in the next epoch."""
    return _draw_small(seed, height, width) if height * width <= SMALL else _draw_large(seed, height, width)


_draw_large = lru_cache(maxsize=1)(draw_street)
_draw_small = lru_cache(maxsize=64)(draw_street)  # at most 44 MB


def _read_image(height: int, width: int, item: str) -> npt.NDArray[np.uint8]:
    return _draw(int(item), height, width)[0].copy()


def _read_labels(height: int, width: int, item: str) -> LabelMap:
    return _draw(int(item), height, width)[1].copy()


def _find_geometry(item: str, height: int, width: int) -> StreetGeometry:
    draw = _shape_small if height * width <= SMALL else _shape_large
    return draw(int(item), height, width)


_shape_large = lru_cache(maxsize=1)(draw_street_geometry)
_shape_small = lru_cache(maxsize=16)(draw_street_geometry)  # at most 44 MB


def _read_depth(height: int, width: int, item: str) -> Target:
    return _find_geometry(item, height, width).depth[np.newaxis].copy()


def _read_normals(height: int, width: int, item: str) -> Target:
    return _find_geometry(item, height, width).normals.copy()


def _read_intrinsics(height: int, width: int, item: str) -> Intrinsics:
    return Intrinsics(*_find_geometry(item, height, width).intrinsics)
