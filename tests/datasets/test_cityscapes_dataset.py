"""Cityscapes in its owners' layout, with its traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import png_miniatures as miniatures
import pytest
from png_miniatures import (
    CITYSCAPES_BANDS,
    bands,
    first_row,
    save,
)

from refinenet.datasets.published.cityscapes import CITYSCAPES

# Cityscapes


def test_cityscapes_classes_and_names() -> None:
    label_set = CITYSCAPES.info.label_set
    expected = {
        0: ("road", (128, 64, 128)), 5: ("pole", (153, 153, 153)), 10: ("sky", (70, 130, 180)),
        13: ("car", (0, 0, 142)), 16: ("train", (0, 80, 100)), 18: ("bicycle", (119, 11, 32)),
    }  # fmt: skip
    assert len(label_set) == 19
    for identifier, (name, colour) in expected.items():
        assert (label_set.names[identifier], label_set.colours[identifier]) == (name, colour)


def test_cityscapes_all_34_label_ids_and_the_number_plate_of_minus_one(tmp_path: Path) -> None:
    """Trap: the id -1 of number plates is stored as 255 in 8 bits, and is void."""
    miniatures.write_cityscapes(tmp_path)
    dataset = CITYSCAPES.open_split(tmp_path, "train")
    values = np.full((32, 40), 255, np.uint8)
    values[0, :34] = range(34)
    save(Path(dataset.locate(dataset.items[0])), values)
    void = 255
    expected = [
        *[void] * 7, 0, 1, void, void, 2, 3, 4, void, void, void, 5, void,
        6, 7, 8, 9, 10, 11, 12, 13, 14, 15, void, void, 16, 17, 18,
    ]  # fmt: skip
    labels = dataset[0].labels
    assert labels[0, :34].tolist() == expected
    assert (labels[1:] == void).all()


def test_cityscapes_depth_is_baseline_times_focal_length_by_disparity(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    assert CITYSCAPES.open_split(tmp_path, "val").target_specs == ()
    frame = "frankfurt_000000_000294"
    stored = np.full((32, 40), 1 + 256 * 10, np.uint16)
    stored[0, :5] = (0, 1, 257, 130, 129)
    miniatures.write_disparity(tmp_path, "val", frame, stored)
    dataset = CITYSCAPES.open_split(tmp_path, "val").with_targets(["depth"])
    assert [spec.to_text() for spec in dataset.target_specs] == ["depth:0.0:1000.0"]
    depth = dataset[0].targets["depth"]
    # By hand: 0.222126 m * 2268.36 pixels = 503.8617... pixel metres; disparities of 1, 129/256, 1/2 and 10 pixels, of
    # which 1/2 would be 1007.7 metres, beyond what stereo can measure.
    assert depth.shape == (1, 32, 40)
    expected = [np.nan, np.nan, 503.86173, 999.91165, np.nan, 50.386173]
    np.testing.assert_allclose(depth[0, 0, :6], expected, rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="munster_000000_000019_disparity"):
        dataset[1]
    camera = tmp_path / "camera" / "val" / "frankfurt" / f"{frame}_camera.json"
    camera.write_text('{"extrinsic": {"baseline": 0}, "intrinsic": {"fx": 2}}')
    with pytest.raises(ValueError, match=r"camera\.json: the baseline and the focal length must be above 0, not 0\.0"):
        dataset[0]
    camera.write_text("[]")
    with pytest.raises(ValueError, match=r"camera\.json is damaged or not a camera file"):
        dataset[0]


def test_cityscapes_items_are_city_and_frame_of_any_number(tmp_path: Path) -> None:
    """Trap: cities with few long sequences have frame numbers other than 000019."""
    miniatures.write_cityscapes(tmp_path)
    train = CITYSCAPES.open_split(tmp_path, "train")
    assert train.items == [
        "aachen/aachen_000000_000019", "aachen/aachen_000173_000019", "hamburg/hamburg_000000_042505",
    ]  # fmt: skip
    assert CITYSCAPES.open_split(tmp_path, "val").items[0] == "frankfurt/frankfurt_000000_000294"


def test_cityscapes_test_has_no_labels_because_its_masks_are_dummies(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    assert CITYSCAPES.splits == ("train", "val")
    assert "test" not in CITYSCAPES.info.images
    test = CITYSCAPES.open_split(tmp_path, "test")
    assert test.items == ["berlin/berlin_000000_000019"]
    assert test.read_image(test.items[0]).shape == (32, 40, 3)
    with pytest.raises(ValueError, match="cityscapes test has no public labels"):
        test[0]


def test_cityscapes_label_train_ids_are_not_mistaken_for_label_ids(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    folder = tmp_path / "gtFine" / "train"
    for path in list(folder.glob("*/*_labelIds.png")):
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), bands([0, 1, 2, 3, 4, 5, 6, 255]))
    assert len(CITYSCAPES.open_split(tmp_path, "train")) == 3
    assert first_row(CITYSCAPES.open_split(tmp_path, "train")) == CITYSCAPES_BANDS
    for path in list(folder.glob("*/*_labelIds.png")):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"gtFine_labelIds\.png"):
        CITYSCAPES.open_split(tmp_path, "train")


def test_cityscapes_lane_classes_of_other_forks_are_refused(tmp_path: Path) -> None:
    """Trap: forks of the label table have ids beyond 0 to 33."""
    miniatures.write_cityscapes(tmp_path)
    dataset = CITYSCAPES.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), bands([7, 7, 34, 7, 7, 7, 7, 254]))
    with pytest.raises(ValueError, match=rf"{mask} has the value 34 at row 0, column 10 \(320 pixels.*0 to 33"):
        dataset[0]


def test_cityscapes_images_and_masks_without_partner_are_named(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    next((tmp_path / "leftImg8bit" / "train" / "hamburg").iterdir()).unlink()
    next((tmp_path / "gtFine" / "train" / "aachen").glob("aachen_000173_*_labelIds.png")).unlink()
    with pytest.raises(ValueError, match=r"aachen_000173_000019 \(no \*_gtFine_labelIds.*hamburg.* \(no \*_leftImg"):
        CITYSCAPES.open_split(tmp_path, "train")
