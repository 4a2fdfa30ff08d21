"""Normals from depth: exact for planes, and those of drawn streets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from refinenet.datasets.dataset import Intrinsics
from refinenet.datasets.formats.surface_normals import find_normals
from refinenet.datasets.street_scenes import draw_street_geometry

CAMERA = Intrinsics(fx=60, fy=55, cx=20, cy=18)


def depth_of_plane(normal: npt.NDArray[np.float64], distance: float) -> npt.NDArray[np.float32]:
    """`(40, 50)` depths of the plane `normal . P = -distance`, met by the rays of `CAMERA`."""
    rows, columns = np.mgrid[:40, :50]
    rays = np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones((40, 50))])
    return (-distance / np.tensordot(normal, rays, 1)).astype(np.float32)


@pytest.mark.parametrize("direction", [(0, 0, -1), (0.3, -0.5, -0.81), (-0.6, 0.1, -0.5)])
def test_the_normals_of_a_plane_are_exact(direction: tuple[float, float, float]) -> None:
    normal = np.array(direction) / np.linalg.norm(direction)
    normals = find_normals(depth_of_plane(normal, 3), CAMERA)
    known = ~np.isnan(normals[0])
    assert known.mean() > 0.95
    assert np.abs(normals[:, known].T - normal).max() < 1e-5


def test_two_planes_do_not_mix_where_they_meet_at_a_jump() -> None:
    facing, slanted = np.array([0, 0, -1.0]), np.array([0.6, 0, -0.8])
    depth = depth_of_plane(facing, 3)
    depth[:, 25:] = depth_of_plane(slanted, 9)[:, 25:]
    normals = find_normals(depth, CAMERA)
    for part, normal in ((normals[:, 5:-5, :25], facing), (normals[:, 5:-5, 25:], slanted)):
        assert not np.isnan(part).any()
        assert np.abs(part.reshape(3, -1).T - normal).max() < 1e-4


def test_unknown_depths_have_no_normal_and_do_not_disturb_others() -> None:
    normal = np.array([0, -0.6, -0.8])
    depth = depth_of_plane(normal, 3)
    depth[10:14, 10:14] = np.nan
    normals = find_normals(depth, CAMERA)
    assert np.isnan(normals[:, 10:14, 10:14]).all()
    assert np.abs(normals[:, 5:20, 20:30].reshape(3, -1).T - normal).max() < 1e-5
    assert np.isnan(find_normals(np.full((40, 50), np.nan, np.float32), CAMERA)).all()
    alone = np.full((40, 50), np.nan, np.float32)
    alone[7] = 2
    assert np.isnan(find_normals(alone, CAMERA)).all()


def test_the_normals_of_drawn_streets_are_found() -> None:
    street = draw_street_geometry(1_000_001, 240, 320)
    normals = find_normals(street.depth, Intrinsics(*street.intrinsics))
    angle = np.degrees(np.arccos(np.clip((normals * street.normals).sum(0), -1, 1)))
    known = ~np.isnan(angle)
    assert known.sum() > 0.85 * (~np.isnan(street.depth)).sum()
    assert np.median(angle[known]) < 0.1
    assert np.mean(angle[known] < 11.25) > 0.8
