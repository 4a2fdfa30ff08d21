"""What the doctor offers it can do: a repaired copy, new splits; and sets that have nothing to learn from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import SETS, Set, draw_set, find_set, kinds_of, spread
from planted_samples import NAMES, Spot, draw, draw_folder, save

from refinenet.datasets import doctor
from refinenet.datasets.split import split_folder

SIZE = (96, 72)


@pytest.mark.parametrize("planned", SETS, ids=lambda planned: planned.name)
def test_a_copy_is_offered_exactly_where_one_is_written_and_better(planned: Set, tmp_path: Path) -> None:
    draw_set(tmp_path / "mine", planned, SIZE, 700)
    examination = doctor.examine(tmp_path / "mine", workers=0)
    report = examination.report
    after, refusal = kinds_of(report), report.text()
    try:
        doctor.fix(examination, tmp_path / "copy", workers=0)
        after = kinds_of(doctor.check(tmp_path / "copy", workers=0))
    except ValueError as error:
        refusal = str(error)
    assert report.text() in refusal
    assert (report.to_dict()["fix_command"] is not None) == (after != kinds_of(report))
    assert report.is_fixable or "--fix" not in report.text()
    assert all(finding.advice for finding in report.findings)


def test_a_copy_is_not_offered_while_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_set(tmp_path, find_set("ids from 1"), SIZE, 700)
    report = doctor.check(tmp_path, workers=0)
    footer = "writes a repaired copy. What cannot be repaired is left out"
    report.print()
    assert footer in capsys.readouterr().out
    report.print(offer_fix=False)
    assert footer not in capsys.readouterr().out


def test_a_split_that_would_lose_all_is_no_reason_to_offer_a_copy(tmp_path: Path) -> None:
    stems = draw_folder(tmp_path / "mine", 10, SIZE)
    for stem in stems["val"]:
        Spot(tmp_path / "mine", "val", stem).mask.write_bytes(b"")
    report = doctor.check(tmp_path / "mine", workers=0)
    assert report.to_dict()["fix_command"] is None
    assert report.findings[0].advice == "Get new copies of the files, or remove both image and label."
    with pytest.raises(ValueError, match=r"(?s)No sample would be left in val.*Get\s+new\s+copies"):
        doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)


def test_new_splits_are_advised_where_they_can_be_made(tmp_path: Path) -> None:
    for number in range(10):
        image, ids = draw(number, *SIZE)
        save(tmp_path / "images" / f"{number}.png", image)
        kept = ids if number % 5 == 0 else np.where(ids == 3, 0, ids).astype(np.uint8)
        save(tmp_path / "masks" / f"{number}.png", Image.fromarray(kept))
    (tmp_path / "classes.yaml").write_text(NAMES)
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert finding.kind == "class-not-in-train"
    command = shlex.split(finding.advice.split("`")[1])
    assert command[:3] == ["refinenet", "data", "split"]
    assert split_folder(Path(command[3])).keys() == {"train", "val"}


@pytest.mark.parametrize("has_lists", [False, True])
def test_elsewhere_files_or_lines_are_to_be_moved_by_hand(has_lists: bool, tmp_path: Path) -> None:
    stems = draw_folder(tmp_path, 10, SIZE)
    if has_lists:
        for kind in ("images", "masks"):
            for path in [*(tmp_path / kind).glob("*/*")]:
                path.rename(tmp_path / kind / path.name)
            for split in stems:
                (tmp_path / kind / split).rmdir()
        for split, names in stems.items():
            (tmp_path / f"{split}.txt").write_text("\n".join(names))
    for stem in stems["val"]:
        path = tmp_path / "masks" / f"{stem}.png" if has_lists else Spot(tmp_path, "val", stem).mask
        save(path, Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[1], SIZE[0]) % 3))
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert finding.kind == "class-not-in-val"
    assert "data split" not in finding.advice
    assert ("lines between the lists" if has_lists else "image and mask together") in finding.advice


@pytest.mark.parametrize("names", ["names: [thing]\n", NAMES])
def test_a_set_of_one_class_is_warned_of(names: str, tmp_path: Path) -> None:
    draw_set(tmp_path, find_set("ids far apart")._replace(classes=names, write=spread([0] * 4)), SIZE, 700)
    report = doctor.check(tmp_path, workers=0)
    assert kinds_of(report)["class-only-one"] == 1
    assert not report.stops_training
    assert "mIoU will be 100 %" in next(f for f in report.findings if f.kind == "class-only-one").meaning


def test_swapped_folders_are_recognised(tmp_path: Path) -> None:
    draw_folder(tmp_path, 10, SIZE, classes=None)
    (tmp_path / "images").rename(tmp_path / "aside")
    (tmp_path / "masks").rename(tmp_path / "images")
    (tmp_path / "aside").rename(tmp_path / "masks")
    report = doctor.check(tmp_path, workers=0)
    assert kinds_of(report) == {"swapped": 10}
    assert report.stops_training
    assert report.to_dict()["fix_command"] is None


def test_an_image_of_one_colour_is_warned_of(tmp_path: Path) -> None:
    stems = draw_folder(tmp_path, 10, SIZE)
    name = Spot(tmp_path, "train", stems["train"][0]).replace_image(".png", Image.new("RGB", SIZE))
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert (finding.kind, finding.stops, finding.examples) == ("image-constant", False, (name,))


def test_places_for_a_copy_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    draw_folder(root, 10, SIZE)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="part of the source"):
        doctor.check_target(root, root / "copy")
    with pytest.raises(FileExistsError, match="is a file"):
        doctor.check_target(root, tmp_path / "file")
    with pytest.raises(FileExistsError, match="is not empty"):
        doctor.check_target(root, tmp_path)
    with pytest.raises(NotADirectoryError, match="file is a file"):
        doctor.check_target(root, tmp_path / "file" / "copy")
    doctor.check_target(root, tmp_path / "new" / "copy")
    doctor.check_target("streets:3:64x48", tmp_path / "copy")
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["file", "mine"]'


def test_a_json_file_that_names_a_missing_image_is_told_of_once(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "images" / f"{number}.png", draw(number, *SIZE)[0])
    images = [{"id": k, "file_name": f"{k}.png", "width": SIZE[0], "height": SIZE[1]} for k in range(6)]
    polygon = [[5, 5, 25, 5, 25, 15, 5, 15]]
    shape = {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": 200, "segmentation": polygon}
    content = {"images": images, "annotations": [shape], "categories": [{"id": 7, "name": "thing"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (finding,) = (found for found in doctor.check(tmp_path, workers=0).findings if "missing" in found.kind)
    assert finding.examples == ("5.png",)
    assert "names the image 5.png, which is not in" in finding.meaning
