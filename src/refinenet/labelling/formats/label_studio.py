"""Label Studio's JSON of tasks: predictions as brush masks or polygons, and its exports of annotations.

Source: https://labelstud.io/guide/predictions and https://labelstud.io/guide/export

Shape letters: H height, W width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats.polygons import fill_outline, to_outline
from refinenet.io.files import stream_atomically, write_atomically
from refinenet.io.images.image_files import MAX_PIXELS
from refinenet.labelling.formats.base import (
    Draft,
    DraftOptions,
    ToolExport,
    as_hex,
    blank,
    find_class,
    label_masks,
    read_json,
    write_json,
)
from refinenet.labelling.formats.brush_runs import pack_runs, unpack_runs
from refinenet.labelling.outlines import find_outlines, join_rings
from refinenet.labels import LabelMap, LabelSet

FILE = "label_studio.json"
CONFIG_FILE = "label_studio.xml"
NAME = "refinenet_image"
"""Key of a task's data under which the image's name comes back, whatever address the tool gives the image."""
_FROM, _TO = "label", "image"
_DIGITS = 6
"""Decimals of a coordinate in percent: exact to a hundredth of a pixel in images of any size."""
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""
_TAGS = {"masks": "BrushLabels", "polygons": "PolygonLabels"}


class LabelStudioWriter:
    """A writer of the tasks; see `write_label_studio`.

    Args:
        stream: The file of tasks.
        options: How to write.
    """

    def __init__(self, stream: BinaryIO, options: DraftOptions) -> None:
        self._stream, self._options = stream, options
        self._count = 0
        self._stream.write(b"[")

    def add(self, draft: Draft) -> None:
        """Write a task with its prediction."""
        results = [
            {
                "id": f"r{number}",
                "type": kind,
                "from_name": _FROM,
                "to_name": _TO,
                "original_width": draft.size[1],
                "original_height": draft.size[0],
                "image_rotation": 0,
                "value": value,
            }
            for number, (kind, value) in enumerate(self._describe(draft), start=1)
        ]
        task = {
            "data": {_TO: self._options.image_prefix + draft.name, NAME: draft.name},
            "predictions": [{"model_version": self._options.origin or "refinenet", "result": results}],
        }
        self._stream.write((b",\n" if self._count else b"\n") + write_json(task).encode())
        self._count += 1

    def _describe(self, draft: Draft) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._options.shapes == "masks":
            for label, region in label_masks(draft, self._options):
                labels = [self._options.name_of(label)]
                yield "brushlabels", {"format": "rle", "rle": pack_runs(region), "brushlabels": labels}
            return
        share = 100 / np.array(draft.size[::-1])
        for found in find_outlines(draft.labels, self._options.simplify):
            if self._options.has_shape(found.label):
                points = (join_rings(found) * share).round(_DIGITS).tolist()
                labels = [self._options.name_of(found.label)]
                yield "polygonlabels", {"points": points, "closed": True, "polygonlabels": labels}

    def finish(self) -> None:
        """Close the list of tasks."""
        self._stream.write(b"\n]\n")


@contextmanager
def write_label_studio(folder: Path, options: DraftOptions) -> Iterator[LabelStudioWriter]:
    """Write the tasks, and the labelling interface to paste into Label Studio.

    Args:
        folder: Folder of the files.
        options: How to write.

    Raises:
        OSError: A file cannot be written.
    """
    write_atomically(folder / CONFIG_FILE, _describe_interface(options).encode())
    with stream_atomically(folder / FILE) as stream:
        writer = LabelStudioWriter(stream, options)
        yield writer
        writer.finish()


def _describe_interface(options: DraftOptions) -> str:
    tag = _TAGS[options.shapes]
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(as_hex(colour))}/>\n"
        for name, colour in options.shown_labels
    )
    return (
        f'<View>\n  <Image name="{_TO}" value="${_TO}" zoom="true"/>\n'
        f'  <{tag} name="{_FROM}" toName="{_TO}">\n{labels}  </{tag}>\n</View>\n'
    )


@dataclass(frozen=True)
class _Result:
    """A shape of a task."""

    label: str
    size: tuple[int, int]
    """Height and width of the image."""
    kind: str
    value: Mapping[str, Any]


def read_label_studio(path: Path) -> ToolExport:
    """Open an export in Label Studio's format JSON, or a file of tasks with predictions.

    Of several annotations of a task the last one that was not cancelled counts; predictions count only where no task
    of the file has an annotation, as in the file that was imported. Tasks without either are skipped. A task without
    shapes is an image that is all background; the file does not tell its size.

    Raises:
        ValueError: The file is damaged, has no task with labels, or two tasks have the same image.
        OSError: It cannot be read.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise ValueError(f"{path} is not an export of Label Studio in the format JSON: a list of tasks with 'data'.")
    key = "annotations" if any(task.get("annotations") for task in tasks) else "predictions"
    found: dict[str, list[Any]] = {}
    skipped: dict[str, str] = {}
    for number, task in enumerate(tasks, start=1):
        results = _choose_results(task.get(key))
        name = _name_image(task["data"], f"{path}, task {task.get('id', number)}")
        if results is None:
            skipped[name] = "its task was not submitted"
            continue
        if name in found:
            raise ValueError(f"{path} has two tasks of the image {name}: delete one of them.")
        found[name] = results
    if not found:
        raise ValueError(f"{path} has no task with labels: submit them in Label Studio before you export.")
    checked = {name: list(_check_all(results, f"{path}, {name}")) for name, results in found.items()}
    labels = dict.fromkeys(result.label for results in checked.values() for result in results)

    def read(item: str, label_set: LabelSet) -> LabelMap:
        return _draw(checked[item], label_set, f"{path}, {item},")

    return ToolExport(
        path=path,
        format="label-studio",
        items=tuple(checked),
        label_names=tuple(labels),
        read=read,
        skipped=skipped,
        cleared=frozenset(name for name, results in checked.items() if not results),
        reviewed=frozenset(checked if key == "annotations" else ()),  # a person submitted them, one by one
    )


