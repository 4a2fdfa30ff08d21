"""SUN RGB-D with 37 classes, in its owners' layout."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from matlab_miniatures import (
    SUN_PREFIX,
    Ids,
    cells,
    paint,
    structures,
    write_nyu,
    write_sun_depth,
    write_sun_files,
    write_sunrgbd,
)
from PIL import Image
from scipy.io import savemat

from refinenet.datasets.joining import join
from refinenet.datasets.published.nyu import NYU
from refinenet.datasets.published.sunrgbd import SUNRGBD

LABELS = "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"


def test_sunrgbd_names_void_and_palette_and_trap_they_are_nyu_s_first_37_with_two_other_names() -> None:
    label_set = SUNRGBD.info.label_set
    other = {"refridgerator": "fridge", "television": "tv"}
    assert list(label_set.names) == [other.get(name, name) for name in NYU.info.label_set.names[:37]]
    assert (label_set.ignore_index, label_set.colours[0], label_set.colours[36]) == (255, (119, 119, 119), (12, 83, 45))


def sun_scene(name: str, rows: list[list[int]]) -> tuple[str, Ids, Ids]:
    ids = np.array(rows)
    return name, paint(ids), ids


def test_sunrgbd_labels_are_transposed_and_0_is_void(tmp_path: Path) -> None:
    (tmp_path / "SUNRGBD" / "kv1").mkdir(parents=True)
    scenes = [sun_scene("kv2/k/a", [[0, 1, 2], [37, 5, 0]]), sun_scene("kv1/NYUdata/NYU0001", [[3], [4]])]
    write_sun_files(tmp_path, scenes, train=["kv2/k/a"], test=["kv1/NYUdata/NYU0001"])
    train, val = (SUNRGBD.open_split(tmp_path, split) for split in ("train", "val"))
    assert (train.items, val.items) == (["kv2/k/a"], ["kv1/NYUdata/NYU0001"])
    assert train[0].labels.tolist() == [[255, 0, 1], [36, 4, 255]]
    assert val[0].labels.tolist() == [[2], [3]]


def test_sunrgbd_ids_above_37_are_refused_also_where_a_byte_would_hide_them(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    path = tmp_path / LABELS
    for value in (38, 255, 256):
        with h5py.File(path, "r+") as file:
            store = file["#refs#"]
            del store["seglabel1"]
            file["SUNRGBD2Dseg/seglabel"][1, 0] = store.create_dataset("seglabel1", data=np.full((37, 33), value)).ref
        with pytest.raises(ValueError, match=rf"image 2 \(kv2/.*\) has the id {value}: 0 to 37"):
            SUNRGBD.open_split(tmp_path, "train")[0]


def test_trap_sunrgbd_labels_are_read_one_by_one_and_not_at_all_for_a_list(tmp_path: Path) -> None:
    """Reading the whole published file would take 64 GB. Here one label map of 400 MB is beside small ones."""
    write_sunrgbd(tmp_path)
    with h5py.File(tmp_path / LABELS, "r+") as file:
        large = file["#refs#"].create_dataset("large", (20_000, 20_000), "u1", chunks=(1000, 1000))
        file["SUNRGBD2Dseg/seglabel"][2, 0] = large.ref
    tracemalloc.start()
    train = SUNRGBD.open_split(tmp_path, "train")
    first, last = train[0], train[2]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert train.items[1] == "realsense/lg/b"
    assert first.labels.shape == (33, 37)
    assert last.labels.shape == (32, 40)
    assert peak < 10_000_000
    with pytest.raises(ValueError, match=r"element 2 .* \(20000, 20000\): at most 50,000,000 pixels"):
        train[1]


def test_trap_sunrgbd_paths_begin_on_another_machine(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    train = SUNRGBD.open_split(tmp_path, "train")
    assert not any(SUN_PREFIX in item for item in train.items)
    expected = tmp_path / "SUNRGBD" / "kv2" / "kinect2data" / "000002_a" / "image" / "0000001.jpg"
    assert train.image_file(train.items[0]) == expected
    assert expected.is_file()


def test_trap_sunrgbd_splits_are_directories_on_another_machine_in_another_order(tmp_path: Path) -> None:
    """Labels are in the order of SUNRGBDMeta.mat; allsplit.mat only assigns scenes to splits."""
    write_sunrgbd(tmp_path)
    path = tmp_path / "SUNRGBDtoolbox" / "traintestSUNRGBD" / "allsplit.mat"
    train, val = (SUNRGBD.open_split(tmp_path, split) for split in ("train", "val"))
    assert train.items == ["kv2/kinect2data/000002_a", "realsense/lg/b", "kv1/b3dodata/d"]
    assert val.items == ["kv1/NYUdata/NYU0001", "xtion/x/c"]
    with h5py.File(tmp_path / LABELS) as file:
        for dataset, places in ((train, (1, 2, 4)), (val, (0, 3))):
            for place, labels in zip(places, map(dataset.labels, range(len(places))), strict=True):
                stored = file[f"#refs#/seglabel{place}"][()].astype(int).T
                assert labels.tolist() == np.where(stored == 0, 255, stored - 1).tolist()
    savemat(path, {"alltrain": cells(["realsense/lg/b/", "/kv2/kinect2data/000002_a"]), "alltest": cells(["gone/x"])})
    assert SUNRGBD.open_split(tmp_path, "train").items == ["kv2/kinect2data/000002_a", "realsense/lg/b"]
    with pytest.raises(ValueError, match=r"names 1 scenes that .* lacks, such as gone/x"):
        SUNRGBD.open_split(tmp_path, "val")


def test_trap_sunrgbd_holds_images_of_nyu_and_cannot_be_mixed_with_it(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    write_nyu(tmp_path)
    assert "nyu" in SUNRGBD.info.how_to_get
    with pytest.raises(ValueError, match="nyu and sunrgbd have different classes"):
        join([NYU.open_split(tmp_path, "train"), SUNRGBD.open_split(tmp_path, "train")])


def test_trap_sunrgbd_images_differ_in_size_by_camera(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    assert {sample.image.shape for sample in SUNRGBD.open_split(tmp_path, "train")} == {(33, 37, 3), (32, 40, 3)}


def test_sunrgbd_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    meta = tmp_path / "SUNRGBDtoolbox" / "Metadata" / "SUNRGBDMeta.mat"
    for path, pattern in (
        ([f"{SUN_PREFIX}a/image/b.jpg"], r"labels of shape \(5, 1\) do not fit the 1 scenes"),
        (["/etc/passwd"] * 5, r"SUNRGBDMeta\.mat has the path '/etc/passwd'"),
        ([f"{SUN_PREFIX}../../x/image/b.jpg"] * 5, "does not lead to a place below SUNRGBD"),
    ):
        savemat(meta, {"SUNRGBDMeta": structures([{"rgbpath": text} for text in path])})
        with pytest.raises(ValueError, match=pattern):
            SUNRGBD.open_split(tmp_path, "train")
    (tmp_path / LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=r"Looked for .*SUNRGBD2Dseg\.mat"):
        SUNRGBD.open_split(tmp_path, "train")


def test_sunrgbd_without_its_toolbox_says_what_was_looked_for(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    (tmp_path / "SUNRGBDtoolbox").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as caught:
        SUNRGBD.open_split(tmp_path, "train")
    for place in ("SUNRGBDtoolbox", "SUNRGBD/SUNRGBDtoolbox"):
        assert str(tmp_path / place / "Metadata" / "SUNRGBDMeta.mat") in str(caught.value)
    (tmp_path / "elsewhere").rename(tmp_path / "SUNRGBD" / "SUNRGBDtoolbox")
    assert len(SUNRGBD.open_split(tmp_path, "train")) == 3


# Depth


def test_sunrgbd_depths_are_rotated_by_three_bits_and_improved_ones_come_first(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    scene = tmp_path / "SUNRGBD" / "kv2" / "kinect2data" / "000002_a"
    millimetres = np.full((33, 37), 5000)
    millimetres[0, :5] = (0, 1, 1234, 8191, 65535)
    write_sun_depth(scene, "0000001.png", millimetres - millimetres + 1, folder="depth")
    # By hand: 5000 is 0b1001110001000, which rotated to the left by 3 is 40000; 8191 becomes 65528, 65535 stays.
    stored = millimetres * 8
    stored[0, 4] = 65535
    Image.fromarray(stored.astype(np.uint16)).save(scene / "depth_bfx" / "0000001.png")
    dataset = SUNRGBD.open_split(tmp_path, "train").with_targets(["depth", "normals"])
    targets = dataset[0].targets
    assert targets["depth"].shape == (1, 33, 37)
    expected = np.array([np.nan, 0.001, 1.234, 8.191, 65.535, 5], np.float32)
    np.testing.assert_allclose(targets["depth"][0, 0, :6], expected, rtol=1e-6)
    np.testing.assert_allclose(targets["normals"][:, 20, 20], [0, 0, -1], atol=1e-5)
    assert dataset.read_intrinsics(dataset.items[0]) == (30.5, 31.5, 18, 15)
    (scene / "depth_bfx" / "0000001.png").unlink()
    (scene / "depth_bfx").rmdir()
    assert np.unique(dataset[0].targets["depth"]).tolist() == [np.float32(0.001)]
    assert dataset.target_files["depth"](dataset.items[0]) == scene / "depth" / "0000001.png"


def test_sunrgbd_scenes_without_depth_and_damaged_cameras_are_named_when_they_are_read(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    scene = tmp_path / "SUNRGBD" / "kv2" / "kinect2data" / "000002_a"
    dataset = SUNRGBD.open_split(tmp_path, "train").with_targets(["depth", "normals"])
    (scene / "intrinsics.txt").write_text("1 0 2")
    with pytest.raises(ValueError, match=r"intrinsics\.txt is damaged: it should hold the 9 numbers"):
        dataset[0]
    (scene / "depth_bfx" / "0000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"One \.png file of depths is expected in .*000002_a/depth_bfx or"):
        dataset[0]
