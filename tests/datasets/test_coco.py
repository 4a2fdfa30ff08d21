"""COCO's JSON files of objects."""

from __future__ import annotations

import copy
import gc
import json
import multiprocessing
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from png_miniatures import COCO_TRAIN, annotation, box, coco_json, write
from pycocotools import mask as pycocotools_mask

from refinenet.datasets.formats.coco import CocoInstances, open_instances
from refinenet.labels import voc_colours

HEIGHT, WIDTH = 40, 48


def open_changed(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> CocoInstances:
    """Open the miniature's training file with `change` applied."""
    content = copy.deepcopy(COCO_TRAIN)
    change(content)
    return open_instances(write(tmp_path / "a.json", content))


def with_objects(tmp_path: Path, *annotations: dict[str, Any]) -> CocoInstances:
    return open_instances(write(tmp_path / "a.json", coco_json([9], annotations)))


def runs_of(region: npt.NDArray[np.bool_]) -> list[int]:
    """Encode run lengths by hand: down the columns, outside first."""
    runs, value = [0], False
    for pixel in region.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


# Any file of objects


def test_all_categories_are_classes_by_their_ids(tmp_path: Path) -> None:
    instances = open_changed(tmp_path, lambda content: content["categories"].reverse())
    label_set = instances.label_set_of_all()
    assert label_set.names == ("background", "person", "bicycle", "car", "stop sign", "dog", "tv")
    assert label_set.colours == voc_colours(7)
    assert instances.file_names[0] == "000000000009.jpg"


def test_later_objects_lie_over_earlier_ones_and_crowds_are_void(tmp_path: Path) -> None:
    instances = open_changed(tmp_path, lambda content: None)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:36, 4:36] = 1
    expected[8:20, 30:44] = 2
    expected[:3] = 4
    np.testing.assert_array_equal(instances.read_labels("000000000009.jpg"), expected)
    crowded = instances.read_labels("000000000025.jpg")
    assert (crowded[:, :10] == 255).all()
    assert (crowded[2:38, 12:42] == 5).all()
    assert not instances.read_labels("000000000034.jpg").any()


def test_a_category_named_background_is_the_background_and_equal_names_are_one_class(tmp_path: Path) -> None:
    """As written by Roboflow: category 0 is named after the whole dataset, whose name may also be that of a class."""

    def change(content: dict[str, Any]) -> None:
        content["categories"] = [
            {"id": 0, "name": "dog"}, {"id": 1, "name": "Background"}, {"id": 2, "name": "cat"},
            {"id": 3, "name": "dog"}, {"id": 13, "name": "x"}, {"id": 18, "name": "y"}, {"id": 72, "name": " z "},
        ]  # fmt: skip

    instances = open_changed(tmp_path, change)
    assert instances.label_set_of_all().names == ("background", "dog", "cat", "x", "y", "z")
    labels = instances.read_labels("000000000009.jpg")
    assert (labels[30, 10], labels[10, 40]) == (0, 2)


def test_files_in_any_order_of_their_lists_are_read(tmp_path: Path) -> None:
    backwards = dict(reversed(COCO_TRAIN.items()))
    instances = open_instances(write(tmp_path / "a.json", backwards))
    in_order = open_instances(write(tmp_path / "b.json", COCO_TRAIN))
    for name in in_order.file_names:
        np.testing.assert_array_equal(instances.read_labels(name), in_order.read_labels(name))


def test_plain_and_compressed_run_lengths_and_polygons_agree(tmp_path: Path) -> None:
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[3:17, 9:30] = True
    compressed = pycocotools_mask.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
    kinds: list[Any] = [
        {"counts": runs_of(region), "size": [HEIGHT, WIDTH]},
        {"counts": compressed, "size": [HEIGHT, WIDTH]},
        [box(9, 3, 30, 17)],
        [box(9, 3, 20, 17), box(15, 3, 30, 17)],
    ]
    for kind in kinds:
        single = {**annotation(1, 9, 1, kind, 294.0), "iscrowd": 0}
        instances = with_objects(tmp_path, single)
        np.testing.assert_array_equal(instances.read_labels("000000000009.jpg") == 1, region)


def test_instances_travel_to_worker_processes(tmp_path: Path) -> None:
    instances = open_changed(tmp_path, lambda content: None)
    name = instances.file_names[0]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        labels = pool.submit(instances.read_labels, name).result()
    np.testing.assert_array_equal(labels, instances.read_labels(name))


