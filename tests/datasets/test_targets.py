"""Targets of whole datasets: drawn streets, layouts of folders, joined datasets, summaries and splits."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from target_miniatures import DEPTH, NAMES, _declare, _folder, _read, _save

from refinenet.datasets import (
    Dataset,
    describe,
    draw_street,
    open_dataset,
    split_folder,
    with_quantities,
)
from refinenet.datasets.dataset import with_value_range
from refinenet.datasets.joining import join
from refinenet.datasets.street_scenes import draw_street_geometry
from refinenet.labels import NO_CLASSES
from refinenet.outputs import OutputSpec, read_outputs

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


def test_outputs_have_the_quantities_that_they_name(tmp_path: Path) -> None:
    train = open_dataset(_folder_of_values(tmp_path / "fields"))("train")
    outputs = read_outputs("moisture=regression[moisture],soil=regression[moisture,height:m],other=regression[depth:m]")
    chosen = with_quantities(train, outputs)
    assert [spec.to_text() for spec in chosen.target_specs] == [
        "soil=regression[moisture,height:m]", "moisture=regression[moisture]"
    ]  # fmt: skip
    copy = pickle.loads(pickle.dumps(chosen.with_targets(["moisture", "soil"])))  # noqa: S301
    found = copy[0].targets
    assert found["moisture"].tolist() == [[[5, 5, 5], [5, 5, 15]]]
    assert np.array_equal(found["soil"], train.with_targets(["soil"])[0].targets["soil"][::-1], equal_nan=True)
    assert chosen.target_files["moisture"](train.items[0]) == tmp_path / "fields/values/1a.npy"
    with pytest.raises(ValueError, match=r"'other': it has soil=regression\[moisture,height:m\], moisture=reg"):
        chosen.with_targets(["other"])


def test_quantities_in_other_units_and_in_several_places_are_refused_with_what_to_write(tmp_path: Path) -> None:
    first = open_dataset(_folder_of_values(tmp_path / "fields"))("train")
    with pytest.raises(ValueError, match=r"has soil=.*Pass --outputs 'height=regression\[height:m\]', or correct"):
        with_quantities(first, read_outputs("height=regression[height:cm]"))
    root = _folder_of_values(tmp_path / "more")
    _declare(root, (root / "targets.yaml").read_text().replace("soil", "earth"))
    joined = join([first, open_dataset(root)("train")])
    with pytest.raises(ValueError, match=r"height in 2 outputs, soil=.* and earth=.*: give the output one of"):
        with_quantities(joined, read_outputs("height=regression[height:m]"))
    assert with_quantities(joined, read_outputs("earth=regression[height:m]")).target_specs[1].channels == ("height",)


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
