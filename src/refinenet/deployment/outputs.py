"""Result files of a segmentation: pictures, probabilities, and regions (`regions.py`) for other programs.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from refinenet.deployment.regions import find_regions, require_features, to_geojson
from refinenet.inference.output_kinds import KINDS, OUTPUT_KINDS, POLYGONS, Kind, Output
from refinenet.inference.segmentation import Segmentation, check_output
from refinenet.io.files import write_atomically
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.labels import LabelSet

_FILE_KINDS: Mapping[str, Kind] = {spec.suffix: kind for kind, spec in OUTPUT_KINDS.items() if not spec.is_picture}
_POLYGON_KINDS: Sequence[Kind] = [kind for kind, spec in OUTPUT_KINDS.items() if spec.has_polygons]


def choose_kinds(asked: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds asked for, each once, with `polygons` expanded.

    Raises:
        ValueError: an unknown kind, or a kind whose library is not installed.
    """
    names = [part for name in asked for part in (_POLYGON_KINDS if name == POLYGONS else (name,))]
    chosen = tuple(kind for kind in KINDS if kind in names)
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        raise ValueError(f"kind must be one of {', '.join(KINDS)} and {POLYGONS}, not {unknown[0]!r}.")
    if "geojson" in chosen:
        require_features()
    return chosen


def usual_suffix(kind: Kind) -> str:
    """Return the default suffix of a kind."""
    return OUTPUT_KINDS[kind].suffix


def check_target(target: Path, kind: Kind | None) -> Kind:
    """Return the kind of a result file: the one asked for, or the one that its suffix implies.

    Raises:
        ValueError: the suffix does not fit the kind, or no kind has such a suffix.
    """
    suffix = target.suffix.lower()
    if kind is None and suffix in _FILE_KINDS:
        return choose_kinds([_FILE_KINDS[suffix]])[0]
    if kind is None or _is_output(kind):
        # TIFF is written in windows, for every kind of picture.
        return kind or "labels" if suffix in TIFF_SUFFIXES else check_output(target, kind)
    if suffix != usual_suffix(kind):
        raise ValueError(f"{kind} is written as {usual_suffix(kind)}, not as {str(target)!r}.")
    return kind


def render(segmentation: Segmentation, kind: Kind, suffix: str, image_name: str) -> bytes:
    """Return the content of a result file.

    Args:
        segmentation: The segmentation to write.
        kind: Kind of file.
        suffix: Suffix of the file.
        image_name: Name of the image in COCO json.

    Raises:
        ValueError: the suffix does not fit.
    """
    if _is_output(kind):
        return segmentation.encode(suffix, kind)
    return _CONTENTS[kind](segmentation, image_name)


def _is_output(kind: Kind) -> TypeGuard[Output]:
    return OUTPUT_KINDS[kind].is_picture


def write(segmentation: Segmentation, target: Path, kind: Kind, image_name: str) -> Path:
    """Write a result file, whole or not at all; see `render`.

    Raises:
        ValueError: as `render`.
        OSError: the file cannot be written.
    """
    return write_atomically(target, render(segmentation, kind, target.suffix, image_name))


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
    arrays = {"probabilities": segmentation.probabilities, "names": np.array(segmentation.label_set.names)}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date, unlike numpy.savez
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return content.getvalue()


_CONTENTS: Mapping[Kind, Callable[[Segmentation, str], bytes]] = {
    "probabilities": _pack_probabilities,
    "coco": _pack_coco,
    "geojson": _pack_geojson,
}
"""Functions that return the content of files for other programs, given the name of the image."""
