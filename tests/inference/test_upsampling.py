"""Which class is largest after resizing, against all logits resized by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from refinenet.inference.upsampling import VALUES_AT_ONCE, largest_class, resize, resize_image, softmax


def resize_all(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(logits[None].contiguous(), size, mode="bilinear", align_corners=False)[0]


def patches(seed: int, classes: int, height: int, width: int) -> Tensor:
    """Logits with regions in which one class is largest, as a network's are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, max(1, height // 12), max(1, width // 12), generator=generator)
    noise = 0.2 * torch.randn(classes, height, width, generator=generator)
    return functional.interpolate(coarse, (height, width), mode="nearest")[0] + noise


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes=st.integers(1, 30),
    sides=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    size=st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_largest_class_is_that_of_all_logits_resized(
    seed: int, classes: int, sides: tuple[int, int], size: tuple[int, int]
) -> None:
    logits = patches(seed, classes, *sides)
    scores = resize_all(logits, size)
    found = largest_class(logits, size)
    assert (found.shape, found.dtype) == (size, torch.int64)
    # The largest score of each pixel, but for what rounding in another order makes of equals.
    np.testing.assert_allclose(scores.gather(0, found[None])[0], scores.amax(0), rtol=0, atol=2e-6)


def test_a_class_that_is_largest_only_between_its_neighbours_is_found() -> None:
    logits = torch.tensor([[[10.0, 0.0]], [[0.0, 10.0]], [[9.0, 9.0]]])
    # Places are 0, 0, 1/8, 3/8, 5/8, 7/8, 1 and 1 of the way: at 1/8, class 0 has 8.75.
    assert largest_class(logits, (1, 8)).tolist() == [[0, 0, 2, 2, 2, 2, 1, 1]]


def test_equal_logits_are_the_first_class() -> None:
    logits = torch.zeros(4, 3, 5)
    logits[3, :, 2:] = 1
    logits[2, :, 2:] = 1
    assert largest_class(logits, (3, 5)).tolist() == [[0, 0, 2, 2, 2]] * 3
    assert set(largest_class(logits, (12, 20)).flatten().tolist()) == {0, 2}


def test_more_unclear_pixels_than_are_interpolated_together() -> None:
    logits, size = patches(0, 150, 72, 84), (576, 672)
    scores = resize_all(logits, size)
    plain = functional.interpolate(logits.argmax(0)[None, None].float(), size, mode="nearest")[0, 0]
    assert (plain != scores.argmax(0)).sum() * len(logits) > VALUES_AT_ONCE
    assert torch.equal(largest_class(logits, size), scores.argmax(0))


def test_noise_of_which_nothing_is_plain() -> None:
    logits = torch.randn(3, 80, 90, generator=torch.Generator().manual_seed(0))
    size = (320, 360)
    assert torch.equal(largest_class(logits, size), resize_all(logits, size).argmax(0))


def test_order_in_memory_changes_nothing() -> None:
    logits = patches(3, 7, 20, 24)
    last = logits[None].contiguous(memory_format=torch.channels_last)[0]
    assert torch.equal(largest_class(last, (77, 95)), largest_class(logits, (77, 95)))
    for given_logits in (logits[None], last[None], torch.stack([logits, logits])):
        found = resize(given_logits, (77, 95))
        assert found.stride(1) == 1
        torch.testing.assert_close(found[0], resize_all(logits, (77, 95)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 24), (1, 1), (7, 300)])
def test_sizes_that_are_no_multiple(size: tuple[int, int]) -> None:
    logits = patches(5, 6, 20, 24)
    assert torch.equal(largest_class(logits, size), resize_all(logits, size).argmax(0))


@pytest.mark.parametrize("size", [(20, 24), (77, 95), (300, 7), (5, 6), (1, 1)])
def test_arrays_are_resized_as_pytorch_resizes_tensors(size: tuple[int, int]) -> None:
    logits = torch.stack([patches(seed, 6, 20, 24) for seed in (5, 6)])
    for maps in (logits.numpy(), logits.contiguous(memory_format=torch.channels_last).numpy()):
        found, expected = resize(maps, size), functional.interpolate(logits, size, mode="bilinear")
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert (largest_class(maps[0], size) == resize_all(logits[0], size).argmax(0).numpy()).all()


@pytest.mark.parametrize("size", [(45, 60), (90, 41), (20, 26), (7, 5)])
def test_images_are_resized_as_pytorch_resizes_tensors(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 40, 52, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(images, size, mode="bilinear", antialias=True)
    # PyTorch has weights in float32, Pillow in float64.
    np.testing.assert_allclose(resize_image(images.numpy(), size), expected, rtol=0, atol=4e-6)


def test_softmax_of_arrays_is_that_of_pytorch() -> None:
    logits = 40 * patches(1, 9, 12, 15)
    np.testing.assert_allclose(softmax(logits.numpy().copy()), logits.softmax(0), rtol=1e-5, atol=1e-7)
