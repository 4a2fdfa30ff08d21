"""LabelMe's JSON files, rasterised like LabelMe does."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refinenet.datasets.formats.labelme import find_names, read_labels
from refinenet.labels import LabelSet, voc_colours

CLASSES = LabelSet(names=("background", "cat", "dog"), colours=voc_colours(3))


def shape(label: Any, points: Any, shape_type: Any = "polygon", mask: Any = None) -> dict[str, Any]:
    """Return a shape as written by LabelMe 5.5."""
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": shape_type,
        "flags": {},
        "mask": mask,
    }


def write(path: Path, shapes: Any, height: Any = 6, width: Any = 8) -> Path:
    values = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{path.stem}.jpg",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    path.write_text(json.dumps(values))
    return path


def png_in_base64(pixels: list[list[int]], mode: str = "L") -> str:
    content = io.BytesIO()
    image = Image.fromarray(np.array(pixels, np.uint8))
    (image.point(lambda value: value * 255).convert("1") if mode == "1" else image).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def labels_of(tmp_path: Path, *shapes: dict[str, Any]) -> list[str]:
    """Rows of the label map, void as "x"."""
    labels = read_labels(CLASSES, write(tmp_path / "a.json", list(shapes)))
    assert labels.dtype == np.uint8
    return ["".join("x" if value == 255 else str(value) for value in row) for row in labels]


def test_names_are_background_and_the_labels_of_all_files_in_order(tmp_path: Path) -> None:
    square = [[0, 0], [2, 0], [2, 2]]
    files = [
        write(tmp_path / "a.json", [shape("road", square), shape("__ignore__", square), shape(" car ", square)]),
        write(tmp_path / "b.json", [shape("_background_", square), shape("Car", square), shape("void", square)]),
        write(tmp_path / "c.json", []),
        write(tmp_path / "d.json", [shape("ignore", square), shape("background", square)]),
    ]
    label_set = find_names(files)
    assert label_set.names == ("background", "Car", "car", "road")
    assert label_set.colours == voc_colours(4)
    with pytest.raises(ValueError, match="None of 1 LabelMe files has a shape"):
        find_names([files[2]])


def test_a_rectangle_includes_its_last_row_and_column_from_whichever_corner(tmp_path: Path) -> None:
    expected = ["00000000", "01111000", "01111000", "01111000", "00000000", "00000000"]
    assert labels_of(tmp_path, shape("cat", [[1, 1], [4, 3]], "rectangle")) == expected
    assert labels_of(tmp_path, shape("cat", [[4.0, 1.0], [1.0, 3.0]], "rectangle")) == expected


def test_a_polygon_includes_its_outline(tmp_path: Path) -> None:
    triangle = [[1, 1], [4, 1], [1, 4]]
    expected = ["00000000", "02222000", "02220000", "02200000", "02000000", "00000000"]
    assert labels_of(tmp_path, shape("dog", triangle)) == expected
    assert labels_of(tmp_path, shape("dog", triangle, None)) == expected  # as files without shape types


def test_a_circle_is_a_middle_and_a_point_on_its_rim(tmp_path: Path) -> None:
    expected = ["00010000", "00111000", "01111100", "00111000", "00010000", "00000000"]
    found = labels_of(tmp_path, shape("cat", [[3, 2], [3, 4]], "circle"))
    assert [row[:7] for row in found][2] == expected[2][:7]
    columns = ["".join(row[k] for row in found) for k in range(8)]
    assert columns[3] == "111110"
    assert (found[5], columns[0], columns[6], columns[7]) == ("00000000", "000000", "000000", "000000")
    assert found[0][1] == found[0][5] == "0"


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_mask_is_placed_with_both_corners_included(mode: str, tmp_path: Path) -> None:
    mask = png_in_base64([[1, 0, 1], [0, 1, 0]], mode)
    found = labels_of(tmp_path, shape("dog", [[4, 2], [6, 3]], "mask", mask))
    assert found == ["00000000", "00000000", "00002020", "00000200", "00000000", "00000000"]


def test_later_shapes_lie_over_earlier_ones_and_void_and_background_are_drawn(tmp_path: Path) -> None:
    everything = shape("cat", [[0, 0], [7, 5]], "rectangle")
    found = labels_of(
        tmp_path,
        shape("dog", [[0, 0], [1, 1]], "rectangle"),
        everything,
        shape("dog", [[1, 0], [3, 1]], "rectangle"),
        shape("__ignore__", [[3, 0], [4, 0]], "rectangle"),
        shape("ignore", [[0, 2], [0, 2]], "rectangle"),
        shape("void", [[1, 2], [1, 2]], "rectangle"),
        shape("_background_", [[0, 5], [7, 5]], "rectangle"),
        shape("background", [[7, 4], [7, 4]], "rectangle"),
    )
    assert found == ["122xx111", "12221111", "xx111111", "11111111", "11111110", "00000000"]


def test_a_file_without_shapes_is_all_background(tmp_path: Path) -> None:
    assert labels_of(tmp_path) == ["00000000"] * 6


def test_many_classes_are_sixteen_bits(tmp_path: Path) -> None:
    label_set = LabelSet(names=tuple(f"n{k}" for k in range(300)), colours=voc_colours(300))
    path = write(tmp_path / "a.json", [
        shape("n299", [[0, 0], [0, 0]], "rectangle"), shape("void", [[1, 0], [1, 0]], "rectangle"),
    ])  # fmt: skip
    labels = read_labels(label_set, path)
    assert labels.dtype == np.uint16
    assert labels[0, :3].tolist() == [299, 65535, 65535]  # no class is the background


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_shapes_without_area_are_refused_rather_than_lost(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a\.json, shape 2 \(cat\): it is a {kind}, which has no area"):
        labels_of(tmp_path, shape("dog", [[0, 0], [1, 1]], "rectangle"), shape("cat", [[0, 0], [5, 5]], kind))


CORNERS = [[4, 2], [6, 3]]


@pytest.mark.parametrize(("bad", "message"), [
    (shape("bird", CORNERS, "rectangle"), "a shape of 'bird', which is not one of background, cat, dog"),
    (shape(None, CORNERS, "rectangle"), "label 'None', which is not text"),
    (shape(" ", CORNERS, "rectangle"), "which is not text"),
    (shape("cat", CORNERS, "oval"), "shape_type is 'oval': polygon, rectangle, circle, mask"),
    (shape("cat", CORNERS, ["mask"]), r"shape_type is .*mask"),
    (shape("cat", CORNERS), "polygon of 2 points"),
    (shape("cat", [[1, 1]], "rectangle"), "rectangle of 1 points"),
    (shape("cat", [[1, 1], [2, 2], [3, 3]], "circle"), "circle of 3 points"),
    (shape("cat", None), "no list of points"),
    (shape("cat", [[1, 1], [2], [3, 3]]), r"the point \[2\]"),
    (shape("cat", [[1, 1], [2, "2"], [3, 3]]), r"the point \[2, '2'\]"),
    (shape("cat", [[1, 1], [2, float("nan")], [3, 3]]), r"point \[2, nan\], far outside the image of 8x6"),
    (shape("cat", [[1, 1], [17, 1], [3, 3]]), r"point \[17, 1\], far outside"),
    (shape("cat", [[1, 1], [2, -7], [3, 3]]), r"point \[2, -7\], far outside"),
    (shape("cat", [[1, 1], [10**400, 1], [3, 3]]), "far outside"),
    (shape("cat", CORNERS, "mask"), "a mask without a 'mask'"),
    (shape("cat", CORNERS, "mask", "%%%"), "is not valid base64"),
    (shape("cat", CORNERS, "mask", "\u00e4"), "is not valid base64"),
    (shape("cat", CORNERS, "mask", "aGVsbG8="), "'mask' is not a JPEG, PNG"),
    (shape("cat", CORNERS, "mask", png_in_base64([[1, 1], [1, 1]])), r"the shape \(2, 2\), but .* span \(2, 3\)"),
    (shape("cat", [[6, 2], [8, 3]], "mask", png_in_base64([[1] * 3] * 2)), "extend outside"),
    (shape("cat", [[-1, 2], [1, 3]], "mask", png_in_base64([[1] * 3] * 2)), "extend outside"),
])  # fmt: skip
def test_damaged_shapes_are_named(bad: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        labels_of(tmp_path, bad)
    assert str(tmp_path / "a.json") in str(caught.value)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"3", b'{"shapes": 3}', b'{"shapes": [3]}', b"\xff\xfe{", b"[" * 100_000,
    b'{"shapes": [], "imageHeight": 4}', b'{"shapes": [], "imageHeight": 4, "imageWidth": 4.5}',
    b'{"shapes": [], "imageHeight": 0, "imageWidth": 4}', b'{"shapes": [], "imageHeight": null, "imageWidth": 4}',
    b'{"shapes": [], "imageHeight": 100000, "imageWidth": 100000}',
])  # fmt: skip
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (lambda: read_labels(CLASSES, path), lambda: find_names([path])):
        with pytest.raises(ValueError, match=str(path)):
            read()
