"""Regions of a label map as polygons and run lengths, drawn again and compared with pycocotools."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import CommandLine
from pycocotools import mask as coco_mask
from street_files import SIZE, labels_of

from refinenet import RefineNet
from refinenet.inference.regions import find_regions, to_geojson
from refinenet.labels import LabelSet


def test_run_lengths_are_those_of_pycocotools(call_refinenet: CommandLine, here: Path, camvid_model: RefineNet) -> None:
    result = call_refinenet("deploy", "in/a.jpg", "-o", "a.json")
    assert result.returncode == 0, result.stderr
    document = json.loads((here / "a.json").read_text())
    labels = labels_of(camvid_model, here / "in" / "a.jpg")
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == dict(enumerate(camvid_model.label_set.names))
    assert document["images"] == [{"id": 1, "file_name": "a.jpg", "width": SIZE[1], "height": SIZE[0]}]
    decoded = np.full(SIZE, 255, np.uint8)
    for annotation in document["annotations"]:
        region = annotation["segmentation"]
        inside = coco_mask.decode(region).astype(bool)
        assert (decoded[inside] == 255).all()
        decoded[inside] = annotation["category_id"]
        assert coco_mask.area(region) == annotation["area"]
        assert coco_mask.toBbox(region).tolist() == annotation["bbox"]
        theirs = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        assert theirs["counts"].decode() == region["counts"]
    assert (decoded == labels).all()


def test_polygons_cover_the_label_map_with_their_holes(
    call_refinenet: CommandLine, here: Path, camvid_model: RefineNet
) -> None:
    result = call_refinenet("deploy", "in/a.jpg", "-o", "a.geojson")
    assert result.returncode == 0, result.stderr
    features = json.loads((here / "a.geojson").read_text())["features"]
    labels = labels_of(camvid_model, here / "in" / "a.jpg")
    assert (draw(features, SIZE, 255) == labels).all()
    assert all(camvid_model.label_set.names[one["properties"]["id"]] == one["properties"]["class"] for one in features)


@pytest.mark.parametrize("classes", [3, 300])
def test_holes_islands_and_void_come_back_from_polygons_and_run_lengths(classes: int) -> None:
    label_set = LabelSet.numbered(classes)
    random = np.random.default_rng(classes)
    coarse = label_set.cast(random.integers(0, classes, (9, 14)))
    coarse[random.random((9, 14)) < 0.2] = label_set.ignore_index
    labels = coarse.repeat(3, 0).repeat(2, 1)[1:, 1:]
    labels[12:17, 4:9], labels[14, 6] = 1, 2
    features = to_geojson(labels, label_set)["features"]
    assert (draw(features, labels.shape, label_set.ignore_index) == labels).all()
    assert any(len(feature["geometry"]["coordinates"]) > 1 for feature in features)
    decoded = np.full_like(labels, label_set.ignore_index)
    for region in find_regions(labels, label_set.ignore_index):
        decoded[coco_mask.decode(region.to_coco(labels.shape)).astype(bool)] = region.label
        assert list(region.box) == coco_mask.toBbox(region.to_coco(labels.shape)).tolist()
    assert (decoded == labels).all()


def draw(features: list[dict[str, Any]], size: tuple[int, int], void: int) -> npt.NDArray[Any]:
    """Draw a label map from polygons, which must not overlap."""
    drawn = np.full(size, void, np.uint16)
    for feature in features:
        inside = np.zeros(size, bool)
        for ring in feature["geometry"]["coordinates"]:
            inside ^= inside_ring(ring, size)
        assert inside.sum() == feature["properties"]["area"]
        assert (drawn[inside] == void).all()
        drawn[inside] = feature["properties"]["id"]
    return drawn


def inside_ring(ring: list[list[int]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixels lie in a ring along pixel edges: those with an odd number of vertical edges to their left."""
    crossings = np.zeros((size[0], size[1] + 1), int)
    for (x, y), (next_x, next_y) in itertools.pairwise(ring):
        if x == next_x:
            crossings[min(y, next_y) : max(y, next_y), x] += 1
    odd: npt.NDArray[np.bool_] = crossings.cumsum(1)[:, :-1] % 2 == 1
    return odd
