"""Planted faults: the doctor finds each of them and nothing else, and its advice cures them."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from planted_faults import (
    SETS,
    Set,
    check_rows,
    compare,
    draw_layout_faults,
    draw_set,
    find_set,
    kinds_of,
    plant,
    spread,
)
from planted_samples import NAMES, Spot, draw_folder

from refinenet.datasets import doctor
from refinenet.io.processes.parallel import map_safely

SIZE = (96, 72)
WARNINGS = {
    "crowds-void",
    "crowds-labelled",
    "image-unlisted",
    "file-kind-unread",
    *(
        "stem-unicode",
        "exif-turned",
        "mask-0-255-mixed",
        "mask-all-void",
        "masks-mostly-void",
        "palettes-differ",
        "mask-frames",
    ),
    *("image-frames", "image-cmyk", "image-deep", "image-alpha", "image-grey", "image-palette", "image-array"),
    "image-bands",
    *("band-constant", "band-clipped", "band-narrow"),
    *("class-absent", "class-unseen", "class-not-in-train", "class-not-in-val", "class-only-one", "image-constant"),
    *("near-duplicates-across-splits", "duplicates-within-split", "contradicting-masks"),
    *("target-without-image", "target-kind-unread", "target-not-in-split", "values-undeclared", "depth-out-of-range"),
    *("target-folder-unread", "values-flipped"),
    *("depth-8-bit", "depth-saturated", "target-constant", "target-empty", "target-splits-differ", "target-unrelated"),
    *("normals-upside-down", "normals-unlike-depth", "values-edge", "values-whole-units", "values-constant"),
}


@pytest.fixture(scope="module")
def planted_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[doctor.Report, dict[str, set[str]]]:
    root = tmp_path_factory.mktemp("planted") / "large"
    planted = plant(root, 150, SIZE)
    return doctor.check(root, progress=False), planted


def test_every_planted_fault_is_found_and_nothing_else(
    planted_report: tuple[doctor.Report, dict[str, set[str]]],
) -> None:
    report, planted = planted_report
    assert len(planted) >= 24
    check_rows(compare(report, planted))
    for finding in report.findings:
        assert finding.count == len(planted[finding.kind])
        assert all(planted[finding.kind] & set(example.split(" = ")) for example in finding.examples)


@pytest.mark.parametrize("planned", SETS, ids=lambda planned: planned.name)
def test_faults_of_a_whole_folder(planned: Set, tmp_path: Path) -> None:
    planted = draw_set(tmp_path / "mine", planned, SIZE, 700)
    report = doctor.check(tmp_path / "mine", workers=0)
    check_rows(compare(report, planted))
    assert kinds_of(report).keys() == planted.keys()


def test_faults_of_lists_and_splits(tmp_path: Path) -> None:
    planted = draw_layout_faults(tmp_path, SIZE, 900)
    report = doctor.check(tmp_path, workers=0)
    check_rows(compare(report, planted))
    assert {finding.kind: set(finding.examples) for finding in report.findings} == planted


def test_what_stops_training_and_what_does_not(planted_report: tuple[doctor.Report, dict[str, set[str]]]) -> None:
    assert {kind for kind, known in doctor.KINDS.items() if not known.stops} == WARNINGS
    report = planted_report[0]
    assert report.stops_training
    assert {finding.kind for finding in report.findings if not finding.stops} == kinds_of(report).keys() & WARNINGS
    stops = [finding.stops for finding in report.findings]
    assert stops == sorted(stops, reverse=True)


def test_a_clean_folder_is_called_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_folder(tmp_path / "mine", 40, SIZE, first_seed=50)
    report = doctor.check(tmp_path / "mine")
    assert report.findings == ()
    assert not report.stops_training
    assert report.text() == ""
    assert report.images == {"train": 32, "val": 8}
    assert report.checked == 40
    report.print()
    assert capsys.readouterr().out.endswith("Clean: no problems found.\n")


def test_the_words_of_the_report(planted_report: tuple[doctor.Report, dict[str, set[str]]],
                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    report, planted = planted_report
    report.print()
    printed, text = capsys.readouterr().out, report.text()
    for kind in planted:
        assert printed.count(f" [{kind}]: {len(planted[kind])} (") == 1
        assert (f" [{kind}]: " in text) == (kind not in WARNINGS)
    for paragraph in text.split("\n\n")[1:]:
        assert paragraph in printed
    assert text.startswith(f"{report.source} cannot be trained on as it is.")
    assert f"`refinenet data check {report.source} --fix OUT`" in text
    assert "{" not in text
    assert re.search(r"Errors that stop training\n.*Warnings\n", printed, re.DOTALL)


def test_the_report_as_json(planted_report: tuple[doctor.Report, dict[str, set[str]]]) -> None:
    report, _ = planted_report
    values = json.loads(json.dumps(report.to_dict()))
    assert values["source"] == report.source
    assert values["images"] == {"train": 120, "val": 30}
    assert values["stops_training"] is True
    assert {finding["kind"]: finding["count"] for finding in values["findings"]} == kinds_of(report)
    for finding in values["findings"]:
        assert finding.keys() == {"title", "kind", "stops", "count", "examples", "meaning", "advice", "fixable"}
        assert finding["meaning"]
        assert finding["advice"]
        assert 1 <= len(finding["examples"]) <= 5


def test_many_files_are_counted_and_five_are_named(tmp_path: Path) -> None:
    for split, stems in draw_folder(tmp_path, 20, SIZE).items():
        for stem in stems[:4]:
            Spot(tmp_path, split, stem).mask.write_bytes(b"")
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert (finding.kind, finding.count, len(finding.examples)) == ("mask-empty", 8, 5)
    assert finding.examples[0] == "masks/train/picture 00001.png"


ADVISED = (
    "0 and 255", "0 and 255, palettes", "0 and 255 without names", "ids from 1", "ids far apart", "ids without names",
    "colours without names", "palettes in conflict",
)  # fmt: skip


@pytest.mark.parametrize("name", ADVISED)
def test_the_lines_that_are_advised_cure(name: str, tmp_path: Path) -> None:
    """The YAML lines in the advice, written into classes.yaml, leave nothing to find."""
    draw_set(tmp_path, find_set(name), SIZE, 700)
    (finding,) = doctor.check(tmp_path, workers=0).findings
    lines = [line for line in finding.advice.splitlines() if re.match("(names|colours|masks|values|ignore): ", line)]
    path = tmp_path / "classes.yaml"
    known = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump({**known, **yaml.safe_load("\n".join(lines))}))
    assert doctor.check(tmp_path, workers=0).findings == ()


def test_void_that_is_said_to_be_void_is_no_class(tmp_path: Path) -> None:
    """0 and 255 alone, where classes.yaml lists 255 under ignore: the other class is absent, not miswritten."""
    draw_set(tmp_path, find_set("0 and 255"), SIZE, 700)
    (tmp_path / "classes.yaml").write_text("names: [ground, thing]\nignore: [255]\n")
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"class-absent": 1, "class-only-one": 1}


@pytest.mark.parametrize(("name", "kind"), [("0 and 255", "mask-0-255"), ("ids from 1", "ids-from-1")])
def test_painted_masks_among_others_that_are_wrong_as_a_whole(name: str, kind: str, tmp_path: Path) -> None:
    draw_set(tmp_path, find_set(name), SIZE, 700)
    spot = Spot(tmp_path, "train", "picture 00001")
    spot.replace_mask(Image.fromarray(np.full((SIZE[1], SIZE[0], 3), (9, 99, 199), np.uint8)))
    found = kinds_of(doctor.check(tmp_path, workers=0))
    assert found["mask-colours-for-ids"] == 1
    assert found[kind] >= 9


def test_processes_and_none_find_the_same(tmp_path: Path) -> None:
    plant(tmp_path / "large", 150, (48, 36))
    alone, together = (doctor.check(tmp_path / "large", workers=workers) for workers in (0, 2))
    assert alone == together


def die(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hang(number: int) -> int:
    if number == 12:
        time.sleep(60)
    return number


def test_files_that_kill_their_reader_do_not_end_the_check() -> None:
    assert list(map_safely(die, range(40), workers=2)) == [None if k == 5 else k for k in range(40)]


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="this system knows no alarm")
def test_files_that_hang_their_reader_do_not_end_the_check() -> None:
    assert list(map_safely(hang, range(20), workers=2, seconds=1)) == [None if k == 12 else k for k in range(20)]


def test_a_mask_whose_checksum_is_wrong_is_found_even_though_it_decodes(tmp_path: Path) -> None:
    """Pillow looks at no checksum of pixels, so a PNG that was changed may be read as other labels."""
    stems = draw_folder(tmp_path, 10, SIZE)
    for stem in stems["train"]:
        spot = Spot(tmp_path, "train", stem)
        ids, content = spot.ids(), bytearray(spot.mask.read_bytes())
        place = content.index(b"IDAT")
        end = place + 4 + int.from_bytes(content[place - 4 : place], "big")
        content[end] ^= 1
        spot.mask.write_bytes(bytes(content))
        assert np.array_equal(spot.ids(), ids)
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"mask-damaged": 8}


def test_zero_and_void_alone_are_no_binary_masks_where_there_are_more_classes(tmp_path: Path) -> None:
    draw_set(tmp_path, find_set("0 and 255"), SIZE, 700)
    (tmp_path / "classes.yaml").write_text(NAMES)
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"class-absent": 3, "class-only-one": 1}


def rewrite(root: Path, name: str, values: list[int], classes: str | None) -> None:
    """A set whose masks hold `values[k]` for class k."""
    draw_set(root, find_set(name)._replace(classes=classes, write=spread(values), odd=None), SIZE, 700)


def test_binary_masks_of_nothing_but_void(tmp_path: Path) -> None:
    rewrite(tmp_path, "0 and 255", [255] * 4, "names: [ground, thing]\n")
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"nothing-but-void": 10}


def test_ids_from_one_without_names_are_proposed_as_they_are(tmp_path: Path) -> None:
    rewrite(tmp_path, "ids from 1", [1, 2, 3, 4], None)
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert finding.kind == "no-classes"
    assert "values: [1, 2, 3, 4]" in finding.advice


def test_a_lossy_mask_does_not_hide_what_is_wrong_with_all(tmp_path: Path) -> None:
    rewrite(tmp_path, "ids from 1", [1, 2, 3, 4], NAMES)
    mask = Spot(tmp_path, "train", "picture 00001").mask
    Image.open(mask).save(mask.with_suffix(".jpg"), quality=30)
    mask.unlink()
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"ids-from-1": 10, "mask-lossy-format": 1}


def test_empty_pictures_of_two_shapes_are_two_pictures(tmp_path: Path) -> None:
    stems = draw_folder(tmp_path, 10, SIZE)
    for split, size in (("train", (40, 30)), ("val", (30, 40))):
        spot = Spot(tmp_path, split, stems[split][0])
        spot.replace_image(".png", Image.new("RGB", size))
        spot.replace_mask(Image.new("L", size, 1))
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"image-constant": 2}


def test_what_is_told_of_a_finding_holds_its_advice(tmp_path: Path) -> None:
    draw_folder(tmp_path, 20, SIZE, classes=NAMES.replace("]", ", sky]"))
    (finding,) = doctor.check(tmp_path, workers=0).findings
    first, second = finding.text().splitlines()
    assert first == "Classes that never occur [class-absent]: 1 (sky)"
    assert second == f"{finding.meaning} {finding.advice}"
