"""Published datasets of PNG masks in their owners' layouts: what is the same of all."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import png_miniatures as miniatures
import pytest
from png_miniatures import (
    ADE20K_BANDS,
    CAMVID_BANDS,
    CITYSCAPES_BANDS,
    ORIGINAL_BANDS,
    STUFF_BANDS,
    first_row,
    save,
)

from refinenet.datasets.metadata import PublishedDataset
from refinenet.datasets.published.ade20k import ADE20K
from refinenet.datasets.published.camvid import CAMVID
from refinenet.datasets.published.cityscapes import CITYSCAPES
from refinenet.datasets.published.coco import COCO_STUFF

ALL = [
    pytest.param(miniatures.write_cityscapes, CITYSCAPES, CITYSCAPES_BANDS, id="cityscapes"),
    pytest.param(miniatures.write_ade20k, ADE20K, ADE20K_BANDS, id="ade20k"),
    pytest.param(miniatures.write_coco_stuff, COCO_STUFF, STUFF_BANDS, id="coco_stuff"),
    pytest.param(miniatures.write_camvid, CAMVID, CAMVID_BANDS, id="camvid"),
    pytest.param(miniatures.write_camvid_original, CAMVID, ORIGINAL_BANDS, id="camvid_original"),
]


@pytest.mark.parametrize(("write", "published", "expected"), ALL)
def test_official_layouts_are_read(
    write: Callable[[Path], None], published: PublishedDataset, expected: list[int], tmp_path: Path
) -> None:
    write(tmp_path)
    train, val = (published.open_split(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val), train.split, val.split) == (3, 2, "train", "val")
    assert train.label_set is published.info.label_set
    assert train.label_set.ignore_index == 255
    for dataset in (train, val):
        for index, item in enumerate(dataset.items):
            assert first_row(dataset, index) == expected
            assert dataset[index].image.shape == (32, 40, 3)
            image_file = dataset.image_file(item)
            assert image_file is not None
            assert image_file.is_file()
            assert Path(dataset.locate(item)).is_file()


@pytest.mark.parametrize(("write", "published", "expected"), ALL)
def test_datasets_travel_to_worker_processes(
    write: Callable[[Path], None], published: PublishedDataset, expected: list[int], tmp_path: Path
) -> None:
    write(tmp_path)
    dataset = published.open_split(tmp_path, "train")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        sample = pool.submit(dataset.__getitem__, 1).result()
    assert sample.labels[0, ::5].tolist() == expected
    np.testing.assert_array_equal(sample.image, dataset[1].image)


@pytest.mark.parametrize(("write", "published", "expected"), ALL)
def test_absent_damaged_and_unpaired_files_are_named(
    write: Callable[[Path], None], published: PublishedDataset, expected: list[int], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "nowhere")):
        published.open_split(tmp_path / "nowhere", "train")
    write(tmp_path)
    dataset = published.open_split(tmp_path, "train")
    first, second = (Path(dataset.locate(item)) for item in dataset.items[:2])
    first.write_bytes(first.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{first} is damaged"):
        dataset[0]
    save(second, np.zeros((4, 4, 3) if "Labeled" in str(second) else (4, 4), np.uint8))
    with pytest.raises(ValueError, match=f"{second}: the image has 40x32 pixels"):
        dataset[1]
    first.unlink()
    with pytest.raises(ValueError, match=dataset.items[0]):
        published.open_split(tmp_path, "train")


def test_info_says_where_to_get_the_data_and_how_they_lie() -> None:
    for published in (CITYSCAPES, ADE20K, COCO_STUFF, CAMVID):
        text = published.info.how_to_get
        assert "http" in text
        assert "root" in text
        assert "TODO" not in text
        for download in published.info.downloads:
            assert download.url in text


@pytest.mark.parametrize("write", [miniatures.write_ade20k, miniatures.write_cityscapes])
def test_sixteen_bit_masks_with_large_values_are_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    dataset = (ADE20K if write is miniatures.write_ade20k else CITYSCAPES).open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), np.full((32, 40), 257, np.uint16))
    with pytest.raises(ValueError, match=f"{mask} has the value 257"):
        dataset[0]
