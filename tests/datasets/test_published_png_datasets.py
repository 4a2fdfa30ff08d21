"""Cityscapes, ADE20K, CamVid and COCO-Stuff in their owners' layouts, with their traps."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import png_miniatures as miniatures
import pytest
import scipy.io
from png_miniatures import bands, noise, save

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.metadata import PublishedDataset
from refinenet.datasets.published.ade20k import ADE20K
from refinenet.datasets.published.camvid import CAMVID, split_of
from refinenet.datasets.published.cityscapes import CITYSCAPES
from refinenet.datasets.published.coco import COCO_STUFF

# What the eight bands of the miniatures mean, worked out by hand from the owners' tables.
CITYSCAPES_BANDS = [0, 1, 2, 18, 255, 255, 255, 13]
ADE20K_BANDS = [255, 0, 149, 6, 48, 12, 1, 2]
STUFF_BANDS = [0, 10, 11, 79, 80, 170, 255, 2]
CAMVID_BANDS = [0, 10, 255, 3, 8, 4, 5, 1]
ORIGINAL_BANDS = [3, 3, 255, 1, 4, 8, 9, 2]
ALL = [
    pytest.param(miniatures.write_cityscapes, CITYSCAPES, CITYSCAPES_BANDS, id="cityscapes"),
    pytest.param(miniatures.write_ade20k, ADE20K, ADE20K_BANDS, id="ade20k"),
    pytest.param(miniatures.write_coco_stuff, COCO_STUFF, STUFF_BANDS, id="coco_stuff"),
    pytest.param(miniatures.write_camvid, CAMVID, CAMVID_BANDS, id="camvid"),
    pytest.param(miniatures.write_camvid_original, CAMVID, ORIGINAL_BANDS, id="camvid_original"),
]


def first_row(dataset: Dataset, index: int = 0) -> list[int]:
    """Return the ids of the eight bands, equal in every row."""
    labels = dataset[index].labels
    assert labels.dtype == np.uint8
    assert (labels == labels[0]).all()
    values: list[int] = labels[0, ::5].tolist()
    return values


@pytest.mark.parametrize(("write", "published", "expected"), ALL)
def test_official_layouts_are_read(
    write: Callable[[Path], None], published: PublishedDataset, expected: list[int], tmp_path: Path
) -> None:
    write(tmp_path)
    train, val = (published.open_split(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val), train.split, val.split) == (3, 2, "train", "val")
    assert train.label_set is published.info.label_set
    assert train.label_set.ignore_index == 255
    for dataset in (train, val):
        for index, item in enumerate(dataset.items):
            assert first_row(dataset, index) == expected
            assert dataset[index].image.shape == (32, 40, 3)
            image_file = dataset.image_file(item)
            assert image_file is not None
            assert image_file.is_file()
            assert Path(dataset.locate(item)).is_file()


@pytest.mark.parametrize(("write", "published", "expected"), ALL)
def test_datasets_travel_to_worker_processes(
    write: Callable[[Path], None], published: PublishedDataset, expected: list[int], tmp_path: Path
) -> None:
    write(tmp_path)
    dataset = published.open_split(tmp_path, "train")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        sample = pool.submit(dataset.__getitem__, 1).result()
    assert sample.labels[0, ::5].tolist() == expected
    np.testing.assert_array_equal(sample.image, dataset[1].image)


@pytest.mark.parametrize(("write", "published", "expected"), ALL)
def test_absent_damaged_and_unpaired_files_are_named(
    write: Callable[[Path], None], published: PublishedDataset, expected: list[int], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "nowhere")):
        published.open_split(tmp_path / "nowhere", "train")
    write(tmp_path)
    dataset = published.open_split(tmp_path, "train")
    first, second = (Path(dataset.locate(item)) for item in dataset.items[:2])
    first.write_bytes(first.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{first} is damaged"):
        dataset[0]
    save(second, np.zeros((4, 4, 3) if "Labeled" in str(second) else (4, 4), np.uint8))
    with pytest.raises(ValueError, match=f"{second}: the image has 40x32 pixels"):
        dataset[1]
    first.unlink()
    with pytest.raises(ValueError, match=dataset.items[0]):
        published.open_split(tmp_path, "train")


def test_info_says_where_to_get_the_data_and_how_they_lie() -> None:
    for published in (CITYSCAPES, ADE20K, COCO_STUFF, CAMVID):
        text = published.info.how_to_get
        assert "http" in text
        assert "root" in text
        assert "TODO" not in text
        for download in published.info.downloads:
            assert download.url in text


# Cityscapes


def test_cityscapes_classes_and_names() -> None:
    label_set = CITYSCAPES.info.label_set
    expected = {
        0: ("road", (128, 64, 128)), 5: ("pole", (153, 153, 153)), 10: ("sky", (70, 130, 180)),
        13: ("car", (0, 0, 142)), 16: ("train", (0, 80, 100)), 18: ("bicycle", (119, 11, 32)),
    }  # fmt: skip
    assert len(label_set) == 19
    for identifier, (name, colour) in expected.items():
        assert (label_set.names[identifier], label_set.colours[identifier]) == (name, colour)


def test_cityscapes_all_34_label_ids_and_the_number_plate_of_minus_one(tmp_path: Path) -> None:
    """Trap: the id -1 of number plates is stored as 255 in 8 bits, and is void."""
    miniatures.write_cityscapes(tmp_path)
    dataset = CITYSCAPES.open_split(tmp_path, "train")
    values = np.full((32, 40), 255, np.uint8)
    values[0, :34] = range(34)
    save(Path(dataset.locate(dataset.items[0])), values)
    void = 255
    expected = [
        *[void] * 7, 0, 1, void, void, 2, 3, 4, void, void, void, 5, void,
        6, 7, 8, 9, 10, 11, 12, 13, 14, 15, void, void, 16, 17, 18,
    ]  # fmt: skip
    labels = dataset[0].labels
    assert labels[0, :34].tolist() == expected
    assert (labels[1:] == void).all()


def test_cityscapes_depth_is_baseline_times_focal_length_by_disparity(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    assert CITYSCAPES.open_split(tmp_path, "val").target_specs == ()
    frame = "frankfurt_000000_000294"
    stored = np.full((32, 40), 1 + 256 * 10, np.uint16)
    stored[0, :5] = (0, 1, 257, 130, 129)
    miniatures.write_disparity(tmp_path, "val", frame, stored)
    dataset = CITYSCAPES.open_split(tmp_path, "val").with_targets(["depth"])
    assert [spec.to_text() for spec in dataset.target_specs] == ["depth:0.0:1000.0"]
    depth = dataset[0].targets["depth"]
    # By hand: 0.222126 m * 2268.36 pixels = 503.8617... pixel metres; disparities of 1, 129/256, 1/2 and 10 pixels, of
    # which 1/2 would be 1007.7 metres, beyond what stereo can measure.
    assert depth.shape == (1, 32, 40)
    expected = [np.nan, np.nan, 503.86173, 999.91165, np.nan, 50.386173]
    np.testing.assert_allclose(depth[0, 0, :6], expected, rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="munster_000000_000019_disparity"):
        dataset[1]
    camera = tmp_path / "camera" / "val" / "frankfurt" / f"{frame}_camera.json"
    camera.write_text('{"extrinsic": {"baseline": 0}, "intrinsic": {"fx": 2}}')
    with pytest.raises(ValueError, match=r"camera\.json: the baseline and the focal length are above 0, not 0\.0"):
        dataset[0]
    camera.write_text("[]")
    with pytest.raises(ValueError, match=r"camera\.json is damaged or not a camera file"):
        dataset[0]


def test_cityscapes_items_are_city_and_frame_of_any_number(tmp_path: Path) -> None:
    """Trap: cities with few long sequences have frame numbers other than 000019."""
    miniatures.write_cityscapes(tmp_path)
    train = CITYSCAPES.open_split(tmp_path, "train")
    assert train.items == [
        "aachen/aachen_000000_000019", "aachen/aachen_000173_000019", "hamburg/hamburg_000000_042505",
    ]  # fmt: skip
    assert CITYSCAPES.open_split(tmp_path, "val").items[0] == "frankfurt/frankfurt_000000_000294"


def test_cityscapes_test_has_no_labels_because_its_masks_are_dummies(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    assert CITYSCAPES.splits == ("train", "val")
    assert "test" not in CITYSCAPES.info.images
    test = CITYSCAPES.open_split(tmp_path, "test")
    assert test.items == ["berlin/berlin_000000_000019"]
    assert test.read_image(test.items[0]).shape == (32, 40, 3)
    with pytest.raises(ValueError, match="cityscapes test has no public labels"):
        test[0]


def test_cityscapes_label_train_ids_are_not_mistaken_for_label_ids(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    folder = tmp_path / "gtFine" / "train"
    for path in list(folder.glob("*/*_labelIds.png")):
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), bands([0, 1, 2, 3, 4, 5, 6, 255]))
    assert len(CITYSCAPES.open_split(tmp_path, "train")) == 3
    assert first_row(CITYSCAPES.open_split(tmp_path, "train")) == CITYSCAPES_BANDS
    for path in list(folder.glob("*/*_labelIds.png")):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"gtFine_labelIds\.png"):
        CITYSCAPES.open_split(tmp_path, "train")


def test_cityscapes_lane_classes_of_other_forks_are_refused(tmp_path: Path) -> None:
    """Trap: forks of the label table have ids beyond 0 to 33."""
    miniatures.write_cityscapes(tmp_path)
    dataset = CITYSCAPES.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), bands([7, 7, 34, 7, 7, 7, 7, 254]))
    with pytest.raises(ValueError, match=rf"{mask} has the value 34 at row 0, column 10 \(320 pixels.*0 to 33"):
        dataset[0]


def test_cityscapes_images_and_masks_without_partner_are_named(tmp_path: Path) -> None:
    miniatures.write_cityscapes(tmp_path)
    next((tmp_path / "leftImg8bit" / "train" / "hamburg").iterdir()).unlink()
    next((tmp_path / "gtFine" / "train" / "aachen").glob("aachen_000173_*_labelIds.png")).unlink()
    with pytest.raises(ValueError, match=r"aachen_000173_000019 \(no \*_gtFine_labelIds.*hamburg.* \(no \*_leftImg"):
        CITYSCAPES.open_split(tmp_path, "train")


# ADE20K


def test_ade20k_unlabelled_zero_is_void_and_does_not_underflow(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path, "train")
    values = np.zeros((32, 40), np.uint8)
    values.ravel()[:151] = range(151)
    save(Path(dataset.locate(dataset.items[0])), values)
    labels = dataset[0].labels
    assert labels.ravel()[:151].tolist() == [255, *range(150)]
    assert (labels.ravel()[151:] == 255).all()


def test_ade20k_grey_and_cmyk_images_become_rgb(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    train = ADE20K.open_split(tmp_path, "train")
    grey, cmyk = train[1].image, train[2].image
    assert grey.shape == cmyk.shape == (32, 40, 3)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    assert (cmyk[..., 0] != cmyk[..., 1]).any()


def test_ade20k_images_of_any_size_stand_beside_each_other(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    base = tmp_path / "ADEChallengeData2016"
    save(base / "images" / "training" / "ADE_train_00000004.jpg", noise(4, 21, 9))
    save(base / "annotations" / "training" / "ADE_train_00000004.png", np.full((21, 9), 150, np.uint8))
    assert ADE20K.open_split(tmp_path, "train")[3].labels.tolist() == [[149] * 9] * 21


def test_ade20k_the_full_set_with_rgb_masks_is_refused(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), noise(0))
    with pytest.raises(ValueError, match=f"{mask} is a colour picture"):
        dataset[0]


@pytest.mark.parametrize("values", [(151,) * 8, (255,) * 8])
def test_ade20k_values_past_150_are_refused(values: tuple[int, ...], tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), bands(values))
    with pytest.raises(ValueError, match=f"{mask} has the value {values[0]} at row 0, column 0 .* contain 1 to 150"):
        dataset[0]


@pytest.mark.parametrize("write", [miniatures.write_ade20k, miniatures.write_cityscapes])
def test_sixteen_bit_masks_with_large_values_are_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    dataset = (ADE20K if write is miniatures.write_ade20k else CITYSCAPES).open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), np.full((32, 40), 257, np.uint16))
    with pytest.raises(ValueError, match=f"{mask} has the value 257"):
        dataset[0]


def test_ade20k_classes_of_one_colour_stay_apart_and_names_have_no_blanks_at_their_ends(tmp_path: Path) -> None:
    """Traps: road and skyscraper have the same colour, and official names have trailing spaces ("bed ")."""
    label_set = ADE20K.info.label_set
    assert (label_set.names[6], label_set.names[48]) == ("road", "skyscraper")
    assert label_set.colours[6] == label_set.colours[48] == (140, 140, 140)
    assert (label_set.names[7], label_set.names[8], label_set.names[149]) == ("bed", "windowpane", "flag")
    assert all(name == name.strip() for name in label_set.names)
    miniatures.write_ade20k(tmp_path)
    assert {6, 48} <= set(first_row(ADE20K.open_split(tmp_path, "train")))


def test_ade20k_root_may_be_the_unpacked_folder_itself(tmp_path: Path) -> None:
    miniatures.write_ade20k(tmp_path)
    dataset = ADE20K.open_split(tmp_path / "ADEChallengeData2016", "val")
    assert dataset.items == ["ADE_val_00000001", "ADE_val_00000002"]


# COCO-Stuff


def test_coco_stuff_value_is_the_category_id_less_one_with_eleven_holes(tmp_path: Path) -> None:
    """Trap: the label list distributed with the masks counts from 1, the masks from 0."""
    names = COCO_STUFF.info.label_set.names
    assert len(names) == 171
    # COCO's ids: 1 person, 11 fire hydrant, 13 stop sign, 90 toothbrush, 92 banner, 182 wood; 12 and 91 are holes.
    by_hand = {0: "person", 10: "fire hydrant", 12: "stop sign", 89: "toothbrush", 91: "banner", 181: "wood"}
    miniatures.write_coco_stuff(tmp_path)
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    found = dict(zip(miniatures.STUFF_VALUES, first_row(dataset), strict=True))
    assert {value: names[found[value]] for value in by_hand} == by_hand
    assert found[255] == 255
    holes = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    values = np.full((32, 40), 255, np.uint8)
    values.ravel()[:171] = [value for value in range(182) if value not in holes]
    save(Path(dataset.locate(dataset.items[0])), values)
    assert dataset[0].labels.ravel()[:171].tolist() == list(range(171))


@pytest.mark.parametrize("value", [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 182, 183, 254])
def test_coco_stuff_holes_and_the_183_of_bare_stuff_are_refused(value: int, tmp_path: Path) -> None:
    miniatures.write_coco_stuff(tmp_path)
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), bands([0] * 7 + [value]))
    with pytest.raises(ValueError, match=rf"{mask} has the value {value} at row 0, column 35 \(160 pixels"):
        dataset[0]


def test_coco_stuff_panoptic_masks_are_refused(tmp_path: Path) -> None:
    """Trap: the panoptic task stores ids of another label set in three channels."""
    miniatures.write_coco_stuff(tmp_path)
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    mask = save(Path(dataset.locate(dataset.items[0])), noise(0))
    with pytest.raises(ValueError, match=f"{mask} is a colour picture"):
        dataset[0]


@pytest.mark.parametrize("images", ["{}2017", "images/{}2017"])
@pytest.mark.parametrize("masks", ["annotations/{}2017", "stuffthingmaps/{}2017", "{}2017"])
def test_coco_stuff_is_found_where_people_unpack_it(images: str, masks: str, tmp_path: Path) -> None:
    miniatures.write_coco_stuff(tmp_path / "as_published")
    for split in ("train", "val"):
        for kind, pattern in (("", images), ("stuffthingmaps/", masks)):
            target = tmp_path / "root" / pattern.format(split)
            target.mkdir(parents=True, exist_ok=True)
            for path in (tmp_path / "as_published" / f"{kind}{split}2017").iterdir():
                shutil.copy(path, target)
    dataset = COCO_STUFF.open_split(tmp_path / "root", "train")
    assert dataset.items == ["000000000009", "000000000025", "000000000030"]
    assert first_row(dataset, 2) == STUFF_BANDS


def test_trap_coco_stuff_10k_with_its_mat_files_is_refused_and_not_taken_for_the_164k(tmp_path: Path) -> None:
    """Its .mat files count from 1 with 0 for void, so that reading them as the 164k's would shift every class."""
    miniatures.write_coco_stuff(tmp_path)
    shutil.rmtree(tmp_path / "stuffthingmaps")
    for split in ("train", "val"):
        for image in (tmp_path / f"{split}2017").iterdir():
            mat = tmp_path / "annotations" / f"{split}2017" / f"{image.stem}.mat"
            mat.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(mat, {"S": np.ones((32, 40), np.uint8)})
    with pytest.raises(FileNotFoundError, match="and PNG masks in"):
        COCO_STUFF.open_split(tmp_path, "train")


