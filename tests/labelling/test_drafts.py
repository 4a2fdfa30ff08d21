"""Drafts that cannot be written: which images have none, and no temporary files after an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mask_exports import NAMES, mask, write_pair

from refinenet import RefineNet
from refinenet.labelling import write_labels


def write_masks(folder: Path, *stems: str) -> None:
    for stem in stems:
        write_pair(folder / "photographs", stem, mask(5), ".", "../ids/masks")
    (folder / "ids" / "classes.yaml").write_text(NAMES)


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_masks", [False, True], ids=["model", "masks"])
def test_images_of_one_name_without_drafts_are_told_apart(is_masks: bool, tmp_path: Path) -> None:
    write_masks(tmp_path, "good")
    broken = [tmp_path / "photographs" / folder / "x.jpg" for folder in "ab"]
    for path in broken:
        path.parent.mkdir()
        path.write_bytes(b"no image")
    origin: dict[str, Any] = {"masks": tmp_path / "ids"}
    if not is_masks:
        origin = {"model": RefineNet(encoder="test_resnet", num_classes=3, device="cpu")}
    drafts = write_labels(tmp_path / "photographs", tmp_path / "todo", recursive=True, progress=False, **origin)
    assert [image.name for image in drafts.images] == ["good.png"]
    assert drafts.failed.keys() == {str(path) for path in broken}


@pytest.mark.parametrize("file_format", ["cvat", "coco", "label-studio"])
def test_an_error_while_drafts_are_written_leaves_no_temporary_file(file_format: str, tmp_path: Path) -> None:
    """The name of the last image is no text, so that it cannot be written into files of several images."""
    write_masks(tmp_path, "a", "z")
    for path in (tmp_path / "photographs" / "z.png", tmp_path / "ids" / "masks" / "z.png"):
        try:
            path.rename(path.with_name(os.fsdecode(b"z\xff.png")))
        except OSError:
            pytest.skip("names of this file system are always text")
    photographs, masks = tmp_path / "photographs", tmp_path / "ids"
    with pytest.raises(ValueError, match="surrogates") as raised:
        write_labels(photographs, tmp_path / "todo", masks=masks, file_format=file_format, progress=False)
    # While the error is known, as in a notebook, what was open in its frames is.
    assert raised.value.__traceback__ is not None
    assert list_names(tmp_path / "todo" / file_format) <= {"cvat_labels.json", "label_studio.xml"}
