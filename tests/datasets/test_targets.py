"""Depth, normals and other quantities of datasets: drawn streets, folders with and without masks, joined datasets."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image

from refinenet.datasets import (
    Dataset,
    describe,
    draw_street,
    open_dataset,
    split_folder,
    write_contact_sheet,
)
from refinenet.datasets.dataset import with_value_range
from refinenet.datasets.folder.targets_file import read_encodings, write_encodings
from refinenet.datasets.joining import join
from refinenet.datasets.street_scenes import draw_street_geometry
from refinenet.labels import NO_CLASSES
from refinenet.outputs import OutputSpec

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NAN = float("nan")
NAMES = ("a", "b")
DEPTH = np.array([[1500, 0, 2500], [500, 65535, 1]], np.uint16)


def _folder(root: Path, *, has_masks: bool = True) -> Path:
    """A folder with the pictures a and b of 3x2 pixels in train, and c in val."""
    for split, names in (("train", NAMES), ("val", ("c",))):
        for kind in ("images", "masks") if has_masks else ("images",):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", (3, 2), (10, 20, 30)).save(root / "images" / split / f"{name}.png")
            if has_masks:
                Image.fromarray(np.eye(2, 3, dtype=np.uint8)).save(root / "masks" / split / f"{name}.png")
    if has_masks:
        (root / "classes.yaml").write_text("names: [road, sky]\n")
    return root


def _save(path: Path, values: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".png" and (values.ndim == 2 or values.dtype == np.uint8):
        Image.fromarray(values).save(path)
    else:
        bands = values[..., np.newaxis] if values.ndim == 2 else values
        driver = "PNG" if path.suffix == ".png" else "GTiff"
        height, width, count = bands.shape
        with rasterio.open(
            path, "w", driver=driver, height=height, width=width, count=count, dtype=bands.dtype
        ) as file:
            file.write(bands.transpose(2, 0, 1))
    return path


def _declare(root: Path, text: str) -> None:
    (root / "targets.yaml").write_text(text)


def _read(root: Path, name: str = "depth", split: str = "train", index: int = 0) -> npt.NDArray[np.float32]:
    return open_dataset(root)(split).with_targets([name])[index].targets[name]


def _equal(found: npt.NDArray[Any], expected: Any, tolerance: float = 0.0) -> bool:
    return bool(np.allclose(found, np.array(expected, np.float64), rtol=tolerance, atol=tolerance, equal_nan=True))


# Drawn streets


def test_streets_offer_depth_and_normals_and_read_none_by_default() -> None:
    dataset = open_dataset("streets:2:40x30")("val")
    assert dataset.target_specs == (
        OutputSpec(name="depth", kind="depth", range=(0, 2000)),
        OutputSpec(name="normals", kind="normals"),
    )
    assert dataset[0].targets == {}
    sample = dataset.with_targets(["normals", "depth"])[1]
    image, labels = draw_street(2_000_001, 30, 40)
    geometry = draw_street_geometry(2_000_001, 30, 40)
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.labels, labels)
    assert list(sample.targets) == ["normals", "depth"]
    assert sample.targets["depth"].shape == (1, 30, 40)
    assert np.array_equal(sample.targets["depth"][0], geometry.depth, equal_nan=True)
    assert np.array_equal(sample.targets["normals"], geometry.normals, equal_nan=True)


def test_a_caller_may_change_the_arrays_of_a_sample() -> None:
    dataset = open_dataset("streets:1:40x30")("train").with_targets(["depth"])
    first = dataset[0].targets["depth"]
    expected = first.copy()
    first[:] = 5
    assert np.array_equal(dataset[0].targets["depth"], expected, equal_nan=True)


def test_unknown_targets_are_refused_with_those_that_exist() -> None:
    dataset = open_dataset("streets:1:40x30")("train")
    with pytest.raises(
        ValueError, match="streets train has no ground truth for 'height', 'deep': it has depth, normals"
    ):
        dataset.with_targets(["depth", "height", "deep"])


def test_targets_survive_pickling_and_can_be_chosen_anew() -> None:
    dataset = open_dataset("streets:1:40x30")("train").with_targets(["depth"])
    copy: Dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert np.array_equal(copy[0].targets["depth"], dataset[0].targets["depth"], equal_nan=True)
    assert list(copy.with_targets(["normals"])[0].targets) == ["normals"]
    assert copy.with_targets([])[0].targets == {}


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
    message = f"{path}: the image has 3x2 pixels (width x height), its depth 2x3. They must be equal."
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
    with pytest.raises(ValueError, match=r"row 1, column 0 a normal of length 1\.73 \(1 pixels.*`missing: 0`"):
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
    with pytest.raises(ValueError, match=r"a\.npy has 1 channels, and values has 2: height, moisture"):
        _read(root, "values")


def test_a_folder_of_values_that_is_not_declared_is_left_alone(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "values" / "train" / "a.npy", DEPTH)
    assert open_dataset(root)("train").target_specs == ()


# targets.yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deep: {}", "it may have the keys depth, normals, values; it has ['deep']"),
        ("- depth", "it may have the keys depth, normals, values"),
        ("depth: 1000", "'depth' may have the keys scale, missing, range, optional; it has 1000"),
        ("depth: {unit: mm}", "'depth' may have the keys scale, missing, range, optional; it has ['unit']"),
        ("depth: {scale: mm}", "'scale' of 'depth' is a number above 0: the stored value of one unit, not 'mm'"),
        ("depth: {scale: 0}", "'scale' of 'depth' is a number above 0: the stored value of one unit, not 0"),
        ("depth: {missing: none}", "'missing' of 'depth' is a number, not 'none'"),
        ("depth: {range: 80}", "'range' of 'depth' is two numbers of metres, such as [0.5, 80], not 80"),
        ("depth: {range: [80, 0.5]}", "A range is two numbers of metres, 0 <= low < high, not 80.0 and 0.5"),
        ("normals: {encoding: bgr}", "'encoding' of 'normals' is rgb or xyz, not 'bgr'"),
        ("normals: {flip: z}", "'flip' of 'normals' is a list of axes to negate, such as [y, z], not 'z'"),
        ("values: {}", "'quantities' of 'values' is a list, such as [{name: height, unit: m}], not None"),
        ("values: {quantities: [{unit: m}]}", "'values': The name of a quantity has 1 to 40 letters"),
        ("values: {quantities: [{name: a, limit: 1}]}", "'values, quantity 1' may have the keys name, unit, scale"),
        ("values: {name: depth, quantities: [{name: a}]}", "two outputs have the same name: depth, normals, depth"),
    ],
)
def test_invalid_entries_are_refused_with_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    root = _folder(tmp_path)
    for kind in ("depth", "normals", "values"):
        (root / kind / "train").mkdir(parents=True)
    _declare(root, text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        open_dataset(root)("train")
    assert str(error.value).startswith(str(root / "targets.yaml"))


def test_a_declared_folder_must_exist(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _declare(root, "depth: {scale: 1000}\n")
    with pytest.raises(FileNotFoundError, match=r"targets\.yaml declares 'depth', and there is no folder depth beside"):
        open_dataset(root)("train")


# Layouts


def test_targets_are_found_in_folders_with_lists_and_in_folders_of_splits(tmp_path: Path) -> None:
    flat, outer = tmp_path / "flat", tmp_path / "outer"
    for folder in (flat, outer / "train"):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
            for name in NAMES:
                Image.new("RGB" if kind == "images" else "L", (3, 2)).save(folder / kind / f"{name}.png")
        for number, name in enumerate(NAMES, start=1):
            _save(folder / "depth" / f"{name}.npy", np.full((2, 3), number, np.float32))
    for root in (flat, outer):
        (root / "classes.yaml").write_text("names: [road]\n")
    (flat / "train.txt").write_text("b\n")
    (flat / "val.txt").write_text("a\n")
    assert _read(flat).max() == 2
    assert _read(flat, split="val").max() == 1
    assert _read(outer, index=1).max() == 2


def test_a_folder_without_masks_has_no_classes_and_labels_that_are_all_ignored(tmp_path: Path) -> None:
    root = _folder(tmp_path, has_masks=False)
    for split, names in (("train", NAMES), ("val", ("c",))):
        for name in names:
            _save(root / "depth" / split / f"{name}.npy", np.full((2, 3), 4, np.float32))
    dataset = open_dataset(root)("train").with_targets(["depth"])
    sample = dataset[0]
    assert dataset.label_set is NO_CLASSES
    assert list(dataset.items) == list(NAMES)
    assert sample.labels.tolist() == [[255] * 3] * 2
    assert dataset.labels(1).tolist() == [[255] * 3] * 2
    assert sample.targets["depth"].tolist() == [[[4] * 3] * 2]
    assert len(open_dataset(root)("val")) == 1


# Joined and changed datasets


def test_images_of_a_dataset_without_a_target_have_no_truth_for_it(tmp_path: Path) -> None:
    with_depth, without = _folder(tmp_path / "one"), _folder(tmp_path / "two")
    for name in NAMES:
        _save(with_depth / "depth" / "train" / f"{name}.npy", np.full((2, 3), 4, np.float32))
    joined = join([open_dataset(root)("train") for root in (without, with_depth)])
    assert joined[0].targets == {}
    chosen = joined.with_targets(["depth"])
    assert np.isnan(chosen[0].targets["depth"]).all()
    assert chosen[0].targets["depth"].shape == (1, 2, 3)
    assert chosen[2].targets["depth"].tolist() == [[[4] * 3] * 2]
    copy = pickle.loads(pickle.dumps(chosen))  # noqa: S301
    assert copy[3].targets["depth"].max() == 4


def test_joining_keeps_chosen_targets_and_widens_ranges_and_refuses_other_meanings(tmp_path: Path) -> None:
    roots = [_folder(tmp_path / name) for name in ("one", "two", "three")]
    for root, span in zip(roots, ("[0.5, 80]", "[1, 200]", "[1, 2]"), strict=True):
        _save(root / "depth" / "train" / "a.npy", np.ones((2, 3), np.float32))
        _save(root / "values" / "train" / "a.npy", np.ones((2, 3), np.float32))
        unit = "m" if root != roots[2] else "mm"
        _declare(root, f"depth: {{range: {span}}}\nvalues: {{quantities: [{{name: height, unit: {unit}}}]}}\n")
    one, two, three = (open_dataset(root)("train") for root in roots)
    joined = join([one.with_targets(["depth"]), two.with_targets(["values"])])
    assert joined.chosen_targets == ("depth", "values")
    assert joined.target_specs[0].range == (0.5, 200)
    assert joined[2].targets["values"].tolist() == [[[1] * 3] * 2]
    with pytest.raises(ValueError, match=r"The target 'values' of three is .*'mm'.*cannot be joined"):
        join([one, two, three])


def test_a_dataset_without_classes_joins_one_with_classes(tmp_path: Path) -> None:
    bare, classed = _folder(tmp_path / "bare", has_masks=False), _folder(tmp_path / "classed")
    _save(bare / "depth" / "train" / "a.npy", np.ones((2, 3), np.float32))
    (bare / "depth" / "val").mkdir()
    joined = join([open_dataset(bare)("train"), open_dataset(classed)("train")])
    assert joined.label_set.names == ("road", "sky")
    assert joined[0].labels.tolist() == [[255] * 3] * 2
    assert joined[2].labels.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_value_range_of_images_leaves_targets_as_they_are(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.npy", np.full((2, 3), 4, np.float32))
    dataset = with_value_range(open_dataset(root)("train").with_targets(["depth"]), (0, 4095))
    assert dataset[0].targets["depth"].tolist() == [[[4] * 3] * 2]


def test_an_empty_folder_of_masks_is_not_taken_for_a_dataset_without_masks(tmp_path: Path) -> None:
    root = _folder(tmp_path, has_masks=False)
    for split in ("train", "val"):
        _save(root / "depth" / split / "a.npy", np.ones((2, 3), np.float32))
    (root / "labels").mkdir()
    with pytest.raises(FileNotFoundError, match="No pictures are in labels/"):
        open_dataset(root)("train")


# Summaries and splits


def _folder_of_values(root: Path) -> Path:
    """Ten pictures of 3x2 pixels with heights, of which one pixel each is unknown, and moistures."""
    for number in range(10):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 20, 30)).save(root / "images" / f"{number}a.png")
        stored = np.array(
            [[[number, 5], [number, 5], [number, 5]], [[number, 5], [number, 5], [-9999, 15]]], np.float32
        )
        _save(root / "values" / f"{number}a.npy", stored)
    _declare(root, "values: {name: soil, quantities: [{name: height, unit: m, missing: -9999}, {name: moisture}]}\n")
    return root


def test_summaries_say_how_much_is_known_and_between_which_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _folder_of_values(tmp_path)
    found = describe(root, workers=0, progress=False)
    assert found.class_weights is None
    height, moisture = found.targets["val"]
    assert (height.name, height.unit, height.images) == ("soil: height", "m", 2)
    assert height.known == pytest.approx(5 / 6)
    assert height.quantiles == (0, 2.5, 5)  # images 0 and 5 of every fifth
    assert (moisture.known, moisture.quantiles[1]) == (1, 5)
    assert found.to_dict()["targets"]["val"][1]["percentile_95"] == 15
    found.print()
    assert "soil: moisture" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has no classes to draw over its images"):
        write_contact_sheet(tmp_path / "sheet.png", root)
    _declare(root, "values: {quantities: [{name: height}]}\n")
    with pytest.raises(ValueError, match=r"0a\.npy has 2 channels"):
        _read(root, "values", split="val")
    assert describe(root, workers=0, progress=False).targets == {"train": (), "val": ()}


def test_summaries_read_no_images(tmp_path: Path) -> None:
    """Those of named bands can be read only for a model, and a share counts the pixels of samples without a file."""
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.png", DEPTH)
    _declare(root, "depth: {scale: 1000, range: [0.001, 80], optional: true}\n")
    for image in root.rglob("images/*/*.png"):
        image.write_bytes(b"no image")
    (depth,) = describe(root, workers=0, progress=False).targets["train"]
    assert depth.images == 2
    assert depth.known == pytest.approx(5 / 12)
    assert depth.quantiles[1] == pytest.approx(1.5)


def test_a_folder_without_masks_is_split_into_lists(tmp_path: Path) -> None:
    root = _folder_of_values(tmp_path)
    parts = split_folder(root, val=0.3, group="(.*)")
    assert (len(parts["train"]), len(parts["val"])) == (7, 3)
    assert tuple(open_dataset(root)("val").items) == parts["val"]
    assert split_folder(root, val=0.3, group="(.*)", seed=1, replace=True) != parts
    (root / "images" / "train").mkdir()
    (root / "values" / "train").mkdir()
    for name in ("train", "val"):
        (root / f"{name}.txt").unlink()
        for folder in ("images", "values"):
            (root / folder / name).mkdir(exist_ok=True)
            for path in list((root / folder).glob("*.*"))[:2]:
                path.rename(root / folder / name / path.name)
    with pytest.raises(ValueError, match=r"cannot be split.* but its layout is images/SPLIT and values/SPLIT"):
        split_folder(root)


def test_an_image_may_lack_a_file_if_that_is_declared(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "b.npy", np.ones((2, 3), np.float32))
    _declare(root, "depth: {optional: true}\n")
    assert np.isnan(_read(root)).all()
    assert _read(root).shape == (1, 2, 3)
    assert _equal(_read(root, index=1), np.ones((1, 2, 3)))
    _declare(root, "depth: {optional: perhaps}\n")
    with pytest.raises(ValueError, match="'optional' of 'depth' is true or false, not 'perhaps'"):
        open_dataset(root)("train")


def test_a_declared_folder_may_be_absent_from_one_split(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.npy", np.ones((2, 3), np.float32))
    _declare(root, "depth: {scale: 1}\n")
    splits = open_dataset(root)
    assert [len(splits(split).target_specs) for split in ("train", "val")] == [1, 0]


def test_an_empty_declaration_declares_nothing(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "a.npy", np.ones((2, 3), np.float32))
    _declare(root, "# metres\n")
    assert _equal(_read(root), np.ones((1, 2, 3)))


@pytest.mark.parametrize(
    "text",
    [
        "depth: {scale: 1000, missing: 65535, range: [0.5, 80], optional: true}\n",
        "normals: {encoding: rgb, flip: [y, z], missing: 0}\n",
        "values: {name: soil, quantities: [{name: a, unit: m, scale: 0.5, missing: 1e20}, {name: b, missing: nan}]}\n",
    ],
)
def test_declarations_are_written_as_they_are_read(tmp_path: Path, text: str) -> None:
    path, folders = tmp_path / "targets.yaml", ("depth", "normals", "values")
    _declare(tmp_path, text)
    first = read_encodings(path, folders)
    _declare(tmp_path, write_encodings(first))
    assert repr(read_encodings(path, folders)) == repr(first)  # by repr, because NaN differs from itself
