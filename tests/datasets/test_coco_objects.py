"""COCO's JSON files as written by annotation tools: painted objects, crowds, and invalid objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_files import write_json
from PIL import Image

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset

HEIGHT, WIDTH = 20, 30
SQUARE = [2, 3, 10, 3, 10, 8, 2, 8]
BRUSH = {"counts": [400, 60, 140], "size": [HEIGHT, WIDTH]}
"""The columns 20 to 22."""


def draw(root: Path, *more: dict[str, Any], **keys: Any) -> Path:
    """Create a folder in which each image has a square of "weed"; training images have more objects."""
    generator = np.random.default_rng(1)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        for k in (1, 2):
            pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{k}.png")
        entries = [{"id": k, "image_id": k, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0} for k in (1, 2)]
        extra = [{"id": 10 + n, "image_id": 1, "category_id": 2} | one for n, one in enumerate(more)]
        content = {
            "images": [{"id": k, "file_name": f"{split}{k}.png", "height": HEIGHT, "width": WIDTH} for k in (1, 2)],
            "categories": [{"id": 1, "name": "weed"}, {"id": 2, "name": "crop"}],
            "annotations": [*entries, *(extra if split == "train" else [])],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content | keys))
    return root


def read(root: Path) -> np.ndarray[Any, Any]:
    return open_dataset(str(root))("train").labels(0)


@pytest.mark.parametrize(("more", "keys", "is_void"), [
    ({"attributes": {"occluded": False}}, {}, False),
    ({}, {}, False),
    ({}, {"info": {"description": "COCO 2017 Dataset", "url": "http://cocodataset.org"}}, True),
    ({"id": 900100000001}, {}, True),
])  # fmt: skip
def test_what_iscrowd_stands_for(tmp_path: Path, more: dict[str, Any], keys: dict[str, Any], is_void: bool) -> None:
    root = draw(tmp_path, {"segmentation": BRUSH, "iscrowd": 1, **more}, **keys)
    with pytest.warns(UserWarning, match="void" if is_void else "treated as normal objects"):
        labels = read(root)
    names = open_dataset(str(root))("train").label_set.names
    assert set(np.unique(labels[:, 20:23])) == {255 if is_void else names.index("crop")}
    assert (labels[:, 23:] == names.index("background")).all()
    kinds = {finding.kind for finding in doctor.check(root, progress=False, workers=0).findings}
    assert ("crowds-void" in kinds, "crowds-labelled" in kinds) == (is_void, not is_void)


@pytest.mark.parametrize("wanted", ["labels", "void"])
@pytest.mark.filterwarnings("ignore:.*iscrowd")
def test_classes_yaml_decides(tmp_path: Path, wanted: str) -> None:
    root = draw(tmp_path, {"segmentation": BRUSH, "iscrowd": 1})
    (root / "classes.yaml").write_text(f"crowds: {wanted}\n")
    assert (read(root)[:, 20:23] == 255).all() == (wanted == "void")
    (root / "classes.yaml").write_text("crowds: some\n")
    with pytest.raises(ValueError, match=r"'crowds' must be auto, labels or void, not 'some'"):
        read(root)


UNUSABLE: tuple[dict[str, Any], ...] = (
    {"segmentation": []},
    {"segmentation": None},
    {"segmentation": [[1, 2, 3, 4]]},
    {"segmentation": [SQUARE], "area": float("nan")},
    {"segmentation": [SQUARE], "iscrowd": 7},
    {"segmentation": BRUSH | {"size": [3, 4]}},
    {"segmentation": BRUSH | {"counts": [1]}},
    {"segmentation": [SQUARE], "category_id": 9},
    {"segmentation": [SQUARE], "image_id": 9},
)


def test_all_unusable_objects_are_listed_and_left_out_of_the_copy(tmp_path: Path) -> None:
    root = draw(tmp_path / "mine", *UNUSABLE, {"segmentation": [[20, 0, 25, 0, 25, 20, 20, 20]]})
    with pytest.raises(ValueError, match="id 10") as caught:
        read(root)
    assert all(f"id {10 + n}:" in str(caught.value) for n in range(5))
    report = doctor.check(root, progress=False, workers=0)
    assert {one.kind: one.count for one in report.findings if one.stops} == {"labels-invalid": len(UNUSABLE)}
    changes = doctor.fix(root, tmp_path / "fixed", progress=False, workers=0)
    assert changes.annotations.count == len(UNUSABLE)
    listed = json.loads((tmp_path / "fixed" / "changes.json").read_text())["left_out_annotations"]
    assert all(any(f"id {10 + n}:" in line for line in listed) for n in range(len(UNUSABLE)))
    dataset = open_dataset(str(tmp_path / "fixed"))("train")
    names, labels = dataset.label_set.names, dataset.labels(0)
    assert (labels[4:7, 4:9] == names.index("weed")).all()
    assert (labels[:, 20:24] == names.index("crop")).all()


@pytest.mark.parametrize("more", [{"iscrowd": None}, {"iscrowd": False}, {"image_id": "1"}, {"image_id": 1.0}])
def test_harmless_spellings_are_read(tmp_path: Path, more: dict[str, Any]) -> None:
    root = draw(tmp_path, {"segmentation": [[20, 0, 25, 0, 25, 20, 20, 20]]} | more)
    names = open_dataset(str(root))("train").label_set.names
    assert (read(root)[:, 20:24] == names.index("crop")).all()


def test_files_of_a_copy_have_the_stem_of_their_image(tmp_path: Path) -> None:
    """Only images that differ in nothing but their suffix keep it."""
    root = tmp_path / "mine"
    names = ["IMG_1.JPG", "b/c.v2.png", "both.jpg", "Both.png", "both-2.png"]
    for number, name in enumerate(names):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    for split in ("train", "val"):
        chosen = [(k, name) for k, name in enumerate(names) if (split == "val") == (name == "both-2.png")]
        shapes = {k: [[k, 0, 25, 0, 25, 20, 20, 20]] for k, _ in chosen}
        write_json(root / "annotations" / f"instances_{split}.json", {
            "images": [{"id": k, "file_name": name, "height": 30, "width": 40} for k, name in chosen],
            "annotations": [{"id": k, "image_id": k, "category_id": 1, "segmentation": shapes[k]} for k in shapes],
            "categories": [{"id": 1, "name": "crop"}],
        })  # fmt: skip
    doctor.fix(root, tmp_path / "copy", progress=False, workers=0)
    files = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert files == {
        "images/train/IMG_1.JPG", "images/train/b__c.v2.png", "images/train/both.jpg.jpg", "images/train/Both.png.png",
        "masks/train/IMG_1.png", "masks/train/b__c.v2.png", "masks/train/both.jpg.png", "masks/train/Both.png.png",
        "images/val/both-2.png", "masks/val/both-2.png", "classes.yaml", "changes.json",
    }  # fmt: skip
    sources = open_dataset(str(root))("train")
    labels = {item: sources.labels(index) for index, item in enumerate(sources.items)}
    copy = open_dataset(str(tmp_path / "copy"))("train")
    found = {item: copy.labels(index) for index, item in enumerate(copy.items)}
    for item, name in (("IMG_1.JPG", "IMG_1"), ("both.jpg", "both.jpg"), ("Both.png", "Both.png")):
        np.testing.assert_array_equal(found[name], labels[item])
