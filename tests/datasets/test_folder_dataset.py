"""Dataset folders: layouts, the meaning of mask values, and every way in which they can be wrong."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from refinenet.datasets.catalog import Dataset, open_dataset, open_training_datasets
from refinenet.datasets.folder.classes_file import read_classes_file
from refinenet.labels import voc_colours

GREY = (90, 90, 90)
PALETTE = [(10, 20, 30), (40, 50, 60), (70, 80, 90)]


def save_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), GREY).save(path)


def save_mask(path: Path, values: object, dtype: type = np.uint8, palette: list[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype))
    if palette is not None:
        image.putpalette([value for colour in palette for value in colour])
    image.save(path)
    return path


def make(root: Path, masks: dict[str, Any], classes: str | None = None, **options: Any) -> Path:
    """Create a folder without splits: grey images, the given masks, and a classes.yaml with the given text."""
    root.mkdir(exist_ok=True)
    for stem, values in masks.items():
        height, width = np.shape(values)[:2]
        save_image(root / "images" / f"{stem}.jpg", height, width)
        save_mask(root / "masks" / f"{stem}.png", values, **options)
    if classes is not None:
        (root / "classes.yaml").write_text(classes, encoding="utf-8")
    return root


def only(root: Path) -> Dataset:
    """Open the split that holds a folder's first image."""
    return open_dataset(root)("val")


def labels_of(dataset: Dataset, index: int = 0) -> list[list[int]]:
    labels: npt.NDArray[Any] = dataset[index].labels
    assert labels.dtype == dataset.label_set.dtype
    result: list[list[int]] = labels.tolist()
    return result


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_both_layouts_with_splits(layout: str, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("names: [a, b, c]")
    for number, split in enumerate(("train", "val", "rainy days")):
        save_image(tmp_path / layout.format(split=split, kind="images") / "x.webp", 1, 2)
        save_mask(tmp_path / layout.format(split=split, kind="masks") / "x.tif", [[number, 255]])
    splits = open_dataset(tmp_path)
    for number, split in enumerate(("train", "val", "rainy days")):
        dataset = splits(split)
        assert (dataset.split, dataset.items, labels_of(dataset)) == (split, ["x"], [[number, 255]])
        assert dataset[0].image.shape == (1, 2, 3)
    where = r"\((images/SPLIT and masks/SPLIT|SPLIT/images and SPLIT/masks)\)"
    with pytest.raises(FileNotFoundError, match=rf"no split 'test': it has rainy days, train, val {where}"):
        splits("test")


def test_without_splits_every_fifth_is_for_validation(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {f"{k:02}": [[0, 1]] for k in range(12)}, "names: [a, b]")
    train, val = open_training_datasets(root)
    assert val.items == ["00", "05", "10"]
    assert train.items == ["01", "02", "03", "04", "06", "07", "08", "09", "11"]
    assert (train.split, val.split) == ("train", "val")
    assert labels_of(train, 8) == [[0, 1]]
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        open_dataset(root)("test")


def test_a_single_image_cannot_be_split(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[0]]}, "names: [a]")
    assert len(only(root)) == 1
    with pytest.raises(ValueError, match=r"has only one image.* two or more"):
        open_training_datasets(root)


def test_ids_with_names_colours_and_ignored_ids(tmp_path: Path) -> None:
    classes = "names: [road, Straße, 3]\ncolours: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\nignore: [7, 200]\n"
    dataset = only(make(tmp_path / "mine", {"a": [[0, 1, 2, 7, 200, 255]]}, classes))
    assert dataset.label_set.names == ("road", "Straße", "3")
    assert dataset.label_set.colours == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert labels_of(dataset) == [[0, 1, 2, 255, 255, 255]]


def test_colours_may_be_left_out_for_ids(tmp_path: Path) -> None:
    dataset = only(make(tmp_path / "mine", {"a": [[0]]}, "names: [a, b]\nmasks: ids"))
    assert dataset.label_set.colours == voc_colours(2)


def test_sixteen_bit_masks(tmp_path: Path) -> None:
    few = make(tmp_path / "few", {"a": [[0, 2, 255, 40_000]]}, "names: [a, b, c]\nignore: [40000]", dtype=np.uint16)
    assert labels_of(only(few)) == [[0, 2, 255, 255]]
    names = "names: [" + ", ".join(f"c{k}" for k in range(300)) + "]\nignore: [1000]"
    many = only(make(tmp_path / "many", {"a": [[0, 299, 255, 65_535, 1000]]}, names, dtype=np.uint16))
    assert labels_of(many) == [[0, 299, 255, 65_535, 65_535]]


