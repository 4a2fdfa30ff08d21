"""Drafts out and labels back in, through the command line and the files of every format."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draft_folders import (
    NAMES,
    STEMS,
    WITH_BACKGROUND,
    component,
    read_ids,
    write_ids,
    write_photographs,
)
from PIL import Image

FORMATS = {
    "cvat": ("cvat",),
    "coco": ("coco",),
    "coco runs": ("coco", "--shapes", "masks"),
    "label-studio": ("label-studio",),
    "label-studio polygons": ("label-studio", "--shapes", "polygons"),
    "labelme": ("labelme",),
    "labelme masks": ("labelme", "--shapes", "masks"),
    "roboflow": ("roboflow",),
    "supervisely": ("supervisely",),
    "png": ("png",),
}
POLYGONS = [name for name in FORMATS if name in ("coco", "label-studio polygons", "labelme", "roboflow")]
EXACT = ("--simplify", "0", "--min-area", "0")


def write_drafts(call: Any, *options: str) -> None:
    words = ("label", "write", "photographs", "--masks", "ids", "--recursive", "-o", "todo", "--format", *options)
    found = call(*words)
    assert found.returncode == 0, found.stderr


def take(call: Any, *options: str) -> dict[str, Any]:
    # The masks look blended to the doctor: they are drawn to be hard to outline.
    # All of them are reviewed: in some tests nothing is changed, so that nothing else could validate.
    options = (*options, "--reviewed") if "--drafts" in options else options
    found = call("label", "take", *options, "--into", "mine", "--no-check", "--json")
    assert found.returncode == 0, found.stderr
    values: dict[str, Any] = json.loads(found.stdout)
    return values


def export_of(name: str) -> str:
    return f"todo/{FORMATS[name][0]}"


@pytest.mark.parametrize("names", [NAMES, WITH_BACKGROUND], ids=["all classes drawn", "background"])
@pytest.mark.parametrize("name", FORMATS)
def test_unchanged_labels_come_back_pixel_by_pixel(
    name: str, names: tuple[str, ...], tmp_path: Path, call_refinenet: Any
) -> None:
    write_photographs(tmp_path)
    ids = write_ids(tmp_path, names)
    write_drafts(call_refinenet, *FORMATS[name], *EXACT)
    taken = take(call_refinenet, export_of(name), "--drafts", "todo")
    assert {image["action"] for image in taken["images"]} == {"new"}
    for stem in STEMS:
        assert np.array_equal(read_ids(tmp_path / "mine" / "masks" / f"{stem}.png"), ids[stem]), stem
        image = tmp_path / "mine" / "images" / f"{stem}.png"
        assert image.read_bytes() == (tmp_path / "photographs" / f"{stem}.png").read_bytes()


@pytest.mark.parametrize("name", POLYGONS)
def test_simplified_polygons_change_nothing_that_nobody_touched(name: str, tmp_path: Path, call_refinenet: Any) -> None:
    write_photographs(tmp_path)
    ids = write_ids(tmp_path)
    write_drafts(call_refinenet, *FORMATS[name], "--simplify", "2", "--min-area", "0")
    take(call_refinenet, export_of(name), "--drafts", "todo")
    for stem in STEMS:
        assert np.array_equal(read_ids(tmp_path / "mine" / "masks" / f"{stem}.png"), ids[stem]), stem
    shutil.rmtree(tmp_path / "mine")
    write_masks_like(tmp_path)
    take(call_refinenet, export_of(name), "--images", "photographs")
    found = read_ids(tmp_path / "mine" / "masks" / "train" / f"{STEMS[0]}.png")
    share = (found != ids[STEMS[0]]).mean()
    assert 0 < share < 0.2  # without the drafts the polygons count as they are


def write_masks_like(folder: Path) -> None:
    """Make a dataset with the classes of the masks, and one image."""
    for kind in ("images", "masks"):
        (folder / "mine" / kind / "train").mkdir(parents=True)
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(folder / "mine" / "images" / "train" / "other_1.png")
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(folder / "mine" / "masks" / "train" / "other_1.png")
    shutil.copy(folder / "ids" / "classes.yaml", folder / "mine")


PLACE = (11, 20)
"""Row and column of a pixel of the large region of class 2."""


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


def relabel_coco(folder: Path, file: str) -> None:
    def change(values: Any) -> None:
        image = next(one["id"] for one in values["images"] if one["file_name"] == f"{STEMS[0]}.png")
        number = {category["name"]: category["id"] for category in values["categories"]}
        of_image = [one for one in values["annotations"] if one["image_id"] == image]
        largest = max((one for one in of_image if one["category_id"] == number["car"]), key=lambda one: one["area"])
        largest["category_id"] = number["tree"]

    change_json(folder / file, change)


def relabel_label_studio(folder: Path) -> None:
    def change(tasks: Any) -> None:
        for number, task in enumerate(tasks, start=1):  # as Label Studio exports them
            task |= {"id": number, "annotations": [{"id": number, "was_cancelled": False, **task["predictions"][0]}]}
            task["data"]["image"] = f"/data/upload/1/0a1b2c3d-{task['data'].pop('refinenet_image').rpartition('/')[2]}"
        results = tasks[0]["annotations"][0]["result"]
        cars = [one for one in results if one["value"].get("polygonlabels", one["value"].get("brushlabels")) == ["car"]]
        key = cars[0]["type"]
        widest = max(cars, key=lambda one: len(str(one["value"].get("points", ""))))
        widest["value"][key] = ["tree"]

    change_json(folder / "label_studio.json", change)


def relabel_labelme(folder: Path) -> None:
    def change(values: Any) -> None:
        cars = [shape for shape in values["shapes"] if shape["label"] == "car"]
        widest = max(cars, key=lambda shape: np.ptp([point[0] for point in shape["points"]]))
        widest["label"] = "tree"

    change_json(folder / f"{STEMS[0]}.json", change)


def relabel_supervisely(folder: Path) -> None:
    def change(values: Any) -> None:
        next(one for one in values["objects"] if one["classTitle"] == "car")["classTitle"] = "tree"

    change_json(folder / "images" / "ann" / f"{STEMS[0]}.png.json", change)


def repaint_png(folder: Path) -> None:
    path = folder / "masks" / f"{STEMS[0]}.png"
    ids = read_ids(path)
    ids[component(ids, *PLACE)] = NAMES.index("tree")
    Image.fromarray(ids).save(path)


def repaint_cvat(folder: Path) -> None:
    """Repaint a region, and pack the export as CVAT does: without a background's own label, in another order."""
    archive = folder / "cvat_masks.zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder / "files")
    archive.unlink()
    lines = (folder / "files" / "labelmap.txt").read_text().splitlines()
    colours = {line.split(":")[0]: [int(part) for part in line.split(":")[1].split(",")] for line in lines[1:]}
    path = folder / "files" / "SegmentationClass" / f"{STEMS[0]}.png"
    pixels = np.array(Image.open(path))
    where = component((pixels == colours["car"]).all(axis=2).astype(np.uint8), *PLACE)
    pixels[where] = colours["tree"]
    Image.fromarray(pixels).save(path)
    with zipfile.ZipFile(folder.parent / "export.zip", "w") as opened:
        for file in sorted((folder / "files").rglob("*"), reverse=True):
            opened.write(file, file.relative_to(folder / "files"))


