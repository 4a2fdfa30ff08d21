"""ADE20K in its owners' layout, with its traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import png_miniatures as miniatures
import pytest
from png_miniatures import (
    bands,
    first_row,
    noise,
    save,
)

from refinenet.datasets.published.ade20k import ADE20K

# ADE20K


def test_ade20k_unlabelled_zero_is_void_and_does_not_underflow(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path, "train")
    values = np.zeros((32, 40), np.uint8)
    values.ravel()[:151] = range(151)
    save(Path(dataset.locate(dataset.items[0])), values)
    labels = dataset[0].labels
    assert labels.ravel()[:151].tolist() == [255, *range(150)]
    assert (labels.ravel()[151:] == 255).all()


def test_ade20k_grey_and_cmyk_images_become_rgb(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    train = ADE20K.open_split(tmp_path, "train")
    grey, cmyk = train[1].image, train[2].image
    assert grey.shape == cmyk.shape == (32, 40, 3)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    assert (cmyk[..., 0] != cmyk[..., 1]).any()


def test_ade20k_images_of_any_size_stand_beside_each_other(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    base = tmp_path / "ADEChallengeData2016"
    save(base / "images" / "training" / "ADE_train_00000004.jpg", noise(4, 21, 9))
    save(base / "annotations" / "training" / "ADE_train_00000004.png", np.full((21, 9), 150, np.uint8))
    assert ADE20K.open_split(tmp_path, "train")[3].labels.tolist() == [[149] * 9] * 21


def test_ade20k_the_full_set_with_rgb_masks_is_refused(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), noise(0))
    with pytest.raises(ValueError, match=f"{mask} is a colour picture"):
        dataset[0]


@pytest.mark.parametrize("values", [(151,) * 8, (255,) * 8])
def test_ade20k_values_past_150_are_refused(values: tuple[int, ...], tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), bands(values))
    with pytest.raises(ValueError, match=f"{mask} has the value {values[0]} at row 0, column 0 .* contain 1 to 150"):
        dataset[0]


def test_ade20k_classes_of_one_colour_stay_apart_and_names_have_no_blanks_at_their_ends(tmp_path: Path) -> None:
    """Traps: road and skyscraper have the same colour, and official names have trailing spaces ("bed ")."""
    label_set = ADE20K.info.label_set
    assert (label_set.names[6], label_set.names[48]) == ("road", "skyscraper")
    assert label_set.colours[6] == label_set.colours[48] == (140, 140, 140)
    assert (label_set.names[7], label_set.names[8], label_set.names[149]) == ("bed", "windowpane", "flag")
    assert all(name == name.strip() for name in label_set.names)
    miniatures.write_ade20k(tmp_path)
    assert {6, 48} <= set(first_row(ADE20K.open_split(tmp_path, "train")))


def test_ade20k_root_may_be_the_unpacked_folder_itself(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path / "ADEChallengeData2016", "val")
    assert dataset.items == ["ADE_val_00000001", "ADE_val_00000002"]
