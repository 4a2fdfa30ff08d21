"""COCO files whose images are missing, lie elsewhere, are named in another case, or are not listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet.datasets import doctor
from refinenet.datasets.doctor.findings import Finding
from refinenet.datasets.folder.folder import open_split
from refinenet.datasets.split import split_folder

NAMES = [f"IMG_{4000 + k}.PNG" for k in range(10)]
BOX = [[5, 5, 25, 5, 25, 15, 5, 15]]


def draw(root: Path, files: list[str], place: str = "images", split: str = "default") -> Path:
    """Write a COCO file of the ten `NAMES`, with a box in each, and pictures with the names `files`."""
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    generator = np.random.default_rng(3)
    for name in files:
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), np.uint8)).save(root / place / name)
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps({
        "images": [{"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "segmentation": BOX, "area": 200, "iscrowd": 0}
            for k in range(len(NAMES))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }))  # fmt: skip
    return path


def find_all(root: Path) -> dict[str, Finding]:
    return {finding.kind: finding for finding in doctor.check(root, workers=0, progress=False).findings}


def test_an_export_without_images_says_where_to_put_them(tmp_path: Path) -> None:
    path = draw(tmp_path, [])
    (refused,) = find_all(tmp_path).values()
    assert refused.examples == ("train", "val")
    assert f"{path} names 10 images, and none of them is in {tmp_path / 'images'}: put them there" in refused.meaning
    (tmp_path / "images").rmdir()
    (refused,) = find_all(tmp_path).values()
    assert f"is in {tmp_path}, which has no folder images: put them into {tmp_path / 'images'} (" in refused.meaning


@pytest.mark.parametrize("has_images", [False, True])
def test_a_folder_that_holds_the_images_is_named(has_images: bool, tmp_path: Path) -> None:
    draw(tmp_path, NAMES, "photos")
    draw(tmp_path, NAMES[:3], "some")
    if has_images:
        (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path / 'photos'} holds 10 files of these names\.$"):
        open_split(tmp_path, "train")


def test_images_above_the_folder_that_is_searched_are_named(tmp_path: Path) -> None:
    draw(tmp_path, NAMES, "images")
    (tmp_path / "images" / "default").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"none .* in {tmp_path}/images/default: .*/images holds 10 files"):
        open_split(tmp_path, "train")


def test_all_missing_images_are_one_finding_and_the_others_are_checked(tmp_path: Path) -> None:
    draw(tmp_path / "mine", NAMES[2:])
    (tmp_path / "mine" / "images" / NAMES[4]).write_bytes(b"")
    report = doctor.check(tmp_path / "mine", workers=0)
    missing, empty = sorted(report.findings, key=lambda finding: -finding.count)
    assert (missing.kind, missing.count, missing.examples) == ("listed-image-missing", 2, tuple(NAMES[:2]))
    assert f"names 10 images, and 2 of them are not in {tmp_path / 'mine' / 'images'}: " in missing.meaning
    assert (empty.kind, report.checked) == ("image-empty", 8)
    with pytest.raises(FileNotFoundError, match=f"2 of them are not .*{NAMES[0]}, {NAMES[1]}"):
        open_split(tmp_path / "mine", "val")


def test_a_copy_leaves_missing_images_out_and_lists_them(tmp_path: Path) -> None:
    draw(tmp_path / "mine", NAMES[2:])
    changes = doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0, progress=False)
    assert sum(changes.written.values()) == 8
    places = [f"annotations/instances_default.json: {name}" for name in NAMES[:2]]
    assert list(changes.to_dict()["left_out_files"]) == places
    assert not find_all(tmp_path / "copy")


def test_a_copy_of_no_images_is_not_refused_for_unknown_classes(tmp_path: Path) -> None:
    draw(tmp_path / "mine", [])
    with pytest.raises(ValueError, match=r"(?s)No sample would be left in train, val.*none of them is in"):
        doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0, progress=False)


def test_a_single_image_that_is_there_is_not_called_all(tmp_path: Path) -> None:
    draw(tmp_path, NAMES[:1])
    found = find_all(tmp_path)
    assert found["listed-image-missing"].count == 9
    assert "has only one image, which is used for validation" in found["split-refused"].meaning


def test_images_without_an_entry_are_warned_of(tmp_path: Path) -> None:
    draw(tmp_path, [*NAMES, "new.png"])
    (finding,) = find_all(tmp_path).values()
    assert (finding.kind, finding.stops, finding.examples) == ("image-unlisted", False, ("images/new.png",))
    assert "It is not used." in finding.meaning


def test_an_image_of_another_split_is_not_unlisted(tmp_path: Path) -> None:
    for split, names in (("train", NAMES[:6]), ("val", NAMES[6:])):
        path = draw(tmp_path, NAMES, split=split)
        content = json.loads(path.read_text())
        content["images"] = [image for image in content["images"] if image["file_name"] in names]
        known = {image["id"] for image in content["images"]}
        content["annotations"] = [shape for shape in content["annotations"] if shape["image_id"] in known]
        path.write_text(json.dumps(content))
    assert not find_all(tmp_path)
    path.unlink()
    assert find_all(tmp_path)["image-unlisted"].count == 4
    path.write_text("{")  # what it names is unknown
    assert "image-unlisted" not in find_all(tmp_path)


def test_names_that_differ_in_case_are_pointed_out(tmp_path: Path) -> None:
    draw(tmp_path, ["img_4001.png", NAMES[0], *NAMES[2:]])
    text = "There is img_4001.png, which differs from IMG_4001.PNG in upper and lower case: make the names equal."
    assert find_all(tmp_path)["listed-image-missing"].meaning.endswith(text)
    (tmp_path / "images" / NAMES[2]).rename(tmp_path / "images" / "Img_4002.PNG")
    assert "lower case (2 names differ so): make" in find_all(tmp_path)["listed-image-missing"].meaning


def test_splitting_says_how_a_coco_file_is_divided_and_that_works(tmp_path: Path) -> None:
    path = draw(tmp_path, NAMES)
    with pytest.raises(ValueError, match=r"divide instances_default\.json into annotations/instances_train") as caught:
        split_folder(tmp_path)
    assert "without splits" not in str(caught.value)
    content = json.loads(path.read_text())
    for split, chosen in (("Train", range(7)), ("Validation", range(7, 10))):  # as CVAT names them
        parts = {
            "images": [image for image in content["images"] if image["id"] in chosen],
            "annotations": [shape for shape in content["annotations"] if shape["image_id"] in chosen],
        }
        (path.parent / f"instances_{split}.json").write_text(json.dumps(content | parts))
    assert open_split(tmp_path, "train").items == NAMES[:7]
    assert open_split(tmp_path, "val").items == NAMES[7:]
    assert not find_all(tmp_path)
