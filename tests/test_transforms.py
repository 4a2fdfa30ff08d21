"""Preparation and augmentation: above all, that image and label map never drift apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from refinenet.transforms import Augmentation, AugmentationConfig, prepare, to_tensors

Pixels = npt.NDArray[np.uint8]


def augment(pixels: Pixels, labels: Pixels, seed: int, **settings: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    augmentation = Augmentation(AugmentationConfig(**settings), 255)
    image, mask = augmentation.vary_place(*to_tensors(pixels, labels))
    return augmentation.vary_colour(image[None])[0], mask.long()


def blobs(height: int, width: int, seed: int) -> tuple[Pixels, Pixels]:
    """Classes 0 and 1 in large blocks, dark blue where the class is 0 and light yellow where it is 1."""
    blocks = np.random.default_rng(seed).integers(0, 2, (height // 20 + 1, width // 20 + 1), dtype=np.uint8)
    labels = np.kron(blocks, np.ones((20, 20), np.uint8))[:height, :width]
    return np.array([[10, 10, 90], [220, 220, 120]], np.uint8)[labels], labels


def test_prepare_scales_and_puts_channels_first() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    image = prepare(pixels, torch.device("cpu"))
    assert (image.shape, image.dtype) == ((1, 3, 2, 4), torch.float32)
    assert image.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(image[0].permute(1, 2, 0).numpy() * 255, pixels, atol=1e-4)
    assert prepare(np.full((1, 1, 3), 255, np.uint8), torch.device("cpu")).max() == 1
    assert pixels[0, 0].tolist() == [0, 10, 20]


@pytest.mark.parametrize("seed", range(40))
def test_image_and_label_map_stay_in_step_exactly_without_resizing(seed: int) -> None:
    """Each pixel's red is its class: after crop, padding and flip it still is."""
    labels = np.random.default_rng(seed).integers(0, 200, (24, 40), dtype=np.uint8)
    pixels = np.stack([labels, labels // 2, 255 - labels], axis=2)
    image, mask = augment(pixels, labels, seed, crop_size=(32, 32), scale=(1.0, 1.0), colour_jitter=0.0)
    inside = mask != 255
    assert int(inside.sum()) == 24 * 32
    red = (image[0] * 255).round().long()
    assert torch.equal(red[inside], mask[inside])
    assert torch.equal(((image[2] * 255).round().long())[inside], 255 - mask[inside])


@pytest.mark.parametrize("seed", range(40))
def test_image_and_label_map_stay_in_step_under_every_variation(seed: int) -> None:
    pixels, labels = blobs(90, 130, seed)
    image, mask = augment(pixels, labels, seed, crop_size=(64, 96))
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((3, 64, 96), torch.float32, (64, 96), torch.int64)
    assert image.min() >= 0
    assert image.max() <= 1
    assert set(mask.flatten().tolist()) <= {0, 1, 255}
    # Colours mix near borders; there, and only there, the two may differ.
    neighbourhood = mask[None].float()
    pool = torch.nn.functional.max_pool2d
    flat = (pool(neighbourhood, 5, 1, 2) == -pool(-neighbourhood, 5, 1, 2))[0] & (mask != 255)
    assert int(flat.sum()) > 200
    # Red is less than blue in one class, more in the other, whatever the jitter does to both.
    assert torch.equal((image[0] > image[2])[flat].long(), mask[flat])


def test_the_label_map_is_not_shifted_against_the_image() -> None:
    """The bright area of an image, in pixels, equals that of its class on average, however it is resized."""
    labels = np.zeros((8, 101), np.uint8)
    labels[:, 37:] = 1
    offsets = []
    for seed in range(150):
        image, mask = augment(
            np.repeat(labels[..., None] * np.uint8(255), 3, 2), labels, seed,
            crop_size=(20, 210), flip=False, colour_jitter=0.0,
        )  # fmt: skip
        inside = mask != 255
        rows = int(inside.any(1).sum())
        offsets.append(float(((mask == 1).float().sum() - image[0][inside].sum()) / rows))
    # Rounding down, as torchvision does it to masks, gives 0.45; the rounding of single images up to 0.5.
    assert abs(np.mean(offsets)) < 0.1
    assert np.abs(offsets).max() < 0.6


def test_padding_is_void() -> None:
    labels = np.ones((10, 10), np.uint8)
    image, mask = augment(np.zeros((10, 10, 3), np.uint8), labels, 0, crop_size=(30, 40), scale=(1, 1), colour_jitter=0)
    assert int((mask == 1).sum()) == 100
    assert int((mask == 255).sum()) == 30 * 40 - 100
    assert image[:, mask == 1].max() == 0
    # ImageNet's mean colour, which the network's normalisation makes nearly 0.
    for channel, value in enumerate((124, 116, 104)):
        assert set((image[channel, mask == 255] * 255).round().tolist()) == {value}


def test_void_and_sixteen_bit_ids_stay_what_they_are() -> None:
    labels = np.full((16, 16), 65_535, np.uint16)
    labels[:, 8:] = 40_001
    torch.manual_seed(1)
    augmentation = Augmentation(AugmentationConfig(crop_size=(16, 16)), 65_535)
    _, mask = augmentation.vary_place(*to_tensors(np.zeros((16, 16, 3), np.uint8), labels))
    assert set(mask.flatten().tolist()) == {40_001, 65_535}


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 300)])
@pytest.mark.parametrize("scale", [(0.05, 0.05), (20.0, 20.0)])
def test_any_image_gives_a_crop(size: tuple[int, int], scale: tuple[float, float]) -> None:
    image, mask = augment(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), 0, crop_size=(33, 17), scale=scale)
    assert (image.shape, mask.shape) == ((3, 33, 17), (33, 17))
    assert (mask == 0).any()


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    pixels, labels = blobs(90, 130, 0)
    first, again, other = (augment(pixels, labels, seed, crop_size=(64, 64)) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_source_is_left_alone() -> None:
    pixels, labels = blobs(40, 40, 0)
    before = pixels.copy(), labels.copy()
    augment(pixels, labels, 0, crop_size=(64, 64))[0].zero_()
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_half_of_the_images_are_mirrored_and_none_where_that_is_off() -> None:
    labels = np.array([[0, 1]], np.uint8)
    settings: dict[str, Any] = {"crop_size": (1, 2), "scale": (1.0, 1.0), "colour_jitter": 0.0}
    pixels = np.zeros((1, 2, 3), np.uint8)
    mirrored = sum(augment(pixels, labels, seed, **settings)[1].tolist() == [[1, 0]] for seed in range(200))
    assert 70 < mirrored < 130
    for seed in range(20):
        assert augment(pixels, labels, seed, flip=False, **settings)[1].tolist() == [[0, 1]]


def test_scales_fill_their_range() -> None:
    """The area of an image after resizing says by what factor: drawn evenly from 0.5 to 2, and not from elsewhere."""
    pixels, labels = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    masks = [augment(pixels, labels, seed, crop_size=(41, 41), colour_jitter=0.0)[1] for seed in range(100)]
    sides = np.array([float((mask == 0).sum()) ** 0.5 for mask in masks])
    assert 10 <= sides.min() < 12
    assert 38 < sides.max() <= 40
    assert 22.5 < sides.mean() < 27.5


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"crop_size": (0, 5)}, "crop_size"),
        ({"crop_size": (5,)}, "crop_size"),
        ({"crop_size": (5, 5, 5)}, "crop_size"),
        ({"crop_size": 320}, "crop_size is height and width, whole numbers from 1 up, not 320"),
        ({"crop_size": (5.5, 5)}, "crop_size"),
        ({"scale": (2.0, 0.5)}, "lower end first"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (1.0, 21.0)}, "scale"),
        ({"scale": (float("nan"), 1.0)}, "scale"),
        ({"scale": 1.0}, "scale"),
        ({"flip": "no"}, "flip is True or False, not 'no'"),
        ({"colour_jitter": 1.0}, "colour_jitter"),
        ({"colour_jitter": -0.1}, "colour_jitter"),
        ({"colour_jitter": float("nan")}, "colour_jitter"),
        ({"colour_jitter": "0.3"}, "colour_jitter"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        AugmentationConfig(**settings)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"crop_size .*; scale .*; colour_jitter "):
        AugmentationConfig(crop_size=(0, 0), scale=(3, 1), colour_jitter=2)


