"""Colours of quantities: those of matplotlib, above a bar whose ticks stand where their values are."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from refinenet.io.drawing.colour_bar import NO_DATA, STRIP_HEIGHT, draw_colour_bar, find_limits, paint


@pytest.mark.parametrize(("name", "other"), [("plasma", "plasma"), ("near_bright", "plasma_r"), ("error", "Reds")])
def test_colours_are_those_of_matplotlib(name: str, other: str) -> None:
    values = np.linspace(2, 7, 200)[np.newaxis]
    expected = matplotlib.colormaps[other]((values - 2) / 5)[..., :3] * 255
    assert np.abs(paint(values, 2, 7, name) - expected).max() < 6


def test_values_beyond_the_limits_and_missing_ones() -> None:
    painted = paint(np.array([[-5.0, 0.0, 10.0, 99.0, np.nan, np.inf]]), 0, 10, "plasma")[0]
    assert np.array_equal(painted[0], painted[1])
    assert np.array_equal(painted[2], painted[3])
    assert painted[4].tolist() == painted[5].tolist() == list(NO_DATA)


def test_limits_leave_out_the_extremes() -> None:
    values = np.concatenate([np.full(3, np.nan), np.arange(101.0)])
    assert find_limits(values) == (2, 98)
    assert find_limits(np.full((2, 2), np.nan)) == (0, 1)
    assert find_limits(np.full((2, 2), 5.0)) == (4.5, 5.5)


@pytest.mark.parametrize(("low", "high", "ticks"), [(0, 80, 4), (2.83, 81.97, 3), (-1, 1, 4)])
def test_ticks_stand_below_their_values(low: float, high: float, ticks: int) -> None:
    """Ticks are black, below the bar: as far from its left end as their round values are from the lowest."""
    bar = draw_colour_bar(420, low, high, "depth (m)", "near_bright")
    assert bar.shape == (STRIP_HEIGHT, 420, 3)
    row = next(r for r in range(30, STRIP_HEIGHT) if (bar[r] == 0).all(-1).sum() >= 3 and (bar[r] > 200).all(-1).any())
    places = np.flatnonzero((bar[row] == 0).all(-1))
    values = low + (places - 10) / 399 * (high - low)
    step = np.diff(values).mean()
    assert len(places) >= ticks
    assert np.abs(values / step - np.round(values / step)).max() < 0.06


@pytest.mark.parametrize(("low", "high"), [(4, 96), (0.8, 8.4), (0.00012, 0.00031), (1234, 1236)])
def test_small_pictures_have_two_ticks_or_more(low: float, high: float) -> None:
    bar = draw_colour_bar(160, low, high, "moisture (%)", "plasma")
    row = STRIP_HEIGHT - 10 - 15 - 2  # below the bar, above the numbers
    assert (bar[row] == 0).all(-1).sum() >= 2


@pytest.mark.parametrize("width", [1, 5, 40])
def test_narrow_pictures_have_a_bar_too(width: int) -> None:
    assert draw_colour_bar(width, 0, 1, "moisture (%)", "plasma").shape == (STRIP_HEIGHT, width, 3)
