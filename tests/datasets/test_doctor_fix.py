"""The repaired copy: clean by the doctor's own check, true to what was drawn, and the source untouched."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import BINARY, SETS, Set, draw_set, plant
from planted_samples import COLOURS, NAMES, PAINTED, Spot, draw, draw_folder, paint, save, through_jpeg

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset, open_training_datasets
from refinenet.labels import LabelMap

SIZE = (96, 72)
FIXABLE = [
    planned
    for planned in SETS
    if not planned.kinds.keys()
    & {"ids-outside", "nothing-but-void", "classes-file", "mask-unlisted-colours", "class-absent", "mask-0-255-mixed"}
]


def hash_tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def read_samples(out: Path) -> list[dict[str, object]]:
    samples: list[dict[str, object]] = json.loads((out / "changes.json").read_text("utf-8"))["samples"]
    return samples


def labels_of(out: Path, split: str) -> dict[str, LabelMap]:
    """The labels by stem, as training reads them; each sample is loaded whole."""
    return {sample.name: sample.labels for sample in open_dataset(out)(split)}


def differ(found: LabelMap, truth: LabelMap) -> tuple[int, float]:
    """Pixels with another class, and the share that became void."""
    void = found == 255
    return int((found != truth)[~void].sum()), float(void.mean())


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, doctor.Changes, dict[str, set[str]]]:
    folder = tmp_path_factory.mktemp("mended")
    planted = plant(folder / "large", 150, SIZE)
    before = hash_tree(folder / "large")
    changes = doctor.fix(folder / "large", folder / "copy", progress=False)
    assert hash_tree(folder / "large") == before
    return folder / "large", folder / "copy", changes, planted


Mended = tuple[Path, Path, doctor.Changes, dict[str, set[str]]]


def test_the_copy_is_clean_and_loads(mended: Mended) -> None:
    _, out, changes, _ = mended
    assert doctor.check(out).findings == ()
    train, val = open_training_datasets(out)
    assert (len(train), len(val)) == (changes.written["train"], changes.written["val"])
    assert train.label_set.names == ("ground", "disc", "block", "bar")
    assert train.label_set.colours == COLOURS
    assert sorted(path.name for path in out.iterdir()) == ["changes.json", "classes.yaml", "images", "masks"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["copy", "large"]


def test_labels_in_the_copy_are_what_was_drawn(mended: Mended) -> None:
    """For all but copies of other pictures, which stand under a name that is not theirs."""
    _, out, _, planted = mended
    copies = {Path(name).stem for kind in planted if "duplicates" in kind for name in planted[kind]}
    checked = 0
    for split in ("train", "val"):
        for name, labels in labels_of(out, split).items():
            if name not in copies and Path(name).stem not in copies:
                number = int(name.removeprefix("bär ").split(" ")[1])
                assert np.array_equal(labels, draw(number, *SIZE)[1]), name
                checked += 1
    assert checked > 110


@pytest.mark.parametrize(
    "kind", ["size-exif", "mask-rgb-ids", "mask-colours-for-ids", "stem-case", "stem-unicode", "mask-frames"]
)
def test_what_can_be_mended_is_in_the_copy(kind: str, mended: Mended) -> None:
    _, out, _, planted = mended
    samples = {str(sample["mask"]): sample for sample in read_samples(out) if "mask" in sample}
    for name in planted[kind]:
        assert "left_out" not in samples[name]
        if kind.startswith("mask") or kind == "size-exif":
            assert samples[name]["mask_changes"]


LEFT_OUT = (
    "image-without-mask", "mask-without-image", "stem-twice", "image-empty", "image-not-an-image", "image-damaged",
    "image-too-large", "mask-empty", "mask-not-an-image", "mask-damaged", "mask-too-large", "size-differs",
    "mask-lossy-format", "mask-alpha", "mask-mode", "ids-outside", "mask-all-void", "duplicates-across-splits",
    "near-duplicates-across-splits", "contradicting-masks",
)  # fmt: skip


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_cannot_be_mended_is_left_out_and_named(kind: str, mended: Mended) -> None:
    _, out, _, planted = mended
    values = json.loads((out / "changes.json").read_text("utf-8"))
    named = {
        str(sample[side]) for sample in values["samples"] if sample.get("left_out") for side in ("image", "mask")
    } | values["left_out_files"].keys()
    assert planted[kind] <= named
    assert all(values["left_out_files"].values())


def test_sound_images_are_copied_byte_by_byte_and_others_turned_upright(mended: Mended) -> None:
    root, out, _, planted = mended
    copied = 0
    for sample in read_samples(out):
        if "left_out" in sample:
            continue
        source, name = root / str(sample["image"]), str(sample["name"])
        (target,) = (out / "images" / str(sample["split"])).glob(f"{name}.*")
        if sample["image_changes"]:
            assert target.suffix == ".png"
            assert Image.open(target).mode == "RGB"
        else:
            assert target.read_bytes() == source.read_bytes()
            copied += 1
    assert copied > 100
    (turned,) = planted["exif-turned"]
    upright = np.asarray(Image.open(out / "images" / "train" / f"{Path(turned).stem}.png"))
    stored = np.asarray(Image.open(root / turned))
    assert np.array_equal(upright, np.rot90(stored, 2))


def test_masks_are_palette_pictures(mended: Mended) -> None:
    _, out, _, _ = mended
    for path in (out / "masks").rglob("*.png"):
        image = Image.open(path)
        assert (image.mode, image.format) == ("P", "PNG")
        assert (image.getpalette("RGB") or [])[:12] == [value for colour in COLOURS for value in colour]


def test_the_sums_add_up(mended: Mended, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, changes, _ = mended
    values = changes.to_dict()
    left_out = [sample for sample in values["samples"] if "left_out" in sample]
    assert len(values["samples"]) == len(left_out) + sum(changes.written.values())
    assert values["sums"]["left out: an image with its label"] == len(left_out)
    reasons = Counter(f"left out: {reason}" for reason in values["left_out_files"].values())
    assert {name: values["sums"][name] for name in reasons} == reasons
    assert len(values["left_out_files"]) == 4
    written = json.loads((out / "changes.json").read_text("utf-8"))
    assert json.loads(json.dumps(values)) == {**written, "out": str(out)}
    changes.print()
    printed = capsys.readouterr().out
    assert f"train {changes.written['train']}, val {changes.written['val']}" in printed
    assert "left out: an image with its label" in printed


@pytest.mark.parametrize("planned", FIXABLE, ids=lambda planned: planned.name)
def test_whole_folders_are_mended(planned: Set, tmp_path: Path) -> None:
    draw_set(tmp_path / "mine", planned, SIZE, 700)
    before = hash_tree(tmp_path / "mine")
    doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    assert hash_tree(tmp_path / "mine") == before
    assert doctor.check(tmp_path / "copy", workers=0).findings == ()
    is_binary = planned.classes == BINARY or planned.name.startswith(("0 and 255", "clean binary"))
    colours = open_dataset(tmp_path / "copy")("train").label_set.colours
    for split in ("train", "val"):
        for name, labels in labels_of(tmp_path / "copy", split).items():
            truth = draw(700 + int(name.split(" ")[1]), *SIZE)[1]
            if "void" in planned.name:
                continue
            if planned.name in ("colours without names", "colours for ids"):
                truth = np.array([colours.index(colour) for colour in COLOURS], np.uint8)[truth]
            if planned.name == "palettes in another order" and split == "train" and int(name.split(" ")[1]) < 4:
                truth = np.array([0, 2, 3, 1], np.uint8)[truth]  # ids are taken as they are
            wrong, void = differ(labels, np.minimum(truth, 1) if is_binary else truth)
            assert wrong <= (0.01 * truth.size if "JPEG" in planned.name or "smoothed" in planned.name else 0)
            assert void <= 0.05


def test_lossy_binary_masks_are_snapped_and_what_is_not_clear_is_void(tmp_path: Path) -> None:
    """A mask through JPEG: every pixel has its class again or none, and hardly any has none."""
    stems = draw_folder(tmp_path / "mine", 10, SIZE, classes="names: [ground, thing]\nvalues: [0, 255]\n")
    for split, names in stems.items():
        for stem in names:
            spot = Spot(tmp_path / "mine", split, stem)
            white = Image.fromarray(np.where(spot.ids() > 0, 255, 0).astype(np.uint8))
            spot.mask.unlink()
            save(spot.mask.with_suffix(".jpg"), white)
    report = doctor.check(tmp_path / "mine", workers=0)
    assert {finding.kind: finding.count for finding in report.findings} == {"mask-lossy-format": 10}
    doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    for name, labels in labels_of(tmp_path / "copy", "train").items():
        wrong, void = differ(labels, np.minimum(draw(int(name.split(" ")[1]), *SIZE)[1], 1))
        assert wrong == 0
        assert void < 0.05


def test_an_unlisted_class_in_a_lossy_mask_is_not_taken_for_a_near_one(tmp_path: Path) -> None:
    """Dark green is nearer to black than to any other class, but it fills an area: nobody may guess."""
    stems = draw_folder(tmp_path / "mine", 10, SIZE, classes=PAINTED)
    for split, names in stems.items():
        for stem in names:
            spot = Spot(tmp_path / "mine", split, stem)
            pixels = np.array(paint(spot.ids()))
            if stem == stems["train"][0]:
                pixels[10:30, 10:40] = (0, 60, 0)
            spot.replace_mask(through_jpeg(Image.fromarray(pixels), 95))
    changes = doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    assert [change.pair.item for change in changes.samples if change.left_out] == [stems["train"][0]]


def test_a_dataset_known_by_name_is_copied_with_its_labels(tmp_path: Path) -> None:
    doctor.fix("streets:3:64x48", tmp_path / "copy", workers=0)
    for split in ("train", "val"):
        for copied, drawn in zip(
            open_dataset(tmp_path / "copy")(split), open_dataset("streets:3:64x48")(split), strict=True
        ):
            assert np.array_equal(copied.image, drawn.image)
            assert np.array_equal(copied.labels, drawn.labels)


def test_names_in_folders_become_plain_ones(tmp_path: Path) -> None:
    for number, inside in enumerate(("a", "b", "a__x", ".")):
        for split in ("train", "val"):
            image, ids = draw(number + 10 * (split == "val"), *SIZE)
            stem = "y" if inside == "a__x" else "x" if inside != "." else "a__x"
            save(tmp_path / "mine" / "images" / split / inside / f"{stem}.png", image)
            save(tmp_path / "mine" / "masks" / split / inside / f"{stem}.png", Image.fromarray(ids))
    (tmp_path / "mine" / "classes.yaml").write_text(NAMES)
    doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    names = sorted(path.name for path in (tmp_path / "copy" / "masks" / "train").iterdir())
    assert names == ["a__x-2.png", "a__x.png", "a__x__y.png", "b__x.png"]
    assert doctor.check(tmp_path / "copy", workers=0).findings == ()


def test_bad_targets_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    draw_folder(root, 10, SIZE)
    before = hash_tree(tmp_path)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    for inside in (root / "copy", root / "images" / "copy", tmp_path / "link" / "copy", root / ".." / "mine" / "copy"):
        with pytest.raises(ValueError, match=r"copy lies in .*mine, which is part of the source"):
            doctor.fix(root, inside, workers=0)
    for taken in (root, tmp_path):
        with pytest.raises(FileExistsError, match="is not empty"):
            doctor.fix(root, taken, workers=0)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        doctor.fix(root, tmp_path / "file", workers=0)
    (tmp_path / "file").unlink()
    (tmp_path / "link").unlink()
    assert hash_tree(tmp_path) == before


def test_an_empty_folder_serves_as_target(tmp_path: Path) -> None:
    draw_folder(tmp_path / "mine", 10, SIZE)
    (tmp_path / "copy").mkdir()
    assert doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0).written == {"train": 8, "val": 2}


@pytest.mark.parametrize("name", ["nothing but void", "damaged classes file"])
def test_what_nobody_can_mend_is_refused_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    planned = next(planned for planned in SETS if planned.name == name)
    draw_set(tmp_path / "mine", planned, SIZE, 700)
    with pytest.raises(ValueError, match=r"so no copy was written|so nothing was written"):
        doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_was_examined_is_not_read_again(tmp_path: Path) -> None:
    draw_folder(tmp_path / "mine", 10, SIZE)
    examination = doctor.examine(tmp_path / "mine", workers=0)
    by_name = doctor.fix(tmp_path / "mine", tmp_path / "one", workers=0)
    for path in (tmp_path / "mine").glob("classes.yaml"):
        path.unlink()  # It is not opened any more.
    given = doctor.fix(examination, tmp_path / "two", workers=0)
    assert given.written == by_name.written == {"train": 8, "val": 2}
    assert hash_tree(tmp_path / "one") == hash_tree(tmp_path / "two")


def test_after_a_quick_look_everything_is_read(tmp_path: Path) -> None:
    draw_folder(tmp_path / "mine", 130, (16, 12))
    examination = doctor.examine(tmp_path / "mine", quick=True, workers=0)
    assert doctor.fix(examination, tmp_path / "copy", workers=0).written == {"train": 104, "val": 26}
