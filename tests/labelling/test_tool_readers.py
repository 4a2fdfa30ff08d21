"""Drafts opened by the tools' own readers, or by what these do: pycocotools, Pillow, and vectors of Label Studio.

Readers that are not installed with the tests are tried where they are: labelme, label-studio-converter, supervision,
supervisely and datumaro (which reads CVAT's archives).
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draft_folders import NAMES, SIZE, STEMS, Ids, component, draw_ids, write_ids, write_photographs
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from refinenet.labelling import write_labels
from refinenet.labelling.formats.brush_runs import pack_runs, unpack_runs

LABELS = (*NAMES, "void")


def write(folder: Path, file_format: str, **options: Any) -> Path:
    """Write drafts and return the folder for the tool."""
    images = write_photographs(folder)
    settings = {"simplify": 0, "min_area": 0, "recursive": True, "progress": False, **options}
    return write_labels(images, folder / "todo", masks=folder / "ids", file_format=file_format, **settings).files


def place_of(ids: Ids) -> Ids:
    """Return ids with 4 for void."""
    return np.where(ids == 255, 4, ids).astype(np.uint8)


@pytest.mark.parametrize("shapes", ["polygons", "masks"])
@pytest.mark.parametrize("first_id", [0, 1, 10])
def test_coco_files_are_read_by_pycocotools(shapes: str, first_id: int, tmp_path: Path) -> None:
    ids = write_ids(tmp_path)
    path = write(tmp_path, "coco", shapes=shapes, first_id=first_id) / "instances_default.json"
    opened = COCO(path)
    assert [category["name"] for category in opened.loadCats(opened.getCatIds())] == list(LABELS)
    assert opened.getCatIds() == list(range(first_id, first_id + 5))
    assert opened.getImgIds() == [1, 2, 3]
    for image in opened.loadImgs([1, 2, 3]):
        found = np.full(SIZE, 99, np.uint8)
        for annotation in opened.loadAnns(opened.getAnnIds(image["id"])):
            where = opened.annToMask(annotation).astype(bool)
            assert (found[where] == 99).all()  # no pixel twice
            found[where] = annotation["category_id"] - first_id
            assert annotation["area"] == where.sum()
            rows, columns = np.nonzero(where)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert np.array_equal(found, place_of(ids[image["file_name"].removesuffix(".png")]))


def test_areas_and_boxes_of_simplified_polygons_are_those_of_the_polygons(tmp_path: Path) -> None:
    write_ids(tmp_path)
    opened = COCO(write(tmp_path, "coco", simplify=2) / "instances_default.json")
    for annotation in opened.loadAnns(opened.getAnnIds()):
        (points,) = annotation["segmentation"]
        left, top, width, height = annotation["bbox"]
        assert (left, left + width) == (min(points[::2]), max(points[::2]))
        assert (top, top + height) == (min(points[1::2]), max(points[1::2]))
        filled = opened.annToMask(annotation).sum()
        assert abs(annotation["area"] - filled) <= 0.1 * filled + 0.5 * (width + height)


def draw_like_labelme(values: Any) -> Ids:
    """Draw polygons as `shapes_to_label` of LabelMe does."""
    found = np.full(SIZE, 99, np.uint8)
    for shape in values["shapes"]:
        assert shape["shape_type"] == "polygon"
        canvas = Image.new("L", SIZE[::-1])
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
        found[np.asarray(canvas) > 0] = LABELS.index(shape["label"])
    return found


def test_labelme_draws_the_same_pixels(tmp_path: Path) -> None:
    ids = write_ids(tmp_path)
    folder = write(tmp_path, "labelme")
    for stem in STEMS:
        values = json.loads((folder / f"{stem}.json").read_text("utf-8"))
        assert np.array_equal(draw_like_labelme(values), place_of(ids[stem])), stem
        assert ((folder / f"{stem}.json").parent / values["imagePath"]).samefile(tmp_path / f"photographs/{stem}.png")


def test_simplified_polygons_of_labelme_leave_no_gap(tmp_path: Path) -> None:
    ids = write_ids(tmp_path)
    folder = write(tmp_path, "labelme", simplify=1.5)
    found = draw_like_labelme(json.loads((folder / f"{STEMS[0]}.json").read_text("utf-8")))
    assert (found != 99).all()
    assert (found != place_of(ids[STEMS[0]])).mean() < 0.2


def test_labelme_itself_opens_the_files(tmp_path: Path) -> None:
    label_file = pytest.importorskip("labelme.label_file")
    shape = pytest.importorskip("labelme.utils.shape")
    ids = write_ids(tmp_path)
    folder = write(tmp_path, "labelme")
    opened = label_file.LabelFile(str(folder / f"{STEMS[0]}.json"))
    values = {name: number for number, name in enumerate(LABELS)}
    found, _ = shape.shapes_to_label((*SIZE, 3), opened.shapes, values)
    assert np.array_equal(found, place_of(ids[STEMS[0]]))


def test_brush_runs_are_those_of_label_studio() -> None:
    region = np.zeros((5, 7), bool)
    region[1:4, 2:6] = region[4, 0] = True
    # Written by `mask2rle` of label-studio-converter 0.0.59.
    theirs = [0, 0, 0, 140, 57, 27, 254, 35, 0, 191, 255, 108, 2, 255, 253, 176, 11, 255, 241, 128, 71, 255, 133, 192]
    assert np.array_equal(unpack_runs([*theirs, 0], (5, 7)), region)
    assert np.array_equal(unpack_runs(pack_runs(region), (5, 7)), region)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ([0, 0, 0, 140, 57, 27, 254, 35, 0], "cut off"),
        ([0, 0, 0, 7, 57, 27, 254, 35, 0], "7 values"),
        ("text", "list of bytes"),
        ([256], "list of bytes"),
    ],
)
def test_damaged_brush_runs_are_rejected(packed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_runs(packed, (5, 7))


def test_label_studio_itself_decodes_the_brush_masks(tmp_path: Path) -> None:
    brush = pytest.importorskip("label_studio_converter.brush")
    ids = write_ids(tmp_path)
    tasks = json.loads((write(tmp_path, "label-studio") / "label_studio.json").read_text("utf-8"))
    for task in tasks:
        found = np.full(SIZE, 99, np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == SIZE
            pixels = brush.decode_rle(result["value"]["rle"]).reshape(*SIZE, 4)[..., 3]
            found[pixels > 0] = LABELS.index(result["value"]["brushlabels"][0])
        stem = task["data"]["image"].removeprefix("/data/local-files/?d=photographs/").removesuffix(".png")
        assert np.array_equal(found, place_of(ids[stem]))


def test_the_interface_of_label_studio_has_every_label(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    write_ids(tmp_path)
    root = ElementTree.fromstring((write(tmp_path, "label-studio") / "label_studio.xml").read_text("utf-8"))
    tag = root.find("BrushLabels")
    assert tag is not None
    assert tag.get("toName") == "image"
    assert [label.get("value") for label in tag] == list(LABELS)


def test_cvat_gets_a_colour_for_each_label_and_one_for_each_object(tmp_path: Path) -> None:
    ids = write_ids(tmp_path)
    folder = write(tmp_path, "cvat")
    labels = json.loads((folder / "cvat_labels.json").read_text())
    assert [label["name"] for label in labels] == list(LABELS)
    with zipfile.ZipFile(folder / "cvat_masks.zip") as archive:
        listed = archive.read("ImageSets/Segmentation/default.txt").decode().split()
        rows = [line.split(":") for line in archive.read("labelmap.txt").decode().splitlines()[1:]]
        assert listed == list(STEMS)
        colours = {row[0]: tuple(map(int, row[1].split(","))) for row in rows}
        assert len(set(colours.values())) == len(colours)
        for stem in listed:
            with archive.open(f"SegmentationClass/{stem}.png") as file:
                classes = np.array(Image.open(file))
            for number, name in enumerate(LABELS):
                assert np.array_equal((classes == colours[name]).all(axis=2), place_of(ids[stem]) == number)
            with archive.open(f"SegmentationObject/{stem}.png") as file:
                objects = np.array(Image.open(file)).astype(int) @ [65536, 256, 1]
            for value in np.unique(objects):
                row, column = np.argwhere(objects == value)[0]
                assert np.array_equal(objects == value, component(place_of(ids[stem]), row, column))


def test_datumaro_reads_the_archive_of_cvat(tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    ids = write_ids(tmp_path)
    folder = write(tmp_path, "cvat")
    with zipfile.ZipFile(folder / "cvat_masks.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "unpacked"), "voc_segmentation")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    found = {item.id: item for item in dataset}
    assert set(found) == set(STEMS)
    for stem, item in found.items():
        painted = np.full(SIZE, 99, np.uint8)
        for annotation in item.annotations:
            painted[annotation.image.astype(bool)] = LABELS.index(names[annotation.label])
        assert np.array_equal(painted, place_of(ids[stem]))


def test_supervision_reads_the_file_for_roboflow(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    ids = write_ids(tmp_path)
    path = write(tmp_path, "roboflow") / "_annotations.coco.json"
    dataset = supervision.DetectionDataset.from_coco(str(tmp_path / "photographs"), str(path), force_masks=True)
    assert list(dataset.classes) == list(LABELS)
    _, _, detections = next(one for one in dataset if one[0].endswith(f"{STEMS[0]}.png"))
    assert set(detections.class_id) == set(np.unique(place_of(ids[STEMS[0]])))


def test_supervisely_reads_the_project(tmp_path: Path) -> None:
    supervisely = pytest.importorskip("supervisely")
    ids = write_ids(tmp_path)
    project = supervisely.Project(str(write(tmp_path, "supervisely")), supervisely.OpenMode.READ)
    dataset = project.datasets.get("images")
    for stem in STEMS:
        found = dataset.get_ann(f"{stem.replace('/', '__')}.png", project.meta)
        painted = np.full(SIZE, 99, np.uint8)
        for label in found.labels:
            where = np.zeros(SIZE, np.uint8)
            label.geometry.draw(where, 1)
            painted[where > 0] = LABELS.index(label.obj_class.name)
        assert np.array_equal(painted, place_of(ids[stem]))


def test_more_regions_than_colours_become_an_object_for_each_class(tmp_path: Path) -> None:
    write_ids(tmp_path)
    noise = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "ids" / "masks" / f"{STEMS[0]}.png")
    folder = write(tmp_path, "cvat")
    with (
        zipfile.ZipFile(folder / "cvat_masks.zip") as archive,
        archive.open(f"SegmentationObject/{STEMS[0]}.png") as file,
    ):
        objects = np.array(Image.open(file)).reshape(-1, 3)
    assert len(np.unique(objects, axis=0)) == len(np.unique(noise))


def test_black_and_repeated_colours_of_classes_are_replaced(tmp_path: Path) -> None:
    write_ids(tmp_path)
    (tmp_path / "ids" / "classes.yaml").write_text(
        f"names: [{', '.join(NAMES)}]\ncolours: [[0, 0, 0], [9, 9, 9], [9, 9, 9], [255, 0, 255]]\n"
    )
    colours = [label["color"] for label in json.loads((write(tmp_path, "cvat") / "cvat_labels.json").read_text())]
    assert len(set(colours)) == 5
    assert "#000000" not in colours
    assert colours[1] == "#090909"


def test_drawn_masks_have_all_that_is_hard() -> None:
    ids = draw_ids(0)
    assert set(np.unique(ids)) == {0, 1, 2, 3, 255}
