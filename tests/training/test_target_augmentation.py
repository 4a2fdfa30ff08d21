"""Depths, normals and quantities under the augmentation of their images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from refinenet.outputs import read_outputs
from refinenet.training.augmentation import AugmentationConfig
from refinenet.training.augmentation.geometry import Pair, place
from refinenet.training.augmentation.pipeline import Augmentation
from refinenet.training.augmentation.targets import TargetRules

VOID = 255
SPECS = read_outputs("depth,normals,soil=regression[height:m]")
PLAIN: dict[str, Any] = {"scale": (1.0, 1.0), "flip": False, "crop_size": (40, 56)}


def sample(height: int = 40, width: int = 56) -> Pair:
    """Return an image whose depth, and height of its soil, are its label plus 1, under a tilted normal."""
    random = np.random.default_rng(4)
    labels = torch.from_numpy(random.integers(0, 9, (height // 4, width // 4), np.uint8).repeat(4, 0).repeat(4, 1))
    image = torch.from_numpy(random.integers(0, 256, (3, height, width), np.uint8))
    depth = labels.float() + 1
    normal = torch.tensor([0.6, 0.0, -0.8])[:, None, None].expand(3, height, width)
    return Pair(image, labels, torch.cat([depth[None], normal, depth[None]]))


def vary(seed: int, pair: Pair, **settings: Any) -> Pair:
    augmentation = Augmentation(AugmentationConfig(**{**PLAIN, **settings}), VOID, targets=SPECS)
    return augmentation.vary(pair, [], np.random.default_rng(seed))


def known(pair: Pair) -> tuple[Tensor, Tensor]:
    """Return where a pair has labels, and its targets."""
    assert pair.targets is not None
    return pair.labels != VOID, pair.targets


@pytest.mark.parametrize("seed", range(6))
def test_targets_lie_where_their_labels_lie(seed: int) -> None:
    settings = {"scale": (0.5, 2.0), "rotation": 30.0, "flip": True, "crop_size": (48, 48), "cutout": 0.5}
    varied = vary(seed, sample(), **settings)
    where, targets = known(varied)
    assert targets.shape == (5, 48, 48)
    assert torch.equal(targets[4][where], varied.labels[where].float() + 1)
    assert torch.equal(where, ~targets[4].isnan())
    assert targets[:, ~where].isnan().all()
    lengths = targets[1:4][:, where].norm(dim=0)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_images_and_labels_are_the_same_without_targets() -> None:
    settings = {"scale": (0.5, 2.0), "rotation": 30.0, "flip": True, "cutout": 0.5}
    pair = sample()
    with_targets, without = vary(3, pair, **settings), vary(3, pair._replace(targets=None), **settings)
    assert torch.equal(with_targets.image, without.image)
    assert torch.equal(with_targets.labels, without.labels)
    assert without.targets is None


def test_an_enlarged_image_is_nearer_and_its_quantities_stay() -> None:
    varied = vary(0, sample(), scale=(2.0, 2.0))
    where, targets = known(varied)
    assert torch.equal(targets[0][where], (varied.labels[where].float() + 1) / 2)
    assert torch.equal(targets[4][where], varied.labels[where].float() + 1)
    assert (targets[1][where] == targets[1][where][0]).all()  # zoom leaves normals


def test_mirroring_turns_the_x_of_normals_round() -> None:
    pair = sample()
    varied = next(v for v in (vary(seed, pair, flip=True) for seed in range(9)) if not torch.equal(v.image, pair.image))
    assert torch.equal(varied.image, pair.image.flip(-1))
    _, targets = known(varied)
    torch.testing.assert_close(targets[1:4, 5, 5], torch.tensor([-0.6, 0.0, -0.8]))


def test_a_rotation_turns_normals_with_the_image() -> None:
    """By 30 degrees counter-clockwise: what points right then points right and up."""
    rules = TargetRules.of(SPECS)
    config = AugmentationConfig(**{**PLAIN, "rotation": 30.0})

    class Fixed:
        """Draws the largest angle, and the middle of every other range."""

        def uniform(self, low: float, high: float) -> float:
            return high if (low, high) == (-30.0, 30.0) else (low + high) / 2

        def integers(self, low: int, high: int) -> int:
            return (low + high) // 2

        def random(self) -> float:
            return 1.0

    placed = place(sample(120, 120), config, VOID, Fixed(), None, rules)  # type: ignore[arg-type]
    _, targets = known(placed)
    expected = [0.6 * math.cos(math.radians(30)), -0.6 * math.sin(math.radians(30)), -0.8]
    torch.testing.assert_close(targets[1:4, 20, 28], torch.tensor(expected))


def test_pasted_parts_bring_their_targets() -> None:
    other = sample()
    other = Pair(other.image, torch.full_like(other.labels, 20), torch.full((5, 40, 56), 21.0))
    augmentation = Augmentation(AugmentationConfig(**PLAIN, cut_mix=1.0), VOID, targets=SPECS)
    varied = augmentation.vary(sample(), [("cut_mix", other)], np.random.default_rng(1))
    where, targets = known(varied)
    assert where.all()
    assert (varied.labels == 20).any()
    assert (varied.labels != 20).any()
    assert torch.equal(targets[4], varied.labels.float() + 1)