def test_colours_vary_as_torchvision_varies_them() -> None:
    """Brightness, contrast, saturation in this order; the factors are found again by drawing them once more."""
    images = torch.randint(60, 150, (3, 3, 20, 30), dtype=torch.uint8)
    torch.manual_seed(7)
    varied = Augmentation(AugmentationConfig(colour_jitter=0.2), 255).vary_colour(images)
    torch.manual_seed(7)
    factors = torch.empty(3, 3, 1, 1, 1).uniform_(0.8, 1.2).reshape(3, 3).tolist()
    for number, image in enumerate(images.float() / 255):
        brightness, contrast, saturation = (kind[number] for kind in factors)
        expected = v2.functional.adjust_brightness(image, brightness)
        expected = v2.functional.adjust_contrast(expected, contrast)
        expected = v2.functional.adjust_saturation(expected, saturation)
        torch.testing.assert_close(varied[number], expected, atol=2e-4, rtol=0)
    assert len({round(factor, 6) for kind in factors for factor in kind}) == 9


def test_varied_colours_stay_in_range() -> None:
    images = torch.randint(0, 256, (8, 3, 9, 9), dtype=torch.uint8)
    varied = Augmentation(AugmentationConfig(colour_jitter=0.9), 255).vary_colour(images)
    assert varied.min() >= 0
    assert varied.max() <= 1
    unchanged = Augmentation(AugmentationConfig(colour_jitter=0), 255).vary_colour(images)
    assert torch.equal((unchanged * 255).round().to(torch.uint8), images)
