"""Miniature exports of annotation tools: CVAT, Roboflow, COCO, LabelMe."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from folder_files import labels_of, save_image, save_mask, save_pair, write, write_json

from refinenet.datasets.folder.encodings import find_encoding
from refinenet.datasets.folder.folder import FolderSplits, open_split
from refinenet.datasets.folder.layouts import find_layout


def make_voc(root: Path, stems: tuple[str, ...], images: str = "JPEGImages") -> None:
    for stem in stems:
        save_image(root / images / f"{stem}.jpg")
        save_mask(root / "SegmentationClass" / f"{stem}.png", [[(0, 0, 0), (250, 50, 83), (1, 2, 3)]])


def test_voc_with_lists(tmp_path: Path) -> None:
    make_voc(tmp_path, ("2007_01", "2007_02", "2007_03"))
    lists = tmp_path / "ImageSets" / "Segmentation"
    for name, text in (("train", "2007_03\n2007_01\n"), ("val", "2007_02\n"), ("trainval", "2007_01\n2007_02\n")):
        write(lists / f"{name}.txt", text)
    write(tmp_path / "classes.yaml", "names: [a, b]\ncolours: [[0, 0, 0], [250, 50, 83]]\nmasks: colours\n")
    layout = find_layout(tmp_path)
    assert sorted(layout.splits) == ["train", "trainval", "val"]
    assert open_split(tmp_path, "train").items == ["2007_01", "2007_03"]
    assert open_split(tmp_path, "trainval").items == ["2007_01", "2007_02"]
    with pytest.raises(ValueError, match=r"the colour \(1, 2, 3\) .*classes\.yaml lists neither"):
        open_split(tmp_path, "val")[0]


def test_cvat_segmentation_masks(tmp_path: Path) -> None:
    """CVAT's "Segmentation mask 1.1": labelmap.txt, and one list named default."""
    stems = tuple(f"clip/{number:06}" for number in range(7))
    make_voc(tmp_path, (*stems, "clip/not listed"))
    labels = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nwing, left:250,50,83:tip,root:\nignored:1,2,3::\n"
    write(tmp_path / "labelmap.txt", labels)
    write(tmp_path / "ImageSets" / "Segmentation" / "default.txt", "".join(f"{stem}\n" for stem in stems))
    val = open_split(tmp_path, "val")
    assert val.label_set.names == ("background", "wing, left")
    assert val.label_set.colours == ((0, 0, 0), (250, 50, 83))
    assert labels_of(val) == {"clip/000000": [[0, 1, 255]], "clip/000005": [[0, 1, 255]]}
    assert len(open_split(tmp_path, "train")) == 5
    write(tmp_path / "ImageSets" / "Segmentation" / "default.txt", "clip/000000\nclip/000001\nclip/none\n")
    for split in ("train", "val"):
        with pytest.raises(FileNotFoundError, match="The list names clip/none"):
            open_split(tmp_path, split)


def test_cvat_subsets_and_images_of_ones_own(tmp_path: Path) -> None:
    make_voc(tmp_path, ("a", "b"), images="images")
    write(tmp_path / "labelmap.txt", "background:0,0,0::\nx:250,50,83\nvoid:1,2,3::\n")
    for name, stem in (("Train", "a"), ("Validation", "b")):
        write(tmp_path / "ImageSets" / "Segmentation" / f"{name}.txt", f"{stem}\n")
    assert labels_of(open_split(tmp_path, "train")) == {"a": [[0, 1, 255]]}
    assert labels_of(open_split(tmp_path, "val")) == {"b": [[0, 1, 255]]}


