"""Result files of a segmentation: pictures, probabilities, and regions for other programs.

Run lengths are computed and compressed here by NumPy, so that COCO results need no pycocotools; tests compare both.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from refinenet.inference.segmentation import OUTPUTS, Segmentation, check_output
from refinenet.io.files import write_atomically
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.labels import LabelMap, LabelSet


def require_features() -> Any:
    """Import `rasterio.features`.

    Raises:
        ValueError: rasterio is not installed.
    """
    try:
        import rasterio.features
    except ImportError as error:
        raise ValueError("GeoJSON needs rasterio, which is not installed: pip install 'refinenet[polygons]'") from error
    return rasterio.features


def to_geojson(labels: LabelMap, label_set: LabelSet) -> dict[str, Any]:
    """Return the regions of a label map as a GeoJSON FeatureCollection of polygons.

    Regions are 4-connected. Coordinates are whole pixels with x to the right, y down and (0, 0) at the upper left
    corner of the image: not the degrees of RFC 7946.

    Args:
        labels: `(H, W)` ids; pixels with the ignore index get no polygon.
        label_set: Names and colours of the ids.

    Returns:
        Features with the properties `id`, `class`, `colour` ("#rrggbb") and `area` (pixels).

    Raises:
        ValueError: rasterio is not installed.
    """
    found = require_features().shapes(labels, mask=labels != label_set.ignore_index, connectivity=4)
    return {
        "type": "FeatureCollection",
        "features": [_feature(geometry["coordinates"], int(value), label_set) for geometry, value in found],
    }


def _feature(rings: list[list[tuple[float, float]]], label: int, label_set: LabelSet) -> dict[str, Any]:
    whole = [[[round(x), round(y)] for x, y in ring] for ring in rings]
    red, green, blue = label_set.colours[label]
    return {
        "type": "Feature",
        "properties": {
            "id": label,
            "class": label_set.names[label],
            "colour": f"#{red:02x}{green:02x}{blue:02x}",
            "area": _area(whole[0]) - sum(_area(ring) for ring in whole[1:]),
        },
        "geometry": {"type": "Polygon", "coordinates": whole},
    }


def _area(ring: list[list[int]]) -> int:
    """Return the area of a closed ring by the shoelace formula."""
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))) // 2


Lengths = npt.NDArray[np.int64]

_BITS, _SIGN, _MORE, _FIRST = 5, 0x10, 0x20, 48
"""Bits per character, the sign bit, the bit for "more characters follow", and the offset that makes them printable."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """All pixels of one class."""

    label: int
    area: int
    """Number of pixels."""
    box: tuple[int, int, int, int]
    """x and y of the upper left corner, width and height, in pixels."""
    counts: Lengths
    """`(R,)` int64: run lengths outside, inside, outside, ..., in column-major order; they add up to H times W."""

    def to_coco(self, size: tuple[int, ...]) -> dict[str, Any]:
        """Return COCO's compressed `segmentation`, as pycocotools reads it; `size` is height and width."""
        return {"size": list(size), "counts": compress(self.counts)}


def find_regions(labels: LabelMap, void: int) -> Iterator[Region]:
    """Yield the pixels of each class that occurs, in the order of ids.

    Args:
        labels: `(H, W)` ids.
        void: The id of pixels without a class, which get no region.
    """
    # One pass over the column-major map finds the runs of all classes; COCO's masks are column-major, too.
    height = labels.shape[0]
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.int64)
    ends = np.append(starts[1:], flat.size)
    run_labels = flat[starts]
    for label in np.unique(run_labels):
        if label != void:
            chosen = run_labels == label
            yield _region(int(label), starts[chosen], ends[chosen], flat.size, height)


