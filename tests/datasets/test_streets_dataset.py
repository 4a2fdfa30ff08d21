"""Synthetic streets as a dataset: any number and size, no image in two splits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from refinenet.datasets.catalog import open_dataset
from refinenet.datasets.street_scenes.scene import draw_street

CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)


def test_streets_are_the_drawn_ones_and_the_same_twice() -> None:
    dataset = open_dataset("streets:3:64x48")("train")
    assert (len(dataset), dataset.label_set.names) == (3, CLASSES)
    for index in range(3):
        sample, again = dataset[index], open_dataset("streets:3:64x48")("train")[index]
        assert (sample.image.shape, sample.labels.shape) == ((48, 64, 3), (48, 64))
        image, labels = draw_street(int(sample.name), 48, 64)
        for found, expected in ((sample, image), (again, image)):
            np.testing.assert_array_equal(found.image, expected)
            np.testing.assert_array_equal(found.labels, labels)


def test_splits_of_streets_share_no_picture() -> None:
    splits = open_dataset("streets:1000000")
    seeds = [range(int(part.items[0]), int(part.items[-1]) + 1) for part in map(splits, ("train", "val", "test"))]
    assert [len(part) for part in seeds] == [1_000_000] * 3
    ordered = sorted(seeds, key=lambda part: part.start)
    assert all(earlier.stop <= later.start for earlier, later in itertools.pairwise(ordered))
    small = open_dataset("streets:3:40x30")
    pictures = [part[k].image.tobytes() for part in map(small, ("train", "val", "test")) for k in range(3)]
    assert len(set(pictures)) == 9


def test_streets_by_default() -> None:
    dataset = open_dataset("streets")("val")
    assert len(dataset) == 400
    assert dataset[0].image.shape == (360, 480, 3)
    assert len(open_dataset("streets:7")("val")) == 7


@pytest.mark.parametrize(
    "text",
    [
        *("streets:", "streets:0", "streets:-1", "streets:1000001", "streets:5:", "streets:5:0x9", "streets:5:9x0"),
        *(
            "streets:5:64",
            "streets:5:64x48:1",
            "streets:5:64X48",
            "streets:5:4097x9",
            "streets:5:9x4097",
            "streets:many",
        ),
    ],
)
def test_other_forms_of_streets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"[Ss]ynthetic streets .*{text}"):
        open_dataset(text)