def test_coco_stuff_label_train_ids_beside_the_masks_are_passed_over(tmp_path: Path) -> None:
    miniatures.write_coco_stuff(tmp_path)
    folder = tmp_path / "stuffthingmaps" / "train2017"
    for path in list(folder.iterdir()):
        save(path.with_name(f"{path.stem}_labelTrainIds.png"), bands([0] * 8))
    dataset = COCO_STUFF.open_split(tmp_path, "train")
    assert len(dataset) == 3
    assert first_row(dataset) == STUFF_BANDS


# CamVid


@pytest.mark.parametrize("write", [miniatures.write_camvid, miniatures.write_camvid_original])
def test_camvid_void_is_no_twelfth_class(write: Callable[[Path], None], tmp_path: Path) -> None:
    """Traps: void is stored as 11, or painted black, and is not a class although scripts have a colour for it."""
    write(tmp_path)
    dataset = CAMVID.open_split(tmp_path, "train")
    assert len(dataset.label_set) == 11
    assert dataset.label_set.names[10] == "Bicyclist"
    assert first_row(dataset)[2] == 255
    assert dataset.label_set.colourise(dataset[0].labels)[0, 10].tolist() == [0, 0, 0]


@pytest.mark.parametrize("write", [miniatures.write_camvid, miniatures.write_camvid_original])
def test_camvid_splits_hold_the_same_frames_in_both_forms(write: Callable[[Path], None], tmp_path: Path) -> None:
    """Traps: test is Seq05VD and the second half of 0001TP; val is one stretch whose neighbours are in train."""
    write(tmp_path)
    for split, frames in miniatures.CAMVID_FRAMES.items():
        assert CAMVID.open_split(tmp_path, split).items == list(frames)


