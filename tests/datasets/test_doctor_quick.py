"""Quick checks of the doctor, which list all files and read a part of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import (
    kinds_of,
)
from planted_samples import NAMES, Spot, draw_folder, save

from refinenet.datasets import doctor

SIZE = (96, 72)


def test_a_quick_check_lists_everything_and_reads_a_part(tmp_path: Path) -> None:
    stems = draw_folder(tmp_path, 300, (16, 12))
    Spot(tmp_path, "train", stems["train"][-1]).mask.unlink()
    stems["train"].pop()
    for stem in stems["train"][:60]:
        Spot(tmp_path, "train", stem).mask.write_bytes(b"")
    report = doctor.check(tmp_path, quick=True)
    found = kinds_of(report)
    assert report.checked == 160
    assert report.images == {"train": 240, "val": 60}
    assert found["image-without-mask"] == 1
    assert 20 <= found["mask-empty"] <= 30  # 60 of 239 masks, seen through 100 that are spread evenly
    assert found.keys() == {"image-without-mask", "mask-empty"}
    assert kinds_of(doctor.check(tmp_path))["mask-empty"] == 60


def test_a_quick_check_compares_files_not_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stems = draw_folder(tmp_path, 10, SIZE)
    source, target = Spot(tmp_path, "val", stems["val"][0]), Spot(tmp_path, "train", stems["train"][0])
    target.replace_image(".png", Image.open(source.image).convert("RGB"))
    assert kinds_of(doctor.check(tmp_path, quick=True)) == {"duplicates-across-splits": 1}
    target.replace_image(".tif", Image.open(source.image).convert("RGB"))
    quick = doctor.check(tmp_path, quick=True)
    assert quick.findings == ()
    quick.print()
    printed = capsys.readouterr().out
    assert "Clean" not in printed
    assert "without --quick" in printed
    assert kinds_of(doctor.check(tmp_path)) == {"duplicates-across-splits": 1}


def test_a_quick_check_does_not_take_a_rare_class_for_an_absent_one(tmp_path: Path) -> None:
    """Only 0 and void in all that it reads first: it then reads on, and finds the masks in order."""
    stems = draw_folder(tmp_path, 260, (16, 12), classes="names: [ground, thing]\n")
    ids = np.zeros((12, 16), np.uint8)
    ids[0] = 255
    for split, names in stems.items():
        for stem in names:
            save(Spot(tmp_path, split, stem).mask, Image.fromarray(ids))
    assert kinds_of(doctor.check(tmp_path, quick=True)) == {"mask-0-255": 260}
    ids[5:] = 1
    save(Spot(tmp_path, "train", stems["train"][1]).mask, Image.fromarray(ids))
    report = doctor.check(tmp_path, quick=True)
    assert (kinds_of(report), report.checked) == ({"class-not-in-val": 1}, 260)


def test_a_quick_check_says_of_a_class_that_it_saw_none_of_it_in_so_many_masks(tmp_path: Path) -> None:
    draw_folder(tmp_path, 300, (16, 12), classes=NAMES.replace("]", ", sky]"))
    (finding,) = doctor.check(tmp_path, quick=True, workers=0).findings
    assert (finding.kind, finding.stops, finding.examples) == ("class-unseen", False, ("sky",))
    assert "sky does not occur in the 160 images checked." in finding.text()
    (whole,) = doctor.check(tmp_path, workers=0).findings
    assert (whole.kind, whole.examples) == ("class-absent", ("sky",))


def test_a_quick_check_that_sees_all_masks_is_sure(tmp_path: Path) -> None:
    draw_folder(tmp_path, 40, SIZE, classes=NAMES.replace("]", ", sky]"))
    assert kinds_of(doctor.check(tmp_path, quick=True, workers=0)) == {"class-absent": 1}
