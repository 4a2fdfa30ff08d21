"""Common behaviour of the datasets whose labels are in MATLAB files."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matlab_miniatures import (
    TRAIN,
    finish_hdf5,
    write_context,
    write_nyu,
    write_person_part,
    write_sunrgbd,
)

from refinenet.datasets.published.context import CONTEXT, CONTEXT_59
from refinenet.datasets.published.nyu import NYU
from refinenet.datasets.published.person_part import PERSON_PART
from refinenet.datasets.published.sunrgbd import SUNRGBD

NYU_FILE = "nyu_depth_v2_labeled.mat"


PUBLISHED = {
    "nyu": (NYU, write_nyu), "context": (CONTEXT, write_context), "context:59": (CONTEXT_59, write_context),
    "person_part": (PERSON_PART, write_person_part), "sunrgbd": (SUNRGBD, write_sunrgbd),
}  # fmt: skip
LABEL_FILES = {
    "nyu": NYU_FILE, "context": f"trainval/{TRAIN[0]}.mat", "person_part": f"Annotations_Part/{TRAIN[0]}.mat",
    "sunrgbd": "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_miniatures_load(name: str, tmp_path: Path) -> None:
    published, write = PUBLISHED[name]
    write(tmp_path)
    train, val = (published.open_split(tmp_path, split) for split in ("train", "val"))
    assert (train.name, train.split, len(train), len(val)) == (name, "train", 3, 2)
    assert not set(train.items) & set(val.items)
    for sample in (*train, *val):
        assert sample.image.dtype == np.uint8
        assert sample.image.shape == (*sample.labels.shape, 3)
        assert sample.labels.dtype == np.uint8
        assert len(np.unique(sample.labels)) > 1 or name == "nyu"


def test_datasets_travel_to_worker_processes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, (published, write) in PUBLISHED.items():
            write(tmp_path / name)
            dataset = published.open_split(tmp_path / name, "train")
            for index, sample in enumerate(pool.map(dataset.__getitem__, range(3))):
                np.testing.assert_array_equal(sample.image, dataset[index].image)
                np.testing.assert_array_equal(sample.labels, dataset[index].labels)


def test_datasets_survive_a_fork_after_they_have_been_read(tmp_path: Path) -> None:
    for name in ("nyu", "sunrgbd"):
        published, write = PUBLISHED[name]
        write(tmp_path / name)
        dataset = published.open_split(tmp_path / name, "train")
        expected = [sample.labels.tolist() for sample in dataset]
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            for index, sample in enumerate(pool.map(dataset.__getitem__, [0, 1, 2] * 3)):
                assert sample.labels.tolist() == expected[index % 3]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nyu", ("train_images", "train_labels", NYU_FILE)),
        ("context", ("VOCdevkit/VOC2010/JPEGImages", "VOC2010/JPEGImages")),
        ("context:59", ("VOCdevkit/VOC2010/JPEGImages",)),
        ("person_part", ("VOCdevkit/VOC2010/JPEGImages",)),
        ("sunrgbd", ("SUNRGBD/kv1", "kv1")),
    ],
)
def test_what_is_absent_is_named_with_what_was_looked_for(name: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    published, _ = PUBLISHED[name]
    with pytest.raises(FileNotFoundError) as caught:
        published.open_split(tmp_path, "train")
    for part in parts:
        assert str(tmp_path / part) in str(caught.value)
    assert "root" in published.info.how_to_get
    assert "http" in published.info.how_to_get


@pytest.mark.parametrize("name", LABEL_FILES)
def test_damaged_files_are_refused_and_named(name: str, tmp_path: Path) -> None:
    published, write = PUBLISHED[name]
    write(tmp_path)
    path = tmp_path / LABEL_FILES[name]
    whole = path.read_bytes()
    for size in (0, 100, 128, 200, 519, 700, len(whole) // 2):
        path.write_bytes(whole[: min(size, len(whole) - 9)])
        with pytest.raises(ValueError, match=path.name):
            published.open_split(tmp_path, "train")[0]


def test_the_miniature_hdf5_files_begin_as_matlab_s_do(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    start = (tmp_path / NYU_FILE).read_bytes()[:520]
    assert start.startswith(b"MATLAB 7.3 MAT-file")
    assert start[124:128] == b"\x00\x02IM"
    assert start[512:] == b"\x89HDF\r\n\x1a\n"
    finish_hdf5(tmp_path / NYU_FILE)
    assert json.dumps(NYU.open_split(tmp_path, "val").items) == '["000001", "000002"]'