def test_voc_without_lists(tmp_path: Path) -> None:
    make_voc(tmp_path, ("a", "b"))
    assert find_layout(tmp_path).is_dealt


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("background:0,0,0::\nx:1,2\n", r"line 2 is 'x:1,2', not label:red,green,blue::"),
        ("background\n", "line 1 is 'background'"),
        ("background:0,0,256::\n", r"not \[0, 0, 256\]"),
        ("a:0,0,0::\na:0,0,1::\n", "line 2 names 'a' twice"),
        ("a:0,0,0::\nb:0,0,0::\n", "a different colour for each class"),
        ("a:0,0,0::\nignore:0,0,0::\n", "is in both 'colours' and 'ignore'"),
        ("# nothing\n", "it has 0 classes"),
    ],
)
def test_errors_in_a_label_map_are_named(text: str, pattern: str, tmp_path: Path) -> None:
    make_voc(tmp_path, ("a",))
    write(tmp_path / "labelmap.txt", text)
    with pytest.raises(ValueError, match=pattern) as caught:
        find_encoding(find_layout(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / 'labelmap.txt'}: ")


def make_roboflow(root: Path, classes: str = "Pixel Value, Class\n0, background\n1, crack\n2, 3\n") -> None:
    for number, split in enumerate(("train", "valid", "test")):
        stem = f"wall-{number}_jpg.rf.0a1b2c"
        save_pair(root / split / f"{stem}.jpg", root / split / f"{stem}_mask.png", number)
        write(root / split / "_classes.csv", classes)


def test_roboflow_masks(tmp_path: Path) -> None:
    make_roboflow(tmp_path)
    write(tmp_path / "README.dataset.txt", "exported")
    for number, split in enumerate(("train", "val", "test")):
        dataset = open_split(tmp_path, split)
        assert dataset.label_set.names == ("background", "crack", "3")
        assert labels_of(dataset) == {f"wall-{number}_jpg.rf.0a1b2c": [[number, 0, 255]]}
    write(tmp_path / "valid" / "_classes.csv", "Pixel Value, Class\n0, background\n1, hole\n2, 3\n")
    with pytest.raises(ValueError, match=r"name different classes: export all splits together"):
        open_split(tmp_path, "train")


def test_roboflow_masks_in_one_folder_and_other_values(tmp_path: Path) -> None:
    for number in range(6):
        save_pair(tmp_path / f"{number}.jpg", tmp_path / f"{number}_mask.png", 1)
    write(tmp_path / "_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n")
    assert open_split(tmp_path, "val").items == ["0", "5"]
    assert labels_of(open_split(tmp_path, "train"))["1"] == [[1, 0, 255]]
    write(tmp_path / "_classes.csv", "Pixel Value, Class\n1, crack\n0, background\n")
    assert labels_of(open_split(tmp_path, "train"))["1"] == [[0, 1, 255]]


@pytest.mark.parametrize("folder", [".", "pictures"])
def test_images_and_masks_in_one_folder_that_is_no_split(folder: str, tmp_path: Path) -> None:
    for number in range(6):
        save_pair(tmp_path / folder / f"{number}.jpg", tmp_path / folder / f"{number}_mask.png", 1)
        save_image(tmp_path / "shapes" / folder / f"{number}.jpg")
        write_json(tmp_path / "shapes" / folder / f"{number}.json", labelme("a"))
    save_pair(tmp_path / folder / "old" / "a.jpg", tmp_path / folder / "old" / "a_mask.png", 1)
    write(tmp_path / "_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n")
    assert open_split(tmp_path, "val").items == ["0", "5"]
    assert open_split(tmp_path / "shapes", "train").items == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "its first line must be 'Pixel Value, Class'"),
        ("0, background\n", "its first line must be 'Pixel Value, Class'"),
        ("Pixel Value, Class\n0, a, b\n", "not '0, a, b'"),
        ("Pixel Value, Class\nzero, a\n", "not 'zero, a'"),
        ("Pixel Value, Class\n-1, a\n", "not '-1, a'"),
        ("Pixel Value, Class\n0, a\n0, b\n", "the id 0 occurs twice"),
        ("Pixel Value, Class\n0, a\n1, a\n", "'a' is used more than once"),
        ("Pixel Value, Class\n", "it has 0 classes"),
    ],
)
def test_errors_in_roboflow_classes_are_named(text: str, pattern: str, tmp_path: Path) -> None:
    make_roboflow(tmp_path, text)
    with pytest.raises(ValueError, match=pattern) as caught:
        open_split(tmp_path, "train")
    assert "_classes.csv: " in str(caught.value)