def test_eight_bit_masks_of_a_set_with_more_than_255_classes(tmp_path: Path) -> None:
    names = "names: [" + ", ".join(f"c{k}" for k in range(300)) + "]"
    masks = {"a": [[0, 254, 255]]}
    assert labels_of(only(make(tmp_path / "classes", masks, names))) == [[0, 254, 255]]
    void = f"{names}\nvalues: {[*range(255), *range(1000, 1045)]}\nignore: [255]"
    assert labels_of(only(make(tmp_path / "void", masks, void))) == [[0, 254, 65_535]]


def test_values_that_masks_hold_on_disk(tmp_path: Path) -> None:
    """Binary masks, ids from 1, and 255 as a class; other values are rejected with their position."""
    binary = make(tmp_path / "binary", {"a": [[0, 255]]}, "names: [background, leaf]\nvalues: [0, 255]")
    assert labels_of(only(binary)) == [[0, 1]]
    from_one = make(tmp_path / "one", {"a": [[1, 3, 2, 255]]}, "names: [a, b, c]\nvalues: [1, 2, 3]")
    assert labels_of(only(from_one)) == [[0, 2, 1, 255]]
    classes = "names: [a, b]\nvalues: [40000, 2]\nignore: [0, 7]"
    deep = make(tmp_path / "deep", {"a": [[2, 40_000, 0, 7, 255]]}, classes, dtype=np.uint16)
    assert labels_of(only(deep)) == [[1, 0, 255, 255, 255]]
    strange = make(tmp_path / "strange", {"a": [[1, 1, 1], [1, 0, 4]]}, "names: [a, b, c]\nvalues: [1, 2, 3]")
    pattern = r"masks/a\.png has the id 0 at row 1, column 1 \(2 pixels .*classes\.yaml lists neither as a class"
    with pytest.raises(ValueError, match=pattern):
        only(strange)[0]


def test_values_that_masks_hold_of_many_classes(tmp_path: Path) -> None:
    names = ", ".join(f"c{k}" for k in range(300))
    classes = f"names: [{names}]\nvalues: {[*range(1, 301)]}\nignore: [0]"
    dataset = only(make(tmp_path / "mine", {"a": [[1, 300, 0, 65_535, 256]]}, classes, dtype=np.uint16))
    assert labels_of(dataset) == [[0, 299, 65_535, 65_535, 255]]


def test_masks_painted_in_colours(tmp_path: Path) -> None:
    classes = "names: [a, b]\ncolours: [[0, 0, 0], [0, 0, 1]]\nmasks: colours\nignore: [[255, 255, 255]]"
    masks = {"a": [[[0, 0, 0], [0, 0, 1], [255, 255, 255]]], "b": [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]]}
    root = make(tmp_path / "mine", masks, classes)
    assert labels_of(only(root)) == [[0, 1, 255]]
    place = r"at row 0, column 1 \(2 pixels .*classes\.yaml lists neither"
    pattern = rf"{root / 'masks' / 'b.png'} has the colour \(0, 1, 0\) {place}"
    with pytest.raises(ValueError, match=pattern):
        open_dataset(root)("train")[0]


def test_a_colour_beyond_all_known_ones_is_refused(tmp_path: Path) -> None:
    classes = "names: [a, b]\ncolours: [[3, 0, 0], [0, 0, 1]]\nmasks: colours"
    root = make(tmp_path / "mine", {"a": [[[3, 0, 0], [255, 255, 255], [0, 0, 0]]]}, classes)
    with pytest.raises(ValueError, match=r"the colour \(255, 255, 255\) at row 0, column 1 \(2 pixels"):
        only(root)[0]


def test_colours_that_differ_in_one_bit_are_told_apart(tmp_path: Path) -> None:
    colours = [[1 << bit if channel == c else 0 for c in range(3)] for channel in range(3) for bit in range(8)]
    classes = f"names: {[f'c{k}' for k in range(24)]}\ncolours: {colours}\nmasks: colours"
    assert labels_of(only(make(tmp_path / "mine", {"a": [colours]}, classes))) == [list(range(24))]


