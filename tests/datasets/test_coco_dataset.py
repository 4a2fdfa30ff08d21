"""COCO with VOC's 21 classes."""

from __future__ import annotations

import copy
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from png_miniatures import COCO_TRAIN, annotation, box, coco_json, noise, save, write, write_coco

from refinenet.datasets.published.coco import COCO
from refinenet.labels import voc_colours

HEIGHT, WIDTH = 40, 48
PERSON, BICYCLE, CAR, DOG, TV = 15, 2, 7, 12, 20
"""VOC's classes for the miniature's categories 1, 2, 3, 18 and 72."""


# COCO with VOC's classes


def test_coco_objects_become_voc_classes(tmp_path: Path) -> None:
    """Trap: category ids run from 1 to 90 with gaps and differ from VOC's: dog is 18 in COCO and 12 in VOC."""
    write_coco(tmp_path)
    train, val = (COCO.open_split(tmp_path, split) for split in ("train", "val"))
    assert (train.split, train.items) == ("train", ["000000000009", "000000000025", "000000000030"])
    assert val.items == ["000000000139", "000000000285"]
    assert train.label_set.names[::5] == ("background", "bottle", "cow", "person", "tvmonitor")
    assert train.label_set.colours == voc_colours(21)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:36, 4:36] = PERSON
    expected[8:20, 36:44] = BICYCLE
    expected[8:20, 30:36] = 255  # both
    np.testing.assert_array_equal(train[0].labels, expected)
    assert train[0].labels.dtype == np.uint8
    assert (val[0].labels[10:30, 10:20] == CAR).all()
    assert (val[0].labels > 0).sum() == 200
    assert train[0].image.shape == (HEIGHT, WIDTH, 3)
    assert train.image_file(train.items[0]) == tmp_path / "train2017" / "000000000009.jpg"


def test_coco_each_of_the_20_categories_has_its_class(tmp_path: Path) -> None:
    by_hand = {
        "airplane": (5, "aeroplane"), "bicycle": (2, "bicycle"), "bird": (16, "bird"), "boat": (9, "boat"),
        "bottle": (44, "bottle"), "bus": (6, "bus"), "car": (3, "car"), "cat": (17, "cat"), "chair": (62, "chair"),
        "cow": (21, "cow"), "dining table": (67, "diningtable"), "dog": (18, "dog"), "horse": (19, "horse"),
        "motorcycle": (4, "motorbike"), "person": (1, "person"), "potted plant": (64, "pottedplant"),
        "sheep": (20, "sheep"), "couch": (63, "sofa"), "train": (7, "train"), "tv": (72, "tvmonitor"),
        "toothbrush": (90, "background"), "traffic light": (10, "background"),
    }  # fmt: skip
    content = coco_json([139], [
        annotation(column, 139, identifier, [box(column, 0, column + 1, 40)], 40.0)
        for column, (identifier, _) in enumerate(by_hand.values())
    ])  # fmt: skip
    content["categories"] = [{"id": identifier, "name": name} for name, (identifier, _) in by_hand.items()]
    write(tmp_path / "annotations" / "instances_val2017.json", content)
    save(tmp_path / "val2017" / "000000000139.jpg", noise(0, HEIGHT, WIDTH))
    val = COCO.open_split(tmp_path, "val")
    found = [val.label_set.names[value] for value in val[0].labels[20, : len(by_hand)]]
    assert found == [name for _, name in by_hand.values()]


def test_coco_categories_outside_the_20_are_background(tmp_path: Path) -> None:
    write_coco(tmp_path)
    labels = COCO.open_split(tmp_path, "train")[0].labels
    assert (labels[:3] == 0).all()  # the stop sign


def test_coco_crowds_of_run_lengths_are_void(tmp_path: Path) -> None:
    """Trap: crowds have run lengths, all other objects polygons."""
    write_coco(tmp_path)
    labels = COCO.open_split(tmp_path, "train")[1].labels
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:38, 12:42] = DOG
    expected[:, :10] = 255
    np.testing.assert_array_equal(labels, expected)


def test_coco_polygons_of_one_object_do_not_make_each_other_void(tmp_path: Path) -> None:
    write_coco(tmp_path)
    labels = COCO.open_split(tmp_path, "train")[2].labels
    assert (labels[:, :20] == TV).all()
    assert (labels[:20, 28:] == TV).all()
    assert (labels > 0).sum() == 20 * 40 + 20 * 20


def open_val(tmp_path: Path, *annotations: dict[str, Any]) -> npt.NDArray[Any]:
    write(tmp_path / "annotations" / "instances_val2017.json", coco_json([9], annotations))
    save(tmp_path / "val2017" / "000000000009.jpg", noise(0, HEIGHT, WIDTH))
    return COCO.open_split(tmp_path, "val")[0].labels


