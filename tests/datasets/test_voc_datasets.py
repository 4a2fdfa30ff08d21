"""PASCAL VOC 2012, SBD and both together, from miniatures in their owners' layouts."""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matlab_miniatures import (
    SBD_ONLY,
    TRAIN,
    VAL,
    voc_palette,
    write_gtcls,
    write_list,
    write_palette_png,
    write_sbd,
    write_voc,
    write_voc_aug,
    write_voc_sample,
)
from PIL import Image

from refinenet.datasets.published.voc import SBD, VAL_IDS, VOC, VOC_AUG

NAMES = """background aeroplane bicycle bird boat bottle bus car cat chair cow
diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"""
MASK = np.array([[0, 15, 255], [20, 1, 15]])


def test_names_void_and_palette() -> None:
    for published in (VOC, SBD, VOC_AUG):
        label_set = published.info.label_set
        assert list(label_set.names) == NAMES.split()
        assert label_set.ignore_index == 255
        assert [value for colour in label_set.colours for value in colour] == list(voc_palette()[: 3 * 21])
    # VOC's own note: a person is (192, 128, 128), a television (0, 64, 128).
    assert VOC.info.label_set.colours[15] == (192, 128, 128)
    assert VOC.info.label_set.colours[20] == (0, 64, 128)


