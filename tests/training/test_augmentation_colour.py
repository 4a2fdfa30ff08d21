"""Changes of colour and sharpness against torchvision and the standard library."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from refinenet.training.augmentation import AugmentationConfig
from refinenet.training.augmentation.colour import ColourChange, draw_colour, vary_colour


def recolour(images: Tensor, *changes: ColourChange) -> Tensor:
    return vary_colour(images, torch.tensor(changes))


def draw(seeds: int, **settings: Any) -> ColourChange:
    """Changes as columns, one row per draw."""
    config = AugmentationConfig(**settings)
    return ColourChange(*np.array([draw_colour(config, np.random.default_rng(seed)) for seed in range(seeds)]).T)


def muted(count: int = 3, height: int = 20, width: int = 30) -> Tensor:
    """Colours that stay within their range when they change a little."""
    return torch.randint(60, 150, (count, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(0))


def test_brightness_contrast_and_saturation_are_torchvisions() -> None:
    factors = [(1.1, 0.9, 1.2), (0.8, 1.2, 0.7), (1.0, 1.15, 0.0)]
    images = muted()
    varied = recolour(images, *(ColourChange(*each) for each in factors))
    for number, (brightness, contrast, saturation) in enumerate(factors):
        expected = v2.functional.adjust_brightness(images[number].float() / 255, brightness)
        expected = v2.functional.adjust_contrast(expected, contrast)
        expected = v2.functional.adjust_saturation(expected, saturation)
        torch.testing.assert_close(varied[number], expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("hue", [-0.5, -0.2, 0.05, 0.3, 0.5])
def test_hues_turn_about_the_axis_of_greys_in_yiq(hue: float) -> None:
    """By the standard library's conversion, whose coefficients are rounded to two digits."""
    images = muted(1) // 3 + 80
    varied = recolour(images, ColourChange(hue=hue))[0].flatten(1).T.numpy()
    for before, after in zip(images[0].flatten(1).T.numpy() / 255, varied, strict=True):
        luma, i, q = colorsys.rgb_to_yiq(*before)
        turned = complex(i, q) * complex(math.cos(2 * math.pi * hue), -math.sin(2 * math.pi * hue))
        expected = np.array(colorsys.yiq_to_rgb(luma, turned.real, turned.imag))
        assert np.abs(after - expected).max() < 0.025
        assert abs(np.dot(after - before, (0.299, 0.587, 0.114))) < 1e-3


def test_hues_turn_the_way_torchvisions_do_and_greys_not_at_all() -> None:
    """A muted red becomes yellowish, green, cyan, blue, magenta: its strongest channel is torchvision's."""
    red = torch.tensor([150, 100, 100], dtype=torch.uint8)[None, :, None, None]
    for hue in (1 / 3, -1 / 3, 0.4, -0.4):
        ours = recolour(red, ColourChange(hue=hue))[0]
        assert int(ours.argmax()) == int(v2.functional.adjust_hue(red[0].float() / 255, hue).argmax())
    greys = torch.arange(256, dtype=torch.uint8).repeat(1, 3, 1)[..., None]
    torch.testing.assert_close(recolour(greys, ColourChange(hue=0.3)), greys / 255, atol=1e-4, rtol=0)


def test_gamma_is_torchvisions_and_each_images_own() -> None:
    images = torch.randint(0, 256, (3, 3, 9, 9), dtype=torch.uint8)
    varied = recolour(images, *(ColourChange(gamma=gamma) for gamma in (0.5, 1.0, 2.2)))
    for image, gamma, result in zip(images, (0.5, 1.0, 2.2), varied, strict=True):
        torch.testing.assert_close(result, v2.functional.adjust_gamma(image / 255, gamma), atol=1e-5, rtol=0)


def test_blur_is_torchvisions_and_leaves_the_other_images_alone() -> None:
    images = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8)
    varied = recolour(images, ColourChange(sigma=1.9), ColourChange(), ColourChange(sigma=0.4))
    for number, sigma in ((0, 1.9), (2, 0.4)):
        expected = v2.functional.gaussian_blur(images[number] / 255, [13, 13], [sigma, sigma])
        torch.testing.assert_close(varied[number], expected, atol=1e-5, rtol=0)
    assert torch.equal((varied[1] * 255).round().to(torch.uint8), images[1])
    assert not torch.equal((varied[2] * 255).round().to(torch.uint8), images[2])


def test_an_image_changes_the_same_whatever_else_is_in_its_batch() -> None:
    changes = [
        ColourChange(1.1, 0.8, 1.2, 0.1, 1.3, 1.0),
        ColourChange(),
        ColourChange(0.9, 1.2, 0.7, -0.2, 0.7, 0.0),
    ]
    images = torch.randint(0, 256, (3, 3, 17, 31), dtype=torch.uint8)
    together = recolour(images, *changes)
    for number, change in enumerate(changes):
        alone = recolour(images[number : number + 1], change)[0]
        torch.testing.assert_close(alone, together[number], atol=1e-6, rtol=0)


def test_values_stay_in_range_and_no_change_changes_nothing() -> None:
    images = torch.randint(0, 256, (8, 3, 9, 9), dtype=torch.uint8)
    varied = recolour(images, *[ColourChange(1.9, 1.9, 1.9, 0.4, 0.5, 1.0)] * 8)
    assert varied.min() >= 0
    assert varied.max() <= 1
    config = AugmentationConfig(colour_jitter=0)
    unchanged = recolour(images, *[draw_colour(config, np.random.default_rng(0))] * 8)
    assert torch.equal((unchanged * 255).round().to(torch.uint8), images)


def test_draws_fill_their_ranges_and_only_what_is_on_is_drawn() -> None:
    drawn = draw(400, colour_jitter=0.2, hue=0.1, gamma=1.0, blur=0.25)
    for values in (drawn.brightness, drawn.contrast, drawn.saturation):
        assert 0.8 <= np.min(values) < 0.81
        assert 1.19 < np.max(values) <= 1.2
    assert len({np.sum(values) for values in drawn}) == 6
    assert -0.1 <= np.min(drawn.hue) < -0.095
    assert 0.095 < np.max(drawn.hue) <= 0.1
    assert 0.5 <= np.min(drawn.gamma) < 0.51
    assert 1.97 < np.max(drawn.gamma) <= 2
    assert 0.4 < np.mean(np.array(drawn.gamma) < 1) < 0.6
    blurred = np.array(drawn.sigma)[np.array(drawn.sigma) > 0]
    assert 70 < len(blurred) < 130
    assert 0.3 <= blurred.min() < 0.4
    assert 1.9 < blurred.max() <= 2
    off = draw(50, colour_jitter=0.0)
    assert [set(np.array(values).tolist()) for values in off] == [{1.0}, {1.0}, {1.0}, {0.0}, {1.0}, {0.0}]
