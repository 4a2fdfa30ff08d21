"""Result files of a prediction: pictures, probabilities, values, and regions (`regions.py`) for other programs.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from refinenet.deployment.regions import find_regions, require_features, to_geojson
from refinenet.inference.output_kinds import OUTPUT_KINDS, PICTURE_SUFFIXES, POLYGONS, Kind, Output, split_kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer, check_suffix_of
from refinenet.inference.segmentation import Segmentation, check_output
from refinenet.inference.values.subject import kinds_of, usual_kind
from refinenet.io.arrays import pack_arrays
from refinenet.io.files import write_atomically
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.labels import LabelSet
from refinenet.outputs import CLASSES, OutputSpec

_POLYGON_KINDS: Sequence[Kind] = [kind for kind, spec in OUTPUT_KINDS.items() if spec.has_polygons]


def choose_kinds(asked: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds asked for, each once, with `polygons` expanded.

    Raises:
        ValueError: an unknown kind, or a kind whose library is not installed.
    """
    names = [part for name in asked for part in (_POLYGON_KINDS if name == POLYGONS else (name,))]
    unknown = [name for name in names if not _is_kind(name)]
    if unknown:
        raise ValueError(f"kind must be one of {', '.join(OUTPUT_KINDS)} and {POLYGONS}, not {min(unknown)!r}.")
    order = list(OUTPUT_KINDS)
    chosen = tuple(sorted(dict.fromkeys(names), key=lambda name: order.index(split_kind(name)[0])))
    if "geojson" in chosen:
        require_features()
    return chosen


def _is_kind(name: str) -> bool:
    key, part = split_kind(name)
    return key in OUTPUT_KINDS and (key == name or (bool(part) and OUTPUT_KINDS[key].shows_values))


def usual_suffix(kind: Kind) -> str:
    """Return the default suffix of a kind."""
    return OUTPUT_KINDS[split_kind(kind)[0]].suffix


def check_target(target: Path, kind: Kind | None, outputs: Sequence[OutputSpec] = (CLASSES,)) -> Kind:
    """Return the kind of a result file: the one asked for, or the one that its suffix implies.

    Args:
        target: The file.
        kind: What to write; None for the default.
        outputs: Outputs of the network.

    Raises:
        ValueError: the suffix does not fit the kind, or no kind has such a suffix.
    """
    suffix = target.suffix.lower()
    kind = kind or _usual_for(suffix, outputs)
    row = None if kind is None else OUTPUT_KINDS[split_kind(kind)[0]]
    if kind is None or row is None or row.is_picture:
        output = cast("Output | None", kind)
        # TIFF is written in windows, for every kind of picture.
        return kind or "labels" if suffix in TIFF_SUFFIXES else check_output(target, output)
    if row.shows_values:
        check_suffix_of(kind, suffix)
    elif suffix != row.suffix:
        raise ValueError(f"{kind} is written as {row.suffix}, not as {str(target)!r}.")
    return kind


def _usual_for(suffix: str, outputs: Sequence[OutputSpec]) -> Kind | None:
    """Return the kind that the suffix of a file implies; None for pictures of classes."""
    usual = usual_kind(outputs)
    if usual is not None:
        plain = ".tif" if suffix in TIFF_SUFFIXES else suffix
        possible = [usual] if suffix in PICTURE_SUFFIXES else kinds_of(outputs)
        rows = {kind: OUTPUT_KINDS[split_kind(kind)[0]] for kind in possible}
        return next((kind for kind, row in rows.items() if plain in (*row.forms, *row.contents)), usual)
    found = (kind for kind, row in OUTPUT_KINDS.items() if not row.is_picture and row.suffix == suffix)
    kind = None if suffix in PICTURE_SUFFIXES else next(found, None)
    return None if kind is None else choose_kinds([kind])[0]


def render(prediction: Prediction, renderer: Renderer, image_name: str) -> bytes:
    """Return the content of a result file.

    Args:
        prediction: What to write.
        renderer: Renderer of the kind and the suffix.
        image_name: Name of the image in COCO json.
    """
    pack = _CONTENTS.get(renderer.kind)
    if pack is None:
        return renderer.encode(prediction)
    assert prediction.segmentation is not None  # `open_renderer`
    return pack(prediction.segmentation, image_name)


def write(prediction: Prediction, target: Path, renderer: Renderer, image_name: str) -> Path:
    """Write a result file, whole or not at all; see `render`.

    Raises:
        OSError: the file cannot be written.
    """
    return write_atomically(target, render(prediction, renderer, image_name))


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


def _pack_coco(segmentation: Segmentation, image_name: str) -> bytes:
    return json.dumps(to_coco(segmentation, image_name), separators=(",", ":")).encode()


def _pack_geojson(segmentation: Segmentation, image_name: str) -> bytes:  # noqa: ARG001 - as all kinds
    found = to_geojson(segmentation.labels, segmentation.label_set)
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def to_categories(label_set: LabelSet) -> list[dict[str, Any]]:
    """Return the classes as COCO categories."""
    return [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(label_set.names)]


def _pack_probabilities(segmentation: Segmentation, image_name: str) -> bytes:  # noqa: ARG001 - as all kinds
    """Return a `.npz` file of `probabilities` `(K, H, W)` float16 and `names` `(K,)`; equal values give equal bytes."""
    return pack_arrays({"probabilities": segmentation.probabilities, "names": np.array(segmentation.label_set.names)})


_CONTENTS: Mapping[Kind, Callable[[Segmentation, str], bytes]] = {
    "probabilities": _pack_probabilities,
    "coco": _pack_coco,
    "geojson": _pack_geojson,
}
"""Functions that return the content of files for other programs, given the name of the image."""
