"""PASCAL-Context and Person-Part, from MATLAB files and prepared ones in their owners' layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matlab_miniatures import (
    TRAIN,
    VAL,
    Ids,
    paint,
    voc_palette,
    write_anno,
    write_context,
    write_jpeg,
    write_label_map,
    write_list,
    write_palette_png,
    write_person_part,
)

from refinenet.datasets.published.context import CONTEXT, CONTEXT_59
from refinenet.datasets.published.person_part import PERSON_PART

NAMES = """background aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person
pottedplant sheep sofa train tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor
flower food grass ground keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow
bedclothes track tree truck wall water window wood"""
CONTEXT_NAMES = NAMES.split()


def colours_of(palette: bytes, first: int, count: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(palette[3 * k : 3 * k + 3]) for k in range(first, first + count))


def write_context_masks(root: Path, ids: Ids) -> None:
    """One train image with this LabelMap."""
    voc = root / "VOCdevkit" / "VOC2010"
    write_label_map(root / "trainval" / f"{TRAIN[0]}.mat", ids)
    write_jpeg(voc / "JPEGImages" / f"{TRAIN[0]}.jpg", paint(ids))
    write_list(voc / "ImageSets" / "Main" / "train.txt", TRAIN[:1])


def test_context_names_void_and_palette() -> None:
    assert list(CONTEXT.info.label_set.names) == CONTEXT_NAMES
    assert list(CONTEXT_59.info.label_set.names) == CONTEXT_NAMES[1:]
    assert CONTEXT.info.label_set.colours == colours_of(voc_palette(), 0, 60)
    assert CONTEXT_59.info.label_set.colours == colours_of(voc_palette(), 1, 59)
    assert CONTEXT.info.label_set.ignore_index == CONTEXT_59.info.label_set.ignore_index == 255


def test_context_s_459_ids_are_60_classes_or_59_and_void(tmp_path: Path) -> None:
    # Of the owners' labels.txt: 2 aeroplane, 284 person, 440 wall, 458 wood, 397 table; 1 and 459 are in no list.
    write_context_masks(tmp_path, np.array([[2, 284, 440, 458], [397, 1, 459, 0]]))
    assert CONTEXT.open_split(tmp_path, "train")[0].labels.tolist() == [[1, 15, 56, 59], [11, 0, 0, 0]]
    assert CONTEXT_59.open_split(tmp_path, "train")[0].labels.tolist() == [[0, 14, 55, 58], [10, 255, 255, 255]]
    assert CONTEXT_NAMES[56] == "wall"
    assert CONTEXT_NAMES[11] == "table"


def test_trap_context_s_ids_above_255_are_not_cut_to_bytes(tmp_path: Path) -> None:
    """258, a motorbike, is 2 in eight bits, an aeroplane; 260, a mouse, would be 4; 440, a wall, would be 184."""
    write_context_masks(tmp_path, np.array([[258, 260, 440, 256 + 23]]))
    assert CONTEXT.open_split(tmp_path, "train")[0].labels.tolist() == [[14, 41, 56, 0]]
    write_context_masks(tmp_path, np.array([[460]]))
    with pytest.raises(ValueError, match=rf"{TRAIN[0]}\.mat has the id 460: 0 to 459"):
        CONTEXT.open_split(tmp_path, "train")[0]


def test_trap_pngs_of_mmsegmentation_s_converter_have_another_order_of_classes(tmp_path: Path) -> None:
    """It numbers the ids in their order, so 2 is 9, a bag, which is 21 here; 6 is 23, a bicycle; 59 is 458, wood."""
    voc = tmp_path / "VOCdevkit" / "VOC2010"
    ids = np.array([[0, 1, 2, 3, 6], [37, 50, 56, 58, 59]])
    write_palette_png(voc / "SegmentationClassContext" / f"{VAL[0]}.png", ids)
    write_jpeg(voc / "JPEGImages" / f"{VAL[0]}.jpg", paint(ids))
    write_list(voc / "ImageSets" / "SegmentationContext" / "val.txt", VAL[:1])
    # In the order of ids: 37 is 284 (person), 50 is 397 (table), 56 is 440 (wall), 58 is 454 (window).
    names = [["background", "aeroplane", "bag", "bed", "bicycle"], ["person", "table", "wall", "window", "wood"]]
    labels = CONTEXT.open_split(tmp_path, "val")[0].labels
    assert [[CONTEXT_NAMES[k] for k in row] for row in labels] == names
    without = CONTEXT_59.open_split(tmp_path, "val")[0].labels.tolist()
    assert without == [[255 if k == 0 else int(k) - 1 for k in row] for row in labels]
    write_palette_png(voc / "SegmentationClassContext" / f"{VAL[0]}.png", np.array([[60, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match=rf"{VAL[0]}\.png has the id 60: 0 to 59"):
        CONTEXT.open_split(tmp_path, "val")[0]


def test_trap_context_s_lists_spell_names_in_two_ways_so_ids_are_mapped_not_names(tmp_path: Path) -> None:
    write_context_masks(tmp_path, np.array([[397, 19, 80]]))
    (tmp_path / "labels.txt").write_text("397: table\n19: bedclothes\n80: cloth\n")
    (tmp_path / "59_labels.txt").write_text("11: diningtable\n52: bedcloth\n28: clothes\n")
    labels = CONTEXT.open_split(tmp_path, "train")[0].labels
    assert [CONTEXT_NAMES[k] for k in labels[0]] == ["table", "bedclothes", "cloth"]


def test_context_without_labels_says_what_was_looked_for(tmp_path: Path) -> None:
    write_context(tmp_path)
    (tmp_path / "trainval").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as caught:
        CONTEXT.open_split(tmp_path, "train")
    for part in ("trainval", "VOCdevkit/VOC2010/SegmentationClassContext"):
        assert str(tmp_path / part) in str(caught.value)


def areas(*names: tuple[str, list[list[int]]]) -> list[tuple[str, Ids]]:
    return [(name, np.array(mask)) for name, mask in names]


def write_people(root: Path, *things: tuple[str, int, list[tuple[str, Ids]]]) -> None:
    """One train image of 4x2 pixels with these objects: class, number, parts."""
    voc = root / "VOC2010"
    objects = [(name, number, np.ones((2, 4)), parts) for name, number, parts in things]
    write_anno(root / "trainval" / "Annotations_Part" / f"{TRAIN[0]}.mat", objects)
    write_jpeg(voc / "JPEGImages" / f"{TRAIN[0]}.jpg", np.zeros((2, 4, 3), np.uint8))
    write_list(voc / "ImageSets" / "Main" / "person_train.txt", [f"{TRAIN[0]}  1", f"{TRAIN[1]} -1", f"{TRAIN[2]}  0"])


def test_person_part_names_void_and_palette() -> None:
    label_set = PERSON_PART.info.label_set
    assert label_set.names == (
        *("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
    )
    assert label_set.colours == colours_of(voc_palette(), 0, 7)
    assert label_set.ignore_index == 255


def test_person_part_has_the_24_parts_in_six_classes(tmp_path: Path) -> None:
    classes = {
        1: "head hair leye reye lear rear lebrow rebrow nose mouth", 2: "neck torso", 3: "luarm ruarm",
        4: "llarm rlarm lhand rhand", 5: "luleg ruleg", 6: "llleg rlleg lfoot rfoot",
    }  # fmt: skip
    for expected, names in classes.items():
        for name in names.split():
            write_people(tmp_path, ("person", 15, areas((name, [[0, 1, 0, 0], [0, 0, 0, 1]]))))
            labels = PERSON_PART.open_split(tmp_path, "train")[0].labels
            assert labels.tolist() == [[0, expected, 0, 0], [0, 0, 0, expected]]
    assert len(" ".join(classes.values()).split()) == len(PERSON_PART.info.more["class_of_part"]) == 24


def test_trap_person_parts_drawn_later_lie_over_earlier_ones(tmp_path: Path) -> None:
    torso, arm = ("torso", [[1, 1, 1, 0], [0, 0, 0, 0]]), ("luarm", [[0, 1, 1, 1], [0, 0, 0, 0]])
    write_people(tmp_path, ("person", 15, areas(torso, arm)))
    assert PERSON_PART.open_split(tmp_path, "train")[0].labels[0].tolist() == [2, 3, 3, 3]
    write_people(tmp_path, ("person", 15, areas(arm, torso)))
    assert PERSON_PART.open_split(tmp_path, "train")[0].labels[0].tolist() == [2, 2, 2, 3]
    write_people(tmp_path, ("person", 15, areas(arm)), ("person", 15, areas(torso)))
    assert PERSON_PART.open_split(tmp_path, "train")[0].labels[0].tolist() == [2, 2, 2, 3]


def test_trap_people_without_parts_are_background_and_animals_parts_are_not_drawn(tmp_path: Path) -> None:
    head = ("head", [[1, 1, 0, 0], [0, 0, 0, 0]])
    write_people(tmp_path, ("person", 15, []), ("horse", 13, areas(head, ("lfho", [[0, 0, 1, 1], [0, 0, 0, 0]]))))
    assert PERSON_PART.open_split(tmp_path, "train")[0].labels.tolist() == [[0] * 4] * 2


def test_person_part_images_are_those_of_the_lists_or_those_with_a_person(tmp_path: Path) -> None:
    write_people(tmp_path, ("person", 15, []))
    assert PERSON_PART.open_split(tmp_path, "train").items == [TRAIN[0]]
    write_list(tmp_path / "pascal_person_part_trainval_list" / "train.txt", [TRAIN[1]])
    with pytest.raises(FileNotFoundError, match=rf"lacks 1 .*{TRAIN[1]}\.jpg"):
        PERSON_PART.open_split(tmp_path, "train")


def test_trap_prepared_person_part_masks_hold_the_classes_directly(tmp_path: Path) -> None:
    write_person_part(tmp_path)
    ids = np.array([[0, 1, 6, 255]])
    for name in TRAIN:
        write_palette_png(tmp_path / "pascal_person_part_gt" / f"{name}.png", ids)
    dataset = PERSON_PART.open_split(tmp_path, "train")
    assert dataset.labels(0).tolist() == [[0, 1, 6, 255]]
    write_palette_png(tmp_path / "pascal_person_part_gt" / f"{TRAIN[0]}.png", np.array([[7]]))
    with pytest.raises(ValueError, match="the id 7"):
        dataset.labels(0)


def test_strange_parts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trainval" / "Annotations_Part" / f"{TRAIN[0]}.mat"
    for parts, pattern in (
        (areas(("tail", [[1, 1, 1, 1], [0, 0, 0, 0]])), "part 'tail'"),
        (areas(("head", [[1, 1, 1, 1]])), r"head has the shape \(1, 4\), its image \(2, 4\)"),
    ):
        write_people(tmp_path, ("person", 15, parts))
        with pytest.raises(ValueError, match=pattern) as caught:
            PERSON_PART.open_split(tmp_path, "train")[0]
        assert str(path) in str(caught.value)
    write_people(tmp_path)
    with pytest.raises(ValueError, match=rf"{TRAIN[0]}\.mat contains no object"):
        PERSON_PART.open_split(tmp_path, "train")[0]
