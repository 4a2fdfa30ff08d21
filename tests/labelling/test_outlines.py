"""Outlines of regions, against pycocotools, and specks, against SciPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from draft_folders import draw_ids
from pycocotools import mask as coco_masks
from scipy import ndimage

from refinenet.labelling.outlines import Region, find_outlines, join_rings
from refinenet.labelling.specks import drop_specks

Ids = npt.NDArray[np.uint8]


def fill(region: Region, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    points = join_rings(region).ravel().astype(float).tolist()
    found: npt.NDArray[np.bool_] = coco_masks.decode(coco_masks.frPyObjects([points], *size))[..., 0].astype(bool)
    return found


def random_ids(seed: int, size: tuple[int, int]) -> Ids:
    return np.random.default_rng(seed).integers(0, 3, size).astype(np.uint8)


MAPS = {
    "one pixel": np.zeros((1, 1), np.uint8),
    "noise": random_ids(0, (17, 23)),
    "one row": random_ids(1, (1, 30)),
    "islands": draw_ids(0),
    "one class": np.full((8, 9), 3, np.uint8),
}


@pytest.mark.parametrize("name", MAPS)
def test_exact_outlines_cover_every_pixel_once_with_its_class(name: str) -> None:
    ids = MAPS[name]
    cover = np.zeros(ids.shape, int)
    painted = np.full(ids.shape, 77, np.uint8)
    for region in find_outlines(ids):
        where = fill(region, ids.shape)
        assert region.area == where.sum()
        rows, columns = np.nonzero(where)
        assert region.box == (
            columns.min(),
            rows.min(),
            columns.max() - columns.min() + 1,
            rows.max() - rows.min() + 1,
        )
        cover += where
        painted[where] = region.label
    assert (cover == 1).all()
    assert np.array_equal(painted, ids)


@pytest.mark.parametrize("tolerance", [0.8, 1.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_simplified_neighbours_leave_no_gap_and_stay_within_the_tolerance(seed: int, tolerance: float) -> None:
    ids = draw_ids(seed, (60, 80))
    exact, simple = find_outlines(ids), find_outlines(ids, tolerance)
    cover = np.sum([fill(region, ids.shape) for region in simple], axis=0)
    assert (cover == 1).all()
    assert sum(len(region.outer) for region in simple) < 0.8 * sum(len(region.outer) for region in exact)
    by_pixel = {region.pixel: region for region in simple}
    for region in exact:
        if region.pixel in by_pixel and not region.holes:
            assert farthest(region.outer, by_pixel[region.pixel].outer) <= tolerance + 1e-9


@pytest.mark.parametrize("tolerance", [0.8, 2.0])
def test_simplified_neighbours_share_every_edge(tolerance: float) -> None:
    ids = draw_ids(5, (60, 80))
    edges = {
        (*one, *other)
        for region in find_outlines(ids, tolerance)
        for ring in region.rings
        for one, other in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True)
    }
    inner = [edge for edge in edges if not lies_on_the_frame(edge, ids.shape)]
    assert len(inner) > 100
    assert all((*edge[2:], *edge[:2]) in edges for edge in inner)


def lies_on_the_frame(edge: tuple[int, ...], size: tuple[int, ...]) -> bool:
    x0, y0, x1, y1 = edge
    return x0 == x1 in (0, size[1]) or y0 == y1 in (0, size[0])


def farthest(points: npt.NDArray[np.int64], ring: npt.NDArray[np.int64]) -> float:
    """Return the largest distance of points from a closed outline."""
    start, end = ring[None].astype(float), np.roll(ring, -1, axis=0)[None].astype(float)
    along, offset = end - start, points[:, None] - start
    share = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)
    return float(np.hypot(*(offset - share[..., None] * along).transpose(2, 0, 1)).min(axis=1).max())


@pytest.mark.parametrize("min_area", [2, 9, 40])
def test_specks_go_to_neighbours_until_no_small_region_is_left(min_area: int) -> None:
    ids = draw_ids(4)
    found = drop_specks(ids, min_area)
    for label in np.unique(found):
        numbers, count = ndimage.label(found == label)
        assert min(np.bincount(numbers.ravel())[1:], default=0) >= min_area, count
    for label in np.unique(ids):
        numbers, count = ndimage.label(ids == label)
        for number in range(1, count + 1):
            where = numbers == number
            if where.sum() >= min_area:
                assert (found[where] == label).all()


def test_a_speck_goes_to_the_neighbour_with_the_longest_border() -> None:
    ids = np.zeros((6, 8), np.uint8)
    ids[:, 4:] = 1
    ids[2:4, 3:6] = 2  # 3 + 2 + ... pixels of border: two columns in class 1, one in class 0
    found = drop_specks(ids, 7)
    assert (found[2:4, 3:6] == 1).all()
    assert np.array_equal(drop_specks(ids, 0), ids)


def test_a_negative_area_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"0 or more, not -1"):
        drop_specks(np.zeros((2, 2), np.uint8), -1)
