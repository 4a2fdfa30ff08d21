"""A YAML file in place of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from folder_files import NAMES, labels_of, save_pair, write

from refinenet.datasets.folder.folder import open_split
from refinenet.datasets.folder.layouts import find_layout


def test_a_yaml_file_names_the_folders(tmp_path: Path) -> None:
    save_pair(tmp_path / "data" / "photos" / "x.jpg", tmp_path / "data" / "truth" / "x.png", 2)
    save_pair(tmp_path / "elsewhere" / "y.jpg", tmp_path / "elsewhere" / "m" / "y.png", 1)
    train, val = "train: {images: photos, masks: truth}", "val: {images: ../elsewhere, masks: ../elsewhere/m}"
    source = write(tmp_path / "sets" / "mine.yaml", f"path: ../data\n{train}\n{val}\n{NAMES}")
    (tmp_path / "elsewhere" / "m" / "y.png").replace(tmp_path / "y.png")
    with pytest.raises(ValueError, match=r"y \(no mask\)"):
        open_split(source, "val")
    (tmp_path / "y.png").replace(tmp_path / "elsewhere" / "m" / "y.png")
    assert labels_of(open_split(source, "train")) == {"x": [[2, 0, 255]]}
    with pytest.raises(FileNotFoundError, match=r"mine\.yaml has no split 'test': it has train, val \(as described by"):
        open_split(source, "test")


def test_a_yaml_file_may_leave_folders_or_classes_to_the_folder(tmp_path: Path) -> None:
    save_pair(tmp_path / "data" / "train" / "images" / "x.jpg", tmp_path / "data" / "train" / "masks" / "x.png", 2)
    write(tmp_path / "data" / "classes.yaml", "names: [u, v, w]")
    own = write(tmp_path / "own.yml", f"path: data\n{NAMES}")
    assert open_split(own, "train").label_set.names == ("a", "b", "c")
    for text in ("path: data", "path: data\ntrain: {images: train/images, masks: train/masks}"):
        assert open_split(write(tmp_path / "bare.yaml", text), "train").label_set.names == ("u", "v", "w")


def test_a_classes_file_in_a_folder_may_name_the_folders(tmp_path: Path) -> None:
    save_pair(tmp_path / "p" / "x.jpg", tmp_path / "t" / "x.png", 1)
    write(tmp_path / "classes.yaml", f"{NAMES}train: {{images: p, masks: t}}")
    assert labels_of(open_split(tmp_path, "train")) == {"x": [[1, 0, 255]]}


@pytest.mark.parametrize(
    ("text", "error", "pattern"),
    [
        ("names: [a]\ntest_split: x", ValueError, r"it may have the keys names, .*, test; it has \['names', 'test_spl"),
        ("- a", ValueError, "it may have the keys"),
        ("names: [a", ValueError, "expected ',' or ']'"),
        ("names: !!bool x", ValueError, "'x'"),
        ("names: " + "[" * 5_000, ValueError, "recursion"),
        ("path: &a [&b [*a, *a, *a], *b, *b, *b]", ValueError, "'path' must be a folder, not "),
        ("path: 3", ValueError, "'path' must be a folder, not 3"),
        ("path: nowhere", FileNotFoundError, "'path' is nowhere, but there is no folder"),
        ("train: images/train", ValueError, r"'train' must be \{images: FOLDER, masks: FOLDER\}, not 'images/train'"),
        ("train: {images: x}", ValueError, "'train' must be"),
        ("train: {images: x, masks: 3}", ValueError, "'train' must be"),
        ("val: {images: ., masks: y}", FileNotFoundError, "'masks' of 'val' is y, but there is no folder"),
    ],
)
def test_errors_in_a_yaml_file_are_named(text: str, error: type[Exception], pattern: str, tmp_path: Path) -> None:
    source = write(tmp_path / "mine.yaml", text)
    with pytest.raises(error, match=pattern) as caught:
        find_layout(source)
    assert str(caught.value).startswith(f"{source}: ")


def test_a_classes_file_may_end_in_yml(tmp_path: Path) -> None:
    save_pair(tmp_path / "images" / "train" / "x.png", tmp_path / "masks" / "train" / "x.png", 1)
    write(tmp_path / "classes.yml", NAMES)
    assert open_split(tmp_path, "train").label_set.names == ("a", "b", "c")


def test_names_may_stand_behind_their_ids(tmp_path: Path) -> None:
    save_pair(tmp_path / "images" / "train" / "x.png", tmp_path / "masks" / "train" / "x.png", 1)
    path = write(tmp_path / "classes.yaml", "names: {1: b, 0: a, 2: c}")
    assert open_split(tmp_path, "train").label_set.names == ("a", "b", "c")
    for names in ("{1: a, 2: b}", "{}", "{x: a}", "{true: b, 0: a}"):
        path.write_text(f"names: {names}")
        with pytest.raises(ValueError, match=r"'names' must be a list, or have the keys 0 to \d"):
            open_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("colors: []", "Did you mean 'colours'"),
        ("nc: 3", "Remove 'nc'"),
        ("masks: colors", "Did you mean 'colours'"),
    ],
)
def test_words_of_other_programs_are_pointed_out(text: str, hint: str, tmp_path: Path) -> None:
    save_pair(tmp_path / "images" / "train" / "x.png", tmp_path / "masks" / "train" / "x.png", 1)
    write(tmp_path / "classes.yaml", f"{NAMES}{text}\n")
    with pytest.raises(ValueError, match=hint):
        open_split(tmp_path, "train")
