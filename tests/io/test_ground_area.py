"""The ground area of pixels: that of equal-area maps, and of zones of the ellipsoid in closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine, from_origin

from refinenet.io.raster.ground_area import read_pixel_area

SQUARED_ECCENTRICITY = 0.00669437999014


def write(path: Path, crs: str | None, transform: Affine, size: tuple[int, int] = (40, 60)) -> Path:
    profile = {"height": size[0], "width": size[1], "count": 3, "dtype": "uint8", "crs": crs, "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", **profile) as target:
        target.write(np.zeros((3, *size), np.uint8))
    return path


def zone(latitude: float) -> float:
    """Return the area of the ellipsoid from the equator to a latitude, per radian of longitude (Snyder, p. 16)."""
    e, sine = math.sqrt(SQUARED_ECCENTRICITY), math.sin(math.radians(latitude))
    q = sine / (1 - SQUARED_ECCENTRICITY * sine**2) + math.atanh(e * sine) / e
    return 6378137.0**2 * (1 - SQUARED_ECCENTRICITY) * q / 2


def test_an_equal_area_map_keeps_its_square_metres(tmp_path: Path) -> None:
    turned = Affine.translation(4_300_000, 3_200_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)
    assert read_pixel_area(write(tmp_path / "a.tif", "EPSG:3035", turned)) == pytest.approx(0.125, rel=1e-5)


def test_degrees_are_zones_of_the_ellipsoid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", "EPSG:4326", from_origin(11, 48, 1e-3, 1e-3))
    whole = (zone(48) - zone(48 - 0.04)) * math.radians(0.06)
    assert read_pixel_area(path) == pytest.approx(whole / (40 * 60), rel=1e-5)


def test_metres_of_web_mercator_are_not_those_of_the_ground(tmp_path: Path) -> None:
    x, y = 1_224_514.4, 8_399_737.9  # 11 degrees east, 60 degrees north
    area = read_pixel_area(write(tmp_path / "a.tif", "EPSG:3857", from_origin(x, y, 10, 10)))
    pixel = math.degrees(10 / 6378137.0)
    whole = zone(60 + pixel * 0.5 / 2) - zone(60 - pixel * 0.5 / 2)  # a degree of latitude is twice as many metres
    assert area == pytest.approx(whole * math.radians(pixel), rel=2e-3)


def test_what_has_no_single_area_has_none(tmp_path: Path) -> None:
    assert read_pixel_area(write(tmp_path / "world.tif", "EPSG:4326", from_origin(-180, 90, 1, 1), (180, 360))) is None
    assert read_pixel_area(write(tmp_path / "no_crs.tif", None, from_origin(0, 0, 10, 10))) is None
    for name in ("plain.png", "plain.webp"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
        assert read_pixel_area(tmp_path / name) is None
    with pytest.raises(FileNotFoundError):
        read_pixel_area(tmp_path / "missing.tif")
