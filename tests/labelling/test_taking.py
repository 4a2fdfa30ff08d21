"""Labels into a dataset: splits, copies, the log, refusals; through the command line."""

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

from refinenet.datasets.catalog import open_dataset


def test_new_frames_join_the_split_of_their_drive(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    stems = ("north_9", "south_7", "west_1", "west_2")
    for stem in stems:
        write_pair(tmp_path / "photographs", stem, mask(5), ".", "../unused")
    write_export(tmp_path / "export", **{stem: mask(5) for stem in stems})
    found = call_refinenet("label", "take", "export", "--into", "mine", "--images", "photographs")
    assert found.returncode == 0, found.stderr
    train, val = ((tmp_path / "mine" / f"{name}.txt").read_text().split() for name in ("train", "val"))
    assert "north_9" in train
    assert "south_7" in val
    assert {"west_1", "west_2"} <= set(train)  # 2 of 8 are for validation already
    assert "4 new images (3 in train, 1 in val)" in found.stdout
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "south_7.png"), mask(5))


def test_images_of_a_folder_without_lists_stay_where_they_were_dealt(tmp_path: Path, call_refinenet: Any) -> None:
    """Cameras number photographs alike, so all are one group; the old ones must not become validation images."""
    for number in range(10):
        write_pair(tmp_path / "mine", f"IMG_{number:04}", mask(10))
    (tmp_path / "mine" / "classes.yaml").write_text(NAMES)
    before = {split: set(open_dataset(tmp_path / "mine")(split).items) for split in ("train", "val")}
    stems = ("IMG_0020", "IMG_0031", "IMG_0042")
    for stem in stems:
        write_pair(tmp_path / "photographs", stem, mask(5), ".", "../unused")
    write_export(tmp_path / "export", **{stem: mask(5) for stem in stems})
    found = call_refinenet("label", "take", "export", "--into", "mine", "--images", "photographs")
    assert found.returncode == 0, found.stderr
    after = {split: set(open_dataset(tmp_path / "mine")(split).items) for split in ("train", "val")}
    assert after == {"train": before["train"] | set(stems), "val": before["val"]}
    assert "Wrote lists of the splits: earlier images keep their split" in found.stdout


def test_only_what_changed_is_written_and_what_was_there_is_kept(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    before = list_files(tmp_path / "mine")
    corrected = mask(10)
    corrected[2:5, 3:9] = 2
    write_export(tmp_path / "export", north_1=corrected, north_2=mask(10), south_1=mask(10))
    found = call_refinenet("label", "take", "export", "--into", "mine", "--json")
    assert found.returncode == 0, found.stderr
    values = json.loads(found.stdout)
    actions = {image["image"]: image["action"] for image in values["images"]}
    assert actions == {"north_1": "changed", "north_2": "unchanged", "south_1": "unchanged"}
    after = list_files(tmp_path / "mine")
    assert {name for name in after if after[name] != before.get(name)} == {
        "masks/north_1.png",
        ".before/0001/masks/north_1.png",
        "labels_taken.jsonl",
    }
    assert after[".before/0001/masks/north_1.png"] == before["masks/north_1.png"]
    (line,) = (json.loads(line) for line in after["labels_taken.jsonl"].splitlines())
    assert (line["image"], line["pixels"], line["changes"]) == ("north_1", 18, {"road > tree": 18})
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "north_1.png"), corrected)
    again = json.loads(call_refinenet("label", "take", "export", "--into", "mine", "--json").stdout)
    assert {image["action"] for image in again["images"]} == {"unchanged"}


