"""A YAML file in place of a folder, and the classes.yaml that is advised where nothing says what masks mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from folder_files import NAMES, labels_of, save_image, save_mask, save_pair, write

from refinenet.datasets.own.folder import open_split
from refinenet.datasets.own.layouts import find_layout, find_meaning


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
    with pytest.raises(FileNotFoundError, match=r"mine\.yaml has no split 'test': it has train, val \(as mine\.yaml"):
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
        ("path: &a [&b [*a, *a, *a], *b, *b, *b]", ValueError, "'path' is a folder, not "),
        ("path: 3", ValueError, "'path' is a folder, not 3"),
        ("path: nowhere", FileNotFoundError, "'path' is nowhere, and there is no folder"),
        ("train: images/train", ValueError, r"'train' is \{images: FOLDER, masks: FOLDER\}, not 'images/train'"),
        ("train: {images: x}", ValueError, "'train' is"),
        ("train: {images: x, masks: 3}", ValueError, "'train' is"),
        ("val: {images: ., masks: y}", FileNotFoundError, "'masks' of 'val' is y, and there is no folder"),
    ],
)
def test_errors_in_a_yaml_file_are_named(text: str, error: type[Exception], pattern: str, tmp_path: Path) -> None:
    source = write(tmp_path / "mine.yaml", text)
    with pytest.raises(error, match=pattern) as caught:
        find_layout(source)
    assert str(caught.value).startswith(f"{source}: ")


def mean_by(root: Path, *masks: object) -> str:
    """The classes.yaml that is advised for masks, put in its place."""
    for number, values in enumerate(masks):
        save_image(root / "images" / f"{number}.jpg")
        save_mask(root / "masks" / f"{number}.png", values)
    with pytest.raises(ValueError, match="no palette PNG") as caught:
        find_meaning(find_layout(root))
    message = str(caught.value)
    assert message.endswith(f"`refinenet data check {root}` looks at all masks and says more.")
    text = message.split("\n\n")[1] if "\n\n" in message else ""
    write(root / "classes.yaml", text)
    return text


def test_advice_for_masks_that_nothing_explains_can_be_copied(tmp_path: Path) -> None:
    """What is advised reads the masks it was made from."""
    binary = "names: [background, foreground]\nvalues: [0, 255]"
    assert mean_by(tmp_path / "binary", [[0, 255, 0]], [[0, 0, 0]]).strip() == binary
    assert mean_by(tmp_path / "one", [[0, 1, 1]]).strip() == "names: [background, foreground]"
    assert mean_by(tmp_path / "ids", [[0, 2, 1]], [[255, 0, 0]]).strip() == "names: [class 0, class 1, class 2]"
    from_one = "names: [class 1, class 2, class 7]\nvalues: [1, 2, 7]"
    assert mean_by(tmp_path / "from one", [[1, 2, 255]], [[7, 7, 7]]).strip() == from_one
    painted = "names: [class 0, class 1]\ncolours: [[0, 0, 0], [200, 1, 2]]\nmasks: colours"
    assert mean_by(tmp_path / "painted", [[(0, 0, 0), (200, 1, 2), (0, 0, 0)]]).strip() == painted
    white = "names: [background, foreground]\ncolours: [[0, 0, 0], [255, 255, 255]]\nmasks: colours"
    assert mean_by(tmp_path / "white", [[(0, 0, 0), (255, 255, 255), (0, 0, 0)]]).strip() == white
    for name, expected in (("binary", [[0, 1, 0]]), ("from one", [[0, 1, 255]]), ("painted", [[0, 1, 0]])):
        assert open_split(tmp_path / name, "val")[0].labels.tolist() == expected


def test_soft_masks_get_no_classes_but_a_reason(tmp_path: Path) -> None:
    assert mean_by(tmp_path / "soft", [list(range(100))]) == ""
    (tmp_path / "soft" / "classes.yaml").unlink()
    layout = find_layout(tmp_path / "soft")
    with pytest.raises(ValueError, match="100 values or colours, which is too many for classes"):
        find_meaning(layout)
