"""Files of a dataset that `label take` may not lose: those that no list names, and all of them if it refuses."""

from __future__ import annotations

import json
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_exports import (
    NAMES,
    TAKE,
    list_files,
    mask,
    picture,
    read,
    splits_of,
    write_dataset,
    write_drafts,
    write_export,
    write_pair,
)
from PIL import Image

TAKE_EXPORT = ("label", "take", "export", "--into", "mine", "--images", "photographs")


def smooth_picture() -> Any:
    """An image that is nearly the same after compression as JPEG."""
    rows, columns = np.mgrid[:24, :32]
    return np.stack([rows * 8, columns * 6, rows * 4 + columns], axis=2).astype(np.uint8)


def write_held_out(root: Path, pixels: Any, suffix: str = ".png") -> None:
    """Write a dataset with an image and a mask that no list names."""
    write_dataset(root)
    Image.fromarray(pixels).save(root / "images" / f"held{suffix}", quality=95)
    Image.fromarray(mask(3)).save(root / "masks" / "held.png")


def write_photographs(folder: Path, **images: Any) -> None:
    (folder / "photographs").mkdir(exist_ok=True)
    for stem, pixels in images.items():
        Image.fromarray(pixels).save(folder / "photographs" / f"{stem}.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_another_image_does_not_replace_one_that_no_list_names(
    suffix: str, tmp_path: Path, call_refinenet: Any
) -> None:
    write_held_out(tmp_path / "mine", smooth_picture(), suffix)
    before = list_files(tmp_path / "mine")
    write_photographs(tmp_path, held=picture(1), west_1=picture(2))
    write_export(tmp_path / "export", held=mask(9), west_1=mask(9))
    found = call_refinenet(*TAKE_EXPORT)
    assert found.returncode == 0, found.stderr
    assert "1 new images" in found.stdout
    reason = f"held was left out: mine/images/held{suffix}, which is in no split, is another image of this name"
    assert reason in " ".join(found.stderr.split())
    after = list_files(tmp_path / "mine")
    assert {name for name in before if after[name] != before[name]} == {"train.txt"}
    assert not {name for name in after if "held" in name} - before.keys()
    assert splits_of(tmp_path / "mine")["train"] == {"north_1", "north_2", "north_3", "west_1"}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_same_image_that_no_list_names_is_used_and_its_mask_is_copied(
    suffix: str, tmp_path: Path, call_refinenet: Any
) -> None:
    write_held_out(tmp_path / "mine", smooth_picture(), suffix)
    before = list_files(tmp_path / "mine")
    write_photographs(tmp_path, held=smooth_picture())
    write_export(tmp_path / "export", held=mask(9))
    found = call_refinenet(*TAKE_EXPORT)
    assert found.returncode == 0, found.stderr
    after = list_files(tmp_path / "mine")
    assert {name for name in after if name.startswith("images/")} == {
        name for name in before if name.startswith("images/")
    }
    assert after[f"images/held{suffix}"] == before[f"images/held{suffix}"]
    copies = {name: content for name, content in after.items() if name.startswith(".before/")}
    assert copies == {f".before/0001/{name}": before[name] for name in ("masks/held.png", "train.txt")}
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "held.png"), mask(9))
    assert "held" in splits_of(tmp_path / "mine")["train"]


def test_labels_without_an_image_do_not_join_by_name_alone(tmp_path: Path, call_refinenet: Any) -> None:
    write_held_out(tmp_path / "mine", smooth_picture())
    write_export(tmp_path / "export", held=mask(9), north_1=mask(10))
    before = list_files(tmp_path / "mine")
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert "held was left out: mine/images/held.png has its name and is in no split" in " ".join(found.stderr.split())
    after = list_files(tmp_path / "mine")
    assert {name: after[name] for name in before} == before
    again = call_refinenet("label", "take", "export", "--into", "mine", "--images", "mine/images", "--json")
    assert {one["image"]: one["action"] for one in json.loads(again.stdout)["images"]} == {
        "held": "new",
        "north_1": "unchanged",
    }


def test_a_drafted_image_goes_below_its_folder_if_a_file_has_its_name(tmp_path: Path, call_refinenet: Any) -> None:
    write_held_out(tmp_path / "mine", smooth_picture())
    before = list_files(tmp_path / "mine")
    masks = write_drafts(tmp_path, call_refinenet, "held")
    Image.fromarray(mask(9)).save(masks / "held.png")
    found = call_refinenet(*TAKE, "mine")
    assert found.returncode == 0, found.stderr
    after = list_files(tmp_path / "mine")
    assert {name for name in before if after[name] != before[name]} == {"train.txt"}
    assert np.array_equal(read(tmp_path / "mine" / "masks" / "photographs" / "held.png"), mask(9))
    assert "photographs/held" in splits_of(tmp_path / "mine")["train"]


