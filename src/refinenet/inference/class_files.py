"""Files of classes for other programs: probabilities, and regions (`regions.py`) as COCO json and GeoJSON.

Each function returns the content of a file, given what was predicted and the name of the image.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from refinenet.inference.regions import find_regions, to_geojson
from refinenet.inference.segmentation import Segmentation
from refinenet.io.arrays import pack_arrays
from refinenet.labels import LabelSet


def pack_probabilities(segmentation: Segmentation, image_name: str) -> bytes:  # noqa: ARG001 - as all kinds
    """Return a `.npz` file of `probabilities` `(K, H, W)` float16 and `names` `(K,)`; equal values give equal bytes."""
    return pack_arrays({"probabilities": segmentation.probabilities, "names": np.array(segmentation.label_set.names)})


def pack_coco(segmentation: Segmentation, image_name: str) -> bytes:
    """Return `to_coco` as a file."""
    return json.dumps(to_coco(segmentation, image_name), separators=(",", ":")).encode()


def pack_geojson(segmentation: Segmentation, image_name: str) -> bytes:  # noqa: ARG001 - as all kinds
    """Return `to_geojson` as a file.

    Raises:
        ValueError: rasterio is not installed.
    """
    found = to_geojson(segmentation.labels, segmentation.label_set)
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def to_coco(segmentation: Segmentation, image_name: str) -> dict[str, Any]:
    """Return COCO json of one image, with an annotation for each class: all its pixels as compressed run lengths.

    Category ids are the ids of label maps, from 0.
    """
    height, width = segmentation.labels.shape
    regions = find_regions(segmentation.labels, segmentation.label_set.ignore_index)
    return {
        "images": [{"id": 1, "file_name": image_name, "width": width, "height": height}],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": region.label,
                "segmentation": region.to_coco((height, width)),
                "area": region.area,
                "bbox": list(region.box),
                "iscrowd": 0,
            }
            for number, region in enumerate(regions, start=1)
        ],
        "categories": to_categories(segmentation.label_set),
    }


def to_categories(label_set: LabelSet) -> list[dict[str, Any]]:
    """Return the classes as COCO categories."""
    return [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(label_set.names)]
