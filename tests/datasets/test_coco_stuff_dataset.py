"""COCO-Stuff in the layouts in which people unpack it, with its traps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import png_miniatures as miniatures
import pytest
import scipy.io
from png_miniatures import (
    STUFF_BANDS,
    bands,
    first_row,
    noise,
    save,
)

from refinenet.datasets.published.coco import COCO_STUFF

# COCO-Stuff


def test_coco_stuff_value_is_the_category_id_less_one_with_eleven_holes(tmp_path: Path) -> None:
    """Trap: the label list distributed with the masks counts from 1, the masks from 0."""
    names = COCO_STUFF.info.label_set.names
    assert len(names) == 171
    # COCO's ids: 1 person, 11 fire hydrant, 13 stop sign, 90 toothbrush, 92 banner, 182 wood; 12 and 91 are holes.
    by_hand = {0: "person", 10: "fire hydrant", 12: "stop sign", 89: "toothbrush", 91: "banner", 181: "wood"}
    miniatures.write_coco_stuff(tmp_path)
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    found = dict(zip(miniatures.STUFF_VALUES, first_row(dataset), strict=True))
    assert {value: names[found[value]] for value in by_hand} == by_hand
    assert found[255] == 255
    holes = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    values = np.full((32, 40), 255, np.uint8)
    values.ravel()[:171] = [value for value in range(182) if value not in holes]
    save(Path(dataset.locate(dataset.items[0])), values)
    assert dataset[0].labels.ravel()[:171].tolist() == list(range(171))


@pytest.mark.parametrize("value", [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 182, 183, 254])
def test_coco_stuff_holes_and_the_183_of_bare_stuff_are_refused(value: int, tmp_path: Path) -> None:
    miniatures.write_coco_stuff(tmp_path)
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), bands([0] * 7 + [value]))
    with pytest.raises(ValueError, match=rf"{mask} has the value {value} at row 0, column 35 \(160 pixels"):
        dataset[0]


def test_coco_stuff_panoptic_masks_are_refused(tmp_path: Path) -> None:
    """Trap: the panoptic task stores ids of another label set in three channels."""
    miniatures.write_coco_stuff(tmp_path)
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), noise(0))
    with pytest.raises(ValueError, match=f"{mask} is a colour picture"):
        dataset[0]


@pytest.mark.parametrize("images", ["{}2017", "images/{}2017"])
@pytest.mark.parametrize("masks", ["annotations/{}2017", "stuffthingmaps/{}2017", "{}2017"])
def test_coco_stuff_is_found_where_people_unpack_it(images: str, masks: str, tmp_path: Path) -> None:
    miniatures.write_coco_stuff(tmp_path / "as_published")
    for split in ("train", "val"):
        for kind, pattern in (("", images), ("stuffthingmaps/", masks)):
            target = tmp_path / "root" / pattern.format(split)
            target.mkdir(parents=True, exist_ok=True)
            for path in (tmp_path / "as_published" / f"{kind}{split}2017").iterdir():
                shutil.copy(path, target)
    dataset = COCO_STUFF.open_split(tmp_path / "root", "train")
    assert dataset.items == ["000000000009", "000000000025", "000000000030"]
    assert first_row(dataset, 2) == STUFF_BANDS


def test_trap_coco_stuff_10k_with_its_mat_files_is_refused_and_not_taken_for_the_164k(tmp_path: Path) -> None:
    """Its .mat files count from 1 with 0 for void, so that reading them as the 164k's would shift every class."""
    miniatures.write_coco_stuff(tmp_path)
    shutil.rmtree(tmp_path / "stuffthingmaps")
    for split in ("train", "val"):
        for image in (tmp_path / f"{split}2017").iterdir():
            mat = tmp_path / "annotations" / f"{split}2017" / f"{image.stem}.mat"
            mat.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(mat, {"S": np.ones((32, 40), np.uint8)})
    with pytest.raises(FileNotFoundError, match="and PNG masks in"):
        COCO_STUFF.open_split(tmp_path, "train")


def test_coco_stuff_label_train_ids_beside_the_masks_are_passed_over(tmp_path: Path) -> None:
    miniatures.write_coco_stuff(tmp_path)
    folder = tmp_path / "stuffthingmaps" / "train2017"
    for path in list(folder.iterdir()):
        save(path.with_name(f"{path.stem}_labelTrainIds.png"), bands([0] * 8))
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    assert len(dataset) == 3
    assert first_row(dataset) == STUFF_BANDS
