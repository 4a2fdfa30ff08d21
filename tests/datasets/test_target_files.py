"""Files of depth, normals and other quantities: what is stored, what is missing, what is damaged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from target_miniatures import DEPTH, NAN, _declare, _equal, _folder, _read, _save

from refinenet.datasets import (
    open_dataset,
)
from refinenet.outputs import OutputSpec

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


# Depth in folders


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".npy"])
def test_integer_depth_is_divided_by_its_scale_and_0_has_no_truth(tmp_path: Path, suffix: str) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / f"a{suffix}", DEPTH)
    _declare(root, "depth: {scale: 1000, range: [0.5, 80]}\n")
    dataset = open_dataset(root)("train")
    assert dataset.target_specs == (OutputSpec(name="depth", kind="depth", range=(0.5, 80)),)
    sample = dataset.with_targets(["depth"])[0]
    assert sample.targets["depth"].dtype == np.float32
    assert _equal(sample.targets["depth"], [[[1.5, NAN, 2.5], [0.5, 65.535, 0.001]]], 1e-6)
    assert sample.labels.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_another_missing_value_replaces_0(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.png", np.maximum(DEPTH, 1))
    _declare(root, "depth:\n  scale: 256\n  missing: 65535\n")
    assert _equal(_read(root), [[[1500 / 256, 1 / 256, 2500 / 256], [500 / 256, NAN, 1 / 256]]], 1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_depth_of_floats_is_in_metres_without_a_declaration(tmp_path: Path, dtype: type) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.npy", np.array([[1.5, NAN, 2.5], [0.5, 8, 1]], dtype))
    assert _equal(_read(root), [[[1.5, NAN, 2.5], [0.5, 8, 1]]])


def test_floats_in_a_tiff_and_its_own_nodata_value_are_read(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    path = _save(root / "depth" / "train" / "a.tif", np.array([[1.5, -9999, 2.5], [0.5, 8, 1]], np.float32))
    with rasterio.open(path, "r+") as file:
        file.nodata = -9999
    assert _equal(_read(root), [[[1.5, NAN, 2.5], [0.5, 8, 1]]])


def test_integer_depth_without_a_scale_is_refused_with_advice_when_it_is_read(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.png", DEPTH)
    assert open_dataset(root)("train")[0].targets == {}
    with pytest.raises(ValueError, match=r"a\.png holds integers \(uint16\).*targets\.yaml.*`  scale: 1000`"):
        _read(root)


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-1, "-1"), (np.inf, "inf")])
def test_impossible_depths_are_refused_unless_they_are_declared_missing(
    tmp_path: Path, value: float, shown: str
) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.npy", np.array([[1, 2, value], [3, 4, 5]], np.float32))
    with pytest.raises(
        ValueError, match=rf"a\.npy has depths .*, {shown} at row 0, column 2 \(1 in total\).*`missing: "
    ):
        _read(root)
    _declare(root, f"depth: {{missing: {shown}}}\n")
    assert _equal(_read(root), [[[1, 2, NAN], [3, 4, 5]]])


def test_another_size_than_the_images_is_refused_with_both(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    path = _save(root / "depth" / "train" / "a.npy", np.ones((3, 2), np.float32))
    message = f"{path}: the image has 3x2 pixels (width x height), but its depth has 2x3. They must be equal."
    with pytest.raises(ValueError, match=re.escape(message)):
        _read(root)


def test_an_image_without_a_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "b.npy", np.ones((2, 3), np.float32))
    assert _equal(_read(root, index=1), np.ones((1, 2, 3)))
    with pytest.raises(FileNotFoundError, match=r"has no file for the image a: a with one of .*\.npy"):
        _read(root)


def test_two_files_of_one_image_are_refused_when_they_are_read(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    for suffix in (".npy", ".tif"):
        _save(root / "depth" / "train" / f"a{suffix}", np.ones((2, 3), np.float32))
    assert len(open_dataset(root)("train")) == 2
    with pytest.raises(ValueError, match=r"holds both a\.npy and a\.tif"):
        _read(root)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x02\x00{(", b"no array"])
def test_damaged_arrays_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    root = _folder(tmp_path)
    path = _save(root / "depth" / "train" / "a.npy", np.ones((2, 3), np.float32))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy is not a NumPy file of measurements"):
        _read(root)


def test_arrays_that_claim_more_than_they_hold_and_pickles_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    path = _save(root / "depth" / "train" / "a.npy", np.ones((2, 3), np.float32))
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (7000, 7000, 60)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"a\.npy is not a NumPy file.*declares the shape \(7000, 7000, 60\)"):
        _read(root)
    np.save(path, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is not a NumPy file"):
        _read(root)


# Normals in folders


def _normals() -> npt.NDArray[np.float64]:
    normals = np.zeros((2, 3, 3))
    normals[...] = (0, 0, -1)
    normals[0, 1] = (0.6, 0, -0.8)
    normals[1, 2] = 0
    return normals


EXPECTED = [
    [[0, 0.6, 0], [0, 0, NAN]],
    [[0, 0, 0], [0, 0, NAN]],
    [[-1, -0.8, -1], [-1, -1, NAN]],
]


def test_normals_of_floats_are_read_without_a_declaration(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "normals" / "train" / "a.npy", _normals())
    _save(root / "normals" / "train" / "b.tif", _normals().astype(np.float32))
    dataset = open_dataset(root)("train")
    assert dataset.target_specs == (OutputSpec(name="normals", kind="normals"),)
    assert _equal(_read(root, "normals"), EXPECTED, 1e-6)
    assert _equal(_read(root, "normals", index=1), EXPECTED, 1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.uint8, 0.008), (np.uint16, 4e-5)])
def test_normals_in_colours_are_decoded_to_unit_vectors(tmp_path: Path, dtype: type, tolerance: float) -> None:
    root = _folder(tmp_path)
    stored: npt.NDArray[Any] = np.rint((_normals() + 1) / 2 * np.iinfo(dtype).max).astype(dtype)
    _save(root / "normals" / "train" / "a.png", stored)
    _declare(root, "normals: {encoding: rgb}\n")
    found = _read(root, "normals")
    assert _equal(found, EXPECTED, tolerance)
    assert np.allclose(np.linalg.norm(found, axis=0)[~np.isnan(found[0])], 1, atol=1e-6)


def test_axes_are_flipped_into_the_frame_of_the_camera(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "normals" / "train" / "a.npy", _normals() * [1, -1, -1])
    with pytest.raises(ValueError, match=r"a\.npy has normals that point away .*`flip: \[y, z\]`"):
        _read(root, "normals")
    _declare(root, "normals: {encoding: xyz, flip: [y, z]}\n")
    assert _equal(_read(root, "normals"), EXPECTED, 1e-6)


def test_a_missing_value_of_normals_is_that_of_all_channels(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    stored = np.rint((_normals() + 1) / 2 * 255).astype(np.uint8)
    stored[1, 0] = 0
    _save(root / "normals" / "train" / "a.png", stored)
    _declare(root, "normals: {encoding: rgb}\n")
    with pytest.raises(ValueError, match=r"a normal of length 1\.73 at row 1, column 0 \(1 pixels.*`missing: 0`"):
        _read(root, "normals")
    _declare(root, "normals: {encoding: rgb, missing: 0}\n")
    found = _read(root, "normals")
    assert np.isnan(found[:, 1, 0]).all()
    assert not np.isnan(found[:, 0]).any()


def test_normals_of_integers_and_a_false_encoding_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "normals" / "train" / "a.png", np.full((2, 3, 3), 128, np.uint8))
    _save(root / "normals" / "train" / "b.npy", _normals())
    with pytest.raises(ValueError, match=r"a\.png holds uint8, and its encoding is not declared.*`  encoding: rgb`"):
        _read(root, "normals")
    _declare(root, "normals: {encoding: rgb}\n")
    with pytest.raises(ValueError, match=r"b\.npy holds float64, and its encoding is rgb in .*targets\.yaml"):
        _read(root, "normals", index=1)


# Other quantities in folders


def test_quantities_have_names_units_scales_and_missing_values_of_their_own(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    stored: npt.NDArray[np.uint16] = np.stack([DEPTH, np.array([[0, 10, 20], [30, 40, 50]], np.uint16)], 2)
    _save(root / "values" / "train" / "a.npy", stored)
    _save(root / "values" / "train" / "b.tif", stored)
    _declare(
        root,
        "values:\n  name: soil\n  quantities:\n    - {name: height, unit: m, scale: 100, missing: 65535}\n"
        '    - {name: moisture, unit: "%"}\n',
    )
    spec = OutputSpec(name="soil", kind="regression", channels=("height", "moisture"), units=("m", "%"))
    assert open_dataset(root)("train").target_specs == (spec,)
    for index in range(2):
        found = _read(root, "soil", index=index)
        assert _equal(found, [[[15, 0, 25], [5, NAN, 0.01]], [[0, 10, 20], [30, 40, 50]]], 1e-6)


def test_values_have_one_channel_for_each_quantity(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "values" / "train" / "a.npy", DEPTH)
    _declare(root, "values: {quantities: [{name: height}, {name: moisture}]}\n")
    with pytest.raises(ValueError, match=r"a\.npy has 1 channels, but values has 2: height, moisture"):
        _read(root, "values")


@pytest.mark.parametrize("has_masks", [True, False])
def test_a_quantity_may_have_a_folder_of_its_own(tmp_path: Path, has_masks: bool) -> None:
    root = _folder(tmp_path, has_masks=has_masks)
    for name in ("train/a", "train/b", "val/c"):
        _save(root / "height" / f"{name}.png", DEPTH)
        _save(root / "moisture" / f"{name}.npy", np.full((2, 3), 7, np.float32))
    _declare(root, "height: {unit: m, scale: 100, missing: 65535}\nmoisture: {}\n")
    specs = open_dataset(root)("train").target_specs
    assert [spec.to_text() for spec in specs] == ["height=regression[height:m]", "moisture=regression[moisture]"]
    assert _equal(_read(root, "height"), [[[15, 0, 25], [5, NAN, 0.01]]], 1e-6)
    assert _equal(_read(root, "moisture", split="val"), np.full((1, 2, 3), 7))


def test_folders_that_nothing_declares_are_named_where_there_is_no_other_ground_truth(tmp_path: Path) -> None:
    root = _folder(tmp_path, has_masks=False)
    for name in ("train/a", "train/b", "val/c"):
        _save(root / "height" / f"{name}.png", DEPTH)
        _save(root / "drawn" / f"{name}.png", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"are in height/: if they hold .* for example: height: \{unit: m\}\."):
        open_dataset(root)("train")


def test_a_folder_of_values_that_is_not_declared_is_left_alone(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "values" / "train" / "a.npy", DEPTH)
    assert open_dataset(root)("train").target_specs == ()