@pytest.mark.parametrize(("name", "split"), [
    ("0001TP_006690", "train"), ("0001TP_008520", "train"), ("0001TP_008550", "test"), ("0001TP_010380", "test"),
    ("0006R0_f00930", "train"), ("0006R0_f03930", "train"), ("Seq05VD_f00000", "test"), ("Seq05VD_f05100", "test"),
    ("0016E5_00390", "train"), ("0016E5_07920", "train"), ("0016E5_07959", "val"), ("0016E5_08059", "val"),
    ("0016E5_08159", "val"), ("0016E5_08190", "train"), ("0016E5_08640", "train"),
])  # fmt: skip
def test_camvid_split_is_told_by_sequence_and_frame(name: str, split: str) -> None:
    assert split_of(name) == split


def test_camvid_original_all_32_colours(tmp_path: Path) -> None:
    """The colours as CamVid's label_colors.txt lists them, the classes as SegNet groups them."""
    expected = {
        (128, 128, 128): 0,
        (128, 0, 0): 1, (64, 192, 0): 1, (64, 0, 64): 1, (192, 0, 128): 1, (0, 128, 64): 1,
        (192, 192, 128): 2, (0, 0, 64): 2,
        (128, 64, 128): 3, (128, 0, 192): 3, (192, 0, 64): 3,
        (0, 0, 192): 4, (64, 192, 128): 4, (128, 128, 192): 4,
        (128, 128, 0): 5, (192, 192, 0): 5,
        (192, 128, 128): 6, (128, 128, 64): 6, (0, 64, 64): 6,
        (64, 64, 128): 7,
        (64, 0, 128): 8, (64, 128, 192): 8, (192, 128, 192): 8, (192, 64, 128): 8, (128, 64, 64): 8,
        (64, 64, 0): 9, (192, 128, 64): 9, (64, 0, 192): 9, (64, 128, 64): 9,
        (0, 128, 192): 10, (192, 0, 192): 10,
        (0, 0, 0): 255,
    }  # fmt: skip
    miniatures.write_camvid_original(tmp_path)
    dataset = CAMVID.open_split(tmp_path, "train")
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[:, 0] = list(expected)
    save(Path(dataset.locate(dataset.items[0])), pixels)
    assert dataset[0].labels[:, 0].tolist() == list(expected.values())


