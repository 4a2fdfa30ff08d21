"""Augmentation, and above all that image and label map stay aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from refinenet.training.augmentation import AugmentationConfig
from refinenet.training.augmentation.geometry import draw_pixel
from refinenet.training.augmentation.mixing import Mixing, draw_partners, rare_classes
from refinenet.training.augmentation.pipeline import Augmentation, to_tensors

Pixels = npt.NDArray[np.uint8]
Sample = tuple[Pixels, Pixels]

VOID = 255
MEAN_COLOUR = (124, 116, 104)
STILL: dict[str, Any] = {"scale": (1.0, 1.0), "flip": False, "colour_jitter": 0.0}
MIXINGS: tuple[Mixing, ...] = ("cut_mix", "paste_classes", "paste_rare")


def vary(sample: Sample, seed: int, others: Sequence[tuple[Mixing, Sample]] = (), **settings: Any) -> Sample:
    """Image `(h, w, 3)` and mask `(h, w)` before colours change; 1, 3, 5 and so on are rare."""
    augmentation = Augmentation(AugmentationConfig(**{"class_crops": 0.0, **settings}), VOID, range(1, VOID, 2))
    pairs = [(kind, to_tensors(*other)) for kind, other in others]
    image, mask, _ = augmentation.vary(to_tensors(*sample), pairs, np.random.default_rng(seed))
    assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8)
    return image.permute(1, 2, 0).numpy(), mask.numpy()


def recolour(pixels: Pixels, seed: int, **settings: Any) -> Tensor:
    """`(3, h, w)` float32 after colours have changed."""
    augmentation = Augmentation(AugmentationConfig(**{"class_crops": 0.0, **settings}), VOID)
    changes = torch.tensor([augmentation.draw_colour(np.random.default_rng(seed))])
    return augmentation.vary_colour(torch.from_numpy(pixels).permute(2, 0, 1)[None], changes)[0]


def speckled(height: int, width: int, seed: int, first: int = 0) -> Sample:
    """Twenty classes from `first` on, a new one in each pixel; the pixel's colour says which."""
    labels = np.random.default_rng(seed).integers(first, first + 20, (height, width), dtype=np.uint8)
    return np.stack([labels, labels // 2, 255 - labels], axis=2), labels


def blobs(height: int, width: int, seed: int, side: int = 20) -> Sample:
    """Classes 0 and 1 in large blocks, dark blue where the class is 0 and light yellow where it is 1."""
    shape = height // side + 1, width // side + 1
    blocks = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)
    labels = np.kron(blocks, np.ones((side, side), np.uint8))[:height, :width]
    return np.array([[10, 10, 90], [220, 220, 120]], np.uint8)[labels], labels


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("kinds", "settings"),
    [
        ((), {}),
        ((), {"flip": True}),
        ((), {"flip": True, "class_crops": 1.0}),
        ((), {"cutout": 1.0}),
        (("cut_mix",), {}),
        (("paste_classes",), {}),
        (("paste_rare",), {}),
        (MIXINGS, {"flip": True, "class_crops": 0.5, "cutout": 0.5}),
    ],
)
def test_each_pixel_keeps_its_label(kinds: tuple[Mixing, ...], settings: dict[str, Any], seed: int) -> None:
    """The mask follows from the image's pixels; without resizing it still does, exactly, whatever is done."""
    others = [(kind, speckled(30, 25, seed + 1, first=100)) for kind in kinds]
    image, mask = vary(speckled(24, 40, seed), seed, others, crop_size=(32, 32), **{**STILL, **settings})
    assert (image.shape, mask.shape) == ((32, 32, 3), (32, 32))
    known = mask != VOID
    if not kinds and not settings:
        assert known.sum() == 24 * 32
    assert 32 * 32 > known.sum() > 50
    np.testing.assert_array_equal(image[known], np.stack([mask, mask // 2, 255 - mask], axis=2)[known])
    assert {tuple(colour) for colour in image[~known].tolist()} == {MEAN_COLOUR}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rotation": 180.0},
        {"rotation": 30.0, "class_crops": 1.0},
        {"gamma": 0.5, "hue": 0.04, "blur": 1.0},
        {"rotation": 30.0, "class_crops": 0.5, "gamma": 0.5, "hue": 0.04, "blur": 0.5, "cutout": 0.5, "cut_mix": 1.0},
    ],
)
def test_image_and_mask_stay_in_step_under_every_variation(settings: dict[str, Any], seed: int) -> None:
    others: list[tuple[Mixing, Sample]] = [("cut_mix", blobs(100, 100, seed + 7, 50))] if "cut_mix" in settings else []
    pixels, mask = vary(blobs(90, 130, seed, 50), seed, others, crop_size=(64, 96), **settings)
    image = recolour(pixels, seed, **settings)
    assert (image.shape, image.dtype) == ((3, 64, 96), torch.float32)
    assert 0 <= image.min() <= image.max() <= 1
    assert set(np.unique(mask)) <= {0, 1, VOID}
    # Colours mix near borders, in the blur's reach; there, and only there, the two may differ.
    around, reach = torch.from_numpy(mask)[None].float(), 17 if "blur" in settings else 5
    pool = torch.nn.functional.max_pool2d
    flat = (pool(around, reach, 1, reach // 2) == -pool(-around, reach, 1, reach // 2))[0] & (around[0] != VOID)
    assert flat.sum() > 50
    # Red is less than blue in one class, more in the other, whatever happens to the colours of both.
    assert torch.equal((image[0] > image[2])[flat].float(), around[0][flat])


def test_the_label_map_is_not_shifted_against_the_image() -> None:
    """On average the bright area of an image equals that of its class, in pixels, however it is resized."""
    labels = np.zeros((8, 101), np.uint8)
    labels[:, 37:] = 1
    offsets = []
    for seed in range(150):
        sample = np.repeat(labels[..., None] * np.uint8(255), 3, 2), labels
        image, mask = vary(sample, seed, crop_size=(20, 210), flip=False)
        inside = mask != VOID
        offsets.append(((mask == 1).sum() - image[..., 0][inside].sum() / 255) / inside.any(1).sum())
    # Rounding down, as torchvision does it to masks, gives 0.45; the rounding of single images up to 0.5.
    assert abs(np.mean(offsets)) < 0.1
    assert np.abs(offsets).max() < 0.6


def test_padding_is_void_and_of_the_mean_colour() -> None:
    image, mask = vary((np.zeros((10, 10, 3), np.uint8), np.ones((10, 10), np.uint8)), 0, crop_size=(30, 40), **STILL)
    assert (mask == 1).sum() == 100
    assert (mask == VOID).sum() == 30 * 40 - 100
    assert image[mask == 1].max() == 0
    assert {tuple(colour) for colour in image[mask == VOID].tolist()} == {MEAN_COLOUR}


@pytest.mark.parametrize("settings", [{}, {"rotation": 90.0, "cutout": 1.0, "class_crops": 1.0}])
def test_ids_of_sixteen_bits_stay_what_they_are(settings: dict[str, Any]) -> None:
    labels = np.full((16, 16), 65_535, np.uint16)
    labels[:, 8:], labels[:4, 8:] = 40_001, 40_003
    augmentation = Augmentation(AugmentationConfig(crop_size=(16, 16), **settings), 65_535, [40_003])
    pair = to_tensors(np.zeros((16, 16, 3), np.uint8), labels)
    found: set[int] = set()
    for seed in range(20):
        kinds = MIXINGS if seed % 2 else ()
        mask = augmentation.vary(pair, [(kind, pair) for kind in kinds], np.random.default_rng(seed)).labels
        found |= set(mask.flatten().tolist())
    assert found == {40_001, 40_003, 65_535}


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 300)])
@pytest.mark.parametrize("scale", [(0.05, 0.05), (1.7, 1.7), (20.0, 20.0)])
@pytest.mark.parametrize("crop", [(33, 17), (1, 1), (1, 40)])
def test_any_image_gives_a_crop(size: tuple[int, int], scale: tuple[float, float], crop: tuple[int, int]) -> None:
    sample = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    all_on: dict[str, Any] = {"class_crops": 1.0, "rotation": 180.0, "cutout": 1.0}
    for seed in range(10):
        for settings in ({}, all_on):
            others = [(kind, sample) for kind in (MIXINGS if settings else ())]
            image, mask = vary(sample, seed, others, crop_size=crop, scale=scale, **settings)
            assert (image.shape, mask.shape) == ((*crop, 3), crop)
            assert settings or (mask == 0).any()
        assert recolour(image, seed, blur=1.0, gamma=1.0, hue=0.5).isfinite().all()


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    every: dict[str, Any] = {"crop_size": (64, 64), "rotation": 30.0, "class_crops": 0.5, "cutout": 0.5}
    others = [(kind, blobs(80, 80, 5)) for kind in MIXINGS]
    first, again, other = (vary(blobs(90, 130, 0), seed, others, **every) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("settings", [{}, STILL, {"rotation": 20.0}, {**STILL, "cutout": 1.0}])
def test_the_sources_are_left_alone(settings: dict[str, Any]) -> None:
    sample, other = blobs(64, 64, 0), blobs(64, 64, 1)
    before = [array.copy() for array in (*sample, *other)]
    vary(sample, 0, [(kind, other) for kind in MIXINGS], crop_size=(64, 64), **settings)
    for array, copy in zip((*sample, *other), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_half_of_the_images_are_mirrored_and_none_where_that_is_off() -> None:
    sample = np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.uint8)
    settings = {**STILL, "crop_size": (1, 2)}
    masks = [vary(sample, seed, **{**settings, "flip": True})[1].tolist() for seed in range(200)]
    assert 70 < masks.count([[1, 0]]) < 130
    assert masks.count([[0, 1]]) == 200 - masks.count([[1, 0]])
    assert all(vary(sample, seed, **settings)[1].tolist() == [[0, 1]] for seed in range(20))


def test_scales_fill_their_range() -> None:
    """The area after resizing shows the factor: uniform from 0.5 to 2."""
    sample = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    sides = [float((vary(sample, seed, crop_size=(41, 41))[1] == 0).sum()) ** 0.5 for seed in range(200)]
    assert 10 <= min(sides) < 12
    assert 38 < max(sides) <= 40
    assert 22.5 < np.mean(sides) < 27.5


def test_crops_lie_anywhere_in_the_image() -> None:
    """The first pixel of a crop is uniform over all possible ones."""
    labels = np.arange(10, dtype=np.uint8)[None].repeat(4, 0)
    sample = np.zeros((4, 10, 3), np.uint8), labels
    firsts = [int(vary(sample, seed, crop_size=(4, 6), **STILL)[1][0, 0]) for seed in range(500)]
    assert all(60 < firsts.count(first) < 140 for first in range(5))
    assert set(firsts) == set(range(5))


@pytest.mark.parametrize("seed", range(12))
def test_images_are_turned_as_torchvision_turns_them(seed: int) -> None:
    """The angle is drawn again from the same seed: the first number is the scale, the second the angle."""
    pixels, labels = blobs(60, 91, seed)
    image, mask = vary((pixels, labels), seed, crop_size=(60, 91), **STILL, rotation=60.0)
    random = np.random.default_rng(seed)
    random.uniform(1, 1)
    angle = random.uniform(-60, 60)
    bilinear, nearest = v2.InterpolationMode.BILINEAR, v2.InterpolationMode.NEAREST
    source = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = v2.functional.rotate(source, angle, bilinear, fill=list(MEAN_COLOUR)).permute(1, 2, 0).numpy()
    expected_mask = v2.functional.rotate(torch.from_numpy(labels)[None], angle, nearest, fill=VOID)[0].numpy()
    # Halves of pixels may be rounded either way.
    assert (mask != expected_mask).mean() < 0.005
    difference = np.abs(image.astype(int) - expected.astype(int)).max(2)
    # The image's edge fades into the padding, by torchvision twice.
    is_outside = np.pad(expected_mask == VOID, 1, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(is_outside, (3, 3))
    assert difference[~windows.any((2, 3))].max() <= 2
    assert (mask == VOID).any() == (abs(angle) > 1)


def test_angles_fill_their_range_to_both_sides() -> None:
    """The direction from a dot in the centre to one on its right shows the rotation."""
    labels = np.zeros((101, 101), np.uint8)
    labels[49:52, 85:88] = 1
    angles = []
    for seed in range(150):
        _, mask = vary((np.zeros((101, 101, 3), np.uint8), labels), seed, crop_size=(101, 101), **STILL, rotation=40.0)
        row, column = np.argwhere(mask == 1).mean(0)
        angles.append(np.degrees(np.arctan2(50 - row, column - 50)))
    assert -41.5 < min(angles) < -37
    assert 37 < max(angles) < 41.5
    assert abs(np.mean(angles)) < 6


@pytest.mark.parametrize("settings", [{}, {"rotation": 180.0}, {"flip": True}, {"scale": (1.0, 2.0)}])
@pytest.mark.parametrize("corner", [(3, 3), (100, 3), (191, 191)])
def test_crops_by_class_show_the_class(corner: tuple[int, int], settings: dict[str, Any]) -> None:
    labels = np.full((200, 200), VOID, np.uint8)
    labels[corner[0] : corner[0] + 6, corner[1] : corner[1] + 6] = 7
    sample = np.zeros((200, 200, 3), np.uint8), labels
    chosen: dict[str, Any] = {**STILL, **settings, "crop_size": (40, 60)}
    assert all((vary(sample, seed, class_crops=1.0, **chosen)[1] == 7).any() for seed in range(60))
    assert 15 < sum((vary(sample, seed, class_crops=0.4, **chosen)[1] == 7).any() for seed in range(60)) < 45
    assert sum((vary(sample, seed, **chosen)[1] == 7).any() for seed in range(60)) < 20


def test_the_pixels_of_crops_are_drawn_by_class_not_by_area() -> None:
    labels = np.zeros((40, 50), np.uint8)
    labels[30, 40], labels[0], labels[35:, :3] = 3, VOID, 200
    points = [draw_pixel(torch.from_numpy(labels), VOID, np.random.default_rng(seed)) for seed in range(300)]
    classes = [int(labels[point]) for point in points if point is not None]
    assert len(classes) == 300
    assert all(70 < classes.count(each) < 130 for each in (0, 3, 200))
    assert len({point for point in points if point is not None and labels[point] == 0}) > 60
    among = {draw_pixel(torch.from_numpy(labels), VOID, np.random.default_rng(seed), [3, 9]) for seed in range(9)}
    assert among == {(30, 40)}
    assert draw_pixel(torch.from_numpy(labels), VOID, np.random.default_rng(0), [9]) is None
    assert draw_pixel(torch.full((3, 3), VOID, dtype=torch.uint8), VOID, np.random.default_rng(0)) is None


@pytest.mark.parametrize("classes", [2, 5, 8])
def test_half_of_the_classes_of_the_other_image_are_pasted_and_whole(classes: int) -> None:
    own = np.full((20, 20), 99, np.uint8)
    other = np.random.default_rng(0).integers(0, classes, (20, 20), dtype=np.uint8)
    other[:3] = VOID
    chosen: set[int] = set()
    for seed in range(60):
        sample, partner = (own[..., None].repeat(3, 2), own), (other[..., None].repeat(3, 2), other)
        _, mask = vary(sample, seed, [("paste_classes", partner)], crop_size=(20, 20), **STILL)
        pasted = frozenset(np.unique(mask)) - {99}
        assert len(pasted) == classes // 2
        np.testing.assert_array_equal(mask, np.where(np.isin(other, list(pasted)), other, 99))
        chosen |= pasted
    assert chosen == set(range(classes))


def test_a_rectangle_of_the_other_image_is_pasted() -> None:
    own, other = np.zeros((40, 60), np.uint8), np.ones((40, 60), np.uint8)
    areas, corners = [], set()
    for seed in range(200):
        sample, partner = (own[..., None].repeat(3, 2), own), (other[..., None].repeat(3, 2), other)
        _, mask = vary(sample, seed, [("cut_mix", partner)], crop_size=(40, 60), **STILL)
        rows, columns = (np.unique(places) for places in np.nonzero(mask))
        assert mask.sum() == len(rows) * len(columns)
        if len(rows) and len(columns):
            assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.append(mask.mean())
        corners |= {(row, column) for row in (0, -1) for column in (0, -1) if mask[row, column]}
    # It would be half of the image on average if nothing jutted out.
    assert 0.2 < np.mean(areas) < 0.45
    assert max(areas) > 0.75
    assert min(areas) < 0.02
    assert corners == {(0, 0), (0, -1), (-1, 0), (-1, -1)}


def test_rare_classes_of_the_other_image_are_pasted_and_looked_for() -> None:
    """Classes 1, 3, 5, ... are rare here; the crop of the other image is laid over one of their pixels."""
    own, other = np.zeros((30, 30), np.uint8), np.full((300, 300), 2, np.uint8)
    other[250:256, 20:26], other[:20, 280:], other[100] = 3, 5, VOID
    pasted = []
    for seed in range(60):
        sample, partner = (own[..., None].repeat(3, 2), own), (other[..., None].repeat(3, 2), other)
        image, mask = vary(sample, seed, [("paste_rare", partner)], crop_size=(30, 30), **STILL)
        assert set(np.unique(mask)) in ({0, 3}, {0, 5})
        np.testing.assert_array_equal(image[..., 0], mask)
        pasted.append(int(mask.max()))
    assert 15 < pasted.count(3) < 45
    nothing: Sample = (np.full((30, 30, 3), 2, np.uint8), np.full((30, 30), 2, np.uint8))
    image, mask = vary((own[..., None].repeat(3, 2), own), 0, [("paste_rare", nothing)], crop_size=(30, 30), **STILL)
    assert not image.any()
    assert not mask.any()


def test_covered_rectangles_are_void_of_the_mean_colour_and_of_many_sizes() -> None:
    sample = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
    heights, widths = [], []
    for seed in range(150):
        image, mask = vary(sample, seed, crop_size=(40, 60), **STILL, cutout=1.0)
        rows, columns = (np.unique(places) for places in np.nonzero(mask == VOID))
        assert (mask == VOID).sum() == len(rows) * len(columns)
        assert (mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == VOID).all()
        assert {tuple(colour) for colour in image[mask == VOID].tolist()} == {MEAN_COLOUR}
        heights.append(len(rows))
        widths.append(len(columns))
    assert (min(heights), max(heights), min(widths), max(widths)) == (4, 20, 6, 30)
    covered = sum((vary(sample, seed, crop_size=(40, 60), **STILL, cutout=0.3)[1] == VOID).any() for seed in range(200))
    assert 40 < covered < 80


def test_partners_are_drawn_evenly_from_the_other_samples() -> None:
    config = AugmentationConfig(cut_mix=0.25, paste_classes=1.0, rare_below=0.5)
    drawn = [draw_partners(config, np.random.default_rng(seed), 2, 5) for seed in range(400)]
    assert all(
        [partner.kind for partner in each] in (["cut_mix", "paste_classes"], ["paste_classes"]) for each in drawn
    )
    assert 70 < sum(len(each) == 2 for each in drawn) < 130
    samples = [each[-1].sample for each in drawn]
    assert set(samples) == {0, 1, 3, 4}
    assert all(70 < samples.count(each) < 130 for each in (0, 1, 3, 4))
    assert draw_partners(AugmentationConfig(), np.random.default_rng(0), 2, 5) == []
    assert [each.sample for each in draw_partners(config, np.random.default_rng(3), 0, 1)][-1] == 0


def test_classes_below_a_share_are_rare() -> None:
    assert rare_classes([0.5, 0.0199, 0.02, 0.0], 0.02) == (1, 3)
    with pytest.raises(ValueError, match=r"paste_rare=0\.5 .* rare_below=0\.02 .*no class is that rare.* paste_rare=0"):
        Augmentation(AugmentationConfig(paste_rare=0.5), VOID, rare_classes([0.5, 0.5], 0.02))


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"crop_size": (0, 5)}, "crop_size"),
        ({"crop_size": (5,)}, "crop_size"),
        ({"crop_size": (5, 5, 5)}, "crop_size"),
        ({"crop_size": 320}, "crop_size must be height and width, whole numbers of at least 1, not 320"),
        ({"crop_size": (5.5, 5)}, "crop_size"),
        ({"crop_size": (True, 5)}, "crop_size"),
        ({"scale": (2.0, 0.5)}, "lower end first"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (1.0, 21.0)}, "scale"),
        ({"scale": (float("nan"), 1.0)}, "scale"),
        ({"scale": 1.0}, "scale"),
        ({"flip": "no"}, "flip must be True or False, not 'no'"),
        ({"colour_jitter": 1.0}, "colour_jitter"),
        ({"colour_jitter": -0.1}, "colour_jitter"),
        ({"colour_jitter": float("nan")}, "colour_jitter"),
        ({"colour_jitter": "0.3"}, "colour_jitter"),
        ({"rotation": 181}, "rotation must be a number from 0 to 180, not 181"),
        ({"hue": 0.6}, "hue must be a number from 0 to 0.5, not 0.6"),
        ({"gamma": -0.1}, "gamma must be a number from 0 to 4, not -0.1"),
        *(
            ({name: value}, f"{name} must be a number from 0 to 1, not {value}")
            for name in ("class_crops", "blur", "cutout", "paste_classes", "cut_mix", "paste_rare", "rare_below")
            for value in (-0.1, 1.1, float("nan"), True)
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        AugmentationConfig(**settings)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"crop_size .*; scale .*; colour_jitter .*; blur "):
        AugmentationConfig(crop_size=(0, 0), scale=(3, 1), colour_jitter=2, blur=3)
