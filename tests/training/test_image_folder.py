"""Folders of classified images: what is found in them, and the errors for those that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet.training.pretraining.image_folder import open_image_folder


def touch(root: Path, *names: str) -> None:
    """Empty files: listing opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, images: tuple[tuple[Path, int], ...]) -> list[tuple[str, int]]:
    return [(str(file.relative_to(root)), label) for file, label in images]


def test_the_parts_train_and_val_are_taken_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/2.JPEG", "train/cat/1.png", "train/ant/x.webp", "val/ant/7.jpg", "val/cat/1.png")
    touch(tmp_path, "train/cat/notes.txt", "train/cat/.hidden.png", "train/.cache/a.png", "train/readme.md")
    found = open_image_folder(tmp_path)
    assert found.classes == ("ant", "cat")
    assert names(tmp_path, found.train) == [("train/ant/x.webp", 0), ("train/cat/1.png", 1), ("train/cat/2.JPEG", 1)]
    assert names(tmp_path, found.val) == [("val/ant/7.jpg", 0), ("val/cat/1.png", 1)]


def test_without_parts_the_first_and_every_tenth_image_of_each_class_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, *(f"b/{number:02d}.jpg" for number in range(22)), "a/x.jpg", "a/y.jpg")
    found = open_image_folder(tmp_path)
    assert names(tmp_path, found.val) == [("a/x.jpg", 0), ("b/00.jpg", 1), ("b/10.jpg", 1), ("b/20.jpg", 1)]
    assert len(found.train) == 20
    assert not {image.file for image in found.train} & {image.file for image in found.val}
    assert found == open_image_folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "bus/1.jpg", "bus/2.jpg")
    assert open_image_folder(tmp_path).classes == ("bus", "train")


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        (["train/a/1.jpg"], FileNotFoundError, "val does not.*or pass .*train itself"),
        (["val/a/1.jpg"], FileNotFoundError, "val holds folders of classes, .*train does not"),
        (["1.jpg"], FileNotFoundError, "holds no folders: put the images of each class"),
        (["only/1.jpg", "only/2.jpg"], ValueError, "one class only, 'only'"),
        (["train/a/1.jpg", "val/a/1.jpg"], ValueError, "train holds one class only, 'a'"),
        (
            ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.txt", "d/deeper/1.jpg"],
            ValueError,
            r"at least 2 images.*'b' \(1\), 'c' \(0\), 'd' \(0\)",
        ),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.txt"],
            ValueError,
            r"val each class needs at least an image.*'b' \(0\)",
        ),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/c/1.jpg"],
            ValueError,
            "same classes; only one of them holds b, c",
        ),
    ],
)
def test_folders_that_cannot_be_used_are_refused_by_name(
    files: list[str], error: type[Exception], words: str, tmp_path: Path
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(error, match=words) as told:
        open_image_folder(tmp_path)
    assert str(tmp_path) in str(told.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_image_folder(tmp_path / "nowhere")


def test_images_are_read_upright_and_without_transparency(tmp_path: Path) -> None:
    touch(tmp_path, "a/2.png", "b/1.png", "b/2.png")
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0] = 255, 100, 50, 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png", exif=exif)
    image = open_image_folder(tmp_path).val[0].read()
    assert image.shape == (2, 3, 3)
    assert image[1, 2].tolist() == [255, 100, 50]
    assert image.sum() == 405


def test_listing_needs_no_torch() -> None:
    code = "import sys, refinenet.training.pretraining.image_folder\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