CHANGES: dict[str, Callable[[Path], None]] = {
    "cvat": repaint_cvat,
    "coco": lambda folder: relabel_coco(folder, "instances_default.json"),
    "coco runs": lambda folder: relabel_coco(folder, "instances_default.json"),
    "label-studio": relabel_label_studio,
    "label-studio polygons": relabel_label_studio,
    "labelme": relabel_labelme,
    "labelme masks": relabel_labelme,
    "roboflow": lambda folder: relabel_coco(folder, "_annotations.coco.json"),
    "supervisely": relabel_supervisely,
    "png": repaint_png,
}
WHOLE_CLASSES = ("coco runs", "label-studio", "labelme masks", "supervisely")
"""Formats in which a class is one mask, so that all of it gets another label."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_region_changed_by_hand_changes_exactly_there(name: str, tmp_path: Path, call_refinenet: Any) -> None:
    write_photographs(tmp_path)
    ids = write_ids(tmp_path)
    write_drafts(call_refinenet, *FORMATS[name], *EXACT)
    CHANGES[name](tmp_path / export_of(name))
    export = "todo/export.zip" if name == "cvat" else export_of(name)
    taken = take(call_refinenet, export, "--drafts", "todo")
    where = ids[STEMS[0]] == 2 if name in WHOLE_CLASSES else component(ids[STEMS[0]], *PLACE)
    wanted = {**ids, STEMS[0]: np.where(where, 3, ids[STEMS[0]])}
    if name == "labelme":  # what lies in the hole of a filled region is drawn over it, and stays
        assert component(ids[STEMS[0]], *PLACE).sum() == where.sum()
    for stem in STEMS:
        assert np.array_equal(read_ids(tmp_path / "mine" / "masks" / f"{stem}.png"), wanted[stem]), stem
    changes = {image["image"]: image.get("changes", {}) for image in taken["images"]}
    assert changes == {**{stem: {} for stem in STEMS}, STEMS[0]: {"car > tree": int(where.sum())}}