def coco(*file_names: str) -> dict[str, Any]:
    """Each image, 3x1, has one box of category 7 over its second and third pixel."""
    return {
        "images": [{"id": k, "file_name": name, "width": 3, "height": 1} for k, name in enumerate(file_names)],
        "categories": [{"id": 7, "name": "fish"}],
        "annotations": [
            {
                "id": k,
                "image_id": k,
                "category_id": 7,
                "segmentation": [[1, 0, 3, 0, 3, 1, 1, 1]],
                "iscrowd": 0,
                "area": 2,
                "bbox": [1, 0, 2, 1],
            }
            for k in range(len(file_names))
        ],
    }


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("images/{split}", "annotations/instances_{split}.json"),
        ("{split}", "annotations/instances_{split}.json"),
        ("{split}2017", "annotations/instances_{split}2017.json"),
        ("images", "annotations/instances_{split}.json"),
        ("{split}", "{split}/_annotations.coco.json"),
    ],
)
def test_coco_with_splits(images: str, annotations: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_image(tmp_path / images.format(split=split) / f"{split} é.jpg")
        write_json(tmp_path / annotations.format(split=split), coco(f"{split} e\u0301.jpg"))
    for split in ("train", "val"):
        dataset = open_split(tmp_path, split)
        assert dataset.label_set.names == ("background", "fish")
        assert labels_of(dataset) == {f"{split} e\u0301.jpg": [[0, 1, 1]]}
    assert find_encoding(find_layout(tmp_path)).label_set == dataset.label_set


@pytest.mark.parametrize("name", ["annotations.json", "annotations/instances_default.json", "_annotations.coco.json"])
@pytest.mark.parametrize("folder", ["images", "images/default", "."])
def test_coco_in_one_file(name: str, folder: str, tmp_path: Path) -> None:
    stems = [f"{k}.jpg" for k in range(6)]
    for stem in [*stems, "9.jpg"]:
        save_image(tmp_path / folder / stem)
    write_json(tmp_path / name, coco(*(f"C:\\work\\{stem}" for stem in stems)))
    assert list(labels_of(open_split(tmp_path, "val"))) == ["C:\\work\\0.jpg", "C:\\work\\5.jpg"]
    assert len(open_split(tmp_path, "train")) == 4


def test_label_studio_writes_coco_into_result_json(tmp_path: Path) -> None:
    for number in range(6):
        save_image(tmp_path / "images" / f"1a2b-{number}.jpg")
    write_json(tmp_path / "result.json", coco(*(f"images/1a2b-{number}.jpg" for number in range(6))))
    assert list(labels_of(open_split(tmp_path, "val"))) == ["images/1a2b-0.jpg", "images/1a2b-5.jpg"]


def test_a_result_json_without_a_folder_of_images_is_of_labelme(tmp_path: Path) -> None:
    for stem in ("result", "other"):
        save_image(tmp_path / f"{stem}.jpg")
        write_json(tmp_path / f"{stem}.json", labelme("frog"))
    assert find_layout(tmp_path).description.startswith("LabelMe")


def test_coco_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    save_image(tmp_path / "train" / "a.jpg")
    path = write_json(tmp_path / "train" / "_annotations.coco.json", coco("a.jpg", "b.jpg"))
    with pytest.raises(FileNotFoundError, match=rf"{path} names the image b\.jpg, which is not in .*train"):
        open_split(tmp_path, "train")
    write_json(path, coco("x/a.jpg", "y/a.jpg"))
    with pytest.raises(ValueError, match=r"lists an image in .* twice"):
        open_split(tmp_path, "train")
    write_json(path, coco())
    with pytest.raises(ValueError, match="it has no images"):
        open_split(tmp_path, "train")


def labelme(label: str) -> dict[str, Any]:
    """Write a 3x1 image with a rectangle over its first two pixels like LabelMe 5."""
    shape: dict[str, Any] = {
        "label": label,
        "points": [[0, 0], [2, 1]],
        "group_id": None,
        "shape_type": "rectangle",
        "flags": {},
    }
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [shape],
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": 1,
        "imageWidth": 3,
    }


