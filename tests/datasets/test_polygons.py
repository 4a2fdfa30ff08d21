"""Polygons and run lengths against pycocotools, and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as pycocotools_mask

from refinenet.datasets.formats.polygons import fill_outline, fill_runs, read_runs, to_outline

# pycocotools itself has yet to follow NumPy 2 in a detail.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def filled(points: list[float], height: int, width: int) -> npt.NDArray[np.uint8]:
    return fill_outline(to_outline(points, (height, width)), (height, width)).astype(np.uint8)


def decode_run_lengths(size: Sequence[int], counts: Any) -> npt.NDArray[np.bool_]:
    return fill_runs(read_runs(counts, (size[0], size[1])), (size[0], size[1]))


def by_pycocotools(points: list[float], height: int, width: int) -> npt.NDArray[np.uint8]:
    region: npt.NDArray[np.uint8] = pycocotools_mask.decode(pycocotools_mask.frPyObjects([points], height, width))
    return region[..., 0]


def test_a_rectangle_covers_its_columns_and_rows() -> None:
    labels = filled([1, 1, 4, 1, 4, 3, 1, 3], 4, 5)
    assert labels.tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_a_triangle_and_a_figure_of_eight_by_hand() -> None:
    # Pixels whose middle lies on the lower edge are outside.
    assert filled([0, 0, 4, 0, 0, 4], 4, 4).tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # Where an outline overlaps itself an even number of times, it is outside: here in the middle.
    twice = [0, 0, 4, 0, 4, 4, 0, 4, 0, 0, 1, 1, 3, 1, 3, 3, 1, 3, 1, 1]
    assert filled([float(value) for value in twice], 4, 4)[1:3, 1:3].sum() == 0


@pytest.mark.parametrize("decimals", [0, 1, 2, 15])
def test_random_polygons_cover_exactly_the_pixels_of_pycocotools(decimals: int) -> None:
    generator = np.random.default_rng(decimals)
    for _ in range(300):
        height, width = (int(side) for side in generator.integers(1, 60, 2))
        corners = generator.uniform(-0.08, 1.08, (int(generator.integers(3, 14)), 2)) * (width, height)
        points: list[float] = np.round(corners, decimals).ravel().tolist()
        np.testing.assert_array_equal(filled(points, height, width), by_pycocotools(points, height, width))


SIDE = 24


@given(st.lists(st.sampled_from([k / 10 for k in range(-20, 10 * SIDE + 21)]), min_size=6, max_size=24))
def test_polygons_of_any_form_cover_exactly_the_pixels_of_pycocotools(points: list[float]) -> None:
    """Including duplicate points, edges of length 0, and corners outside."""
    even = points[: len(points) // 2 * 2]
    np.testing.assert_array_equal(filled(even, SIDE, SIDE), by_pycocotools(even, SIDE, SIDE))


@pytest.mark.parametrize(("points", "message"), [
    ([1, 1, 2, 2], "4 numbers"),
    ([1, 1, 2, 2, 3, 1, 4], "7 numbers"),
    ([], "0 numbers"),
    ("1,1,2,2,3,3", "must be a list"),
    ([1, 1, 2, "2", 3, 1], "'2' among"),
    ([1, 1, 2, True, 3, 1], "'True' among"),
    ([1, 1, 2, None, 3, 1], "'None' among"),
    ([1, 1, 2, float("nan"), 3, 1], r"point \(2, nan\), outside"),
    ([1, 1, float("inf"), 2, 3, 1], r"point \(inf, 2\)|point \(1e\+09, 2\)"),
    ([1, 1, 10**400, 2, 3, 1], r"point \(1e\+09, 2\), outside an image of 20x10"),
    ([1, 1, 22.1, 2, 3, 1], r"point \(22.1, 2\), outside"),
    ([1, 1, 2, -2.1, 3, 1], r"point \(2, -2.1\), outside"),
])  # fmt: skip
def test_what_is_no_polygon_of_the_image_is_refused(points: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_outline(points, (10, 20))


def test_points_a_little_outside_are_allowed() -> None:
    assert filled([-2, -1, 22, -1, 22, 11, -2, 11], 10, 20).all()


def test_run_lengths_go_down_the_columns() -> None:
    expected = [[0, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert decode_run_lengths((3, 3), [2, 3, 3, 1]).astype(int).tolist() == expected
    assert decode_run_lengths((2, 3), [0, 6]).all()
    assert not decode_run_lengths((2, 3), [6]).any()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.98, 1.0, 0.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (61, 47), (300, 200)])
def test_compressed_run_lengths_of_pycocotools_are_read(share: float, size: tuple[int, int]) -> None:
    region = np.random.default_rng(0).random(size) < share
    encoded = pycocotools_mask.encode(np.asfortranarray(region.astype(np.uint8)))
    np.testing.assert_array_equal(decode_run_lengths(encoded["size"], encoded["counts"].decode()), region)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40))
def test_run_lengths_of_any_kind_are_read_as_pycocotools_compresses_them(counts: list[int]) -> None:
    height = 7
    counts[-1] += -sum(counts) % height
    size = (height, sum(counts) // height)
    if size[1] == 0:
        return
    encoded = pycocotools_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    plain = decode_run_lengths(size, counts)
    np.testing.assert_array_equal(plain, pycocotools_mask.decode(encoded).astype(bool))
    np.testing.assert_array_equal(decode_run_lengths(size, encoded["counts"].decode()), plain)


@pytest.mark.parametrize(("counts", "message"), [
    ([2, 3], "add up to 5 pixels, but its size is 2 rows of 3"),
    ([2, 3, 2], "add up to 7"),
    ([10**30], "add up to 10000"),
    ([8, -2], "negative number -2"),
    ([2.5, 4], "neither a list"),
    ([True, 5], "neither a list"),
    (None, "neither a list"),
    (b"6", "neither a list"),
    ("06 ", "an unexpected ' '"),
    ("0\u0444", "an unexpected"),
    ("o" * 40, "an unexpected"),
    ("o", "cut off"),
    ("05", "add up to 5"),
])  # fmt: skip
def test_damaged_run_lengths_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_run_lengths((2, 3), counts)


@given(st.text(max_size=30))
def test_any_text_as_run_lengths_is_read_or_refused(text: str) -> None:
    message = "run lengths"
    try:
        decode_run_lengths((2, 3), text)
    except ValueError as error:
        message = str(error)
    assert "run lengths" in message
