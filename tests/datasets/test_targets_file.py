"""Declarations of targets in `targets.yaml`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from target_miniatures import _declare, _equal, _folder, _read, _save

from refinenet.datasets import (
    open_dataset,
)
from refinenet.datasets.folder.targets_file import read_encodings, write_encodings

# targets.yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "deep: {}",
            "keys depth, normals, values and names (a-z, 0-9, _) of other folders beside the images; it has",
        ),
        ("../deep: {}", "of other folders beside the images; it has ['../deep']"),
        ("Height: {}", "'Height': The name of an output must have 1 to 40 letters a-z, digits and _, unlike 'Height'"),
        ("height: m", "'height' may have the keys unit, scale, missing, optional; it has 'm'"),
        ("height: {unit: '[m]'}", "'height': A unit must have up to 40 printable characters"),
        ("- depth", "it may have the keys depth, normals, values"),
        ("depth: 1000", "'depth' may have the keys scale, missing, range, optional; it has 1000"),
        ("depth: {unit: mm}", "'depth' may have the keys scale, missing, range, optional; it has ['unit']"),
        ("depth: {scale: mm}", "'scale' of 'depth' must be a number above 0: the stored value of one unit, not 'mm'"),
        ("depth: {scale: 0}", "'scale' of 'depth' must be a number above 0: the stored value of one unit, not 0"),
        ("depth: {missing: none}", "'missing' of 'depth' must be a number, not 'none'"),
        ("depth: {range: 80}", "'range' of 'depth' must be two numbers of metres, such as [0.5, 80], not 80"),
        ("depth: {range: [80, 0.5]}", "A range must be two numbers of metres, 0 <= low < high, not 80.0 and 0.5"),
        ("normals: {encoding: bgr}", "'encoding' of 'normals' must be rgb or xyz, not 'bgr'"),
        ("normals: {flip: z}", "'flip' of 'normals' must be a list of axes to negate, such as [y, z], not 'z'"),
        ("values: {}", "'quantities' of 'values' must be a list, such as [{name: height, unit: m}], not None"),
        ("values: {quantities: [{unit: m}]}", "'values': The name of a quantity must have 1 to 40 letters"),
        ("values: {quantities: [{name: a, limit: 1}]}", "'values, quantity 1' may have the keys name, unit, scale"),
        ("values: {name: depth, quantities: [{name: a}]}", "two outputs have the same name: depth, normals, depth"),
    ],
)
def test_invalid_entries_are_refused_with_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    root = _folder(tmp_path)
    for kind in ("depth", "normals", "values", "height", "Height"):
        (root / kind / "train").mkdir(parents=True)
    _declare(root, text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        open_dataset(root)("train")
    assert str(error.value).startswith(str(root / "targets.yaml"))


def test_a_declared_folder_must_exist(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _declare(root, "depth: {scale: 1000}\n")
    with pytest.raises(FileNotFoundError, match=r"targets\.yaml declares 'depth', but there is no folder depth beside"):
        open_dataset(root)("train")


def test_an_image_may_lack_a_file_if_that_is_declared(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _save(root / "depth" / "train" / "b.npy", np.ones((2, 3), np.float32))
    _declare(root, "depth: {optional: true}\n")
    assert np.isnan(_read(root)).all()
    assert _read(root).shape == (1, 2, 3)
    assert _equal(_read(root, index=1), np.ones((1, 2, 3)))
    _declare(root, "depth: {optional: perhaps}\n")
    with pytest.raises(ValueError, match="'optional' of 'depth' must be true or false, not 'perhaps'"):
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
        "height: {unit: m, scale: 100, missing: 0, optional: true}\nslope: {}\n",
        "values: {name: soil, quantities: [{name: a, unit: m, scale: 0.5, missing: 1e20}, {name: b, missing: nan}]}\n",
    ],
)
def test_declarations_are_written_as_they_are_read(tmp_path: Path, text: str) -> None:
    path, folders = tmp_path / "targets.yaml", ("depth", "normals", "values", "height", "slope")
    _declare(tmp_path, text)
    first = read_encodings(path, folders)
    _declare(tmp_path, write_encodings(first))
    assert repr(read_encodings(path, folders)) == repr(first)  # by repr, because NaN differs from itself