def test_a_copy_takes_the_labels_instead(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    before = list_files(tmp_path / "mine")
    write_export(tmp_path / "export", north_1=mask(12))
    found = call_refinenet("label", "take", "export", "--into", "mine", "--output", "grown")
    assert found.returncode == 0, found.stderr
    assert list_files(tmp_path / "mine") == before
    assert np.array_equal(read(tmp_path / "grown" / "masks" / "north_1.png"), mask(12))
    found = call_refinenet("label", "take", "export", "--into", "mine", "--output", "grown")
    assert found.returncode == 1
    assert "grown is not empty" in found.stderr


def test_the_doctor_refuses_before_anything_is_changed(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    before = list_files(tmp_path / "mine")
    write_export(tmp_path / "export", north_1=mask(12), west_1=mask(3))
    write_pair(tmp_path / "photographs", "west_1", mask(3), ".", "../unused")
    image = tmp_path / "photographs" / "west_1.png"
    image.write_bytes(image.read_bytes()[:400])
    found = call_refinenet("label", "take", "export", "--into", "mine", "--images", "photographs")
    assert found.returncode == 1
    assert "Nothing was changed. export cannot be taken as it is" in found.stderr
    assert "west_1" in found.stderr
    assert list_files(tmp_path / "mine") == before


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        ("names: [road, tram, tree]\n", mask(12), r"label 'tram', which is not one of road, car, tree"),
        (NAMES, mask(12)[:20], "32x20 pixels (width x height), its image has 32x24"),
    ],
)
def test_unknown_labels_and_other_sizes_are_errors(
    names: str, ids: Any, message: str, tmp_path: Path, call_refinenet: Any
) -> None:
    write_dataset(tmp_path / "mine")
    before = list_files(tmp_path / "mine")
    write_export(tmp_path / "export", north_1=ids)
    (tmp_path / "export" / "classes.yaml").write_text(names)
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert found.returncode == 1
    assert message in found.stderr
    assert list_files(tmp_path / "mine") == before


def test_labels_of_other_names_become_classes_of_the_dataset(tmp_path: Path, call_refinenet: Any) -> None:
    """As the message about a label that is no class advises: renamed, merged, and left out."""
    write_dataset(tmp_path / "mine")
    ids = mask(10)
    ids[:4], ids[4:8] = 3, 4
    write_export(tmp_path / "export", north_1=ids)
    (tmp_path / "export" / "classes.yaml").write_text("names: [road, Car, tree, van, sky]\n")
    command = ("label", "take", "export", "--into", "mine")
    refused = call_refinenet(*command)
    assert "has the label 'Car', which is not one of road, car, tree. Did you mean car? `label take`" in refused.stderr
    assert "--rename 'Car'=CLASS" in refused.stderr
    renames = ("--rename", "Car=car", "--rename", "van=car", "--rename", "sky=void")
    taken = call_refinenet(*command, *renames)
    assert taken.returncode == 0, taken.stderr
    expected = mask(10)
    expected[:4], expected[4:8] = 1, 255
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "north_1.png"), expected)
    assert "1 unchanged" in call_refinenet(*command, *renames).stdout
    for words, message in (
        ("Vann=car", "there is no label 'Vann' to rename. Did you mean van?"),
        ("van=lorry", "'van' cannot become 'lorry', which is not one of road, car, tree."),
        ("van", "'van' is not LABEL=CLASS, such as person=Pedestrian."),
    ):
        refused = call_refinenet(*command, "--rename", words)
        assert refused.returncode != 0
        assert message in " ".join(refused.stderr.replace("│", " ").split())


def test_a_new_dataset_has_the_new_names(tmp_path: Path, call_refinenet: Any) -> None:
    write_pair(tmp_path / "photographs", "a_1", mask(5), ".", "../unused")
    write_pair(tmp_path / "photographs", "b_1", mask(5), ".", "../unused")
    write_export(tmp_path / "export", a_1=mask(5), b_1=mask(5))
    command = ("label", "take", "export", "--into", "mine", "--images", "photographs", "--rename", "car=Vehicle")
    taken = call_refinenet(*command, "--rename", "tree=void")
    assert taken.returncode == 0, taken.stderr
    dataset = open_dataset(tmp_path / "mine")("train")
    assert set(dataset.label_set.names) == {"background", "Vehicle", "road"}
    names = [*dataset.label_set.names, *["void"] * 300]
    assert [names[k] for k in dataset.labels(0)[[0, 0, 20], [0, 9, 0]]] == ["road", "Vehicle", "void"]


def test_images_that_came_back_as_proposed_can_be_left_out(tmp_path: Path, call_refinenet: Any) -> None:
    masks = write_drafts(tmp_path, call_refinenet, "a_1", "b_1")
    Image.fromarray(mask(9)).save(masks / "b_1.png")
    all_of_them = call_refinenet(*TAKE, "both")
    assert "2 new images (1 in train, 1 in val)" in all_of_them.stdout
    assert "1 of them came back exactly as drafted: they are used only for training" in all_of_them.stdout
    found = call_refinenet(*TAKE, "mine", "--only-corrected")
    assert found.returncode == 0, found.stderr
    assert "a_1 was left out: its draft came back unchanged" in found.stderr
    assert [path.stem for path in (tmp_path / "mine" / "masks").iterdir()] == ["b_1"]


