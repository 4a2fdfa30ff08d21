"""Regions are counted as SciPy counts them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from refinenet.inference.connected_regions import count_regions
from refinenet.labels import LabelSet

CLASSES = LabelSet.numbered(3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 23), (60, 40)])
def test_regions_are_those_of_scipy(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    for _ in range(10):
        labels = draw.choice([0, 1, 2, CLASSES.ignore_index], size).astype(np.uint8)
        expected = [ndimage.label(labels == label)[1] for label in range(3)]
        assert list(count_regions(labels, CLASSES).values()) == expected


def test_a_snake_is_one_region() -> None:
    labels = np.zeros((99, 50), np.uint8)
    labels[::2] = 1
    labels[1::4, -1] = 1
    labels[3::4, 0] = 1
    assert list(count_regions(labels, CLASSES).values()) == [49, 1, 0]
    assert list(count_regions(np.zeros((0, 0), np.uint8), CLASSES).values()) == [0, 0, 0]