@pytest.mark.parametrize("colour", [(128, 64, 129), (1, 0, 0), (255, 255, 255), (60, 40, 222)])
def test_camvid_original_a_colour_of_no_class_is_refused(colour: tuple[int, int, int], tmp_path: Path) -> None:
    miniatures.write_camvid_original(tmp_path)
    dataset = CAMVID.open_split(tmp_path, "train")
    pixels = bands([(128, 64, 128)] * 8)
    pixels[3, 4] = colour
    mask = save(Path(dataset.locate(dataset.items[0])), pixels)
    with pytest.raises(ValueError, match="not one of CamVid's 32") as caught:
        dataset[0]
    assert f"{mask} has the colour {colour} at row 3, column 4 (1 pixels" in str(caught.value)


def test_camvid_original_lists_win_though_they_are_paths_of_another_machine(tmp_path: Path) -> None:
    miniatures.write_camvid_original(tmp_path)
    lines = ["/SegNet/CamVid/val/Seq05VD_f00000.png /SegNet/CamVid/valannot/Seq05VD_f00000.png", "", "0001TP_008520"]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    dataset = CAMVID.open_split(tmp_path, "val")
    assert dataset.items == ["Seq05VD_f00000", "0001TP_008520"]
    assert first_row(dataset) == ORIGINAL_BANDS
    (tmp_path / "val.txt").write_text("a/0016E5_07959.png\nC:\\b\\0016E5_07959.png\n")
    with pytest.raises(ValueError, match=r"val\.txt names '0016E5_07959' more than once"):
        CAMVID.open_split(tmp_path, "val")
    (tmp_path / "val.txt").write_text("0016E5_11111\n")
    with pytest.raises(ValueError, match=r"missing in .*701_StillsRaw_full.*0016E5_11111\.png, 0016E5_11111_L\.png"):
        CAMVID.open_split(tmp_path, "val")


def test_camvid_original_frames_of_no_known_sequence_are_refused(tmp_path: Path) -> None:
    miniatures.write_camvid_original(tmp_path)
    save(tmp_path / "701_StillsRaw_full" / "0099XX_00001.png", noise(0))
    with pytest.raises(ValueError, match=r"'0099XX_00001' is not a frame .*train\.txt"):
        CAMVID.open_split(tmp_path, "train")
