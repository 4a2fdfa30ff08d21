"""What the doctor says of pixels outside all shapes, of labels that no class has, and of one image or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import SETTINGS, new_network

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset

FILE = "annotations/instances_default.json"


def draw(root: Path, label: str = "car", width: int = 30) -> Path:
    """Write ten images with a rectangle of `width` x 40 pixels in each, of 60 x 40, and a COCO file of them."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    generator = np.random.default_rng(3)
    for number in range(10):
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), np.uint8)).save(root / "images" / f"{number}.png")
    outline = [[-1, -1, width, -1, width, 41, -1, 41]]
    (root / FILE).write_text(json.dumps({
        "images": [{"id": k, "file_name": f"{k}.png", "width": 60, "height": 40} for k in range(10)],
        "annotations": [{"id": k, "image_id": k, "category_id": 7, "segmentation": outline} for k in range(10)],
        "categories": [{"id": 7, "name": label}],
    }))  # fmt: skip
    return root


def test_what_nobody_labelled_is_told_with_the_line_that_changes_it(tmp_path: Path) -> None:
    """The line is written as it is told: the same pixels then have no class."""
    root = draw(tmp_path / "mine")
    report = doctor.check(root, workers=0, progress=False)
    first, line = str(report.to_dict()["remark"]).splitlines()
    assert first.startswith("Pixels outside all shapes belong to the class background.")
    assert first.endswith(f"write into {root / 'classes.yaml'}:")
    before = open_dataset(root)("train")
    assert before.label_set.names[before.labels(0)[0, -1]] == "background"
    (root / "classes.yaml").write_text(line)
    after = open_dataset(root)("train")
    assert after.labels(0)[0, -1] == after.label_set.ignore_index
    assert after.label_set.names[after.labels(0)[0, 0]] == "car"
    remark = doctor.check(root, workers=0, progress=False).remark
    assert remark == "Pixels outside all shapes have no class (void): they are ignored in training and evaluation."
    (root / "classes.yaml").write_text("names: [car, background]")
    remark = doctor.check(root, workers=0, progress=False).remark
    assert remark == "Pixels outside all shapes belong to the class background."


def test_training_tells_it_in_a_line_until_a_file_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw(tmp_path / "mine")
    for name, words in (("a", ["Pixels outside all shapes belong to the class background."]), ("b", [])):
        new_network(2).train(root, output=tmp_path / name, stop_after=1, **SETTINGS)
        told = [line for line in capsys.readouterr().err.splitlines() if "shapes" in line or "names:" in line]
        assert told == [f"{line} `refinenet data check {root}` shows how to change that." for line in words]
        (root / "classes.yaml").write_text("names: [background, car]")


def test_a_background_that_nobody_asked_for_is_explained(tmp_path: Path) -> None:
    (finding, _) = doctor.check(draw(tmp_path / "mine", width=61), workers=0, progress=False).findings
    assert finding.text() == (
        "Classes that never occur [class-absent]: 1 (background)\nbackground occurs in no label and cannot be learned. "
        "It was added for pixels outside all shapes, but there are no such pixels."
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "cra",  # the label is right and the class misspelt; for CAR and cars, who knows
            "If 'cra' is meant, correct the misspelt name: in 'names' of {file}, or in the annotation tool. "
            "Or rename the label in {file}: rename: {{car: cra}}",
        ),
        ("CAR", "Or rename the label in {file}: rename: {{car: CAR}}"),
        (
            "x",
            "Add it to 'names' in {file}, or rename it there to one of these classes, or to void, which leaves the "
            "pixels out: rename: {{car: void}}",
        ),
    ],
)
def test_a_label_that_is_no_class_says_what_to_change_and_where(name: str, advice: str, tmp_path: Path) -> None:
    root = draw(tmp_path / "mine")
    file = root / "classes.yaml"
    file.write_text(f"names: [background, {name}]")
    (refused,) = doctor.check(root, workers=0, progress=False).findings
    text = refused.text()
    assert f"has objects of 'car', which is not one of background, {name}. " in text
    assert text.endswith(advice.format(file=file))
    with file.open("a") as stream:  # the advice is taken
        stream.write("\n" + text[text.index("rename: {") :])
    dataset = open_dataset(root)("train")
    assert dataset.label_set.names == ("background", name)
    assert dataset.labels(0)[0, 0] == (dataset.label_set.ignore_index if name == "x" else 1)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (1, "This image is truncated or damaged: training would fail. Get a new copy of the file, or "),
        (2, "These images are truncated or damaged: training would fail. Get new copies of the files, or "),
    ],
)
def test_one_image_is_no_plural(damaged: int, words: str, tmp_path: Path) -> None:
    root = draw(tmp_path / "mine")
    for number in range(damaged):
        path = root / "images" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:3000])
    found = {finding.kind: finding for finding in doctor.check(root, workers=0, progress=False).findings}
    assert words in found["image-damaged"].text()


def test_no_text_has_an_unfinished_choice_of_words() -> None:
    from refinenet.datasets.doctor.findings import KINDS, find
    from refinenet.datasets.doctor.titles import TITLES

    words: dict[str, Any] = dict.fromkeys(
        ("message", "values", "lines", "where", "resplit", "band", "share", "low", "high"), "x"
    )
    words |= dict.fromkeys(("range", "folder", "highest", "last", "order"), "x") | {"limit": 1, "masks": 1}
    assert len(set(TITLES.values())) == len(TITLES)
    assert TITLES.keys() == KINDS.keys()
    for kind in KINDS:
        for names in (["a"], ["a", "b"]):
            text = find(kind, names, **words).text()
            assert not set("<>|{}") & set(text) - set("{}" if "quantities" in text or "unit: m" in text else ""), text