def test_palette_masks_count_as_painted(tmp_path: Path) -> None:
    classes = f"names: [x, y, z]\ncolours: {[list(colour) for colour in reversed(PALETTE)]}\nmasks: colours"
    dataset = only(make(tmp_path / "mine", {"a": [[0, 1, 2]]}, classes, palette=PALETTE))
    assert labels_of(dataset) == [[2, 1, 0]]


def test_palette_masks_need_no_classes_file(tmp_path: Path) -> None:
    """There are as many classes as the largest id over all masks requires; 255 is void."""
    # With fewer colours Pillow writes fewer bits, and 255 would not fit.
    palette = PALETTE + [GREY] * 253
    root = make(tmp_path / "mine", {"a": [[0, 1, 255]], "b": [[0, 2, 0]], "c": [[0, 0, 0]]}, palette=palette)
    (root / "masks" / "._a.png").write_bytes(b"macOS leaves such files")
    train, val = open_training_datasets(root)
    assert train.label_set == val.label_set
    assert train.label_set.names == ("class 0", "class 1", "class 2")
    assert list(train.label_set.colours) == PALETTE
    assert labels_of(val) == [[0, 1, 255]]
    assert labels_of(train) == [[0, 2, 0]]


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[0, 1]]}, palette=PALETTE)
    make(root, {"b": [[0, 1]]}, palette=PALETTE[:2])
    assert len(only(root).label_set) == 2
    make(root, {"c": [[0, 1]]}, palette=PALETTE[::-1])
    with pytest.raises(ValueError, match=r"c\.png has a different palette .* one palette"):
        only(root)


def test_masks_that_nothing_explains_are_refused(tmp_path: Path) -> None:
    grey = make(tmp_path / "grey", {"a": [[0, 1]]})
    with pytest.raises(
        ValueError,
        match=r"no classes\.yaml and .*a\.png is not a palette PNG.*`refinenet data check .*grey`: .*suggests a class",
    ):
        only(grey)
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "masks").mkdir()
    with pytest.raises(FileNotFoundError, match=r"it holds images/, masks/\. No pictures are in images/ and masks/\."):
        only(tmp_path / "empty")
    (tmp_path / "empty" / "images" / "a.jpg").touch()
    with pytest.raises(FileNotFoundError, match="has no masks in"):
        only(tmp_path / "empty")


def test_colour_masks_where_ids_are_meant_say_what_to_do(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[[0, 0, 0]]]}, "names: [a]")
    with pytest.raises(
        ValueError, match=r"a\.png is a colour picture .*define the colours of the classes in classes\.y"
    ):
        only(root)[0]


@pytest.mark.parametrize(("value", "position"), [(3, (1, 2)), (254, (0, 1))])
def test_ids_out_of_range_are_named(value: int, position: tuple[int, int], tmp_path: Path) -> None:
    ids = np.zeros((2, 3), np.uint8)
    ids[position] = value
    root = make(tmp_path / "mine", {"a": ids}, "names: [a, b, c]")
    row, column = position
    pattern = rf"masks/a\.png: the mask has the id {value} at row {row}, column {column} .* 0 to 2 and 255"
    with pytest.raises(ValueError, match=pattern):
        only(root)[0]


def test_void_of_another_id_width_is_named_and_not_wrapped(tmp_path: Path) -> None:
    """65535, void in sets of many classes, would become 255 if cut to 8 bits."""
    root = make(tmp_path / "mine", {"a": [[0, 65_535]]}, "names: [a]", dtype=np.uint16)
    with pytest.raises(ValueError, match="the id 65535 at row 0, column 1"):
        only(root)[0]


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[0, 1]]}, "names: [a, b]")
    save_mask(root / "masks" / "a.png", [[0], [1]])
    with pytest.raises(ValueError, match=r"masks/a\.png: the image has 2x1 .* its mask has 1x2"):
        only(root)[0]


def test_a_mask_of_nothing_but_void_is_sound(tmp_path: Path) -> None:
    assert labels_of(only(make(tmp_path / "mine", {"a": [[255, 255]]}, "names: [a]"))) == [[255, 255]]


def test_files_without_partner_are_named(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[0]], "b": [[0]]}, "names: [a]")
    (root / "masks" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"Without a partner: b \(no mask\)\. Images end in \.png, \.jpg"):
        only(root)