def _region(label: int, starts: Lengths, ends: Lengths, pixels: int, height: int) -> Region:
    counts = np.empty(2 * len(starts), np.int64)
    counts[0::2] = starts - np.concatenate([[0], ends[:-1]])
    counts[1::2] = ends - starts
    if ends[-1] < pixels:
        counts = np.append(counts, pixels - ends[-1])
    first, last = starts // height, (ends - 1) // height
    spans = bool((first != last).any())  # a run across columns touches both the bottom and the top row
    top = 0 if spans else int((starts % height).min())
    bottom = height - 1 if spans else int(((ends - 1) % height).max())
    left, right = int(first.min()), int(last.max())
    box = (left, top, right - left + 1, bottom - top + 1)
    return Region(label=label, area=int((ends - starts).sum()), box=box, counts=counts)


def compress(counts: Lengths) -> str:
    """Encode run lengths as COCO's text: from the fourth on as differences to the one before last, 5 bits a character.

    Source: `rleToString` in pycocotools' `maskApi.c`.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]  # a run resembles the one in the neighbouring column: short numbers
    characters = np.zeros((len(rest), 1 + 64 // _BITS), np.uint8)
    unfinished = np.ones(len(rest), bool)
    for place in range(characters.shape[1]):
        bits = rest & (_MORE - 1)
        rest >>= _BITS
        # A number ends where only copies of its sign bit are left: -1 below zero, 0 above.
        more = np.where(bits & _SIGN, rest != -1, rest != 0)
        characters[:, place] = np.where(unfinished, bits + _MORE * more + _FIRST, 0)
        unfinished &= more
        if not unfinished.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")


Kind = Literal["labels", "colour", "overlay", "confidence", "palette", "probabilities", "coco", "geojson"]
KINDS: tuple[Kind, ...] = get_args(Kind)
POLYGONS = "polygons"
"""Short for coco and geojson."""

_FILE_KINDS: Mapping[str, Kind] = {".npz": "probabilities", ".json": "coco", ".geojson": "geojson"}
_SUFFIXES: Mapping[Kind, str] = {"probabilities": ".npz", "coco": ".json", "geojson": ".geojson"}


def choose_kinds(asked: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds asked for, each once, with `polygons` expanded.

    Raises:
        ValueError: an unknown kind, or a kind whose library is not installed.
    """
    names = [part for name in asked for part in (("coco", "geojson") if name == POLYGONS else (name,))]
    chosen = tuple(kind for kind in KINDS if kind in names)
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        raise ValueError(f"kind must be one of {', '.join(KINDS)} and {POLYGONS}, not {unknown[0]!r}.")
    if "geojson" in chosen:
        require_features()
    return chosen


def usual_suffix(kind: Kind) -> str:
    """Return the default suffix of a kind."""
    return _SUFFIXES.get(kind, ".png")


def check_target(target: Path, kind: Kind | None) -> Kind:
    """Return the kind of a result file: the one asked for, or the one that its suffix implies.

    Raises:
        ValueError: the suffix does not fit the kind, or no kind has such a suffix.
    """
    suffix = target.suffix.lower()
    if kind is None and suffix in _FILE_KINDS:
        return choose_kinds([_FILE_KINDS[suffix]])[0]
    if suffix in TIFF_SUFFIXES and (kind is None or kind in OUTPUTS):
        return kind or "labels"  # TIFF is written in windows, for every kind of picture
    if kind is None or kind in OUTPUTS:
        return check_output(target, kind)
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
    if kind == "probabilities":
        return _pack_probabilities(segmentation)
    if kind == "coco":
        document = to_coco(segmentation, image_name)
        return json.dumps(document, separators=(",", ":")).encode()
    if kind == "geojson":
        found = to_geojson(segmentation.labels, segmentation.label_set)
        return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    return segmentation.encode(suffix, kind)


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


def to_categories(label_set: LabelSet) -> list[dict[str, Any]]:
    """Return the classes as COCO categories."""
    return [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(label_set.names)]


def _pack_probabilities(segmentation: Segmentation) -> bytes:
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