def test_labelme_in_one_folder(tmp_path: Path) -> None:
    for number in range(6):
        save_image(tmp_path / f"{number}.jpg")
        write_json(tmp_path / f"{number}.json", labelme("frog" if number else "toad"))
    splits = FolderSplits(tmp_path)
    assert splits("val").label_set.names == ("background", "frog", "toad")
    # LabelMe's own rule fills both corners of a rectangle.
    assert splits("val")[0].labels[0, :2].tolist() == [2, 2]
    assert splits("train").items == ["1", "2", "3", "4"]
    assert splits("train").label_set == splits("val").label_set
    assert splits("train")[0].labels[0, :2].tolist() == [1, 1]
    (tmp_path / "0.json").unlink()
    with pytest.raises(ValueError, match=r"Images and json files should .* Without a partner: 0 \(no json file\)\.$"):
        open_split(tmp_path, "train")


def test_labelme_with_splits_has_the_classes_of_all(tmp_path: Path) -> None:
    for split, label in (("train", "b"), ("val", "a")):
        save_image(tmp_path / split / "x.jpg")
        write_json(tmp_path / split / "x.json", labelme(label))
    train, val = open_split(tmp_path, "train"), open_split(tmp_path, "val")
    assert train.label_set.names == val.label_set.names == ("background", "a", "b")
    assert (train[0].labels[0, 0], val[0].labels[0, 0]) == (2, 1)


def test_annotations_travel_to_worker_processes(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "train" / "x.jpg")
    write_json(tmp_path / "a" / "train" / "_annotations.coco.json", coco("x.jpg"))
    save_image(tmp_path / "b" / "train" / "x.jpg")
    write_json(tmp_path / "b" / "train" / "x.json", labelme("frog"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        samples = [pool.submit(open_split(tmp_path / name, "train").__getitem__, 0) for name in "ab"]
        assert [sample.result().labels[0, :2].tolist() for sample in samples] == [[0, 1], [1, 1]]


def write_shapes(folder: Path, stem: str, label: str) -> None:
    save_image(folder / f"{stem}.jpg")
    corners = [[0, 0], [1, 0]]
    shape = {"label": label, "points": corners, "shape_type": "rectangle"}
    write_json(folder / f"{stem}.json", {"shapes": [shape], "imageHeight": 1, "imageWidth": 3})


@pytest.mark.parametrize(("names", "expected"), [("[car, cat, background]", [1, 1, 2]), ("[car, cat]", [1, 1, 255])])
def test_labelme_has_the_classes_that_are_listed(names: str, expected: list[int], tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_shapes(tmp_path / split, "a", "cat")
    path = write(
        tmp_path / "classes.yaml", f"names: {names}\ncolours: {[[k, 0, 0] for k in range(names.count(',') + 1)]}"
    )
    dataset = open_split(tmp_path, "train")
    assert dataset.label_set.names[:2] == ("car", "cat")
    assert dataset.label_set.colours[1] == (1, 0, 0)
    assert labels_of(dataset) == {"a": [expected]}
    write_shapes(tmp_path / "val", "b", "dog")
    with pytest.raises(ValueError, match=r"val/b\.json has a shape of 'dog', which is not one of car, cat"):
        open_split(tmp_path, "train")
    path.write_text("names: [cat, dog]\nvalues: [0, 255]\n")
    with pytest.raises(ValueError, match="'values' and 'ignore' are for masks, but the labels here are shapes"):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("by_yaml_file", [False, True])
def test_coco_has_the_classes_that_are_listed(by_yaml_file: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "val"):
        save_image(data / "images" / split / "a.jpg")
        write_json(data / "annotations" / f"instances_{split}.json", {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 1, "width": 3}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 8, "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]}],
            "categories": [{"id": 8, "name": "cat"}, {"id": 9, "name": "dog"}],
        })  # fmt: skip
    path = tmp_path / "mine.yaml" if by_yaml_file else data / "classes.yaml"
    write(path, "path: data\nnames: [tree, background, cat]\n" if by_yaml_file else "names: [tree, background, cat]\n")
    source = path if by_yaml_file else data
    dataset = open_split(source, "val")
    assert dataset.label_set.names == ("tree", "background", "cat")
    assert labels_of(dataset) == {"a.jpg": [[2, 1, 1]]}
    write(path, path.read_text().replace("cat", "dog"))
    with pytest.raises(ValueError, match=r"instances_val\.json has objects of 'cat', which is not one of tree, backgr"):
        open_split(source, "val")