def test_masks_without_an_image_are_copied_or_in_the_way(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    Image.fromarray(mask(3)).save(tmp_path / "mine" / "masks" / "west_1.png")
    Image.fromarray(mask(3)).save(tmp_path / "mine" / "masks" / "west_2.bmp")
    before = list_files(tmp_path / "mine")
    write_photographs(tmp_path, west_1=picture(1), west_2=picture(2))
    write_export(tmp_path / "export", west_1=mask(9), west_2=mask(9))
    found = call_refinenet(*TAKE_EXPORT)
    assert found.returncode == 0, found.stderr
    assert "west_2 was left out: mine/masks/west_2.bmp has its name" in " ".join(found.stderr.split())
    after = list_files(tmp_path / "mine")
    assert after[".before/0001/masks/west_1.png"] == before["masks/west_1.png"]
    assert not {name for name in after if "west_2" in name} - before.keys()
    assert splits_of(tmp_path / "mine")["train"] == {"north_1", "north_2", "north_3", "west_1"}


def test_files_of_one_name_in_another_spelling_or_of_another_kind(tmp_path: Path, call_refinenet: Any) -> None:
    """macOS stores accents decomposed; NumPy files beside pictures may be anything."""
    composed, decomposed = (unicodedata.normalize(form, "cafe\u0301_1") for form in ("NFC", "NFD"))
    write_dataset(tmp_path / "mine")
    Image.fromarray(picture(1)).save(tmp_path / "mine" / "images" / f"{decomposed}.png")
    np.save(tmp_path / "mine" / "images" / "west_1.npy", mask(3))
    before = list_files(tmp_path / "mine")
    write_photographs(tmp_path, **{composed: picture(1), "west_1": picture(2)})
    write_export(tmp_path / "export", **{composed: mask(9), "west_1": mask(9)})
    found = call_refinenet(*TAKE_EXPORT)
    assert found.returncode == 0, found.stderr
    after = list_files(tmp_path / "mine")
    assert {name for name in after if name.startswith("images/")} - before.keys() == {"images/west_1.png"}
    assert after["images/west_1.npy"] == before["images/west_1.npy"]
    splits = splits_of(tmp_path / "mine")
    assert {composed, "west_1"} <= splits["train"] | splits["val"]


def test_nothing_is_changed_if_the_colours_of_a_mask_are_missing(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    colours = np.array([[128, 64, 128], [0, 0, 142], [107, 142, 35]], np.uint8)
    for path in (tmp_path / "mine" / "masks").iterdir():
        Image.fromarray(colours[read(path)]).save(path)
    text = "masks: colours\ncolours: [[128, 64, 128], [0, 0, 142], [107, 142, 35]]\n"
    (tmp_path / "mine" / "classes.yaml").write_text(NAMES + text)
    before = list_files(tmp_path / "mine")
    with_void = mask(12)
    with_void[:3] = 255
    write_export(tmp_path / "export", north_1=mask(12), north_2=with_void)
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert found.returncode == 1
    message = " ".join(found.stderr.split())
    assert "The labels of north_2 cannot be written: mine/classes.yaml has no colour for pixels without" in message
    assert "Nothing was changed." in message
    assert list_files(tmp_path / "mine") == before


def test_nothing_is_changed_if_a_mask_is_no_png_file(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    (tmp_path / "mine" / "masks" / "north_2.png").unlink()
    Image.fromarray(mask(10)).save(tmp_path / "mine" / "masks" / "north_2.bmp")
    before = list_files(tmp_path / "mine")
    write_export(tmp_path / "export", north_1=mask(12), north_2=mask(12))
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert found.returncode == 1
    assert "mine/masks/north_2.bmp is not a PNG file" in found.stderr
    assert "Nothing was changed." in " ".join(found.stderr.split())
    assert list_files(tmp_path / "mine") == before


def test_masks_in_a_linked_folder_are_copied(tmp_path: Path, call_refinenet: Any) -> None:
    write_dataset(tmp_path / "mine")
    (tmp_path / "mine" / "masks").rename(tmp_path / "disk")
    (tmp_path / "mine" / "masks").symlink_to(tmp_path / "disk")
    before = (tmp_path / "disk" / "north_1.png").read_bytes()
    write_export(tmp_path / "export", north_1=mask(12))
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "mine" / ".before" / "0001" / "masks" / "north_1.png").read_bytes() == before
    assert np.array_equal(read(tmp_path / "disk" / "north_1.png"), mask(12))


def test_masks_outside_of_the_folder_are_copied_into_it(tmp_path: Path, call_refinenet: Any) -> None:
    """A classes.yaml may name folders anywhere."""
    for stem in ("north_1", "north_2"):
        write_pair(tmp_path / "disk", stem, mask(10))
    text = "train: {images: ../disk/images, masks: ../disk/masks}\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "classes.yaml").write_text(NAMES + text)
    before = zlib.crc32((tmp_path / "disk" / "masks" / "north_1.png").read_bytes())
    write_export(tmp_path / "export", north_1=mask(12))
    found = call_refinenet("label", "take", "export", "--into", "mine")
    assert found.returncode == 0, found.stderr
    (copy,) = (tmp_path / "mine" / ".before" / "0001").rglob("*.png")
    assert zlib.crc32(copy.read_bytes()) == before
    assert np.array_equal(read(tmp_path / "disk" / "masks" / "north_1.png"), mask(12))