def first_object(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["annotations"][0].__setitem__(key, value)


def first_image(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["images"][0].__setitem__(key, value)


RUNS = {"counts": [0, 1920], "size": [40, 48]}


@pytest.mark.parametrize(("change", "message"), [
    (first_object("image_id", 7), "annotation with id 1: its image_id is 7, which no image has"),
    (first_object("image_id", "x"), "annotation with id 1: its image_id is x, which no image has"),
    (first_object("image_id", 9.5), "annotation with id 1: it has the image_id 9.5: a whole number"),
    (first_object("image_id", None), "annotation with id 1: it has the image_id None"),
    (first_object("category_id", 4), "annotation with id 1: its category_id is 4, which no category has"),
    (first_object("category_id", 1.5), "annotation with id 1: it has the category_id 1.5"),
    (first_object("category_id", True), "annotation with id 1: it has the category_id True"),
    (first_object("id", 2), "2 annotations have the id 2"),
    (first_object("id", None), "an annotation has the id None"),
    (first_object("id", -1), "an annotation has the id -1"),
    (first_object("iscrowd", 2), "annotation with id 1: its iscrowd is 2"),
    (first_object("iscrowd", [1]), r"annotation with id 1: its iscrowd is \[1\]"),
    (first_object("area", "big"), "annotation with id 1: its area is 'big'"),
    (first_object("area", -3), "annotation with id 1: its area is -3"),
    (first_object("area", 10**400), "a.json: (the annotation with id 1: its area|it is not valid JSON)"),
    (first_object("segmentation", None), "annotation with id 1: its segmentation is None"),
    (first_object("segmentation", []), r"annotation with id 1: its segmentation is \[\]"),
    (first_object("segmentation", "x"), "annotation with id 1: its segmentation is 'x'"),
    (first_object("segmentation", [1, 2, 3, 4, 5, 6]), "annotation with id 1: a polygon must be a list"),
    (first_object("segmentation", [[1, 2, 3, 4, 5]]), "annotation with id 1: a polygon has 5 numbers"),
    (first_object("segmentation", [[1, 2, 3, 4, 5, 6, 7]]), "annotation with id 1: a polygon has 7 numbers"),
    (first_object("segmentation", [[1, 2, 3, 4, 5, None]]), "annotation with id 1: a polygon has 'None'"),
    (first_object("segmentation", [[1, 2, 3, 4, 5, 45]]), r"annotation with id 1: a polygon has the point \(5, 45\)"),
    (first_object("segmentation", [[1, 2, -5, 4, 5, 6]]), r"annotation with id 1: a polygon has the point \(-5, 4\)"),
    (first_object("segmentation", RUNS | {"size": [48, 40]}), r"for the size \[48, 40\], but its image has \[40, 48\]"),
    (first_object("segmentation", {"counts": [1920]}), "annotation with id 1: its run lengths are for the size None"),
    (first_object("segmentation", RUNS | {"counts": [0, 1919]}), "annotation with id 1: its run .* add up to 1919"),
    (first_object("segmentation", RUNS | {"counts": "o"}), "annotation with id 1: its compressed run lengths end"),
    (first_object("segmentation", RUNS | {"counts": None}), "annotation with id 1: its run lengths .* neither"),
    (first_object("segmentation", RUNS | {"counts": [1.5]}), "annotation with id 1: its run lengths .* neither"),
    (first_image("id", "09"), "annotation with id 1: its image_id is 9, which no image has"),
    (first_image("id", 9.5), "an image has the id 9.5"),
    (first_image("id", 25), "two images have the id 25"),
    (first_image("file_name", "000000000025.jpg"), "two images have the file_name '000000000025.jpg'"),
    (first_image("file_name", None), "image with id 9 has the file_name None"),
    (first_image("file_name", "../secret.jpg"), "image with id 9 has the file_name '../secret.jpg', which leads out"),
    (first_image("file_name", "/etc/secret.jpg"), "which leads out"),
    (first_image("height", 0), "image with id 9 has width 48 and height 0"),
    (first_image("height", 40.5), "image with id 9 has the height 40.5"),
    (first_image("width", 10**9), "image with id 9 has width 1000000000"),
    (first_image("height", 10**30), "a.json: (the image with id 9 has the height|it is not valid JSON)"),
    (lambda content: content["categories"].append({"id": 1, "name": "x"}), "two categories have the id 1: 'person'"),
    (lambda content: content["categories"].append({"id": 91}), "category with id 91 has the name None"),
    (lambda content: content["categories"].append("person"), "'categories' has the entry 'person'"),
    (lambda content: content["images"].append(3), "'images' has the entry 3"),
    (lambda content: content["annotations"].append([1]), r"'annotations' has the entry \[1\]"),
    (lambda content: content.pop("images"), "it has no images"),
    (lambda content: content.pop("annotations"), "it has no annotations"),
    (lambda content: content.pop("categories"), "it has no categories"),
    (lambda content: content.update(images={}), "it has no images"),
    (lambda content: content.update(annotations=[]), "it has no annotations"),
])  # fmt: skip
def test_what_cannot_be_is_named_with_file_and_annotation(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_changed(tmp_path, change)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: ")


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"[" * 100_000, b'{"images": [{"id": 1,}]}', b'{"images": [NaN]}',
    json.dumps(COCO_TRAIN).encode()[:-40], json.dumps(COCO_TRAIN).replace("1024.0", "NaN").encode(),
    json.dumps(COCO_TRAIN).replace("1024.0", "1e999").encode(), json.dumps(COCO_TRAIN).encode() + b"}",
])  # fmt: skip
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        open_instances(path)


def test_an_unknown_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json has no image with the file_name 'x\.jpg'"):
        open_changed(tmp_path, lambda content: None).read_labels("x.jpg")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    part=st.sampled_from(["images", "annotations", "categories"]),
    key=st.sampled_from(["id", "file_name", "height", "width", "image_id", "category_id", "segmentation", "name"]),
    value=JSON,
)
def test_any_value_anywhere_is_read_or_refused_with_the_file(
    part: str, key: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    message = str(folder / "a.json")
    try:
        instances = open_changed(folder, lambda content: content[part][0].__setitem__(key, value))
        for name in instances.file_names:
            instances.read_labels(name)
    except ValueError as error:
        message = str(error)
    assert str(folder / "a.json") in message


def measure_reading(path: Path, warm_up: Path) -> tuple[int, int, int]:
    """Return the number of images in a file, and the bytes held by Python after opening it, and at most."""
    open_instances(warm_up)  # imports and caches of the first call are not part of the measurement
    gc.collect()
    tracemalloc.start()
    instances = open_instances(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return len(instances.file_names), held, peak


def test_reading_takes_little_memory(tmp_path: Path) -> None:
    """Below 1 kB per image with three small objects, so 100,000 images take less than 100 MB, plus some MB of text.

    Measured in a new process, since caches and garbage of earlier tests would count, too.
    """
    count = 3_000
    objects = [
        annotation(k, k % count, 1, [[10.5 + k % 20, 2.25] + [1.5, 2.5, 30.25, 20.75] * 5], 200.0)
        for k in range(3 * count)
    ]
    path = write(tmp_path / "a.json", coco_json(range(count), objects))
    warm_up = write(tmp_path / "warm_up.json", COCO_TRAIN)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        images, held, peak = pool.submit(measure_reading, path, warm_up).result()
    assert images == count
    assert held < count * 1_000
    assert peak < held + count * 500 + 5_000_000


def test_what_is_longer_than_what_is_read_at_once_is_read(tmp_path: Path) -> None:
    """The file is read in pieces of 2**20 characters, which end anywhere in the text; one entry is longer."""
    path = tmp_path / "a.json"
    content = coco_json([9], [annotation(1, 9, 1, [box(10, 11, 23.5, 24)], 5.25)])
    expected = open_instances(write(path, content)).read_labels("000000000009.jpg")
    assert expected[12, 12] == 1
    text = json.dumps(content)
    for place in range(0, len(text), 5):
        path.write_text(" " * (2**20 - place) + text)
        np.testing.assert_array_equal(open_instances(path).read_labels("000000000009.jpg"), expected)
    content["annotations"][0]["attributes"] = {"note": "a]}" * 2**20}
    write(path, {"version": 1, "empty": [], **content})
    np.testing.assert_array_equal(open_instances(path).read_labels("000000000009.jpg"), expected)


def test_text_of_any_script_is_read(tmp_path: Path) -> None:
    content = copy.deepcopy(COCO_TRAIN)
    content["categories"][0]["name"] = "Stra\u00dfe \u4eba"
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(content, ensure_ascii=False), "utf-8")
    assert open_instances(path).label_set_of_all().names[1] == "Stra\u00dfe \u4eba"