def test_a_class_called_void_stays_a_class_of_a_new_dataset(tmp_path: Path, call_refinenet: Any) -> None:
    for stem in ("a_1", "b_1"):
        write_pair(tmp_path / "photographs", stem, mask(5), ".", "../ids/masks")
    (tmp_path / "ids" / "classes.yaml").write_text("names: [road, void, tree]\n")
    options = ("photographs", "--masks", "ids", "-o", "todo", "--format", "png", "--min-area", "0")
    assert call_refinenet("label", "write", *options).returncode == 0
    assert call_refinenet(*TAKE, "mine", "--reviewed").returncode == 0
    assert open_dataset(tmp_path / "mine")("train").label_set.names == ("road", "void", "tree")
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "a_1.png"), mask(5))


def test_drafts_that_came_back_unchanged_never_validate(tmp_path: Path, call_refinenet: Any) -> None:
    """A model would be measured by its own predictions; `--val` asks for as many validation images as possible."""
    write_dataset(tmp_path / "mine")
    stems = [f"{letter}_1" for letter in "abcdefgh"]
    masks = write_drafts(tmp_path, call_refinenet, *stems, "north_7", "south_7")
    for stem in ("c_1", "f_1"):
        Image.fromarray(mask(9)).save(masks / f"{stem}.png")
    found = call_refinenet(*TAKE, "mine", "--val", "0.9", "--output", "grown")
    assert found.returncode == 0, found.stderr
    splits = splits_of(tmp_path / "grown")
    assert splits["val"] == {"south_1", "c_1", "f_1"}
    assert {"north_7", *stems} - {"c_1", "f_1"} <= splits["train"]
    # A frame of a drive that validates can be in neither split: in train it would leak.
    assert "south_7 was left out: its draft came back unchanged, and images related to it are not in train" in (
        " ".join(found.stderr.split())
    )
    assert not list((tmp_path / "grown").rglob("south_7.*"))
    found = call_refinenet(*TAKE, "mine", "--val", "0.9", "--output", "reviewed", "--reviewed")
    assert "8 of them came back exactly as drafted, and count as correct" in found.stdout
    assert splits_of(tmp_path / "reviewed")["val"] > {"south_1", "south_7", "c_1", "f_1"}


@pytest.mark.parametrize("stems", [("a_1", "b_1", "c_1", "d_1"), ("000", "001", "002", "003")], ids=["drives", "video"])
def test_unchanged_drafts_never_validate_in_a_new_dataset(
    stems: tuple[str, ...], tmp_path: Path, call_refinenet: Any
) -> None:
    masks = write_drafts(tmp_path, call_refinenet, *stems)
    found = call_refinenet(*TAKE, "mine")
    assert found.returncode == 1
    assert "Nothing was changed. 4 of 4 images came back exactly as drafted" in found.stderr
    assert not (tmp_path / "mine").exists()
    Image.fromarray(mask(9)).save(masks / f"{stems[1]}.png")
    assert call_refinenet(*TAKE, "mine").returncode == 0
    assert splits_of(tmp_path / "mine") == {"train": {*stems} - {stems[1]}, "val": {stems[1]}}
    Image.fromarray(mask(5)).save(masks / f"{stems[1]}.png")
    assert call_refinenet(*TAKE, "reviewed", "--reviewed").returncode == 0
    assert len(splits_of(tmp_path / "reviewed")["val"]) == 1