def _choose_results(annotations: Any) -> list[Any] | None:
    listed = annotations if isinstance(annotations, list) else []
    valid = [one for one in listed if isinstance(one, dict) and not one.get("was_cancelled")]
    results = valid[-1].get("result") if valid else None
    return results if isinstance(results, list) else None


def _name_image(data: Any, place: str) -> str:
    """Return the name of a task's image: ours if it came back, or else the end of its address."""
    if isinstance(data, dict) and isinstance(data.get(NAME), str):
        return str(data[NAME])
    texts = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    address = data.get(_TO) if isinstance(data, dict) and isinstance(data.get(_TO), str) else next(iter(texts), None)
    if address is None:
        raise ValueError(f"{place} has no address of an image in its 'data'.")
    parts = urlsplit(str(address))
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    return _UPLOAD.sub("", path.rpartition("/")[2])


def _check_all(results: list[Any], place: str) -> Iterator[_Result]:
    for result in results:
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            kind, value = str(result.get("type")), result["value"]
            if kind in ("choices", "textarea", "rating"):
                continue
            if kind not in _FILL:
                raise ValueError(f"{place} has a result of type {kind}, which is not one of {', '.join(_FILL)}.")
            yield _Result(_take_label(value, kind, place), _take_size(result, place), kind, value)


def _take_label(value: Mapping[str, Any], kind: str, place: str) -> str:
    labels = value.get(kind)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError(f"{place} has a shape with the labels {str(labels)[:60]}: each shape needs one.")
    return labels[0]


def _take_size(result: Mapping[str, Any], place: str) -> tuple[int, int]:
    size = result.get("original_height"), result.get("original_width")
    height, width = size
    if type(height) is not int or type(width) is not int or not 0 < height * width <= MAX_PIXELS or height < 0:
        raise ValueError(
            f"{place} has a shape of an image of {width}x{height} pixels (width x height): 1 to {MAX_PIXELS:,} pixels "
            "are allowed."
        )
    return height, width


def _draw(results: list[_Result], label_set: LabelSet, place: str) -> LabelMap:
    size = results[0].size
    labels = blank(label_set, size)
    for result in results:
        if result.size != size:
            raise ValueError(f"{place} has shapes of images of different sizes.")
        try:
            region = _FILL[result.kind](result.value, size)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place} has a shape of {result.label!r}: {error}") from error
        labels[region] = find_class(result.label, label_set, place)
    return labels


def _fill_brush(value: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return unpack_runs(value.get("rle"), size)


def _fill_polygon(value: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError("its points are not a list of [x, y] in percent.")
    pixels = [float(share) * side / 100 for point in points for share, side in zip(point, size[::-1], strict=True)]
    return fill_outline(to_outline(pixels, size), size)


def _fill_rectangle(value: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    x, y, width, height = (float(value.get(key, np.nan)) for key in ("x", "y", "width", "height"))
    if value.get("rotation"):
        raise ValueError("it is a rotated rectangle: draw it as a polygon.")
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    return _fill_polygon({"points": corners}, size)


_FILL = {"brushlabels": _fill_brush, "polygonlabels": _fill_polygon, "rectanglelabels": _fill_rectangle}
"""Functions that return the `(H, W)` pixels of a shape, by its type."""
