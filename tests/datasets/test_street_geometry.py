"""Depth and normals of drawn streets, checked against plane geometry."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from refinenet.datasets.street_scenes.scene import StreetGeometry, draw_street, draw_street_geometry

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
SEEDS = (0, 7, 12, 31)
HEIGHT, WIDTH = 180, 240

Floats = npt.NDArray[np.float64]


@cache
def _geometry(seed: int) -> StreetGeometry:
    return draw_street_geometry(seed, HEIGHT, WIDTH)


@cache
def _labels(seed: int) -> npt.NDArray[np.uint8]:
    return draw_street(seed, HEIGHT, WIDTH)[1]


def _rays(geometry: StreetGeometry) -> Floats:
    """The direction (3, H, W) of each pixel, of which the third component is 1."""
    fx, fy, cx, cy = geometry.intrinsics
    row, column = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    return np.stack([(column - cx) / fx, (row - cy) / fy, np.ones_like(row)])


def _points(geometry: StreetGeometry) -> Floats:
    points: Floats = _rays(geometry) * geometry.depth
    return points


def _ground(seed: int) -> tuple[Floats, float]:
    """The normal of the ground (3,), and the height of the camera above it, fitted to the pixels of the road."""
    geometry, road = _geometry(seed), _labels(seed) == ROAD
    points = _points(geometry)[:, road]
    plane, *_ = np.linalg.lstsq((points / points[2]).T, 1 / points[2], rcond=None)
    length = float(np.linalg.norm(plane))
    return -plane / length, 1 / length


@pytest.mark.parametrize("seed", [*SEEDS, 1_000_000])
def test_geometry_leaves_the_drawing_as_it_is_and_is_the_same_again(seed: int) -> None:
    before = draw_street(seed, 60, 80)
    first = draw_street_geometry(seed, 60, 80)
    after, second = draw_street(seed, 60, 80), draw_street_geometry(seed, 60, 80)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert first.depth.tobytes() == second.depth.tobytes()
    assert first.normals.tobytes() == second.normals.tobytes()
    assert first.depth.shape == (60, 80)
    assert first.normals.shape == (3, 60, 80)
    assert first.depth.dtype == first.normals.dtype == np.float32


@pytest.mark.parametrize("seed", SEEDS)
def test_only_the_sky_has_no_geometry_and_what_is_seen_through_gaps_in_other_things(seed: int) -> None:
    geometry, labels = _geometry(seed), _labels(seed)
    unknown = np.isnan(geometry.depth)
    assert np.array_equal(unknown, np.isnan(geometry.normals).any(0))
    assert unknown[labels == SKY].all()
    assert set(np.unique(labels[unknown])) <= {SKY, TREE, FENCE, BICYCLIST}
    assert (geometry.depth[~unknown] >= 0.2).all()
    assert (geometry.depth[~unknown] <= 2000).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_road_is_one_plane_below_the_camera(seed: int) -> None:
    geometry, road = _geometry(seed), _labels(seed) == ROAD
    normal, height = _ground(seed)
    assert 1.15 <= height <= 1.6
    assert normal[1] < -0.99
    assert np.allclose(geometry.normals[:, road].T, normal, atol=1e-4)
    distance = (geometry.normals * _points(geometry)).sum(0)[road]
    assert np.allclose(distance, -height, rtol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_road_recedes_towards_the_horizon(seed: int) -> None:
    geometry, labels = _geometry(seed), _labels(seed)
    ground = np.isin(labels, [ROAD, PAVEMENT])
    pairs = ground[:-1] & ground[1:]
    assert pairs.sum() > 1000
    assert (geometry.depth[:-1][pairs] > geometry.depth[1:][pairs]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_stands_on_the_ground_is_nearer_than_the_ground_that_it_hides(seed: int) -> None:
    geometry, labels = _geometry(seed), _labels(seed)
    normal, height = _ground(seed)
    slope = -np.einsum("c,chw->hw", normal, _rays(geometry))
    below = (slope > 1e-3) & ~np.isin(labels, [SKY, ROAD, PAVEMENT]) & ~np.isnan(geometry.depth)
    assert below.sum() > 500
    assert (geometry.depth[below] <= height / slope[below] * 1.001).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_have_unit_length_and_face_the_camera(seed: int) -> None:
    geometry = _geometry(seed)
    known = ~np.isnan(geometry.depth)
    assert np.allclose(np.linalg.norm(geometry.normals[:, known], axis=0), 1, atol=1e-5)
    flat = known & np.isin(_labels(seed), [ROAD, PAVEMENT, BUILDING, SIGN, CAR])
    assert ((geometry.normals * _rays(geometry)).sum(0)[flat] < 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_those_of_the_back_projected_depth_where_it_is_flat(seed: int) -> None:
    geometry, labels = _geometry(seed), _labels(seed)
    points = _points(geometry)
    across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    fitted = np.cross(down, across, axis=0)
    fitted /= np.linalg.norm(fitted, axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(geometry.normals, (3, 3), (1, 2))
    with np.errstate(invalid="ignore"):
        is_flat = (np.ptp(windows, axis=(3, 4)) < 1e-6).all(0)
    angle = (fitted * geometry.normals[:, 1:-1, 1:-1]).sum(0)
    for label in (ROAD, PAVEMENT, BUILDING, CAR):
        inside = is_flat & (labels[1:-1, 1:-1] == label)
        # A flat patch may still span two parallel faces one behind the other.
        assert inside.sum() > 40
        assert (angle[inside] > 0.999).mean() > 0.9


def test_facades_along_the_street_face_it_and_those_across_it_face_the_camera() -> None:
    seen = np.zeros(3)
    for seed in SEEDS:
        geometry, walls = _geometry(seed), _labels(seed) == BUILDING
        x = geometry.normals[0][walls]
        column = np.nonzero(walls)[1]
        left, right = x > 0.8, x < -0.8
        seen += left.sum(), right.sum(), (geometry.normals[2][walls] < -0.9).sum()
        assert not left.any() or np.median(column[left]) < WIDTH / 2
        assert not right.any() or np.median(column[right]) > WIDTH / 2
    assert (seen > 500).all()


def test_the_same_scene_has_the_same_depth_at_any_size() -> None:
    small, large = draw_street_geometry(7, 90, 120), draw_street_geometry(7, 270, 360)
    assert large.intrinsics[0] == pytest.approx(3 * small.intrinsics[0])
    # The centre of each pixel of the small image is the centre of one of nine in the large image.
    ratio = large.depth[1::3, 1::3] / small.depth
    known = ~np.isnan(ratio)
    assert known.mean() > 0.7
    assert (np.abs(ratio[known] - 1) < 1e-3).mean() > 0.93


def test_wrong_arguments_are_refused_as_for_the_drawing() -> None:
    with pytest.raises(ValueError, match="from 1 to 4096 pixels, not 0 x 10"):
        draw_street_geometry(0, 0, 10)
    with pytest.raises(ValueError, match="at least 0, not -1"):
        draw_street_geometry(-1)
