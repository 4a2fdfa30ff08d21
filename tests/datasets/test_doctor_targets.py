"""The doctor finds every planted fault of depth, normals and values, and none in clean folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from matlab_miniatures import write_nyu
from target_folders import STORED, WIDTH, draw, save, to_colours, to_integers, write_folder

from refinenet.datasets import doctor
from refinenet.datasets.catalog import Sample, open_dataset
from refinenet.datasets.doctor.targets.repair import TargetWriter
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.outputs import OutputSpec

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def check(root: Path, *targets: str) -> dict[str, doctor.Finding]:
    report = doctor.check(root, targets=targets or None, workers=0, progress=False)
    return {finding.kind: finding for finding in report.findings}


@pytest.mark.parametrize("how", STORED)
def test_nothing_is_found_in_clean_folders_of_any_encoding(tmp_path: Path, how: str) -> None:
    assert check(write_folder(tmp_path, how, has_masks=how in ("npy", "png"))) == {}


# Faults of single files


def change(root: Path, name: str, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    path = root / name
    np.save(path, function(np.load(path)))


def put(value: float, count: int = 40) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Return a function that puts a value into the last `count` pixels of the last row."""

    def change_pixels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array[-1, -count:] = value
        return array

    return change_pixels


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """A folder with a fault of each kind in files of its own, and these files by kind."""
    root = write_folder(tmp_path_factory.mktemp("planted") / "mine", "npy")
    change(root, "depth/train/s0.npy", put(np.inf))
    change(root, "depth/train/s1.npy", put(0))
    change(root, "depth/train/s2.npy", put(-1))
    change(root, "normals/train/s3.npy", lambda normals: normals * 1.3)
    change(root, "values/train/s4.npy", put(-9999))
    change(root, "depth/train/s5.npy", lambda depth: depth[:-1])
    content = (root / "normals/train/s6.npy").read_bytes()
    (root / "normals/train/s6.npy").write_bytes(content[: len(content) // 2])
    change(root, "values/train/s7.npy", lambda values: values[..., [0, 1, 1]])
    (root / "normals/train/s8.npy").unlink()
    save(root / "depth/train/s9.tif", draw(9).depth)
    change(root, "values/train/s10.npy", lambda values: np.full_like(values, 3))
    change(root, "depth/train/s11.npy", lambda depth: np.full_like(depth, np.nan))
    change(root, "depth/val/s12.npy", lambda depth: depth * 1000)
    shutil.copy(root / "values/val/s14.npy", root / "values/val/s13.npy")
    (root / "depth/val/s15.npy").unlink()
    save(root / "depth/val/s15.jpg", to_colours(draw(15).normals))
    change(root, "depth/val/s16.npy", lambda _: draw(17).depth)
    change(root, "depth/val/s17.npy", lambda _: draw(16).depth)
    np.save(root / "depth/val/lonely.npy", draw(3).depth)
    return root, {
        "target-infinite": {"depth/train/s0.npy"},
        "depth-zeros": {"depth/train/s1.npy"},
        "depth-negative": {"depth/train/s2.npy"},
        "normals-length": {"normals/train/s3.npy"},
        "target-marker": {"values/train/s4.npy"},
        "target-size": {"depth/train/s5.npy"},
        "target-damaged": {"normals/train/s6.npy"},
        "target-channels": {"values/train/s7.npy"},
        "target-missing": {"images/train/s8.png", "images/val/s15.png"},
        "target-twice": {"depth/train/s9"},
        "target-constant": {"values/train/s10.npy"},
        "target-empty": {"depth/train/s11.npy"},
        "depth-scale-mixed": {"depth/val/s12.npy"},
        "target-repeated": {"values/val/s14.npy = values/val/s13.npy"},
        "target-kind-unread": {"depth/val/s15.jpg"},
        "target-of-another-image": {"depth/val/s16.npy = depth/val/s17.npy", "depth/val/s17.npy = depth/val/s16.npy"},
        "target-without-image": {"depth/val/lonely.npy"},
    }


def test_each_planted_fault_of_a_file_is_found_and_nothing_else(planted: tuple[Path, dict[str, set[str]]]) -> None:
    root, expected = planted
    found = check(root)
    assert {kind: set(finding.examples) for kind, finding in found.items()} == expected
    assert found["target-size"].meaning.endswith("96x72 and 96x71 pixels (width x height) for the first one.")
    assert "-9999 in the first one, in height" in found["target-marker"].meaning
    assert "e+03 times the median" in found["depth-scale-mixed"].meaning
    assert "no file of depth, normals" in found["target-missing"].meaning
    assert "at row" not in found["depth-zeros"].meaning


def test_only_the_chosen_outputs_are_examined(planted: tuple[Path, dict[str, set[str]]]) -> None:
    assert check(planted[0], "nothing") == {}
    assert set(check(planted[0], "soil")) == {"target-marker", "target-channels", "target-constant", "target-repeated"}


# Faults that a whole folder has


def each(root: Path, name: str, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], split: str = "*") -> None:
    for path in sorted((root / name).glob(f"{split}/*.npy")):
        change(root, str(path.relative_to(root)), function)


def store_depth(root: Path, scale: float, declared: str) -> None:
    """Replace the depths by PNG of 16 bits."""
    for path in sorted((root / "depth").glob("*/*.npy")):
        save(path.with_suffix(".png"), to_integers(np.load(path), scale))
        path.unlink()
    (root / "targets.yaml").write_text(declared)


def stretch(depth: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    shown = np.nan_to_num(depth, nan=0)
    stretched: npt.NDArray[np.uint8] = np.rint(shown / shown.max() * 255).astype(np.uint8)
    return stretched


def clip(depth: npt.NDArray[Any]) -> npt.NDArray[Any]:
    clipped: npt.NDArray[Any] = np.minimum(depth, 4)
    return clipped


def shift_one(root: Path) -> None:
    (root / "targets.yaml").write_text("depth: {range: [1, 8]}")
    change(root, "depth/train/s1.npy", lambda depth: depth + 8)


def store_pictures(root: Path) -> None:
    (root / "targets.yaml").write_text("depth: {scale: 30}")
    each(root, "depth", stretch)


FOLDER_FAULTS: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "metres declared as millimetres": (
        lambda root: (root / "targets.yaml").write_text("depth: {scale: 1000}"),
        {"depth-scale": "scale: 1\n"},
    ),
    "millimetres read as metres": (
        lambda root: each(root, "depth", lambda depth: depth * 1000),
        {"depth-scale": "scale: 1000\n"},
    ),
    "ten times too deep for the range": (
        lambda root: store_depth(root, 1000, "depth: {scale: 100, range: [0.5, 10]}"),
        {"depth-scale": "scale: 1000\n"},
    ),
    "one map out of range": (
        shift_one,
        {"depth-out-of-range": "1 to 8 metres"},
    ),
    "integers without a unit": (lambda root: store_depth(root, 1000, ""), {"target-undeclared": "`  scale: 1000`"}),
    "pictures of depth": (
        store_pictures,
        {"depth-stretched": "each has a scale of its own", "depth-8-bit": "256 different depths"},
    ),
    "a sensor that reaches 4 metres": (lambda root: each(root, "depth", clip), {"depth-saturated": "4 metres"}),
    "two splits of different rooms": (
        lambda root: each(root, "depth", lambda depth: depth * 2.5, "val"),
        {"target-splits-differ": "in train and"},
    ),
    "depth of train alone": (lambda root: shutil.rmtree(root / "depth/val"), {"target-not-in-split": "not evaluated"}),
    "depth of mirrored images": (
        lambda root: each(root, "depth", lambda depth: depth[:, ::-1]),
        {"values-flipped": "stored mirrored from left to right."},
    ),
    "depth of shifted images": (
        lambda root: each(root, "depth", lambda depth: np.roll(depth, WIDTH // 2, 1)),
        {"target-unrelated": "no better than those of other images"},
    ),
    "an invalid file": (
        lambda root: (root / "targets.yaml").write_text("depth: {unit: m}"),
        {"targets-file": "'depth' may have the keys"},
    ),
}


@pytest.mark.parametrize("name", FOLDER_FAULTS)
def test_faults_that_all_depths_share_are_found(tmp_path: Path, name: str) -> None:
    root = write_folder(tmp_path, "npy", has_masks=False)
    plant, expected = FOLDER_FAULTS[name]
    plant(root)
    found = check(root, "depth")
    assert set(found) == set(expected)
    for kind, words in expected.items():
        assert words in f"{found[kind].text()}\n", kind


@pytest.mark.parametrize(
    ("signs", "has_depth", "kind", "words"),
    [
        ((1, -1, 1), True, "normals-frame", "These axes point the other way: y, as the depth shows."),
        ((1, -1, -1), True, "normals-frame", "\nflip: [y, z]\n"),
        ((-1, 1, 1), True, "normals-frame", "\nflip: [x]\n"),
        ((1, -1, -1), False, "normals-frame", "These axes point the other way: z, and perhaps y."),
        ((1, -1, 1), False, "normals-upside-down", "flip: [y]"),
    ],
)
def test_normals_in_another_frame_are_found(
    tmp_path: Path, signs: tuple[int, int, int], has_depth: bool, kind: str, words: str
) -> None:
    root = write_folder(tmp_path, "npy", has_masks=False)
    each(root, "normals", lambda normals: normals * np.array(signs))
    if not has_depth:
        shutil.rmtree(root / "depth")
    found = check(root, "depth", "normals")
    assert set(found) == {kind}
    assert words in found[kind].text()
    assert found[kind].fixable == (has_depth and kind == "normals-frame")


def test_permuted_axes_are_found(tmp_path: Path) -> None:
    root = write_folder(tmp_path, "npy", has_masks=False)
    each(root, "normals", lambda normals: normals[..., [2, 0, 1]])
    assert "normals-unlike-depth" in check(root, "depth", "normals")


def test_quantities_without_any_truth_and_folders_without_a_declaration_are_found(tmp_path: Path) -> None:
    root = write_folder(tmp_path, "npy", has_masks=False)
    each(root, "values", lambda values: values * np.array([1, np.nan], np.float32))
    found = check(root, "soil")
    assert {kind: finding.examples for kind, finding in found.items()} == {"target-nothing": ("moisture",)}
    (root / "targets.yaml").unlink()
    assert check(root)["values-undeclared"].examples == ("values/train", "values/val")


def test_files_may_be_declared_optional(tmp_path: Path) -> None:
    root = write_folder(tmp_path, "npy", has_masks=False)
    (root / "depth/train/s8.npy").unlink()
    assert set(check(root, "depth")) == {"target-missing"}
    (root / "targets.yaml").write_text("depth: {optional: true}")
    assert check(root, "depth") == {}


# Repaired copies


@pytest.mark.parametrize(
    ("name", "part", "words"),
    [
        ("values", np.s_[::-1], "stored upside down."),
        ("values", np.s_[:, ::-1], "stored mirrored from left to right."),
        ("depth", np.s_[::-1, ::-1], "stored turned by 180 degrees."),
    ],
)
def test_maps_that_all_are_flipped_are_found(tmp_path: Path, name: str, part: Any, words: str) -> None:
    root = write_folder(tmp_path)
    each(root, name, lambda values: values[part])
    output = "soil" if name == "values" else name
    found = check(root, output)
    assert {kind: finding.examples for kind, finding in found.items()} == {"values-flipped": (output,)}
    assert found["values-flipped"].meaning.endswith(words)
    assert not found["values-flipped"].stops


def test_maps_of_other_images_and_drawn_streets_are_not_taken_for_flipped(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    each(root, "values", lambda values: np.random.default_rng(int(values[-1, 0, 1] * 1000)).permuted(values, axis=0))
    assert "values-flipped" not in check(root)
    report = doctor.check("streets:16:80x60", workers=0, progress=False)
    assert "values-flipped" not in {finding.kind for finding in report.findings}


def read(root: Path, split: str) -> dict[str, Sample]:
    dataset = open_dataset(root)(split)
    chosen = dataset.with_targets(spec.name for spec in dataset.target_specs)
    return {sample.name: sample for sample in chosen}


def test_a_copy_keeps_targets_and_mends_what_is_certain(tmp_path: Path) -> None:
    root, copy = write_folder(tmp_path / "mine", "npy"), tmp_path / "copy"
    (root / "targets.yaml").write_text(
        (root / "targets.yaml").read_text() + "depth: {range: [0.5, 20]}\nnormals: {flip: [z]}\n"
    )
    shutil.copy(root / "images/train/s3.png", root / "images/val/s12.png")  # to be left out of train
    change(root, "depth/train/s0.npy", put(np.inf))
    change(root, "depth/train/s1.npy", put(0, 30))
    change(root, "depth/train/s2.npy", put(-1))
    each(root, "normals", lambda normals: normals * np.array([1, -1, 1]))  # and so `flip: [z]`, above, is wrong, too
    changes = doctor.fix(root, copy, workers=0, progress=False)
    assert changes.written == {"train": 10, "val": 8}
    assert 'normals: {"flip": ["y"]}' in (copy / "targets.yaml").read_text()
    assert check(copy) == {}
    samples = read(copy, "train")
    assert sorted(samples) == sorted(f"s{k}" for k in range(12) if k not in (2, 3))
    for name, sample in samples.items():
        expected = draw(int(name[1:]))
        depth = expected.depth.copy()
        depth[-1, len(depth[0]) - {"s0": 40, "s1": 30}.get(name, 0) :] = np.nan
        assert np.array_equal(sample.targets["depth"][0], depth, equal_nan=True)
        assert np.allclose(sample.targets["normals"], expected.normals.transpose(2, 0, 1), atol=1e-6, equal_nan=True)
        assert np.array_equal(sample.targets["soil"], expected.values.transpose(2, 0, 1), equal_nan=True)
        assert np.array_equal(sample.labels, expected.labels)
    written = {one["item"]: one for one in json.loads((copy / "changes.json").read_text())["samples"]}
    assert written["s0"]["target_changes"] == ["depth: 40 values without ground truth"]
    assert "target_changes" not in written["s4"]
    assert "not allowed" in written["s2"]["left_out"]
    assert (copy / "depth/train/s4.npy").read_bytes() == (root / "depth/train/s4.npy").read_bytes()


def write_mended(folder: Path, path: Path, spec: OutputSpec, missing: float | None) -> npt.NDArray[Any]:
    """Return the numbers in the copy of a file."""
    encoding = TargetEncoding(spec=spec, origin=folder / "targets.yaml", scales=(1000.0,), missing=(missing,))
    writer = TargetWriter(out=folder / "copy", encodings={"values": encoding})
    writer.write([(spec.name, str(path))], "train", "a")
    copied: npt.NDArray[Any] = np.load(folder / "copy" / "values" / "train" / "a.npy")
    return copied


def test_gaps_of_a_tiff_stay_gaps_in_a_numpy_file(tmp_path: Path) -> None:
    """A NumPy file has no nodata value: what has none in the TIFF must not become ground truth."""
    height = OutputSpec(name="height", kind="regression", channels=("height",), units=("m",))
    stored = np.array([[-9999, np.inf], [3, np.nan]], np.float32)
    copied = write_mended(tmp_path, write_nodata(tmp_path / "a.tif", stored, -9999), height, None)
    np.testing.assert_array_equal(copied, np.array([[np.nan, np.nan], [3, np.nan]], np.float32))


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (65535.0, np.array([[65535, 65535], [2500, 65535]], np.uint16)),
        (-1.0, np.array([[np.nan, np.nan], [2500, 65535]], np.float32)),  # 16 bits do not hold it
    ],
)
def test_gaps_of_integers_have_the_declared_value(tmp_path: Path, missing: float, expected: npt.NDArray[Any]) -> None:
    depth = OutputSpec(name="depth", kind="depth", range=(0.0, 100.0))
    stored = np.array([[7, 0], [2500, 65535]], np.uint16)
    copied = write_mended(tmp_path, write_nodata(tmp_path / "a.tif", stored, 7), depth, missing)
    assert copied.dtype == expected.dtype
    np.testing.assert_array_equal(copied, expected)


def write_nodata(path: Path, values: npt.NDArray[Any], nodata: float) -> Path:
    """Write a GeoTIFF of one channel with a nodata value."""
    size = {"height": values.shape[0], "width": values.shape[1], "count": 1}
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, nodata=nodata, **size) as file:
        file.write(values, 1)
    return path


def test_a_copy_without_masks_holds_the_same_files_and_their_meaning(tmp_path: Path) -> None:
    root, copy = write_folder(tmp_path / "mine", "png", has_masks=False), tmp_path / "copy"
    (root / "images/train/s5.png").write_bytes(b"damaged")
    doctor.fix(root, copy, workers=0, progress=False)
    assert sorted(path.name for path in copy.iterdir()) == [
        *("changes.json", "depth", "images", "normals", "targets.yaml", "values")
    ]
    before, after = (open_dataset(folder)("val") for folder in (root, copy))
    assert before.target_specs == after.target_specs
    for name, sample in read(root, "val").items():
        for target, values in read(copy, "val")[name].targets.items():
            assert np.array_equal(values, sample.targets[target], equal_nan=True)
    assert len(read(copy, "train")) == 11


def test_a_copy_of_a_published_dataset_holds_what_is_read_of_it(tmp_path: Path) -> None:
    root, copy = tmp_path / "nyu", tmp_path / "copy"
    write_nyu(root)
    doctor.fix("nyu", copy, root=root, workers=0, progress=False)
    dataset = open_dataset("nyu", root)("val")
    expected, found = dataset.with_targets(["depth", "normals"]), read(copy, "val")
    assert open_dataset(copy)("val").target_specs == dataset.target_specs
    assert len(found) == len(dataset) == 2
    for sample in expected:
        targets = found[sample.name].targets
        assert np.array_equal(targets["depth"], sample.targets["depth"], equal_nan=True)
        assert np.allclose(targets["normals"], sample.targets["normals"], atol=1e-6, equal_nan=True)
