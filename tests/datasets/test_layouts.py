"""Layouts of folders: each is created in miniature, opened split by split, and read."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from folder_files import NAMES, labels_of, save_image, save_mask, save_pair, write
from PIL import Image

from refinenet.datasets.folder.classes_file import encoding_from_palettes
from refinenet.datasets.folder.folder import FolderSplits, open_split
from refinenet.datasets.folder.layouts import find_layout
from refinenet.labels import voc_colours


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{split}/{stem}.jpg", "masks/{split}/{stem}.png"),
        ("{split}/images/{stem}.jpg", "{split}/masks/{stem}.png"),
        ("images/{split}/{stem}.jpg", "labels/{split}/{stem}.png"),
        ("{split}/Images/{stem}.JPG", "{split}/Annotations/{stem}.PNG"),
        ("img_dir/{split}/{stem}.jpg", "ann_dir/{split}/{stem}.png"),
        ("{split}/img/{stem}.jpg", "{split}/gt/{stem}.png"),
        ("{split}/images/{stem}.jpg", "{split}/masks/{stem}_mask.png"),
        ("images/{split}/{stem}.jpg", "masks/{split}/{stem}_gt.tif"),
        ("{split}/{stem}.png", "{split}annot/{stem}.png"),
        ("{split}/{stem}.png", "{split}_labels/{stem}_L.png"),
        ("{split}_images/{stem}.png", "{split}_masks/{stem}.png"),
        ("{split}/{stem}.jpg", "{split}/{stem}_mask.png"),
        ("images/{split}/city/{stem}.jpg", "masks/{split}/city/{stem}.png"),
    ],
)
@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_layouts_with_splits(images: str, masks: str, val: str, tmp_path: Path) -> None:
    if val == "Validation" and ("{split}_" in images or "{split}_" in masks or "{split}annot" in masks):
        val = "validation"
    write(tmp_path / "classes.yaml", NAMES)
    for number, split in enumerate(("train", val, "test")):
        for stem in ("x_1", "y_2"):
            image, mask = (text.format(split=split, stem=stem) for text in (images, masks))
            save_pair(tmp_path / image, tmp_path / mask, number)
    layout = find_layout(tmp_path)
    assert sorted(layout.splits) == ["test", "train", "val"]
    folder = "city/" if "city" in images else ""
    for number, split in enumerate(("train", "val", "test")):
        dataset = open_split(tmp_path, split)
        assert dataset.split == split
        assert labels_of(dataset) == {f"{folder}{stem}": [[number, 0, 255]] for stem in ("x_1", "y_2")}
        assert dataset.image_file("nothing") is not None
    assert open_split(tmp_path, "valid").split == "val"


def test_folders_of_splits_with_years_and_doubled_names(tmp_path: Path) -> None:
    for folder in ("train2017", "val", "valid"):
        save_pair(tmp_path / "images" / folder / "a.jpg", tmp_path / "masks" / folder / "a.png", 0)
    assert sorted(find_layout(tmp_path).splits) == ["train", "val", "valid"]


def test_masks_in_one_of_two_folders_are_asked_for(tmp_path: Path) -> None:
    save_pair(tmp_path / "images" / "a.jpg", tmp_path / "labels" / "a.png", 0)
    assert find_layout(tmp_path).splits["val"].masks.name == "labels"
    write(tmp_path / "annotations" / "a.xml", "<shapes/>")
    assert find_layout(tmp_path).splits["val"].masks.name == "labels"
    save_mask(tmp_path / "gt" / "a.png", [[1]])
    with pytest.raises(FileNotFoundError, match=r"pictures in labels and in gt, so it is unclear .* `labels: labels`"):
        find_layout(tmp_path)
    save_mask(tmp_path / "masks" / "a.png", [[1]])
    with pytest.raises(ValueError, match=r"masks and labels all hold masks that fit .* `labels: masks`"):
        find_layout(tmp_path)
    for name in ("gt", "masks"):
        write(tmp_path / "classes.yaml", f"labels: {name}\n")
        assert find_layout(tmp_path).splits["val"].masks.name == name


def test_other_folders_do_not_hide_images_without_splits(tmp_path: Path) -> None:
    for stem in "abc":
        save_pair(tmp_path / "images" / f"{stem}.jpg", tmp_path / "masks" / f"{stem}.png", 0)
        save_pair(tmp_path / "backup" / "images" / f"{stem}.jpg", tmp_path / "backup" / "masks" / f"{stem}.png", 0)
    layout = find_layout(tmp_path)
    assert layout.is_dealt
    assert layout.splits["val"].image_names == ("a.jpg",)
    assert layout.description == "images/ and masks/ without splits; every fifth image is used for validation"


def test_a_layout_is_tolerant_and_opening_is_not(tmp_path: Path) -> None:
    for number in range(12):
        save_pair(tmp_path / "images" / f"{number:02}.jpg", tmp_path / "masks" / f"{number:02}.png", 0)
    write(tmp_path / "classes.yaml", NAMES)
    (tmp_path / "masks" / "00.png").unlink()
    (tmp_path / "images" / "01.jpg").write_bytes(b"")
    (tmp_path / "images" / "02.jpg").unlink()
    splits = find_layout(tmp_path).splits
    assert (splits["val"].image_names, splits["val"].mask_names) == (
        ("00.jpg", "05.jpg", "10.jpg"),
        ("05.png", "10.png"),
    )
    assert "02.png" in splits["train"].mask_names
    assert "02.jpg" not in splits["train"].image_names
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=r"Without a partner: 0. \(no (mask|image)\)"):
            open_split(tmp_path, split)
    (tmp_path / "images" / "00.jpg").unlink()
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=r"Without a partner: 02 \(no image\)"):
            open_split(tmp_path, split)


def test_lossy_masks_are_found_and_refused_when_read(tmp_path: Path) -> None:
    save_pair(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png", 0)
    save_mask(tmp_path / "masks" / "a.jpg", [[0]])
    save_image(tmp_path / "images" / "b.jpg")
    save_mask(tmp_path / "masks" / "b.jpg", [[0]])
    write(tmp_path / "classes.yaml", NAMES)
    splits = FolderSplits(tmp_path)
    assert labels_of(splits("val")) == {"a": [[0, 0, 255]]}
    with pytest.raises(ValueError, match=r"masks/b\.jpg is a JPEG file, a lossy format"):
        splits("train")[0]


def test_stems_that_stand_twice_are_named(tmp_path: Path) -> None:
    save_pair(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png", 0)
    save_image(tmp_path / "images" / "a.png")
    write(tmp_path / "classes.yaml", NAMES)
    with pytest.raises(ValueError, match=r"images holds both a\.jpg and a\.png\. Keep only one"):
        open_split(tmp_path, "val")


def test_lists_beside_images_and_masks(tmp_path: Path) -> None:
    for number, stem in enumerate(("a", "é", "sub/c", "left out")):
        save_pair(tmp_path / "images" / f"{stem}.jpg", tmp_path / "masks" / f"{stem}.png", number % 3)
    write(tmp_path / "classes.yaml", NAMES)
    write(tmp_path / "train.txt", "\ufeffsub/c\r\ne\u0301\r\n\r\n")  # as Windows and macOS write them
    write(tmp_path / "val.txt", "a.jpg\n")
    assert labels_of(open_split(tmp_path, "train")) == {"sub/c": [[2, 0, 255]], "é": [[1, 0, 255]]}
    assert labels_of(open_split(tmp_path, "val")) == {"a": [[0, 0, 255]]}
    write(tmp_path / "val.txt", "a\nb1\nb2\n")
    assert find_layout(tmp_path).splits["val"].absent == ("b1", "b2")
    with pytest.raises(FileNotFoundError, match=r"The list names b1, b2: there is neither an image in .*images nor"):
        open_split(tmp_path, "val")
    (tmp_path / "masks" / "a.png").unlink()
    write(tmp_path / "val.txt", "a\n")
    with pytest.raises(ValueError, match=r"a \(no mask\)"):
        open_split(tmp_path, "val")
    write(tmp_path / "val.txt", "\n")
    with pytest.raises(FileNotFoundError, match=r"'val' .* has no images"):
        open_split(tmp_path, "val")
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"val\.txt: 'utf-8' codec"):
        open_split(tmp_path, "val")


def test_folders_that_are_not_understood_say_what_they_hold(tmp_path: Path) -> None:
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 1 1")
    save_image(tmp_path / "images" / "a.jpg")
    save_image(tmp_path / "a.jpg")
    pattern = r"layout: it holds images/, labels/, 1 \.jpg file\. No pictures are in labels/\. Looked for .*"
    with pytest.raises(FileNotFoundError, match=pattern):
        find_layout(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a YAML file"):
        find_layout(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither a folder nor a YAML file"):
        find_layout(tmp_path / "a.jpg")


def test_palettes_of_many_masks_are_read_by_several_processes(tmp_path: Path) -> None:
    palette = [value for colour in voc_colours(256) for value in colour]
    for number in range(210):
        image = Image.fromarray(np.array([[number % 5, 255]], np.uint8))
        image.putpalette(palette)
        image.save(tmp_path / f"{number:03}.png")
    encoding = encoding_from_palettes(sorted(tmp_path.iterdir()))
    assert encoding.label_set.colours == voc_colours(5)
    save_mask(tmp_path / "205.png", [[0]])
    with pytest.raises(ValueError, match=r"205\.png is not a palette PNG"):
        encoding_from_palettes(sorted(tmp_path.iterdir()))


def test_palettes_are_read_once_for_all_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_image(tmp_path / "images" / split / "a.jpg")
        image = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
        image.putpalette([value for colour in voc_colours(256) for value in colour])
        (tmp_path / "masks" / split).mkdir(parents=True)
        image.save(tmp_path / "masks" / split / "a.png")
    splits = FolderSplits(tmp_path)
    train = splits("train")
    for split in ("train", "val"):
        save_mask(tmp_path / "masks" / split / "a.png", [[0, 1, 255]])  # no palette any more
    assert splits("val").label_set == train.label_set
    with pytest.raises(ValueError, match="not a palette PNG"):
        open_split(tmp_path, "val")


def test_listing_a_large_folder_costs_little_memory(tmp_path: Path) -> None:
    """100,000 samples should take less than 100 MB, so 2,000 less than 2 MB; worker processes get little of it."""
    for folder, ending in (("images", ".jpg"), ("masks", ".png")):
        (tmp_path / folder).mkdir()
        for number in range(2_000):
            (tmp_path / folder / f"recording_0016E5_{number:08}{ending}").touch()
    write(tmp_path / "classes.yaml", NAMES)
    tracemalloc.start()
    splits = FolderSplits(tmp_path)
    train, val = splits("train"), splits("val")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(train), len(val)) == (1_600, 400)
    assert peak < 2_000_000
    assert len(pickle.dumps(train)) < 100_000