def test_voc_has_its_splits_in_the_order_of_its_lists(tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert [VOC.open_split(tmp_path, split).items for split in VOC.splits] == [
        list(TRAIN),
        list(VAL),
        [*TRAIN, *VAL],
    ]
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    write_list(lists / "train.txt", [TRAIN[2], TRAIN[0]], ending=" \r\n")
    assert VOC.open_split(tmp_path, "train").items == [TRAIN[2], TRAIN[0]]


def test_trap_palette_masks_give_their_indices_not_colours_and_255_is_void(tmp_path: Path) -> None:
    """Converted to RGB or grey, a person's 15 would be (192, 128, 128) or 147, and 255 would be (224, 224, 192)."""
    write_voc_sample(tmp_path / "VOCdevkit" / "VOC2012", TRAIN[0], MASK)
    write_list(tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt", TRAIN[:1])
    with Image.open(tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{TRAIN[0]}.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((1, 0)) == (192, 128, 128)
        assert image.convert("RGB").getpixel((2, 0)) == (224, 224, 192)
    sample = VOC.open_split(tmp_path, "train")[0]
    assert sample.labels.dtype == np.uint8
    assert sample.labels.tolist() == [[0, 15, 255], [20, 1, 15]]
    assert sample.image.shape == (2, 3, 3)


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_found_from_each_folder_on_the_way(place: str, tmp_path: Path) -> None:
    write_voc(tmp_path)
    dataset = VOC.open_split(tmp_path / place, "val")
    assert dataset.items == list(VAL)
    assert len(list(dataset)) == 2


@pytest.mark.parametrize("place", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_sbd_is_found_from_each_folder_on_the_way(place: str, tmp_path: Path) -> None:
    write_sbd(tmp_path)
    assert SBD.open_split(tmp_path / place, "val").items == [SBD_ONLY[1], TRAIN[2]]


@pytest.mark.parametrize("flattened", ["", "VOCdevkit/VOCaug/dataset"])
def test_sbd_is_found_where_torchvision_and_mmsegmentation_have_it(flattened: str, tmp_path: Path) -> None:
    write_sbd(tmp_path / "official")
    shutil.copytree(tmp_path / "official" / "benchmark_RELEASE" / "dataset", tmp_path / "other" / flattened)
    write_list(tmp_path / "other" / "train_noval.txt", [SBD_ONLY[0]])
    dataset = SBD.open_split(tmp_path / "other", "train")
    assert dataset.items == [SBD_ONLY[0]]
    assert dataset[0].labels.shape == (32, 40)


def test_sbd_labels_come_out_of_gtcls_and_have_no_void(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    ids = np.repeat([[0, 20, 3, 15]], 32, axis=0).repeat(10, axis=1)
    ids[0, 0] = 7
    write_gtcls(folder / "cls" / f"{SBD_ONLY[0]}.mat", ids)
    labels = SBD.open_split(tmp_path, "train")[0].labels
    assert labels.dtype == np.uint8
    assert (labels[0, 0], labels[31, 0], labels[0, 1]) == (7, 0, 0)
    assert labels[5, [0, 10, 20, 39]].tolist() == [0, 20, 3, 15]
    for sample in SBD.open_split(tmp_path, "val"):
        assert sample.labels.max() <= 20


def test_trap_sbd_train_holds_images_of_voc_val_which_are_not_trained_on(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    assert VAL[0] in (folder / "train.txt").read_text().split()
    assert SBD.open_split(tmp_path, "train").items == [SBD_ONLY[0], TRAIN[1], TRAIN[0]]
    with pytest.raises(FileNotFoundError, match=r"train_noval\.txt is missing"):
        SBD.open_split(tmp_path, "train_noval")
    # Where the list without VOC's val is there it is the one to train on, in its order; and a wrong one leaks nothing.
    for place in (tmp_path, folder):
        write_list(place / "train_noval.txt", [TRAIN[0], VAL[0], SBD_ONLY[0]])
        for split in ("train", "train_noval"):
            assert SBD.open_split(tmp_path, split).items == [TRAIN[0], SBD_ONLY[0]]
        (place / "train_noval.txt").unlink()


def test_the_ids_of_voc_val_are_those_of_voc() -> None:
    assert len(VAL_IDS) == 1_449
    assert {"2007_000033", "2007_000042", "2011_003256", "2011_003271"} <= VAL_IDS
    assert not {"2007_000032", "2007_000039", "2007_000063"} & VAL_IDS


def test_trap_sbd_lists_are_in_an_order_of_their_own(tmp_path: Path) -> None:
    """Images and labels are matched by name: matching by position in sorted folders would mix them up."""
    write_sbd(tmp_path)
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    for number, name in enumerate((TRAIN[0], TRAIN[1], SBD_ONLY[0]), start=1):
        write_gtcls(folder / "cls" / f"{name}.mat", np.full((32, 40), number))
    train = SBD.open_split(tmp_path, "train")
    assert train.items == [SBD_ONLY[0], TRAIN[1], TRAIN[0]]
    assert [int(sample.labels[0, 0]) for sample in train] == [3, 2, 1]
    assert [train.image_file(item) for item in train.items] == [folder / "img" / f"{item}.jpg" for item in train.items]


def test_voc_aug_is_voc_train_and_all_of_sbd_outside_voc_train_and_val(tmp_path: Path) -> None:
    write_voc_aug(tmp_path)
    train = VOC_AUG.open_split(tmp_path, "train")
    # SBD's lists also name VOC's train image, whose own mask is taken, and both of VOC's val.
    assert train.items == [TRAIN[0], SBD_ONLY[1], SBD_ONLY[0]]
    assert len(set(train.items)) == 3
    val = VOC_AUG.open_split(tmp_path, "val")
    assert val.items == list(VAL)
    for sample in (*train, *val):
        assert sample.image.shape[:2] == sample.labels.shape == (32, 40)


def test_the_images_of_a_voc_val_that_is_not_the_published_one_are_left_out_too(tmp_path: Path) -> None:
    write_voc_aug(tmp_path)
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    write_list(lists / "val.txt", [SBD_ONLY[0]])
    assert VOC_AUG.open_split(tmp_path, "train").items == [TRAIN[0], SBD_ONLY[1]]


def test_trap_where_both_have_a_mask_voc_s_finer_one_is_taken(tmp_path: Path) -> None:
    write_voc_aug(tmp_path)
    voc, sbd = tmp_path / "VOCdevkit" / "VOC2012", tmp_path / "benchmark_RELEASE" / "dataset"
    ids = np.full((32, 40), 4)
    ids[:, 39] = 255
    write_palette_png(voc / "SegmentationClass" / f"{TRAIN[0]}.png", ids)
    write_gtcls(sbd / "cls" / f"{TRAIN[0]}.mat", np.full((32, 40), 5))
    write_gtcls(sbd / "cls" / f"{SBD_ONLY[1]}.mat", np.full((32, 40), 6))
    train = VOC_AUG.open_split(tmp_path, "train")
    assert train[0].labels[0, [0, 39]].tolist() == [4, 255]
    assert train[1].labels[0, [0, 39]].tolist() == [6, 6]


@pytest.mark.parametrize("has_list", [False, True])
def test_trap_segmentation_class_aug_has_no_void_border_so_voc_s_masks_are_kept(has_list: bool, tmp_path: Path) -> None:
    """The PNG version: masks made from SBD have no 255, so those of VOC's images must not be taken from it."""
    write_voc(tmp_path, TRAIN[:1])
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    without_border = np.full((32, 40), 9)
    for name in (TRAIN[0], *VAL, *SBD_ONLY):
        write_palette_png(voc / "SegmentationClassAug" / f"{name}.png", without_border)
    for name in SBD_ONLY:
        shutil.copy(voc / "JPEGImages" / f"{TRAIN[0]}.jpg", voc / "JPEGImages" / f"{name}.jpg")
    if has_list:
        write_list(voc / "ImageSets" / "Segmentation" / "trainaug.txt", [SBD_ONLY[1], TRAIN[0], VAL[1]])
    train, val = (VOC_AUG.open_split(tmp_path, split) for split in ("train", "val"))
    assert train.items == [TRAIN[0], SBD_ONLY[1]] if has_list else [TRAIN[0], *SBD_ONLY]
    assert val.items == list(VAL)
    assert 255 in train[0].labels
    assert all(255 in sample.labels for sample in val)
    assert np.unique(train[1].labels).tolist() == [9]


def test_traps_of_the_downloads_wrong_file_names_and_a_dead_host() -> None:
    for published in (VOC, SBD, VOC_AUG):
        for download in published.info.downloads:
            assert download.url.rpartition("/")[2] == download.file
            assert "home.bharathh.info" not in download.url
    assert "2012" in VOC.info.downloads[0].file
    assert VOC.info.images == {"train": 1464, "val": 1449, "trainval": 2913}
    assert VOC_AUG.info.images == {"train": 10582, "val": 1449}
    assert SBD.info.images == {"train": 5623, "val": 2857, "train_noval": 5623}


def test_what_is_absent_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    for published, parts in (
        (VOC, ("VOCdevkit/VOC2012/ImageSets/Segmentation", "VOC2012/ImageSets/Segmentation")),
        (SBD, ("benchmark_RELEASE/dataset/cls", "dataset/cls")),
        (VOC_AUG, ("VOCdevkit/VOC2012/ImageSets/Segmentation",)),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            published.open_split(tmp_path, "train")
        for part in parts:
            assert str(tmp_path / part) in str(caught.value)
        assert "TODO" not in published.info.how_to_get
        assert "root" in published.info.how_to_get
    write_voc(tmp_path)
    with pytest.raises(FileNotFoundError, match="SBD not found"):
        VOC_AUG.open_split(tmp_path, "train")


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    (folder / "SegmentationClass" / f"{TRAIN[1]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"SegmentationClass lacks 1 of the files .*{TRAIN[1]}\.png"):
        VOC.open_split(tmp_path, "train")
    assert len(VOC.open_split(tmp_path, "val")) == 2
    shutil.rmtree(folder / "JPEGImages")
    with pytest.raises(FileNotFoundError, match=r"JPEGImages is missing"):
        VOC.open_split(tmp_path, "val")
    (folder / "ImageSets" / "Segmentation" / "trainval.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"trainval\.txt is missing"):
        VOC.open_split(tmp_path, "trainval")


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"", "'none'"),
        (b"2007_000032\n../../secret\n", "'../../secret'"),
        (b"2007_000032\n2007_000039\n2007_000032\n", "2007_000032 twice"),
        (b"\xff\xfe\0\1", "it is not text"),
    ],
)
def test_damaged_lists_are_refused(content: bytes, pattern: str, tmp_path: Path) -> None:
    write_voc(tmp_path)
    path = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=pattern) as caught:
        VOC.open_split(tmp_path, "train")
    assert str(path) in str(caught.value)


def test_damaged_masks_are_refused_and_named(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    dataset = SBD.open_split(tmp_path, "train")
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / f"{SBD_ONLY[0]}.mat"
    whole = path.read_bytes()
    for size in (0, 60, 127, 128, 131, 140, 300, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=path.name):
            dataset[0]
    write_gtcls(path, np.full((32, 40), 21))
    with pytest.raises(ValueError, match=rf"{path.name}: the mask has the id 21"):
        dataset[0]
    write_gtcls(path, np.zeros((40, 32)))
    with pytest.raises(ValueError, match=r"40x32 pixels .* its mask has 32x40"):
        dataset[0]


def test_datasets_travel_to_worker_processes(tmp_path: Path) -> None:
    write_sbd(tmp_path / "sbd")
    write_voc_aug(tmp_path / "voc_aug")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for published, folder in ((SBD, "sbd"), (VOC_AUG, "voc_aug")):
            dataset = published.open_split(tmp_path / folder, "train")
            for index, sample in enumerate(pool.map(dataset.__getitem__, range(3))):
                assert sample.name == dataset.items[index]
                np.testing.assert_array_equal(sample.image, dataset[index].image)
                np.testing.assert_array_equal(sample.labels, dataset[index].labels)
