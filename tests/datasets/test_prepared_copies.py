"""Prepared masks replace the owner's files only if these are slow to read, and as long as they are unchanged."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matlab_miniatures import (
    SBD_ONLY,
    TRAIN,
    VAL,
    write_context,
    write_gtcls,
    write_jpeg,
    write_list,
    write_nyu,
    write_palette_png,
    write_person_part,
    write_sbd,
    write_sunrgbd,
    write_voc,
    write_voc_aug,
)
from png_miniatures import save, write_coco

from refinenet.datasets.catalog import Dataset, open_dataset, prepared_folder
from refinenet.datasets.joining import join
from refinenet.datasets.preparation import prepare

IDS = np.array([[0, 1, 2, 255]])


def write_nyu_png(root: Path) -> None:
    write_nyu(root)
    for split in ("train", "val"):
        write_palette_png(root / f"{split}_labels" / "1.png", IDS)
        save(root / f"{split}_images" / "1.png", np.zeros((1, 4, 3), np.uint8))


def write_coco_masks(root: Path) -> None:
    write_coco(root)
    for split in ("train", "val"):
        for path in (root / f"{split}2017").iterdir():
            write_palette_png(root / "masks" / f"{split}2017" / f"{path.stem}.png", np.zeros((40, 48)))


def write_context_png(root: Path) -> None:
    voc = root / "VOCdevkit" / "VOC2010"
    for split, names in (("train", TRAIN), ("val", VAL)):
        write_list(voc / "ImageSets" / "SegmentationContext" / f"{split}.txt", names)
        for name in names:
            write_jpeg(voc / "JPEGImages" / f"{name}.jpg", np.zeros((1, 4, 3), np.uint8))
            write_palette_png(voc / "SegmentationClassContext" / f"{name}.png", np.array([[0, 1, 2, 3]]))


def write_person_png(root: Path) -> None:
    write_person_part(root)
    for name in (*TRAIN, *VAL):
        write_palette_png(root / "pascal_person_part_gt" / f"{name}.png", IDS)


def write_class_aug(root: Path) -> None:
    write_voc_aug(root)
    for name in SBD_ONLY:
        write_palette_png(root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug" / f"{name}.png", IDS)


FAST: dict[str, tuple[str, Callable[[Path], None]]] = {
    "NYU as PNG": ("nyu", write_nyu_png),
    "COCO's masks": ("coco", write_coco_masks),
    "Context as PNG": ("context", write_context_png),
    "Context's 59 as PNG": ("context:59", write_context_png),
    "Person-Part as PNG": ("person_part", write_person_png),
    "SegmentationClassAug": ("voc_aug", write_class_aug),
    "VOC": ("voc", write_voc),
}


@pytest.mark.parametrize("form", FAST)
def test_what_is_read_fast_is_not_converted(form: str, tmp_path: Path) -> None:
    name, write = FAST[form]
    write(tmp_path)
    report = prepare(name, tmp_path, download=False, workers=0, progress=False)
    assert all(split.images for split in report.splits)
    assert report.problems == ()
    assert not (tmp_path / "prepared").exists()
    assert not any(open_dataset(name, tmp_path)(split.split).is_slow for split in report.splits)


def test_only_the_slow_split_is_converted(tmp_path: Path) -> None:
    write_voc_aug(tmp_path)
    prepare("voc_aug", tmp_path, download=False, workers=0, progress=False)
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["voc_aug-train"]


SLOW: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "nyu": ("train", write_nyu, ("nyu_depth_v2_labeled.mat",)),
    "sbd": ("train", write_sbd, ("benchmark_RELEASE/dataset/cls", "benchmark_RELEASE/dataset/train.txt")),
    "voc_aug": (
        "train",
        write_voc_aug,
        (
            "benchmark_RELEASE/dataset/cls",
            "VOCdevkit/VOC2012/SegmentationClass",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
            "benchmark_RELEASE/dataset/train.txt",
            "benchmark_RELEASE/dataset/val.txt",
        ),
    ),
    "coco": ("val", write_coco, ("annotations/instances_val2017.json",)),
    "context": ("val", write_context, ("trainval", "VOCdevkit/VOC2010/ImageSets/Main/val.txt")),
    "context:59": ("val", write_context, ("trainval", "VOCdevkit/VOC2010/ImageSets/Main/val.txt")),
    "person_part": ("val", write_person_part, ("Annotations_Part", "pascal_person_part_trainval_list/val.txt")),
    "sunrgbd": (
        "val",
        write_sunrgbd,
        tuple(f"SUNRGBDtoolbox/{part}" for part in (
            "Metadata/SUNRGBDMeta.mat", "Metadata/SUNRGBD2Dseg.mat", "traintestSUNRGBD/allsplit.mat",
        )),
    ),
}  # fmt: skip


def is_prepared(dataset: Dataset) -> bool:
    return "/prepared/" in dataset.locate(dataset.items[0])


def open_quietly(name: str, root: Path, split: str) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return open_dataset(name, root)(split)


def make_older(path: Path) -> None:
    """Pretend that the file was replaced: ten seconds older, of the same size."""
    for file in path.iterdir() if path.is_dir() else [path]:
        os.utime(file, (file.stat().st_mtime - 10,) * 2)


@pytest.mark.parametrize("name", SLOW)
def test_each_source_that_changes_is_said_and_opened_itself_until_prepared_anew(name: str, tmp_path: Path) -> None:
    split, write, sources = SLOW[name]
    write(tmp_path)
    expected = [sample.labels.tolist() for sample in open_quietly(name, tmp_path, split)]
    assert open_quietly(name, tmp_path, split).is_slow
    for source in sources:
        prepare(name, tmp_path, download=False, workers=0, progress=False)
        assert is_prepared(open_quietly(name, tmp_path, split))
        make_older(tmp_path / source)
        with pytest.warns(UserWarning, match=rf"refinenet data prepare {name} --root {tmp_path}"):
            dataset = open_dataset(name, tmp_path)(split)
        assert not is_prepared(dataset)
        assert [sample.labels.tolist() for sample in dataset] == expected


@pytest.mark.parametrize("name", [name for name in SLOW if name != "sunrgbd"])
def test_what_the_masks_were_made_from_may_be_deleted(name: str, tmp_path: Path) -> None:
    split, write, (labels, *_) = SLOW[name]
    write(tmp_path)
    expected = [sample.labels.tolist() for sample in open_quietly(name, tmp_path, split)]
    prepare(name, tmp_path, download=False, workers=0, progress=False)
    place = tmp_path / labels
    for file in place.iterdir() if place.is_dir() else [place]:
        file.unlink()
    assert [sample.labels.tolist() for sample in open_quietly(name, tmp_path, split)] == expected
    shutil.rmtree(place, ignore_errors=True)
    assert [sample.labels.tolist() for sample in open_quietly(name, tmp_path, split)] == expected


def sbd_with_one_label(root: Path, value: int) -> None:
    write_sbd(root)
    write_gtcls(root / "benchmark_RELEASE" / "dataset" / "cls" / f"{TRAIN[1]}.mat", np.full((32, 40), value))


def test_prepare_converts_changed_sources_anew_and_removes_what_they_no_longer_have(tmp_path: Path) -> None:
    sbd_with_one_label(tmp_path, 5)
    prepare("sbd", tmp_path, download=False, workers=0, progress=False)
    masks = prepared_folder(tmp_path, "sbd", "train") / "masks"
    assert len(list(masks.iterdir())) == 3
    sbd_with_one_label(tmp_path, 7)
    write_list(tmp_path / "benchmark_RELEASE" / "dataset" / "train.txt", [TRAIN[1]])
    prepare("sbd", tmp_path, download=False, workers=0, progress=False)
    dataset = open_quietly("sbd", tmp_path, "train")
    assert is_prepared(dataset)
    assert [np.unique(sample.labels).tolist() for sample in dataset] == [[7]]
    assert [path.name for path in masks.iterdir()] == [f"{TRAIN[1]}.png"]


def test_masks_of_an_unfinished_run_are_not_taken_for_those_of_changed_sources(tmp_path: Path) -> None:
    sbd_with_one_label(tmp_path, 5)
    prepare("sbd", tmp_path, download=False, workers=0, progress=False)
    (prepared_folder(tmp_path, "sbd", "train") / "samples.tsv").unlink()
    sbd_with_one_label(tmp_path, 7)
    make_older(tmp_path / "benchmark_RELEASE" / "dataset" / "cls")
    prepare("sbd", tmp_path, download=False, workers=0, progress=False)
    dataset = open_quietly("sbd", tmp_path, "train")
    assert np.unique(dataset.labels(dataset.items.index(TRAIN[1]))).tolist() == [7]


def test_a_faster_form_that_comes_later_is_taken_without_a_word(tmp_path: Path) -> None:
    write_person_part(tmp_path)
    prepare("person_part", tmp_path, download=False, workers=0, progress=False)
    write_person_png(tmp_path)
    assert open_quietly("person_part", tmp_path, "val").labels(0).tolist() == IDS.tolist()
    write_nyu(tmp_path / "nyu")
    prepare("nyu", tmp_path / "nyu", download=False, workers=0, progress=False)
    write_nyu_png(tmp_path / "nyu")
    assert open_quietly("nyu", tmp_path / "nyu", "train").labels(0).tolist() == IDS.tolist()


def test_a_list_that_is_preferred_and_comes_later_is_followed(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    prepare("sbd", tmp_path, download=False, workers=0, progress=False)
    write_list(tmp_path / "train_noval.txt", [TRAIN[0]])
    with pytest.warns(UserWarning, match="have changed since"):
        assert open_dataset("sbd", tmp_path)("train").items == [TRAIN[0]]


def test_an_empty_prepared_split_is_one(tmp_path: Path) -> None:
    """No image of the training split has enough pixels of the 20 classes."""
    write_coco(tmp_path)
    json_file = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(json_file.read_text())
    for thing in content["annotations"]:
        thing["area"] = 1.0
    json_file.write_text(json.dumps(content))
    prepare("coco", tmp_path, download=False, workers=0, progress=False)
    json_file.unlink()
    assert open_quietly("coco", tmp_path, "train").items == []
    assert prepare("coco", tmp_path, download=False, workers=0, progress=False).splits[0].images == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"../x": null}', b'{"/etc/passwd": null}'])
def test_a_damaged_note_of_the_sources_is_said(content: bytes, tmp_path: Path) -> None:
    write_sbd(tmp_path)
    prepare("sbd", tmp_path, download=False, workers=0, progress=False)
    (prepared_folder(tmp_path, "sbd", "train") / "made_from.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"made_from\.json is damaged: delete the file and prepare the dataset again"):
        open_dataset("sbd", tmp_path)("train")


def test_coco_s_training_images_are_chosen_and_nothing_is_said_to_be_missing(tmp_path: Path) -> None:
    write_coco(tmp_path)
    report = prepare("coco", tmp_path, download=False, workers=0, progress=False)
    train, val = report.splits
    assert (train.images, train.published, train.note) == (3, None, "")
    assert (val.images, val.published, val.note) == (2, 5000, "2 images were found, 5,000 were published.")


def test_joined_datasets_are_slow_where_one_of_them_is(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path)
    fast, slow = open_quietly("voc", tmp_path, "train"), open_quietly("sbd", tmp_path, "train")
    assert [join(parts).is_slow for parts in ([fast, fast], [fast, slow])] == [False, True]
