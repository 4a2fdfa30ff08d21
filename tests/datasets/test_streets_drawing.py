"""Synthetic street scenes: identical on every machine, plausible, and not solvable by colour alone."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import refinenet.datasets.street_scenes
from refinenet.datasets.street_scenes.scene import draw_street

Image = npt.NDArray[np.uint8]

CLASSES = 11
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(CLASSES)
SHARES = {
    SKY: (0.08, 0.32),
    BUILDING: (0.12, 0.36),
    POLE: (0.005, 0.03),
    ROAD: (0.22, 0.48),
    PAVEMENT: (0.015, 0.12),
    TREE: (0.03, 0.2),
    SIGN: (0.003, 0.03),
    FENCE: (0.003, 0.04),
    CAR: (0.03, 0.16),
    PEDESTRIAN: (0.003, 0.03),
    BICYCLIST: (0.0005, 0.015),
}
GOLDEN = {
    (0, 60, 80): "f19fffd02dc09dbbcb318a173242779326e18bbc4dea5e7fddeabe187b30020e",
    (7, 91, 121): "e9aa1f84093c77a9a7f3fc6363756ebe9217f27e6dcd758c0d056cc496499fa3",
}


@cache
def _street(seed: int) -> tuple[Image, Image]:
    return draw_street(seed, 120, 160)


def _streets(seeds: range) -> tuple[Image, Image]:
    pairs = [_street(seed) for seed in seeds]
    return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])


@pytest.mark.parametrize(("seed", "height", "width"), sorted(GOLDEN))
def test_a_street_is_the_same_to_the_byte_on_every_machine(seed: int, height: int, width: int) -> None:
    image, labels = draw_street(seed, height, width)
    assert hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest() == GOLDEN[seed, height, width]


def test_the_same_seed_draws_the_same_bytes_again_whatever_was_drawn_between() -> None:
    first = draw_street(3, 50, 70)
    draw_street(4, 20, 20)
    second = draw_street(3, 50, 70)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_other_seeds_draw_other_streets() -> None:
    assert len({_street(seed)[1].tobytes() for seed in range(30)}) == 30
    assert len({_street(seed)[0].tobytes() for seed in range(30)}) == 30


def test_another_size_shows_the_same_scene() -> None:
    small, large = draw_street(5, 60, 80)[1], draw_street(5, 240, 320)[1]
    assert np.mean(small == large[2::4, 2::4]) > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 5), (37, 53), (360, 480), (200, 90)])
def test_every_size_is_drawn_as_asked(size: tuple[int, int]) -> None:
    image, labels = draw_street(11, *size)
    assert image.shape == (*size, 3)
    assert labels.shape == size
    assert image.dtype == labels.dtype == np.uint8
    assert image.flags.c_contiguous
    assert labels.max() < CLASSES


def test_a_large_picture_can_be_drawn() -> None:
    image, labels = draw_street(2, 24, 4096)
    assert image.shape == (24, 4096, 3)
    assert labels.shape == (24, 4096)


def test_the_usual_size_is_that_of_camvid() -> None:
    assert draw_street(1)[1].shape == (360, 480)


@pytest.mark.parametrize(
    ("seed", "height", "width", "message"),
    [
        (-1, 10, 10, "at least 0, not -1"),
        (0, 0, 10, "1 to 4096 pixels, not 0 x 10"),
        (0, 10, 0, "1 to 4096 pixels, not 10 x 0"),
        (0, 10, 4097, "1 to 4096 pixels, not 10 x 4097"),
    ],
)
def test_what_cannot_be_drawn_is_refused(seed: int, height: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_street(seed, height, width)


def test_every_class_takes_about_the_share_that_it_has_in_real_streets() -> None:
    labels = _streets(range(40))[1]
    shares = np.bincount(labels.ravel(), minlength=CLASSES) / labels.size
    for identifier, (low, high) in SHARES.items():
        assert low < shares[identifier] < high, (identifier, shares[identifier])


def test_the_sky_is_on_top_and_the_road_below() -> None:
    for seed in range(20):
        labels = _street(seed)[1]
        rows = {identifier: np.nonzero(labels == identifier)[0] for identifier in (SKY, BUILDING, ROAD)}
        assert rows[SKY].size == 0 or rows[SKY].max() < 100
        assert rows[BUILDING].size == 0 or rows[BUILDING].mean() < rows[ROAD].mean()
        assert labels[-1, 80] in (ROAD, CAR, PAVEMENT)


def test_pictures_are_exposed_like_photographs() -> None:
    images = _streets(range(30))[0].astype(np.float64)
    means = images.mean(axis=(1, 2, 3))
    assert means.min() > 15
    assert means.max() < 220
    assert means.std() > 12
    assert images.std(axis=(1, 2, 3)).min() > 15


def test_labels_change_where_the_picture_changes() -> None:
    images, labels = _streets(range(20))
    grey = images.astype(np.float64).mean(axis=3)
    steps = np.abs(grey[:, :, 2:] - grey[:, :, :-2])
    borders = (labels[:, :, 2:] != labels[:, :, :-2])[:, :, :]
    assert steps[borders].mean() > 3 * steps[~borders].mean()


def test_colour_alone_does_not_tell_the_class() -> None:
    images, labels = _streets(range(20))
    means = np.stack([images[labels == k].astype(np.float64).mean(axis=0) for k in range(CLASSES)])
    images, labels = _streets(range(20, 40))
    distances = ((images[..., None, :].astype(np.float32) - means.astype(np.float32)) ** 2).sum(axis=-1)
    guess = distances.argmin(axis=-1)
    recalls = [np.mean(guess[labels == k] == k) for k in range(CLASSES)]
    assert np.mean(guess == labels) < 0.5
    assert np.mean(recalls) < 0.35


def test_the_drawing_code_keeps_to_operations_that_are_exact_everywhere() -> None:
    folder = Path(refinenet.datasets.street_scenes.__file__).parent
    inexact = {"sin", "cos", "tan", "exp", "log", "power", "hypot", "dot", "matmul", "einsum", "sum", "mean", "fsum"}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Pow | ast.MatMult), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id in ("np", "math") and node.attr in inexact), (path, node.attr)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("sum", "pow"), path
