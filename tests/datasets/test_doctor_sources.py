"""Sources that the doctor checks: folders, lists, YAML and COCO files, datasets known by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import (
    kinds_of,
)
from planted_samples import NAMES, draw, draw_folder, save

from refinenet.datasets import doctor
from refinenet.datasets.catalog import find_root
from refinenet.datasets.doctor.examination import examine
from refinenet.datasets.doctor.split_rules import find_near
from refinenet.datasets.info import describe
from refinenet.io.console import write_command

SIZE = (96, 72)


def test_a_folder_without_splits(tmp_path: Path) -> None:
    for number in range(10):
        image, ids = draw(number, *SIZE)
        save(tmp_path / "images" / f"{number}.png", image)
        save(tmp_path / "masks" / f"{number}.png", Image.fromarray(ids))
    (tmp_path / "classes.yaml").write_text(NAMES)
    assert doctor.check(tmp_path, workers=0).findings == ()
    (tmp_path / "images" / "3.png").rename(tmp_path / "images" / "X.png")
    (tmp_path / "masks" / "3.png").rename(tmp_path / "masks" / "x.png")
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"stem-case": 1}


def test_names_paths_and_roots_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no dataset 'nonsense'"):
        doctor.check("nonsense")
    with pytest.raises(FileNotFoundError, match="has no recognised layout"):
        doctor.check(tmp_path)
    draw_folder(tmp_path, 5, SIZE)
    with pytest.raises(ValueError, match="has no effect"):
        doctor.check(tmp_path, root=tmp_path)
    with pytest.raises(FileNotFoundError, match="data prepare camvid"):
        doctor.check("camvid", root=tmp_path / "nowhere")


def test_a_dataset_known_by_name(tmp_path: Path) -> None:
    """Its labels are read by its own reader: CamVid's void, 11 on disk, is no fault, and a 12 is."""
    for number in range(4):
        split = "val" if number == 3 else "train"
        image, _ = draw(number, *SIZE)
        ids = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]) % 12
        save(tmp_path / split / f"{number}.png", image)
        save(tmp_path / f"{split}annot" / f"{number}.png", Image.fromarray(ids.astype(np.uint8)))
    report = doctor.check("camvid", root=tmp_path, workers=0)
    assert report.findings == ()
    assert report.images == {"train": 3, "val": 1}
    save(tmp_path / "trainannot" / "1.png", Image.fromarray(np.full((SIZE[1], SIZE[0]), 12, np.uint8)))
    (tmp_path / "train" / "2.png").write_bytes(b"")
    assert kinds_of(doctor.check("camvid", root=tmp_path, workers=0)) == {"sample-refused": 1, "image-empty": 1}


def test_a_folder_with_labels_as_shapes(tmp_path: Path) -> None:
    """COCO's json: a sample whose image is damaged is found, and one whose shapes say nothing is not."""
    for split in ("train", "val"):
        images = [{"id": k, "file_name": f"{k}.png", "width": SIZE[0], "height": SIZE[1]} for k in (1, 2, 3)]
        shapes = [
            {"id": k, "image_id": k, "category_id": 7, "iscrowd": 0, "area": 200, "bbox": [5, 5, 20, 10],
             "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]}
            for k in (1, 2, 3)
        ]  # fmt: skip
        content = {"images": images, "annotations": shapes, "categories": [{"id": 7, "name": "thing"}]}
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for k in (1, 2, 3):
            save(tmp_path / "images" / split / f"{k}.png", draw(k + 10 * len(split), *SIZE)[0])
    assert doctor.check(tmp_path, workers=0).findings == ()
    (tmp_path / "images" / "train" / "2.png").write_bytes(b"")
    report = doctor.check(tmp_path, workers=0)
    assert kinds_of(report) == {"image-empty": 1}
    assert report.findings[0].examples == ("images/train/2.png",)
    doctor.fix(tmp_path, tmp_path / ".." / f"{tmp_path.name}-copy", workers=0)
    assert doctor.check(tmp_path.with_name(f"{tmp_path.name}-copy"), workers=0).findings == ()


def test_a_yaml_file_that_names_the_folders(tmp_path: Path) -> None:
    draw_folder(tmp_path / "data", 10, SIZE, classes=None)
    splits = "".join(f"{split}: {{images: images/{split}, masks: masks/{split}}}\n" for split in ("train", "val"))
    (tmp_path / "mine.yaml").write_text(f"path: data\n{splits}{NAMES}")
    assert doctor.check(tmp_path / "mine.yaml", workers=0).findings == ()
    with pytest.raises(ValueError, match="part of the source"):
        doctor.fix(tmp_path / "mine.yaml", tmp_path / "data" / "masks" / "copy", workers=0)


def test_a_split_that_training_needs_and_that_is_not_there(tmp_path: Path) -> None:
    draw_folder(tmp_path, 10, SIZE)
    (tmp_path / "masks" / "val").rename(tmp_path / "masks" / "test")
    (tmp_path / "images" / "val").rename(tmp_path / "images" / "test")
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert (finding.kind, finding.stops, finding.examples) == ("split-missing", True, ("val",))


def test_drawn_streets_are_clean() -> None:
    report = doctor.check("streets:2:64x48", workers=0)
    assert not report.stops_training
    assert kinds_of(report).keys() <= {"class-absent", "class-not-in-train", "class-not-in-val"}


@pytest.mark.skipif(not (find_root("camvid") / "val").is_dir(), reason="CamVid is not there")
def test_camvid_is_clean_and_its_neighbouring_frames_are_no_duplicates() -> None:
    examination = examine("camvid", root=find_root("camvid"), progress=False)
    assert examination.report.findings == ()
    in_turn = [
        replace(facts, pair=replace(facts.pair, split=("train", "val")[number % 2]))
        for number, facts in enumerate(examination.facts)
    ]
    assert find_near(in_turn) == []


def test_the_command_names_the_root_and_is_quoted_for_the_system(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    for split in ("train", "val"):
        save(root / split / "a.png", draw(1, *SIZE)[0])
        save(root / f"{split}annot" / "a.png", Image.fromarray(np.full((SIZE[1], SIZE[0]), 12, np.uint8)))
        image, ids = draw(len(split), *SIZE)
        save(root / split / "b.png", image)
        save(root / f"{split}annot" / "b.png", Image.fromarray(ids))
    report = doctor.check("camvid", root=root, workers=0)
    assert f"`refinenet data check camvid --root '{root}' --fix OUT`" in report.text()
    assert write_command(["check", "my data"], "nt") == 'check "my data"'
    assert write_command(["check", "my data"], "posix") == "check 'my data'"


def test_a_list_of_all_images_beside_those_of_the_splits_is_no_split_of_its_own(tmp_path: Path) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for number in range(8):
        image, ids = draw(number, *SIZE)
        save(tmp_path / "JPEGImages" / f"{number}.jpg", image)
        save(tmp_path / "SegmentationClass" / f"{number}.png", Image.fromarray(ids))
    (lists / "train.txt").write_text("0\n1\n2\n3\n")
    (lists / "val.txt").write_text("4\n5\n6\n7\n")
    (lists / "trainval.txt").write_text("".join(f"{number}\n" for number in range(8)))
    (tmp_path / "classes.yaml").write_text(NAMES)
    report = doctor.check(tmp_path, workers=0)
    assert (report.findings, report.images) == ((), {"train": 4, "val": 4})
    assert list(describe(tmp_path, workers=0).splits) == ["train", "val"]
