"""Preparation of images for the network."""

from __future__ import annotations

import numpy as np
import torch

from refinenet.inference.segmenter import prepare


def test_prepare_scales_and_puts_channels_first() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    image = torch.from_numpy(prepare(pixels))
    assert (image.shape, image.dtype) == ((1, 3, 2, 4), torch.float32)
    assert image.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(image[0].permute(1, 2, 0).numpy() * 255, pixels, atol=1e-4)
    for turned in (np.rot90(pixels), np.asfortranarray(pixels), pixels[::-1, ::2]):
        image = torch.from_numpy(prepare(turned))
        assert image.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(image[0].permute(1, 2, 0).numpy() * 255, turned, atol=1e-4)
    assert prepare(np.full((1, 1, 3), 255, np.uint8)).max() == 1
    assert pixels[0, 0].tolist() == [0, 10, 20]
