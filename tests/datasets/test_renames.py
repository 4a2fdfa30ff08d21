"""New names for the labels of annotation tools: renamed, merged and dropped classes, in every layout with names."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folder_files import labels_of, save_mask, write, write_json
from PIL import Image

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset, open_training_datasets

LABELS = ("person", "rider", "car", "sky")
"""One pixel each, from left to right, after one of the background."""
RENAME = "rename: {person: Pedestrian, rider: Pedestrian, car: void}\n"


def save_noise(path: Path) -> None:
    """Write an image of 5x1 pixels that differs from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 256, (1, 5, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_cvat(root: Path) -> None:
    """CVAT's painted masks; the label map lists the colours in another order."""
    colours = {"background": (0, 0, 0), "person": (9, 0, 0), "rider": (0, 9, 0), "car": (0, 0, 9), "sky": (9, 9, 9)}
    lines = "".join(f"{name}:{','.join(map(str, colours[name]))}::\n" for name in sorted(colours))
    write(root / "labelmap.txt", lines)
    for number in range(2):
        save_noise(root / "JPEGImages" / f"{number}.png")
        save_mask(root / "SegmentationClass" / f"{number}.png", [[*colours.values()]])


def write_roboflow(root: Path) -> None:
    """Roboflow's masks of ids."""
    for split in ("train", "valid"):
        save_noise(root / split / "0.png")
        save_mask(root / split / "0_mask.png", [[0, 1, 2, 3, 4]])
        lines = "".join(f"{k}, {name}\n" for k, name in enumerate(("background", *LABELS)))
        write(root / split / "_classes.csv", f"Pixel Value, Class\n{lines}")


def write_coco(root: Path) -> None:
    """A COCO file for each split; only that of training lists riders."""
    for split in ("train", "val"):
        save_noise(root / "images" / split / "0.png")
        names = LABELS if split == "train" else tuple(name for name in LABELS if name != "rider")
        shapes = [(LABELS.index(name) + 1, name) for name in names]
        outlines = {name: [[k, 0, k + 1, 0, k + 1, 1, k, 1]] for k, name in shapes}
        write_json(root / "annotations" / f"instances_{split}.json", {
            "images": [{"id": 1, "file_name": "0.png", "height": 1, "width": 5}],
            "annotations": [
                {"id": k, "image_id": 1, "category_id": k, "segmentation": outlines[name]} for k, name in shapes
            ],
            "categories": [{"id": k, "name": name} for k, name in shapes],
        })  # fmt: skip


def write_labelme(root: Path) -> None:
    """LabelMe's file for each image."""
    for number in range(2):
        save_noise(root / f"{number}.png")
        shapes = [
            {"label": name, "points": [[k, 0], [k, 0]], "shape_type": "rectangle"} for k, name in enumerate(LABELS, 1)
        ]
        write_json(root / f"{number}.json", {"shapes": shapes, "imageHeight": 1, "imageWidth": 5})


WRITERS = [write_cvat, write_roboflow, write_coco, write_labelme]


@pytest.mark.parametrize("write_export", WRITERS)
def test_labels_are_renamed_merged_and_dropped(write_export: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_export(root)
    assert set(open_dataset(root)("train").label_set.names) == {"background", *LABELS}
    write(root / "classes.yaml", RENAME)
    dataset = open_dataset(root)("train")
    assert sorted(dataset.label_set.names) == ["Pedestrian", "background", "sky"]
    ids = {**{name: k for k, name in enumerate(dataset.label_set.names)}, "void": dataset.label_set.ignore_index}
    expected = [ids[name] for name in ("background", "Pedestrian", "Pedestrian", "void", "sky")]
    assert list(labels_of(dataset).values()) == [[expected]]
    assert set(doctor.check(root, workers=0, progress=False).classes) == set(dataset.label_set.names)
    doctor.fix(root, tmp_path / "copy", workers=0, progress=False)
    copy = open_dataset(tmp_path / "copy")("train")
    assert copy.label_set.names == dataset.label_set.names
    assert list(labels_of(copy).values()) == [[expected]]


@pytest.mark.parametrize("write_export", [write_coco, write_labelme])
def test_labels_get_the_names_of_classes_that_are_listed(write_export: Callable[[Path], None], tmp_path: Path) -> None:
    write_export(tmp_path)
    write(tmp_path / "classes.yaml", f"names: [sky, Pedestrian]\n{RENAME}")
    dataset = open_dataset(tmp_path)("train")
    assert dataset.label_set.names == ("sky", "Pedestrian")
    assert list(labels_of(dataset).values()) == [[[255, 1, 1, 255, 0]]]


@pytest.mark.parametrize("write_export", WRITERS)
def test_a_label_that_does_not_exist_is_an_error(write_export: Callable[[Path], None], tmp_path: Path) -> None:
    write_export(tmp_path)
    write(tmp_path / "classes.yaml", "rename: {persn: Pedestrian}\n")
    with pytest.raises(
        ValueError, match=r"classes\.yaml, 'rename': there is no label 'persn' .* Did you mean person\?"
    ):
        open_dataset(tmp_path)("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rename: [person]", r"'rename' must map labels to new names, such as {person: pedestrian}, not \['person'\]"),
        ("rename: {person: }", "'rename' must map labels to new names"),
        ("rename: {background: road}", "'background' cannot be renamed, because it also stands for unlabelled pixels"),
        (
            "names: [background, person, rider, car, sky]\nrename: {person: Pedestrian}",
            "is for labels that an annotation tool wrote .*: write the new names into 'names'",
        ),
    ],
)
def test_what_cannot_be_renamed_is_refused(text: str, message: str, tmp_path: Path) -> None:
    write_cvat(tmp_path)
    write(tmp_path / "classes.yaml", text)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path)("train")


def test_datasets_of_other_names_can_be_trained_on_together_once_renamed(tmp_path: Path) -> None:
    write_coco(tmp_path / "one")
    write_labelme(tmp_path / "two")
    write(tmp_path / "one" / "classes.yaml", RENAME)
    sources = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(ValueError, match=r"only one has Pedestrian; only two has car, person, rider\. .*`rename`"):
        open_training_datasets(sources)
    write(tmp_path / "two" / "classes.yaml", RENAME)
    train, val = open_training_datasets(sources)
    assert train.label_set.names == val.label_set.names == ("background", "Pedestrian", "sky")
    assert [labels.tolist() for labels in map(train.labels, range(2))] == [[[0, 1, 1, 255, 2]]] * 2
