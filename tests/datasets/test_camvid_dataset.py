"""CamVid in SegNet's layout and in its owners', with its traps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import png_miniatures as miniatures
import pytest
from png_miniatures import (
    ORIGINAL_BANDS,
    bands,
    first_row,
    noise,
    save,
)

from refinenet.datasets.published.camvid import CAMVID, split_of

# CamVid


@pytest.mark.parametrize("write", [miniatures.write_camvid, miniatures.write_camvid_original])
def test_camvid_void_is_no_twelfth_class(write: Callable[[Path], None], tmp_path: Path) -> None:
    """Traps: void is stored as 11, or painted black, and is not a class although scripts have a colour for it."""
    write(tmp_path)
    dataset = CAMVID.open_split(tmp_path, "train")
    assert len(dataset.label_set) == 11
    assert dataset.label_set.names[10] == "Bicyclist"
    assert first_row(dataset)[2] == 255
    assert dataset.label_set.colourise(dataset[0].labels)[0, 10].tolist() == [0, 0, 0]


@pytest.mark.parametrize("write", [miniatures.write_camvid, miniatures.write_camvid_original])
def test_camvid_splits_hold_the_same_frames_in_both_forms(write: Callable[[Path], None], tmp_path: Path) -> None:
    """Traps: test is Seq05VD and the second half of 0001TP; val is one stretch whose neighbours are in train."""
    write(tmp_path)
    for split, frames in miniatures.CAMVID_FRAMES.items():
        assert CAMVID.open_split(tmp_path, split).items == list(frames)


@pytest.mark.parametrize(("name", "split"), [
    ("0001TP_006690", "train"), ("0001TP_008520", "train"), ("0001TP_008550", "test"), ("0001TP_010380", "test"),
    ("0006R0_f00930", "train"), ("0006R0_f03930", "train"), ("Seq05VD_f00000", "test"), ("Seq05VD_f05100", "test"),
    ("0016E5_00390", "train"), ("0016E5_07920", "train"), ("0016E5_07959", "val"), ("0016E5_08059", "val"),
    ("0016E5_08159", "val"), ("0016E5_08190", "train"), ("0016E5_08640", "train"),
])  # fmt: skip
def test_camvid_split_is_told_by_sequence_and_frame(name: str, split: str) -> None:
    assert split_of(name) == split


def test_camvid_original_all_32_colours(tmp_path: Path) -> None:
    """The colours as CamVid's label_colors.txt lists them, the classes as SegNet groups them."""
    expected = {
        (128, 128, 128): 0,
        (128, 0, 0): 1, (64, 192, 0): 1, (64, 0, 64): 1, (192, 0, 128): 1, (0, 128, 64): 1,
        (192, 192, 128): 2, (0, 0, 64): 2,
        (128, 64, 128): 3, (128, 0, 192): 3, (192, 0, 64): 3,
        (0, 0, 192): 4, (64, 192, 128): 4, (128, 128, 192): 4,
        (128, 128, 0): 5, (192, 192, 0): 5,
        (192, 128, 128): 6, (128, 128, 64): 6, (0, 64, 64): 6,
        (64, 64, 128): 7,
        (64, 0, 128): 8, (64, 128, 192): 8, (192, 128, 192): 8, (192, 64, 128): 8, (128, 64, 64): 8,
        (64, 64, 0): 9, (192, 128, 64): 9, (64, 0, 192): 9, (64, 128, 64): 9,
        (0, 128, 192): 10, (192, 0, 192): 10,
        (0, 0, 0): 255,
    }  # fmt: skip
    miniatures.write_camvid_original(tmp_path)
    dataset = CAMVID.open_split(tmp_path, "train")
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[:, 0] = list(expected)
    save(Path(dataset.locate(dataset.items[0])), pixels)
    assert dataset[0].labels[:, 0].tolist() == list(expected.values())


@pytest.mark.parametrize("colour", [(128, 64, 129), (1, 0, 0), (255, 255, 255), (60, 40, 222)])
def test_camvid_original_a_colour_of_no_class_is_refused(colour: tuple[int, int, int], tmp_path: Path) -> None:
    miniatures.write_camvid_original(tmp_path)
    dataset = CAMVID.open_split(tmp_path, "train")
    pixels = bands([(128, 64, 128)] * 8)
    pixels[3, 4] = colour
    mask = save(Path(dataset.locate(dataset.items[0])), pixels)
    with pytest.raises(ValueError, match="not one of CamVid's 32") as caught:
        dataset[0]
    assert f"{mask} has the colour {colour} at row 3, column 4 (1 pixels" in str(caught.value)


def test_camvid_original_lists_win_though_they_are_paths_of_another_machine(tmp_path: Path) -> None:
    miniatures.write_camvid_original(tmp_path)
    lines = ["/SegNet/CamVid/val/Seq05VD_f00000.png /SegNet/CamVid/valannot/Seq05VD_f00000.png", "", "0001TP_008520"]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    dataset = CAMVID.open_split(tmp_path, "val")
    assert dataset.items == ["Seq05VD_f00000", "0001TP_008520"]
    assert first_row(dataset) == ORIGINAL_BANDS
    (tmp_path / "val.txt").write_text("a/0016E5_07959.png\nC:\\b\\0016E5_07959.png\n")
    with pytest.raises(ValueError, match=r"val\.txt names '0016E5_07959' more than once"):
        CAMVID.open_split(tmp_path, "val")
    (tmp_path / "val.txt").write_text("0016E5_11111\n")
    with pytest.raises(ValueError, match=r"missing in .*701_StillsRaw_full.*0016E5_11111\.png, 0016E5_11111_L\.png"):
        CAMVID.open_split(tmp_path, "val")


def test_camvid_original_frames_of_no_known_sequence_are_refused(tmp_path: Path) -> None:
    miniatures.write_camvid_original(tmp_path)
    save(tmp_path / "701_StillsRaw_full" / "0099XX_00001.png", noise(0))
    with pytest.raises(ValueError, match=r"'0099XX_00001' is not a frame .*train\.txt"):
        CAMVID.open_split(tmp_path, "train")
