"""A user follows the doctor's advice to the letter: no label may silently mean another class."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from planted_faults import draw_set, find_set, kinds_of, spread
from planted_samples import CLASSES, COLOURS, NAMES, Spot, draw, draw_folder, paint, save

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset
from refinenet.datasets.doctor.examination import examine
from refinenet.labels import LabelMap

SIZE = (96, 72)
KEYS = "(names|colours|masks|values|ignore): "


def follow(root: Path, report: doctor.Report, name: str = "classes.yaml") -> dict[str, object]:
    """Paste each printed line that looks like one of a classes.yaml into it; what was pasted."""
    advice = "\n".join(finding.advice for finding in report.findings)
    pasted = dict(yaml.safe_load("\n".join(line for line in advice.splitlines() if re.match(KEYS, line))) or {})
    path = root / name
    known = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump({**known, **pasted}))
    return pasted


def rewrite(root: Path, values: list[int], classes: str) -> None:
    """Ten samples whose masks hold `values[k]` for class k."""
    draw_set(root, find_set("ids far apart")._replace(classes=classes, write=spread(values)), SIZE, 700)


def labels_of(root: Path) -> dict[str, LabelMap]:
    return {sample.name: sample.labels for split in ("train", "val") for sample in open_dataset(root)(split)}


def truth_of(name: str) -> LabelMap:
    return draw(700 + int(name.split(" ")[1]), *SIZE)[1]


def test_the_names_of_the_user_never_stand_beside_guessed_colours(tmp_path: Path) -> None:
    """The frequency of colours says nothing of names: there is nothing to paste, and nothing is clean by pasting."""
    draw_set(tmp_path / "mine", find_set("colours for ids")._replace(classes="names: [bar, disc, ground, block]\n"),
             SIZE, 700)  # fmt: skip
    report = doctor.check(tmp_path / "mine", workers=0)
    (finding,) = report.findings
    assert finding.kind == "mask-colours-for-ids"
    assert follow(tmp_path / "mine", report) == {}
    assert kinds_of(doctor.check(tmp_path / "mine", workers=0)) == {"mask-colours-for-ids": 10}
    for colour in COLOURS:
        assert re.search(rf"- {re.escape(str(list(colour)))}: [0-9.]+ %", finding.advice)
    assert "The class of each colour is unknown." in finding.advice
    changes = doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    assert changes.to_dict()["names_are_placeholders"] is True
    label_set = open_dataset(tmp_path / "copy")("train").label_set
    assert label_set.names == ("class 0", "class 1", "class 2", "class 3")
    for name, labels in labels_of(tmp_path / "copy").items():
        assert np.array_equal(np.array(label_set.colours)[labels], np.array(COLOURS)[truth_of(name)])


def test_colours_that_happen_to_be_those_of_drawing_are_guessed_at_as_little(tmp_path: Path) -> None:
    """Masks in VOC's colours say nothing of the user's names, which are drawn in them where no colours are told."""
    voc = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)], np.uint8)
    planned = find_set("colours for ids")._replace(write=lambda ids: Image.fromarray(voc[ids]))
    draw_set(tmp_path / "mine", planned, SIZE, 700)
    assert follow(tmp_path / "mine", doctor.check(tmp_path / "mine", workers=0)) == {}
    doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    assert open_dataset(tmp_path / "copy")("train").label_set.names[0] == "class 0"


def test_colours_that_the_user_told_keep_their_names(tmp_path: Path) -> None:
    told = NAMES + f"colours: {[list(colour) for colour in COLOURS]}\n"
    draw_set(tmp_path, find_set("colours for ids")._replace(classes=told), SIZE, 700)
    follow(tmp_path, doctor.check(tmp_path, workers=0))
    assert doctor.check(tmp_path, workers=0).findings == ()
    assert open_dataset(tmp_path)("train").label_set.names == CLASSES
    assert all(np.array_equal(labels, truth_of(name)) for name, labels in labels_of(tmp_path).items())


def test_a_stray_id_among_valid_ones_moves_no_label(tmp_path: Path) -> None:
    """Eleven names, ids 0 to 10 without 3, and 200 for void: as many values as names, by chance."""
    names = [f"n{k}" for k in range(11)]
    ids = np.resize(np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 200], np.uint8), (SIZE[1], SIZE[0]))
    for split, stems in draw_folder(tmp_path, 10, SIZE, classes=f"names: {names}\n").items():
        for stem in stems:
            Spot(tmp_path, split, stem).replace_mask(Image.fromarray(ids))
    report = doctor.check(tmp_path, workers=0)
    (finding,) = (finding for finding in report.findings if finding.kind == "ids-outside")
    assert "200 (9.1 %) of all pixels" in finding.meaning.replace("9.09", "9.1")
    assert follow(tmp_path, report) == {"ignore": [200]}
    assert kinds_of(doctor.check(tmp_path, workers=0)) == {"class-absent": 1}
    expected = np.where(ids == 200, 255, ids)
    assert all(np.array_equal(labels, expected) for labels in labels_of(tmp_path).values())


@pytest.mark.parametrize("values", [[0, 128, 255], [0, 10, 20], [5, 90, 255], [100, 200, 300 % 256]])
def test_as_many_values_as_names_that_cannot_be_ids(values: list[int], tmp_path: Path) -> None:
    rewrite(tmp_path, [*values, values[0]], "names: [a, b, c]\n")
    assert follow(tmp_path, doctor.check(tmp_path, workers=0)) == {"values": sorted(values)}
    assert doctor.check(tmp_path, workers=0).findings == ()
    expected = np.argsort(np.argsort(values))
    for name, labels in labels_of(tmp_path).items():
        truth = truth_of(name)
        assert np.array_equal(labels, expected[np.where(truth == 3, 0, truth)])


def test_values_of_a_few_masks_are_not_taken_for_those_of_all(tmp_path: Path) -> None:
    """Two masks hold 0, 50 and 60 only, which are as many as the names; the others hold 0, 1 and 2."""
    planned = find_set("ids far apart")._replace(
        classes="names: [a, b, c]\n", write=spread([0, 1, 2, 0]), odd=spread([0, 50, 60, 0])
    )
    draw_set(tmp_path, planned, SIZE, 700)
    assert follow(tmp_path, doctor.check(tmp_path, workers=0)) == {"ignore": [50, 60]}


def test_one_painted_mask_among_others_with_ids(tmp_path: Path) -> None:
    """It is the mask that is wrong: no classes.yaml is proposed, and the copy lacks just this one."""
    stems = draw_folder(tmp_path / "mine", 12, SIZE, first_seed=700)
    spot = Spot(tmp_path / "mine", "train", stems["train"][0])
    spot.replace_mask(paint(spot.ids()))
    report = doctor.check(tmp_path / "mine", workers=0)
    assert (kinds_of(report), follow(tmp_path / "mine", report)) == ({"mask-colours-for-ids": 1}, {})
    assert "Save these with ids" in report.findings[0].advice
    changes = doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    assert [change.pair.item for change in changes.samples if change.left_out] == [stems["train"][0]]
    for name, labels in labels_of(tmp_path / "copy").items():
        assert np.array_equal(labels, truth_of(name))


def draw_cvat(root: Path, colours: list[tuple[int, int, int]]) -> None:
    lines = "".join(
        f"{name}:{','.join(map(str, colour))}::\n" for name, colour in zip(CLASSES[:3], COLOURS[:3], strict=True)
    )
    for number in range(10):
        image, ids = draw(700 + number, *SIZE)
        save(root / "JPEGImages" / f"picture {number}.png", image)
        save(root / "SegmentationClass" / f"picture {number}.png", Image.fromarray(np.array(colours, np.uint8)[ids]))
    (root / "labelmap.txt").write_text(lines)


def test_in_an_export_of_cvat_its_own_file_is_named_and_its_own_form(tmp_path: Path) -> None:
    draw_cvat(tmp_path, list(COLOURS))
    (finding,) = doctor.check(tmp_path, workers=0).findings
    assert finding.kind == "mask-unlisted-colours"
    assert "classes.yaml" not in finding.advice
    (line,) = (line for line in finding.advice.splitlines() if line.startswith("NAME:"))
    with (tmp_path / "labelmap.txt").open("a") as stream:
        stream.write(line.replace("NAME", "bar") + "\n")
    assert doctor.check(tmp_path, workers=0).findings == ()
    assert all(np.array_equal(labels, truth_of(name)) for name, labels in labels_of(tmp_path).items())


@pytest.mark.parametrize("is_class", [True, False])
def test_in_an_export_of_roboflow_its_own_file_is_named_and_its_own_form(is_class: bool, tmp_path: Path) -> None:
    for number in range(10):
        image, ids = draw(700 + number, *SIZE)
        folder = tmp_path / ("valid" if number % 5 == 0 else "train")
        save(folder / f"picture {number}.jpg", image)
        save(folder / f"picture {number}_mask.png", Image.fromarray(np.where(ids == 3, 90, ids).astype(np.uint8)))
    listed = "Pixel Value, Class\n0, ground\n1, disc\n2, block\n"
    for split in ("train", "valid"):
        (tmp_path / split / "_classes.csv").write_text(listed)
    report = doctor.check(tmp_path, workers=0)
    (finding,) = report.findings
    assert finding.kind == "ids-outside"
    if is_class:
        assert "add to _classes.csv a line" in finding.advice
        for split in ("train", "valid"):
            (tmp_path / split / "_classes.csv").write_text(listed + "90, bar\n")
    else:
        assert follow(tmp_path, report)["ignore"] == [90]
    assert doctor.check(tmp_path, workers=0).findings == ()
    for name, labels in labels_of(tmp_path).items():
        truth = truth_of(name)
        assert np.array_equal(labels, truth if is_class else np.where(truth == 3, 255, truth))


def test_ids_of_which_zero_is_unlabelled_are_advised_to_be_read_so(tmp_path: Path) -> None:
    """Three names for the ids 1, 2 and 3, and 0 where nobody has drawn anything."""
    rewrite(tmp_path, [0, 1, 2, 3], "names: [one, two, three]\n")
    report = doctor.check(tmp_path, workers=0)
    assert follow(tmp_path, report) == {"values": [1, 2, 3], "ignore": [0]}
    assert doctor.check(tmp_path, workers=0).findings == ()
    for name, labels in labels_of(tmp_path).items():
        truth = truth_of(name)
        np.testing.assert_array_equal(labels, np.where(truth == 0, 255, truth.astype(int) - 1))


def test_shapes_without_a_background_are_said_to_leave_most_void(tmp_path: Path) -> None:
    """Two scratches on ten plates: with no class for the rest, all of it is void, and nobody would learn it."""
    for number in range(10):
        image = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        save(tmp_path / f"{number}.png", Image.fromarray(image))
        shape = {"label": "scratch", "points": [[number, 5], [number + 12, 9]], "shape_type": "rectangle"}
        facts = {"shapes": [shape], "imagePath": f"{number}.png", "imageHeight": 60, "imageWidth": 80}
        (tmp_path / f"{number}.json").write_text(json.dumps(facts))
    assert "masks-mostly-void" not in kinds_of(doctor.check(tmp_path, workers=0))
    (tmp_path / "classes.yaml").write_text("names: [scratch, dent]\n")
    found = {finding.kind: finding for finding in doctor.check(tmp_path, workers=0).findings}
    assert found.keys() == {"masks-mostly-void", "class-absent", "class-only-one"}
    assert found["masks-mostly-void"].count == 10
    assert "98." in found["masks-mostly-void"].meaning or "99." in found["masks-mostly-void"].meaning
    assert "add `background` to the names" in found["masks-mostly-void"].advice


def test_recordings_taken_for_splits_are_dealt_out_whole(tmp_path: Path) -> None:
    for number in range(8):
        image, labels = draw(number, *SIZE)
        for kind, picture in (("images", image), ("masks", Image.fromarray(labels))):
            save(tmp_path / kind / f"bag{number // 2}" / f"{number}.png", picture)
    (tmp_path / "classes.yaml").write_text(f"names: [{', '.join(NAMES)}]\n")
    (finding,) = [found for found in doctor.check(tmp_path, workers=0).findings if found.kind == "split-missing"]
    assert f"refinenet data split {tmp_path}" in finding.advice


def test_pictures_of_a_camera_that_stands_still_stay_where_their_masks_differ(tmp_path: Path) -> None:
    """One scene with a small defect in another place each time."""
    scene = np.asarray(draw(3, 320, 240)[0])
    for number in range(10):
        image, mask = scene.copy(), np.zeros(scene.shape[:2], np.uint8)
        spot = (slice(10 * number, 10 * number + 6), slice(5 * number, 5 * number + 6))
        image[spot], mask[spot] = image[spot] // 8 * 7, 1
        split = "val" if number < 2 else "train"
        for kind, pixels in (("images", image), ("masks", mask)):
            save(tmp_path / "mine" / kind / split / f"{number}.png", Image.fromarray(pixels))
    (tmp_path / "mine" / "classes.yaml").write_text("names: [plate, defect]\n")
    examined = examine(tmp_path / "mine", workers=0)
    (finding,) = [found for found in examined.report.findings if found.kind == "near-duplicates-across-splits"]
    assert examined.left_out == {}
    assert not finding.fixable
    assert "--fix" not in finding.advice
    assert "split by time if the camera does not move" in finding.advice


def test_gif_masks_are_to_be_exported_anew(tmp_path: Path) -> None:
    for number in range(6):
        image, labels = draw(number, *SIZE)
        save(tmp_path / "images" / f"{number}.png", image)
        save(tmp_path / "masks" / f"{number}.gif", Image.fromarray(labels))
    (tmp_path / "classes.yaml").write_text(f"names: [{', '.join(NAMES)}]\n")
    found = {finding.kind: finding for finding in doctor.check(tmp_path, workers=0).findings}
    assert found["mask-mode"].count == 6
    assert "PNG" in found["mask-mode"].advice
    assert "mask-damaged" not in found