def test_masks_are_written_in_the_encoding_of_the_dataset(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    colours = np.array([[128, 64, 128], [0, 0, 142], [107, 142, 35]], np.uint8)
    for path in (tmp_path / "mine" / "masks").iterdir():
        Image.fromarray(colours[read(path)]).save(path)
    text = "masks: colours\ncolours: [[128, 64, 128], [0, 0, 142], [107, 142, 35]]\nignore: [[255, 255, 255]]\n"
    (tmp_path / "mine" / "classes.yaml").write_text(NAMES + text)
    corrected = mask(12)
    corrected[:3] = 255
    write_export(tmp_path / "export", north_1=corrected)
    assert call_refinenet("label", "take", "export", "--into", "mine").returncode == 0
    found = read(tmp_path / "mine" / "masks" / "north_1.png")
    assert (found[:3] == 255).all()
    assert np.array_equal(found[3:], colours[corrected[3:]])


def test_folders_of_other_labels_are_refused_with_advice(tmp_path: Path, call_refinenet: Any) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    folder = tmp_path / "mine"
    folder.mkdir()
    for stem in ("a", "b"):
        Image.fromarray(picture(0)).save(folder / f"{stem}.png")
        shape = {"label": "car", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
        values = {"shapes": [shape], "imageHeight": 24, "imageWidth": 32, "imagePath": f"{stem}.png"}
        (folder / f"{stem}.json").write_text(json.dumps(values))
    write_export(tmp_path / "export", a=mask(3))
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert found.returncode == 1
    assert "refinenet data check mine --fix COPY" in found.stderr


def test_pixels_of_low_confidence_are_left_to_the_person(tmp_path: Path, call_refinenet: Any) -> None:
    from refinenet import RefineNet

    model = RefineNet(encoder="test_resnet", num_classes=3, device="cpu", backend="pytorch", seed=3)
    model.save(tmp_path / "mine.safetensors")
    (tmp_path / "photographs").mkdir()
    Image.fromarray(picture(5)).save(tmp_path / "photographs" / "a.png")
    confidence = model.segment(tmp_path / "photographs" / "a.png").confidence
    limit = float(np.median(confidence))
    options = ("-m", "mine.safetensors", "-o", "todo", "--format", "png", "--min-area", "0", "--min-confidence", limit)
    found = call_refinenet("label", "write", "photographs", *options, "--backend", "pytorch")
    assert found.returncode == 0, found.stderr
    ids = read(tmp_path / "todo" / "png" / "masks" / "a.png")
    assert np.array_equal(ids == 255, confidence < limit)
    assert 0.2 < (ids == 255).mean() < 0.8


def test_tasks_of_label_studio_that_nobody_submitted_are_named(tmp_path: Path, call_refinenet: Any) -> None:
    for stem in ("a_1", "b_1", "c_1"):
        write_pair(tmp_path / "photographs", stem, mask(5), ".", "../ids/masks")
    (tmp_path / "ids" / "classes.yaml").write_text(NAMES)
    options = ("photographs", "--masks", "ids", "-o", "todo", "--format", "label-studio")
    assert call_refinenet("label", "write", *options).returncode == 0
    path = tmp_path / "todo" / "label-studio" / "label_studio.json"
    tasks = json.loads(path.read_text())
    shapes = [task["predictions"][0]["result"] for task in tasks]
    old = [{**shape, "value": {**shape["value"], "brushlabels": ["tree"]}} for shape in shapes[0]]
    tasks[0]["annotations"] = [{"result": old}, {"result": shapes[0]}, {"result": old, "was_cancelled": True}]
    tasks[1]["annotations"] = []
    tasks[2]["annotations"] = [{"result": shapes[2], "was_cancelled": True}]
    path.write_text(json.dumps(tasks))
    found = call_refinenet("label", "take", "todo/label-studio", "--drafts", "todo", "--into", "mine")
    assert found.returncode == 0, found.stderr
    for name in ("b_1", "c_1"):
        assert f"{name}.png was left out: its task was not submitted" in found.stderr
    assert [path.name for path in (tmp_path / "mine" / "masks").iterdir()] == ["a_1.png"]
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "a_1.png"), mask(5))


def write_label_studio(folder: Path, call_refinenet: Any, names: str, *options: str, **ids: Any) -> Path:
    """Write drafts for Label Studio, of which the first is all background; return the file of tasks."""
    for stem, labels in ids.items():
        write_pair(folder / "photographs", stem, labels, ".", "../ids/masks")
    (folder / "ids" / "classes.yaml").write_text(names)
    words = ("photographs", "--masks", "ids", "-o", "todo", "--format", "label-studio", "--min-area", "0", *options)
    assert call_refinenet("label", "write", *words).returncode == 0
    return folder / "todo" / "label-studio" / "label_studio.json"


