"""Reduction of images and of their ground truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from refinenet.io.images.shrinking import find_factor, shrink_image, shrink_map

GENERATOR = np.random.default_rng(3)


def test_only_larger_images_are_reduced() -> None:
    assert find_factor((300, 400, 3), 200) == 0.5
    assert [find_factor((300, 400), side) for side in (400, 500, None)] == [1, 1, 1]
    image = GENERATOR.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert shrink_image(image, 1) is image
    assert shrink_map(image, 1) is image


@pytest.mark.parametrize("size", [(90, 120), (77, 131)])
def test_images_are_reduced_as_pytorch_reduces_them_with_antialiasing(size: tuple[int, int]) -> None:
    image = GENERATOR.integers(0, 256, (*size, 3), dtype=np.uint8)
    bands = GENERATOR.random((*size, 5), dtype=np.float32)
    reduced, reduced_bands = shrink_image(image, 0.31), shrink_image(bands, 0.31)
    new = round(size[0] * 0.31), round(size[1] * 0.31)
    # Pillow rounds bytes after each of its two passes.
    for found, source, most in ((reduced, image.astype(np.float32), 1.01), (reduced_bands, bands, 1e-5)):
        expected = functional.interpolate(
            torch.from_numpy(source).permute(2, 0, 1)[None], new, mode="bilinear", antialias=True
        )
        assert np.abs(found - expected[0].permute(1, 2, 0).numpy()).max() <= most
    assert reduced.dtype == np.uint8
    assert reduced.flags.writeable  # PyTorch warns of arrays that are not
    assert reduced_bands.dtype == np.float32


def test_ids_and_values_are_taken_from_the_centres() -> None:
    ids = np.arange(48, dtype=np.uint16).reshape(6, 8)
    np.testing.assert_array_equal(shrink_map(ids, 0.5), ids[1::2, 1::2])
    depth = GENERATOR.random((2, 9, 12), dtype=np.float32)
    depth[0, 4, 4] = np.nan
    third = shrink_map(depth, 1 / 3, channels_first=True)
    np.testing.assert_array_equal(third, depth[:, 1::3, 1::3])
    assert np.isnan(third[0, 1, 1])


def test_the_smallest_result_has_a_pixel() -> None:
    assert shrink_image(np.zeros((1, 300, 3), np.uint8), 0.1).shape == (1, 30, 3)
    assert shrink_map(np.zeros((1, 300), np.uint8), 0.1).shape == (1, 30)
