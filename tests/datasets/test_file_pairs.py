"""Pairing of a folder's files, and reports of files that are not read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset

GENERATOR = np.random.default_rng(0)
CLASSES = "names: [soil, weed]\n"


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GENERATOR.integers(0, 256, (24, 32, 3), np.uint8)).save(path)


def save_mask(path: Path, column: int) -> None:
    """Create a mask whose columns from `column` on are of class 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((24, 32), np.uint8)
    mask[:, column:] = 1
    Image.fromarray(mask).save(path)


def draw(root: Path, image: str = "{}.png", mask: str = "{}.png", masks: str = "masks", shift: int = 1) -> None:
    for split in ("train", "val"):
        for k in range(3):
            name = f"{split}{k:03}"
            save_image(root / "images" / split / image.format(name))
            save_mask(root / masks / split / mask.format(name), k + shift)
    (root / "classes.yaml").write_text(CLASSES)


@pytest.mark.parametrize(("image", "mask"), [
    ("{}_image.png", "{}_mask.png"),
    ("img_{}.jpg", "mask_{}.png"),
    ("{}_sat.jpg", "{}_mask.png"),
    ("{}.jpg", "mask_{}.png"),
    ("{}_image.png", "{}.png"),
    ("{}_leftImg8bit.png", "{}_gtFine_labelIds.png"),
])  # fmt: skip
def test_marks_on_both_sides(tmp_path: Path, image: str, mask: str) -> None:
    draw(tmp_path, image, mask)
    dataset = open_dataset(str(tmp_path))("train")
    assert [int(dataset.labels(k).sum()) for k in range(3)] == [24 * (32 - k - 1) for k in range(3)]
    assert not doctor.check(tmp_path, progress=False, workers=0).findings


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif"])
def test_other_suffixes_are_read(tmp_path: Path, suffix: str) -> None:
    draw(tmp_path)
    for path in list((tmp_path / "images").rglob("*.png")):
        Image.open(path).save(path.with_suffix(suffix), "AVIF" if suffix == ".avif" else "JPEG")
        path.unlink()
    assert len(open_dataset(str(tmp_path))("train").items) == 3


def test_two_folders_of_masks_are_refused_until_one_is_named(tmp_path: Path) -> None:
    draw(tmp_path)
    draw(tmp_path, masks="annotations", shift=5)
    with pytest.raises(ValueError, match=r"masks and annotations .* `labels: masks`"):
        open_dataset(str(tmp_path))("train")
    for name, first in (("masks", 1), ("annotations", 5)):
        (tmp_path / "classes.yaml").write_text(f"{CLASSES}labels: {name}\n")
        assert int(open_dataset(str(tmp_path))("train").labels(0).sum()) == 24 * (32 - first)


def test_kinds_that_are_not_read_are_named(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    draw(source)
    (source / "images" / "train" / "photo.jxl").write_bytes(b"x")
    save_mask(source / "masks" / "train" / "photo.png", 4)
    save_image(source / "images" / "val" / "other.png")
    np.save(source / "masks" / "val" / "other.npy", np.zeros((24, 32)))
    (source / "images" / "val" / "alone.psd").write_bytes(b"x")
    (source / "images" / "val" / "val000.psd").write_bytes(b"x")
    report = doctor.check(source, progress=False, workers=0)
    assert {finding.kind: finding.count for finding in report.findings} == {
        "sample-kind-unread": 4, "file-kind-unread": 1,
    }  # fmt: skip
    changes = doctor.fix(source, tmp_path / "fixed", progress=False, workers=0)
    assert set(changes.files) == {
        "images/train/photo.jxl", "masks/train/photo.png", "images/val/other.png", "masks/val/other.npy",
        "images/val/alone.psd",
    }  # fmt: skip
    assert set(json.loads((tmp_path / "fixed" / "changes.json").read_text())["left_out_files"]) == set(changes.files)


def test_a_quick_check_finds_a_file_in_two_splits(tmp_path: Path) -> None:
    draw(tmp_path)
    assert not doctor.check(tmp_path, quick=True, progress=False, workers=0).findings
    shutil.copy(tmp_path / "images" / "val" / "val001.png", tmp_path / "images" / "train" / "train000.png")
    (found,) = doctor.check(tmp_path, quick=True, progress=False, workers=0).findings
    assert found.kind == "duplicates-across-splits"
    assert found.examples == ("images/train/train000.png = images/val/val001.png",)