CLEARED = "names: [background, car, tree]\n"


def test_an_image_cleared_in_label_studio_is_background(tmp_path: Path, call_refinenet: Any) -> None:
    """Submitted without any shape, it is no image that nobody opened, and may validate."""
    path = write_label_studio(tmp_path, call_refinenet, CLEARED, a_1=mask(5), b_1=mask(5), c_1=np.zeros_like(mask(5)))
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    tasks[0]["annotations"] = [{"result": []}]
    path.write_text(json.dumps(tasks))
    found = call_refinenet("label", "take", "todo/label-studio", "--drafts", "todo", "--into", "mine", "--json")
    assert found.returncode == 0, found.stderr
    images = {one["image"]: one for one in json.loads(found.stdout)["images"]}
    assert {name: one["action"] for name, one in images.items()} == dict.fromkeys(("a_1", "b_1", "c_1"), "new")
    assert images["a_1"]["changes"] == {"tree > background": 192, "car > background": 486}
    assert images["c_1"]["is_reviewed"]  # its draft was background
    for name in ("a_1", "c_1"):
        assert not read(tmp_path / "mine" / "masks" / f"{name}.png").any()
    # Without the drafts, only the dataset tells the sizes.
    again = call_refinenet("label", "take", "todo/label-studio", "--into", "mine", "--json")
    assert {one["action"] for one in json.loads(again.stdout)["images"]} == {"unchanged"}
    command = ("label", "take", "todo/label-studio", "--into", "other", "--images", "photographs")
    assert "a_1.png was left out: it has no shapes, which would tell the size" in call_refinenet(*command).stderr


def test_an_image_without_shapes_is_left_out_where_no_class_is_background(tmp_path: Path, call_refinenet: Any) -> None:
    path = write_label_studio(tmp_path, call_refinenet, NAMES, a_1=mask(5), b_1=mask(5))
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"] = [{"result": []}]
    tasks[1]["annotations"] = [{"result": tasks[1]["predictions"][0]["result"]}]
    path.write_text(json.dumps(tasks))
    found = call_refinenet("label", "take", "todo/label-studio", "--drafts", "todo", "--into", "mine")
    assert found.returncode == 0, found.stderr
    assert "a_1.png was left out: it has no shapes, and no class of the dataset is background" in found.stderr


def test_a_shape_drawn_where_the_draft_had_none_is_taken(tmp_path: Path, call_refinenet: Any) -> None:
    empty = np.zeros_like(mask(5))
    path = write_label_studio(tmp_path, call_refinenet, CLEARED, "--shapes", "polygons", a_1=empty, b_1=mask(5))
    tasks = json.loads(path.read_text())
    shapes = tasks[1]["predictions"][0]["result"]
    for task in tasks:
        task["annotations"] = [{"result": shapes}]
    path.write_text(json.dumps(tasks))
    found = call_refinenet("label", "take", "todo/label-studio", "--drafts", "todo", "--into", "mine")
    assert found.returncode == 0, found.stderr
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "a_1.png"), mask(5))


def test_an_export_of_none_of_the_drafts_is_refused_and_of_some_is_told(tmp_path: Path, call_refinenet: Any) -> None:
    """What was not drafted counts as a person's work; with the drafts of other images, untouched drafts would."""
    write_dataset(tmp_path / "mine")
    write_drafts(tmp_path, call_refinenet, "a_1", "b_1")
    write_export(tmp_path / "export", north_1=mask(12), north_2=mask(10))
    before = list_files(tmp_path / "mine")
    command = ("label", "take", "export", "--drafts", "todo", "--into", "mine")
    found = call_refinenet(*command)
    assert found.returncode == 1
    assert "export has labels of 2 images, such as north_1, none of which has a draft in todo" in found.stderr
    assert list_files(tmp_path / "mine") == before
    write_export(tmp_path / "export", a_1=mask(9))
    found = call_refinenet(*command)
    assert found.returncode == 0, found.stderr
    assert "2 of 3 images have no draft in todo: north_1, north_2. All of their labels count as a person's." in (
        " ".join(found.stderr.split())
    )
    lines = (tmp_path / "mine" / "labels_taken.jsonl").read_text().splitlines()
    assert [one["image"] for one in map(json.loads, lines) if one.get("has_no_draft")] == ["north_1"]
