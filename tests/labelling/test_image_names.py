"""Names of images in `label take`: dots, folders, copies under other names, other images under the same name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_exports import (
    NAMES,
    TAKE,
    list_files,
    mask,
    picture,
    read,
    splits_of,
    write_dataset,
    write_drafts,
    write_export,
    write_pair,
)
from PIL import Image


def test_names_with_dots_are_whole(tmp_path: Path, call_refinenet: Any) -> None:
    """ "frame.0002" is not a file of the kind ".0002" that shows "frame"."""
    write_dataset(tmp_path / "mine")
    write_pair(tmp_path / "mine", "frame", mask(10))
    with (tmp_path / "mine" / "train.txt").open("a") as stream:
        stream.write("frame\n")
    masks = write_drafts(tmp_path, call_refinenet, "frame.0001", "frame.0002")
    (masks / "frame.0001.png").unlink()
    Image.fromarray(mask(9)).save(masks / "frame.0002.png")
    found = call_refinenet("label", "take", "todo/png", "--into", "mine", "--images", "photographs", "--json")
    assert found.returncode == 0, found.stderr
    assert [(one["image"], one["action"]) for one in json.loads(found.stdout)["images"]] == [("frame.0002", "new")]
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "frame.0002.png"), mask(9))
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "frame.png"), mask(10))
    again = call_refinenet(*TAKE, "mine", "--json")
    (image,) = json.loads(again.stdout)["images"]
    assert (image["image"], image["action"]) == ("frame.0002", "unchanged")


def test_folders_are_no_part_of_a_name(tmp_path: Path, call_refinenet: Any) -> None:
    """While the doctor examines them, "a/b" and "a__b" lie beside each other."""
    for stem, columns in (("a/b", 5), ("a__b", 9)):
        write_pair(tmp_path / "photographs", stem, mask(columns), ".", "../ids/masks")
    (tmp_path / "photographs" / "a__b.png").rename(tmp_path / "photographs" / "a__b.jpg")
    (tmp_path / "ids" / "classes.yaml").write_text(NAMES)
    options = ("photographs", "--recursive", "--masks", "ids", "-o", "todo", "--format", "png", "--min-area", "0")
    assert call_refinenet("label", "write", *options).returncode == 0
    found = call_refinenet(*TAKE, "mine", "--reviewed")
    assert found.returncode == 0, found.stderr
    for stem, columns in (("a/b", 5), ("a__b", 9)):
        assert np.array_equal(read(tmp_path / "mine" / "masks" / f"{stem}.png"), mask(columns))


def test_the_same_image_under_another_name_is_the_sample_that_is_there(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "copy.png").write_bytes((tmp_path / "mine" / "images" / "south_1.png").read_bytes())
    write_export(tmp_path / "export", copy=mask(7))
    found = call_refinenet("label", "take", "export", "--into", "mine", "--images", "photographs", "--json")
    assert found.returncode == 0, found.stderr
    (image,) = json.loads(found.stdout)["images"]
    assert (image["image"], image["action"], image["split"]) == ("south_1", "changed", "val")
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "south_1.png"), mask(7))
    assert not (tmp_path / "mine" / "images" / "copy.png").exists()


def test_another_image_of_the_same_name_goes_below_its_folder(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    before = list_files(tmp_path / "mine")
    masks = write_drafts(tmp_path, call_refinenet, "west_1", "north_1")
    Image.fromarray(picture(1)).save(tmp_path / "photographs" / "north_1.png")
    assert call_refinenet(*TAKE, "mine").returncode == 0
    after = list_files(tmp_path / "mine")
    assert after["masks/north_1.png"] == before["masks/north_1.png"]
    assert "masks/west_1.png" in after
    assert after["images/photographs/north_1.png"] == (tmp_path / "photographs" / "north_1.png").read_bytes()
    assert "photographs/north_1" in splits_of(tmp_path / "mine")["train"]
    # It is recognised there, whatever the two are called.
    Image.fromarray(mask(9)).save(masks / "north_1.png")
    again = call_refinenet(*TAKE, "mine", "--json")
    assert {one["image"]: one["action"] for one in json.loads(again.stdout)["images"]} == {
        "photographs/north_1": "changed",
        "west_1": "unchanged",
    }


def test_another_image_of_the_same_name_loses_no_labels(tmp_path: Path, call_refinenet: Any) -> None:
    """A folder called "val" below the images would look like a split."""
    write_dataset(tmp_path / "mine")
    before = list_files(tmp_path / "mine")
    write_drafts(tmp_path, call_refinenet, "west_1", "north_1")
    Image.fromarray(picture(1)).save(tmp_path / "photographs" / "north_1.png")
    (tmp_path / "photographs").rename(tmp_path / "val")
    text = (tmp_path / "todo" / "drafts.json").read_text()
    (tmp_path / "todo" / "drafts.json").write_text(text.replace("photographs", "val"))
    found = call_refinenet(*TAKE, "mine")
    assert found.returncode == 0, found.stderr
    assert "north_1 was left out: the dataset has another image of the name north_1" in found.stderr
    after = list_files(tmp_path / "mine")
    assert after["masks/north_1.png"] == before["masks/north_1.png"]
    assert "masks/west_1.png" in after


def test_roboflow_renames_images_and_exports_a_file_for_each_split(tmp_path: Path, call_refinenet: Any) -> None:
    for stem in ("a_1", "b_1"):
        write_pair(tmp_path / "photographs", stem, mask(5), ".", "../ids/masks")
    (tmp_path / "ids" / "classes.yaml").write_text(NAMES)
    options = ("photographs", "--masks", "ids", "-o", "todo", "--format", "roboflow", "--min-area", "0")
    assert call_refinenet("label", "write", *options, "--simplify", "0").returncode == 0
    written = json.loads((tmp_path / "todo" / "roboflow" / "_annotations.coco.json").read_text())
    for number, (split, stem) in enumerate((("train", "a_1"), ("valid", "b_1")), start=1):
        entries = [one for one in written["annotations"] if one["image_id"] == number]
        name = f"{stem}_png.rf.0123456789abcdef.jpg"
        images = [{**one, "file_name": name} for one in written["images"] if one["id"] == number]
        assert images[0]["id"] == number
        folder = tmp_path / "export" / split
        folder.mkdir(parents=True)
        Image.fromarray(picture(number)).save(folder / name)  # compressed again: the photograph is taken instead
        values = {**written, "images": images, "annotations": entries}
        (folder / "_annotations.coco.json").write_text(json.dumps(values))
    found = call_refinenet("label", "take", "export", "--drafts", "todo", "--into", "mine", "--reviewed")
    assert found.returncode == 0, found.stderr
    for stem in ("a_1", "b_1"):
        assert np.array_equal(read(tmp_path / "mine" / "masks" / f"{stem}.png"), mask(5))
        image = (tmp_path / "mine" / "images" / f"{stem}.png").read_bytes()
        assert image == (tmp_path / "photographs" / f"{stem}.png").read_bytes()


def test_names_that_lead_out_of_the_dataset_are_left_out(tmp_path: Path, call_refinenet: Any) -> None:
    for stem in ("a_1", "b_1"):
        write_pair(tmp_path / "photographs", stem, mask(5), ".", "../ids/masks")
    (tmp_path / "ids" / "classes.yaml").write_text(NAMES)
    options = ("photographs", "--masks", "ids", "-o", "todo", "--format", "supervisely")
    assert call_refinenet("label", "write", *options).returncode == 0
    project = tmp_path / "todo" / "supervisely" / "images"
    (project / "img" / "b_1.png").rename(project / "img" / "x__..__..__b_1.png")
    (project / "ann" / "b_1.png.json").rename(project / "ann" / "x__..__..__b_1.png.json")
    found = call_refinenet("label", "take", "todo/supervisely", "--into", "data/mine")
    assert found.returncode == 0, found.stderr
    assert "x/../../b_1 was left out: its name leads out of the dataset" in found.stderr.replace(".png", "")
    assert not list(tmp_path.glob("b_1*"))
    assert not list((tmp_path / "data").glob("b_1*"))


def write_supervisely(folder: Path, call_refinenet: Any, *stems: str) -> Path:
    """Write drafts as a project of Supervisely; return the folder of its annotations."""
    for number, stem in enumerate(stems):
        write_pair(folder / "photographs", stem, mask(5 + 4 * number), ".", "../ids/masks")
    (folder / "ids" / "classes.yaml").write_text(NAMES)
    options = ("photographs", "--recursive", "--masks", "ids", "-o", "todo", "--min-area", "0")
    assert call_refinenet("label", "write", *options, "--format", "supervisely").returncode == 0
    return folder / "todo" / "supervisely" / "images" / "ann"


def forget_descriptions(annotations: Path) -> None:
    """Make a project as versions wrote it that did not store the names of images."""
    for path in annotations.iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "description": ""}))


TAKE_PROJECT = ("label", "take", "todo/supervisely", "--drafts", "todo", "--into", "mine")


@pytest.mark.parametrize("is_old", [False, True], ids=["now", "by an earlier version"])
@pytest.mark.parametrize("stem", ["cam__{}", "town/street_{}"])
def test_drafts_in_supervisely_are_recognised(stem: str, is_old: bool, tmp_path: Path, call_refinenet: Any) -> None:
    """Its datasets have no folders, so that "town/street" is written as "town__street"."""
    stems = [stem.format(number) for number in range(3)]
    annotations = write_supervisely(tmp_path, call_refinenet, *stems)
    if is_old:
        forget_descriptions(annotations)
    refused = call_refinenet(*TAKE_PROJECT)
    assert "3 of 3 images came back exactly as drafted" in refused.stderr
    taken = call_refinenet(*TAKE_PROJECT, "--reviewed", "--json")
    assert taken.returncode == 0, taken.stderr
    assert [one["image"] for one in json.loads(taken.stdout)["images"]] == stems
    again = call_refinenet(*TAKE_PROJECT, "--json")
    assert {one["action"] for one in json.loads(again.stdout)["images"]} == {"unchanged"}
    # Without the drafts, the samples of the dataset tell which name is meant.
    again = call_refinenet("label", "take", "todo/supervisely", "--into", "mine", "--json")
    assert {one["action"] for one in json.loads(again.stdout)["images"]} == {"unchanged"}


def test_images_of_one_name_in_supervisely_keep_their_own_labels(tmp_path: Path, call_refinenet: Any) -> None:
    stems = ("a/b", "a__b", "a__b_2")
    annotations = write_supervisely(tmp_path, call_refinenet, *stems)
    assert len(list(annotations.iterdir())) == len(list((annotations.parent / "img").iterdir())) == 3
    found = call_refinenet(*TAKE_PROJECT, "--reviewed")
    assert found.returncode == 0, found.stderr
    for number, stem in enumerate(stems):
        assert np.array_equal(read(tmp_path / "mine" / "masks" / f"{stem}.png"), mask(5 + 4 * number))
        image = (tmp_path / "mine" / "images" / f"{stem}.png").read_bytes()
        assert image == (tmp_path / "photographs" / f"{stem}.png").read_bytes()


def test_a_name_with_two_meanings_in_supervisely_is_left_out(tmp_path: Path, call_refinenet: Any) -> None:
    """Earlier versions wrote both images to one file."""
    annotations = write_supervisely(tmp_path, call_refinenet, "a/b", "a__b", "c")
    forget_descriptions(annotations)
    (annotations / "a__b_2.png.json").unlink()
    found = call_refinenet(*TAKE_PROJECT, "--reviewed")
    assert found.returncode == 0, found.stderr
    assert "a/b.png was left out: its name may stand for a/b or a__b" in found.stderr
    assert [path.name for path in (tmp_path / "mine" / "masks").rglob("*.png")] == ["c.png"]


def test_two_files_of_an_image_in_supervisely_are_refused(tmp_path: Path, call_refinenet: Any) -> None:
    annotations = write_supervisely(tmp_path, call_refinenet, "a/b", "c")
    other = annotations.parents[1] / "a" / "ann" / "b.png.json"
    other.parent.mkdir(parents=True)
    other.write_text((annotations / "c.png.json").read_text())
    found = call_refinenet(*TAKE_PROJECT, "--reviewed")
    assert found.returncode == 1
    assert "are both of the image a/b.png: rename or delete one of them" in " ".join(found.stderr.split())