def test_coco_pixels_of_two_objects_are_void_whatever_their_order_and_class(tmp_path: Path) -> None:
    """Also for three objects, two of one class, and one drawn over a crowd."""
    crowd = {"counts": [0, 5 * HEIGHT, 43 * HEIGHT], "size": [HEIGHT, WIDTH]}
    labels = open_val(
        tmp_path,
        annotation(1, 9, 1, crowd, 200.0),
        annotation(2, 9, 1, [box(4, 0, 20, 10)], 160.0),
        annotation(3, 9, 1, [box(10, 0, 14, 10)], 40.0),
        annotation(4, 9, 2, [box(12, 0, 14, 10)], 20.0),
        annotation(5, 9, 13, [box(16, 0, 48, 40)], 20.0),
    )
    assert labels[0, :22].tolist() == [255] * 5 + [PERSON] * 5 + [255] * 4 + [PERSON] * 6 + [0] * 2


def test_coco_a_crowd_of_another_category_is_no_void(tmp_path: Path) -> None:
    crowd = {"counts": [0, 5 * HEIGHT, 43 * HEIGHT], "size": [HEIGHT, WIDTH]}
    assert not open_val(tmp_path, annotation(1, 9, 13, crowd, 200.0)).any()


@pytest.mark.parametrize(("areas", "kept"), [
    ([(1, 1000.0)], False), ([(1, 1000.5)], True), ([(1, 600.0), (2, 401.0)], True),
    ([(1, 600.0), (13, 2000.0)], False), ([], False),
])  # fmt: skip
def test_coco_trains_on_images_with_more_than_1000_pixels_of_the_20_classes(
    areas: list[tuple[int, float]], kept: bool, tmp_path: Path
) -> None:
    """Traps: images with small objects are left out, and so are the thousand images without annotations."""
    objects = [annotation(k, 9, category, [box(0, 0, 9, 9)], area) for k, (category, area) in enumerate(areas, start=2)]
    objects.append(annotation(1, 10, 1, [box(0, 0, 9, 9)], 5000.0))
    for split in ("train", "val"):
        write(tmp_path / "annotations" / f"instances_{split}2017.json", coco_json([9, 10], objects))
        (tmp_path / f"{split}2017").mkdir()
    assert ("000000000009" in COCO.open_split(tmp_path, "train").items) is kept
    assert len(COCO.open_split(tmp_path, "val")) == 2


def test_coco_training_needs_areas(tmp_path: Path) -> None:
    content = copy.deepcopy(COCO_TRAIN)
    del content["annotations"][0]["area"]
    write_coco(tmp_path)
    write(tmp_path / "annotations" / "instances_train2017.json", content)
    with pytest.raises(ValueError, match="without 'area'"):
        COCO.open_split(tmp_path, "train")


def test_coco_prepared_masks_win_over_the_json(tmp_path: Path) -> None:
    write_coco(tmp_path)
    for path in list((tmp_path / "val2017").iterdir()):
        save(tmp_path / "masks" / "val2017" / f"{path.stem}.png", np.full((HEIGHT, WIDTH), 20, np.uint8))
    assert (COCO.open_split(tmp_path, "val")[1].labels == 20).all()
    assert COCO.open_split(tmp_path, "train")[0].labels[5, 5] == PERSON


def test_coco_what_is_absent_or_damaged_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    train = COCO.open_split(tmp_path, "train")
    image = tmp_path / "train2017" / "000000000009.jpg"
    save(image, noise(0, 20, 30))
    with pytest.raises(ValueError, match=r"instances_train2017\.json, image 000000000009\.jpg: the image has 30x20"):
        train[0]
    image.unlink()
    with pytest.raises(FileNotFoundError, match=str(image)):
        train[0]
    json_file = tmp_path / "annotations" / "instances_train2017.json"
    json_file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'train2017'}, and {json_file} or the folder"):
        COCO.open_split(tmp_path, "train")
    content = json.dumps(COCO_TRAIN).replace("000000000030.jpg", "30.png")
    json_file.write_text(content)
    with pytest.raises(ValueError, match=r"image '30\.png': the images of COCO end in \.jpg"):
        COCO.open_split(tmp_path, "train")


def test_coco_travels_to_worker_processes(tmp_path: Path) -> None:
    write_coco(tmp_path)
    train = COCO.open_split(tmp_path, "train")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        sample = pool.submit(train.__getitem__, 1).result()
    np.testing.assert_array_equal(sample.labels, train[1].labels)
    np.testing.assert_array_equal(sample.image, train[1].image)