@pytest.mark.parametrize(
    ("classes", "pattern"),
    [
        ("", "needs the key 'names'"),
        ("- a\n- b", "needs the key 'names'"),
        ("colours: [[0, 0, 0]]", r"needs the key 'names' .* it has \['colours'\]"),
        ("names: [a]\ncolors: [[0, 0, 0]]", r"it has \['colors', 'names'\]"),
        ("names: {1: a}", r"'names' must be a list, or have the keys 0 to 0, each once; it has \[1\]"),
        ("names: []", "it has 0 classes"),
        ("names: [a, a]", "'a' is used more than once"),
        ("names: [a, '']", "name of class 1"),
        ("names: [~]", "'names': a class name must be text, not None: put it in quotes"),
        ("names: [a, [b]]", r"'names': a class name must be text, not \['b'\]"),
        ("names: [!!float 1]", "'names': a class name must be text, not 1.0"),
        ("names: [!!int 010]", "'010' is not a decimal integer"),
        ("names: [a]\nnames: [b]", "the key 'names' occurs twice"),
        ("names: {0: a, 0: b}", "the key 0 occurs twice"),
        ("names: [a]\ncolours: red", "'colours' must be a list, not 'red'"),
        (
            "names: [a]\ncolours: [red]",
            r"'colours': a colour must be \[red, green, blue\], each from 0 to 255, not 'red'",
        ),
        ("names: [a]\ncolours: [[0, 0, 256]]", r"not \[0, 0, 256\]"),
        ("names: [a]\ncolours: [[0, 0]]", r"not \[0, 0\]"),
        ("names: [a, b]\ncolours: [[0, 0, 0]]", "2 names and 1 colours"),
        ("names: [a]\nmasks: colors", "'masks' must be ids or colours, not 'colors'"),
        ("names: [a]\nmasks: colours", "need the key 'colours'"),
        ("names: [a, b]\ncolours: [[0, 0, 0], [0, 0, 0]]\nmasks: colours", "different colour for each class"),
        ("names: [a]\ncolours: [[0, 0, 0]]\nmasks: colours\nignore: [255]", "'ignore': a colour must be .* not 255"),
        ("names: [a]\nignore: 255", "'ignore' must be a list, not 255"),
        ("names: [a]\nignore: [-1]", r"whole numbers from 0 to 65535, not \[-1\]"),
        ("names: [a]\nignore: [true]", "whole numbers"),
        ("names: [a, b]\nignore: [1]", "the id 1 is in 'ignore' and is also the class 'b'"),
        ("names: [a, b]\nvalues: [0, 9]\nignore: [9]", "the id 9 is in 'ignore' and is also the class 'b'"),
        ("names: [a, b]\nvalues: [0]", "an id for each of the 2 names, but has 1"),
        ("names: [a, b]\nvalues: [4, 4]", "the id 4 occurs twice in 'values'"),
        ("names: [a]\nvalues: [65536]", r"'values' must list ids, whole numbers from 0 to 65535, not \[65536\]"),
        ("names: [a]\nvalues: [010]", r"'values' must list ids, whole numbers from 0 to 65535, not \['010'\]"),
        ("names: [a]\nignore: [1:30]", r"'ignore' must list ids, whole numbers from 0 to 65535, not \['1:30'\]"),
        ("names: [a]\ncolours: [[010, 1_0, 0]]", r"'colours': a colour .* not \['010', '1_0', 0\]"),
        ("names: {010: a}", r"'names' must be a list, or have the keys 0 to 0, each once; it has \['010'\]"),
        ("names: [a]\nvalues: 7", "'values' must be a list, not 7"),
        ("names: [a]\ncolours: [[0, 0, 0]]\nmasks: colours\nvalues: [0]", "masks painted in colours have none"),
        (
            "names: [a]\ncolours: [[1, 2, 3]]\nmasks: colours\nignore: [[1, 2, 3]]",
            r"\(1, 2, 3\) is in both 'colours' and 'ignore'",
        ),
        ("names: [a", "expected ',' or ']'"),
        ("names: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_errors_in_the_classes_file_are_named(classes: str, pattern: str, tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[0]]}, classes)
    with pytest.raises(ValueError, match=pattern) as caught:
        only(root)
    assert str(caught.value).startswith(f"{root / 'classes.yaml'}: ")


CONVERTED_BY_YAML = (
    *("010", "00", "0b11", "0x1F", "1_000", "+7", "-0", "1:30", "190:20:30", "7", "0", "-12"),  # integers
    *("1.0", "1e3", "1.5e+3", "6.", ".5", "-.inf", ".NaN", "1:30.5", "1_0.0"),
    *("no", "No", "NO", "yes", "on", "Off", "true", "FALSE", "y", "n"),
    *("2020-01-01", "2020-1-1 12:00:00", "2001-12-14t21:59:43.10-05:00", "=", "<<"),
)
"""Unquoted text that YAML 1.1 converts to another type, and some that it does not."""


def test_class_names_are_the_text_that_stands_in_the_file(tmp_path: Path) -> None:
    as_list = "names:\n" + "".join(f"- {name}\n" for name in CONVERTED_BY_YAML)
    quoted = "names:\n" + "".join(f"- '{name}'\n" for name in CONVERTED_BY_YAML)
    by_id = "names:\n" + "".join(f"  {k}: {name}\n" for k, name in enumerate(CONVERTED_BY_YAML))
    for number, text in enumerate((as_list, quoted, by_id)):
        root = make(tmp_path / str(number), {"a": [[0]]}, text)
        assert only(root).label_set.names == CONVERTED_BY_YAML


@settings(max_examples=300, deadline=None)
@given(names=st.lists(st.text("0123456789abefnostxyNO.:+-_~", min_size=1, max_size=8), min_size=1, max_size=4))
def test_any_plain_class_name_is_read_as_it_stands_or_refused(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "classes.yaml"
        path.write_text("names:\n" + "".join(f"- {name}\n" for name in names))
        with suppress(ValueError):
            assert read_classes_file(path).label_set.names == tuple(names)


def test_ids_and_colours_may_be_hexadecimal(tmp_path: Path) -> None:
    root = make(tmp_path / "ids", {"a": [[16, 7]]}, "names: [a]\nvalues: [0x10]\nignore: [0x7]")
    assert labels_of(only(root)) == [[0, 255]]
    root = make(tmp_path / "painted", {"a": [[[255, 0, 1]]]}, "names: [a]\ncolours: [[0xFF, 0, 0x1]]\nmasks: colours")
    assert labels_of(only(root)) == [[0]]


def test_folders_named_by_dates_and_numbers_with_zeros_are_found(tmp_path: Path) -> None:
    make(tmp_path / "007", {"a": [[0, 1]]})
    (tmp_path / "007" / "images").rename(tmp_path / "007" / "2020-01-01")
    source = tmp_path / "mine.yaml"
    source.write_text("path: 007\nnames: [a, b]\ntrain: {images: 2020-01-01, masks: masks}\n")
    assert labels_of(open_dataset(source)("train")) == [[0, 1]]


def test_merged_keys_are_overridden_as_yaml_says(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("names: &base {0: a, 1: b}\n")
    assert read_classes_file(path).label_set.names == ("a", "b")
    path.write_text("names:\n  <<: {0: a, 1: b}\n  1: c\n")
    assert read_classes_file(path).label_set.names == ("a", "c")


def test_a_classes_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", {"a": [[0]]})
    (root / "classes.yaml").write_bytes("names: [Straße]".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes\.yaml: 'utf-8' codec"):
        only(root)


def test_folders_travel_to_worker_processes(tmp_path: Path) -> None:
    classes = "names: [a, b]\ncolours: [[0, 0, 0], [0, 0, 1]]\nmasks: colours"
    dataset = only(make(tmp_path / "mine", {"a": [[[0, 0, 0], [0, 0, 1]]]}, classes))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(dataset.__getitem__, 0).result().labels.tolist() == [[0, 1]]


def test_many_palette_masks_need_no_guarded_script_where_processes_import_it_again(tmp_path: Path) -> None:
    """As on macOS and Windows: the script has no `if __name__ == "__main__":`."""
    root = make(tmp_path / "mine", {f"{k:03}": [[0, 1]] for k in range(201)}, palette=PALETTE)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport refinenet.datasets.catalog\nsys.platform = 'darwin'\n"
        f"print(len(refinenet.datasets.open_dataset({str(root)!r})('train').label_set))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
