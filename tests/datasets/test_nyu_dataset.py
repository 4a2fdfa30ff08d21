"""NYU Depth V2 with 40 classes, from the owners' file and from prepared ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from matlab_miniatures import (
    BORDER,
    Ids,
    paint,
    voc_palette,
    write_nyu,
    write_nyu_mat,
)
from PIL import Image
from scipy.io import savemat

from refinenet.datasets.published.nyu import NYU, NYU_RAW

NYU_FILE = "nyu_depth_v2_labeled.mat"
NAMES = """wall,floor,cabinet,bed,chair,sofa,table,door,window,bookshelf,picture,counter,blinds,desk,shelves,
curtain,dresser,pillow,mirror,floor mat,clothes,ceiling,books,refridgerator,television,paper,towel,shower curtain,box,
whiteboard,person,night stand,toilet,sink,lamp,bathtub,bag,otherstructure,otherfurniture,otherprop"""


def colours_of(palette: bytes, first: int, count: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(palette[3 * k : 3 * k + 3]) for k in range(first, first + count))


def nyu_labels(rows: list[list[int]]) -> Ids:
    return np.array(rows, np.uint16)


def write_plain_nyu(root: Path, labels: list[Ids], borders: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
    images = []
    top, bottom, left, right = borders
    for ids in labels:
        image = paint(ids)
        height, width = ids.shape
        image[:top] = image[height - bottom :] = image[:, :left] = image[:, width - right :] = 255
        images.append(image)
    write_nyu_mat(root / NYU_FILE, images, labels)


def test_nyu_names_void_and_palette_and_trap_the_official_spelling_of_refridgerator() -> None:
    label_set = NYU.info.label_set
    assert list(label_set.names) == NAMES.replace("\n", "").split(",")
    assert label_set.names[23] == "refridgerator"
    assert label_set.colours == colours_of(voc_palette(), 1, 40)
    assert (label_set.ignore_index, label_set.colours[0], label_set.colours[39]) == (255, (128, 0, 0), (64, 0, 64))


def test_trap_nyu_axes_are_transposed(tmp_path: Path) -> None:
    """An image wider than high with four different corners: no axis may be swapped or mirrored."""
    ids = nyu_labels([[21, 3, 3, 5], [3, 3, 3, 3], [11, 3, 3, 0]])
    image = np.zeros((3, 4, 3), np.uint8)
    image[0, 0], image[0, 3], image[2, 0], image[2, 3] = (1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)
    write_nyu_mat(tmp_path / NYU_FILE, [image], [ids])
    with h5py.File(tmp_path / NYU_FILE) as file:
        assert (file["images"].shape, file["labels"].shape) == ((1, 3, 4, 3), (1, 4, 3))
    sample = NYU.open_split(tmp_path, "val")[0]
    # By hand from the published map: 21 is wall (1), 3 cabinet (3), 5 chair (5), 11 floor (2), each less one.
    assert sample.labels.tolist() == [[0, 2, 2, 4], [2, 2, 2, 2], [1, 2, 2, 255]]
    assert sample.image.tolist() == image.tolist()


def test_trap_nyu_s_894_ids_are_mapped_to_40_classes_which_the_file_does_not_tell(tmp_path: Path) -> None:
    published_map = NYU.info.more["map_894_to_40"]
    assert (len(published_map), published_map[0], published_map[20], published_map[3]) == (894, 40, 1, 22)
    every = np.arange(896).clip(max=894).reshape(28, 32)
    write_plain_nyu(tmp_path, [every])
    labels = NYU.open_split(tmp_path, "val")[0].labels.ravel()
    assert labels[0] == 255
    assert set(labels[1:].tolist()) == set(range(40))  # All 40 classes, not the 13 of the toolbox's other map.
    assert labels[[1, 2, 3, 4, 5, 7, 8, 11, 21]].tolist() == [39, 39, 2, 21, 4, 11, 37, 1, 0]
    write_plain_nyu(tmp_path, [np.full((2, 2), 895)])
    with pytest.raises(ValueError, match=rf"{NYU_FILE}, image 000001 has the id 895: 0 to 894"):
        NYU.open_split(tmp_path, "val")[0]


def test_trap_nyu_numbers_count_from_one(tmp_path: Path) -> None:
    """Val starts with 1, 2, 9, 14, 15: if these were indices from 0, image 3 would be in val and 1 in train."""
    write_plain_nyu(tmp_path, [np.full((2, 3), number % 2 * 16 + 5) for number in range(1, 11)])
    val, train = (NYU.open_split(tmp_path, split) for split in ("val", "train"))
    assert val.items == ["000001", "000002", "000009"]
    assert train.items == ["000003", "000004", "000005", "000006", "000007", "000008", "000010"]
    # Odd numbers hold 21, the wall, even ones 5, the chair.
    assert [int(sample.labels[0, 0]) for sample in val] == [0, 4, 0]
    assert [int(sample.labels[0, 0]) for sample in train] == [0, 4, 0, 4, 0, 4, 4]


def test_trap_nyu_s_white_border_is_cropped_from_images_and_labels_alike(tmp_path: Path) -> None:
    top, bottom, left, right = BORDER
    inside = np.random.default_rng(0).integers(1, 895, (5, 6, 9))
    labels = [np.pad(ids, ((top, bottom), (left, right)), constant_values=21) for ids in inside]
    write_plain_nyu(tmp_path, labels, BORDER)
    table = [255, *(identifier - 1 for identifier in NYU.info.more["map_894_to_40"])]
    for split, numbers in (("val", (1, 2)), ("train", (3, 4, 5))):
        for sample, number in zip(NYU.open_split(tmp_path, split), numbers, strict=True):
            assert sample.labels.tolist() == [[table[k] for k in row] for row in inside[number - 1]]
            np.testing.assert_array_equal(sample.image, paint(inside[number - 1]))


def test_nyu_s_frames_of_640x480_are_cropped_to_625x468(tmp_path: Path) -> None:
    write_plain_nyu(tmp_path, [np.full((480, 640), 21)], (7, 5, 8, 7))
    sample = NYU.open_split(tmp_path, "val")[0]
    assert sample.image.shape == (468, 625, 3)
    assert sample.labels.shape == (468, 625)


def test_nyu_without_a_common_white_border_is_not_cropped(tmp_path: Path) -> None:
    """White areas in one image only, white lines inside, and a nearly white border are not part of the border."""
    labels = [np.full((8, 10), 5) for _ in range(3)]
    images = [paint(ids) for ids in labels]
    images[0][0] = 255
    images[1][:, -1] = 255
    for image in images:
        image[4] = image[:, 5] = 255
        image[-1] = (255, 255, 254)
    write_nyu_mat(tmp_path / NYU_FILE, images, labels)
    assert [sample.image.shape for sample in NYU.open_split(tmp_path, "val")] == [(8, 10, 3)] * 2
    write_nyu_mat(tmp_path / NYU_FILE, [np.full((4, 5, 3), 255, np.uint8)], [np.full((4, 5), 5)])
    assert NYU.open_split(tmp_path, "val")[0].image.shape == (4, 5, 3)


def test_trap_prepared_nyu_masks_hold_0_to_39_and_255_already(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    for name, pixels in (("train_labels", nyu_labels([[0, 39, 255]])), ("train_images", np.zeros((1, 3, 3)))):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / "000003.png")
    train = NYU.open_split(tmp_path, "train")
    assert train.items == ["000003"]
    assert train[0].labels.tolist() == [[0, 39, 255]]
    assert len(NYU.open_split(tmp_path, "val")) == 2  # still of the .mat file


def test_nyu_s_root_is_the_folder_and_its_images_are_no_files(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path / NYU_FILE / NYU_FILE} does not exist either"):
        NYU.open_split(tmp_path / NYU_FILE, "val")
    val = NYU.open_split(tmp_path, "val")
    assert [val.image_file(item) for item in val.items] == [None, None]
    assert val.locate("000002") == f"{tmp_path / NYU_FILE}, image 000002"


def test_nyu_files_of_another_make_are_refused(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    path = tmp_path / NYU_FILE
    with h5py.File(path, "r+") as file:
        labels = file["labels"][()]
        del file["labels"]
        file["labels"] = labels[:, :, ::2]
    with pytest.raises(ValueError, match=r"images of shape \(5, 3, 43, 37\) and labels of shape \(5, 43, 19\)"):
        NYU.open_split(tmp_path, "val")
    with h5py.File(path, "r+") as file:
        del file["labels"]
    with pytest.raises(ValueError, match=rf"{NYU_FILE} has no 'labels'"):
        NYU.open_split(tmp_path, "val")
    with h5py.File(path, "r+") as file:
        file["labels"] = labels + 0.5
    with pytest.raises(ValueError, match=r"image 000001 holds numbers that are not integers"):
        NYU.open_split(tmp_path, "val")[0]
    savemat(path, {"labels": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"not a MATLAB file of version 7\.3"):
        NYU.open_split(tmp_path, "val")


# Depth


def test_nyu_s_depths_are_transposed_cropped_and_in_metres(tmp_path: Path) -> None:
    """By hand: the depth of image n is n + (row + column) / 1000 metres, and 3 rows above and 1 column are white."""
    write_nyu(tmp_path)
    dataset = NYU.open_split(tmp_path, "val").with_targets(["depth"])
    assert [spec.to_text() for spec in dataset.target_specs] == ["depth:0.0:10.0", "normals"]
    second = dataset[1].targets["depth"]
    assert second.shape == (1, 32, 40)
    np.testing.assert_allclose(second[0, 0, :3], [2.004, 2.005, 2.006], rtol=1e-6)
    np.testing.assert_allclose(second[0, :3, 0], [2.004, 2.005, 2.006], rtol=1e-6)
    np.testing.assert_allclose(second[0, 31, 39], 2.074, rtol=1e-6)
    assert not np.isnan(second).any()


def test_nyu_s_raw_depths_are_another_choice_in_which_0_is_missing(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    filled, raw = (nyu.open_split(tmp_path, "val").with_targets(["depth"])[0] for nyu in (NYU, NYU_RAW))
    # The third column from the right has no measurement; two columns of border are to the right of it.
    assert np.isnan(raw.targets["depth"][0, :, 39]).all()
    np.testing.assert_array_equal(raw.targets["depth"][0, :, :39], filled.targets["depth"][0, :, :39])
    assert np.array_equal(raw.labels, filled.labels)


def test_nyu_s_normals_are_those_of_the_kinect_s_rays(tmp_path: Path) -> None:
    """A plane through (0, 0, 2) with the normal (0.6, 0, -0.8), whose depths follow from the published camera."""
    labels = np.full((30, 40), 5)
    column = np.arange(40) - 325.582449
    depth = np.broadcast_to(-0.8 * 2 / (0.6 * column / 518.857901 - 0.8), (30, 40)).astype(np.float32)
    border = (2, 1, 4, 3)
    write_plain_nyu(tmp_path, [labels], border)
    with h5py.File(tmp_path / NYU_FILE, "r+") as file:
        file["depths"][0] = depth.T
    normals = NYU.open_split(tmp_path, "val").with_targets(["normals"])[0].targets["normals"]
    assert normals.shape == (3, 27, 33)
    known = ~np.isnan(normals[0])
    assert known.mean() > 0.99
    np.testing.assert_allclose(normals[:, known].T, np.broadcast_to([0.6, 0, -0.8], (known.sum(), 3)), atol=2e-3)


def test_a_file_without_depths_has_classes_alone_and_depths_of_another_make_are_refused(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    with h5py.File(tmp_path / NYU_FILE, "r+") as file:
        del file["rawDepths"]
        depths = file["depths"][()]
        del file["depths"]
        file["depths"] = (depths * 1000).astype(np.uint16)
    assert NYU_RAW.open_split(tmp_path, "val").target_specs == ()
    with pytest.raises(ValueError, match=r"depths holds uint16 of shape \(N, 43, 37\), not floating-point numbers"):
        NYU.open_split(tmp_path, "val").with_targets(["depth"])[0]
