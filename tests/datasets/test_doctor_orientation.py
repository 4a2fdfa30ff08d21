"""Images with an EXIF orientation: in a repaired copy, masks drawn from annotations fit the upright images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from folder_files import write_json
from PIL import Image, ImageOps

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset

Size = tuple[int, int]
Write = Callable[[Path, dict[str, Size]], None]

ORIENTATION = 0x0112
WIDE, TALL, SQUARE = (48, 36), (36, 48), (40, 40)
LEFT, TOP, RIGHT, BOTTOM = 3, 5, 15, 13
"""A bright rectangle without any symmetry, which is also what is annotated; first and last column and row."""


def draw_picture(size: Size, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 60, (size[1], size[0], 3), np.uint8)
    pixels[TOP : BOTTOM + 1, LEFT : RIGHT + 1] = 255
    return Image.fromarray(pixels)


def write_coco(root: Path, sizes: dict[str, Size]) -> None:
    box = [LEFT, TOP, RIGHT + 1, TOP, RIGHT + 1, BOTTOM + 1, LEFT, BOTTOM + 1]
    images = [
        {"id": number, "file_name": name, "width": size[0], "height": size[1]}
        for number, (name, size) in enumerate(sizes.items(), start=1)
    ]
    objects = [
        {"id": one["id"], "image_id": one["id"], "category_id": 1, "segmentation": [box], "iscrowd": 0, "area": 1}
        for one in images
    ]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    write_json(root / "annotations" / "instances_default.json", content)


def write_labelme(root: Path, sizes: dict[str, Size]) -> None:
    points = [[LEFT, TOP], [RIGHT, BOTTOM]]
    for name, size in sizes.items():
        shape: dict[str, Any] = {"label": "thing", "points": points, "shape_type": "rectangle", "flags": {}}
        content = {"shapes": [shape], "imagePath": name, "imageWidth": size[0], "imageHeight": size[1]}
        write_json((root / name).with_suffix(".json"), content)


FORMATS = [pytest.param(write_coco, id="COCO"), pytest.param(write_labelme, id="LabelMe")]


def draw_set(root: Path, write: Write, orientation: int, stored: Image.Image, annotated: Size) -> None:
    """Write ten plain images, and `turned.JPG` with an EXIF entry, annotated at a size of its own."""
    folder = root / "images" if write is write_coco else root
    folder.mkdir(parents=True)
    sizes = {}
    for number in range(10):
        sizes[f"plain{number}.JPG"] = WIDE
        draw_picture(WIDE, number).save(folder / f"plain{number}.JPG", quality=95)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(folder / "turned.JPG", quality=95, exif=exif)
    write(root, sizes | {"turned.JPG": annotated})


def read_turned(out: Path) -> tuple[dict[str, Any], Image.Image, npt.NDArray[np.bool_]]:
    """Return the entry in changes.json, the image, and the mask of the sample, read without our code."""
    samples = json.loads((out / "changes.json").read_text("utf-8"))["samples"]
    (entry,) = (sample for sample in samples if "turned" in sample["item"])
    (image,) = (out / "images" / entry["split"]).glob("turned*")
    (mask,) = (out / "masks" / entry["split"]).glob("turned*")
    opened = Image.open(image)
    assert opened.getexif().get(ORIENTATION, 1) == 1
    return entry, opened, np.asarray(Image.open(mask)) == 1


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_drawn_on_the_stored_image_are_turned_with_it(
    write: Write, orientation: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_set(tmp_path / "mine", write, orientation, draw_picture(WIDE, 99), WIDE)
    kinds = {finding.kind for finding in doctor.check(tmp_path / "mine", workers=0).findings}
    assert "size-exif" in kinds
    changes = doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    entry, image, mask = read_turned(tmp_path / "copy")
    assert image.size == TALL == mask.shape[::-1]
    np.testing.assert_array_equal(mask, np.asarray(image.convert("L")) > 150)
    assert entry["mask_changes"] == ["rotated like its image"]
    assert entry["image_changes"] == ["written as upright RGB in PNG"]
    changes.print()
    printed = " ".join(capsys.readouterr().out.split())
    assert "mask: rotated like its image" in printed
    layout = "COCO annotations" if write is write_coco else "LabelMe"
    assert printed.count(f"images/ and masks/ with classes.yaml, instead of {layout}.") == 1
    kinds = {finding.kind for finding in doctor.check(tmp_path / "copy", workers=0).findings}
    assert not kinds & {"size-differs", "size-exif", "exif-turned"}
    assert sum(len(open_dataset(tmp_path / "copy")(split)) for split in ("train", "val")) == 11


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_drawn_on_the_upright_image_stay(write: Write, orientation: int, tmp_path: Path) -> None:
    """The image is stored turned, as cameras do, and was annotated upright."""
    upright = draw_picture(TALL, 99)
    turns = [turn for turn in Image.Transpose if _is_undone(upright.transpose(turn), orientation, upright)]
    draw_set(tmp_path / "mine", write, orientation, upright.transpose(turns[0]), TALL)
    kinds = {finding.kind for finding in doctor.check(tmp_path / "mine", workers=0).findings}
    assert not kinds & {"size-differs", "size-exif", "exif-turned"}
    doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    entry, image, mask = read_turned(tmp_path / "copy")
    assert image.size == TALL == mask.shape[::-1]
    expected = np.zeros(TALL[::-1], bool)
    expected[TOP : BOTTOM + 1, LEFT : RIGHT + 1] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(mask, np.asarray(image.convert("L")) > 150)
    assert entry["mask_changes"] == []


def _is_undone(stored: Image.Image, orientation: int, upright: Image.Image) -> bool:
    stored.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(stored).tobytes() == upright.tobytes()


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(("orientation", "size"), [(2, WIDE), (3, WIDE), (4, WIDE), (6, SQUARE), (7, SQUARE)])
def test_where_sizes_prove_nothing_the_copy_has_what_training_reads(
    write: Write, orientation: int, size: Size, tmp_path: Path
) -> None:
    """The upright image and the mask as drawn, with a warning to look at them."""
    draw_set(tmp_path / "mine", write, orientation, draw_picture(size, 99), size)
    findings = {one.kind: one for one in doctor.check(tmp_path / "mine", workers=0).findings}
    assert any("turned.JPG" in name for name in findings["exif-turned"].examples)
    assert "Compare image and label" in findings["exif-turned"].advice
    doctor.fix(tmp_path / "mine", tmp_path / "copy", workers=0)
    entry, image, mask = read_turned(tmp_path / "copy")
    assert entry["mask_changes"] == []
    (stored,) = (tmp_path / "mine").rglob("turned.JPG")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(ImageOps.exif_transpose(Image.open(stored))))
    expected = np.zeros(size[::-1], bool)
    expected[TOP : BOTTOM + 1, LEFT : RIGHT + 1] = True
    np.testing.assert_array_equal(mask, expected)
