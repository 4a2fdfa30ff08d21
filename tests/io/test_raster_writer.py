"""Cloud-optimised GeoTIFF: layout, overviews, and what else the files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from refinenet.io.raster.reader import Georeference
from refinenet.io.raster.writer import TILE, open_target

PLACING = Georeference(crs=rasterio.CRS.from_epsg(32632), transform=from_origin(500_000, 5_000_000, 0.5, 0.5))
COLOURS = ((10, 20, 30), (200, 100, 0), (0, 255, 128))
SIZE = 2 * TILE + 40
GENERATOR = np.random.default_rng(2)


def write(path: Path, pixels: npt.NDArray[Any], placing: Georeference = PLACING, **options: Any) -> Path:
    with open_target(path, pixels.shape, pixels.dtype, placing, **options) as target:
        for top in range(0, len(pixels), 300):
            target.write(pixels[top : top + 300], 0)
    return path


def blocks(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the four pixels of each block of two by two: `(H / 2, W / 2, 4)`."""
    height, width = pixels.shape
    return pixels.reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(height // 2, width // 2, 4)


def test_ids_keep_palette_and_place_and_overviews_hold_the_most_frequent_one(tmp_path: Path) -> None:
    ids = GENERATOR.integers(0, 3, (SIZE, SIZE), dtype=np.uint8)
    path = write(tmp_path / "ids.tif", ids, palette=COLOURS, nodata=255, overviews="mode", text={"model": "camvid"})
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.overviews(1)[0], file.block_shapes) == (2, [(TILE, TILE)])
        assert (file.crs, file.transform, file.nodata) == (PLACING.crs, PLACING.transform, 255)
        assert [file.colormap(1)[label][:3] for label in range(3)] == list(COLOURS)
        assert file.tags()["model"] == "camvid"
        np.testing.assert_array_equal(file.read(1), ids)
        half = file.read(1, out_shape=(SIZE // 2, SIZE // 2))
    counts = np.stack([(blocks(ids) == label).sum(-1) for label in range(3)], -1)
    is_clear = np.sort(counts, -1)[..., 2] > np.sort(counts, -1)[..., 1]
    assert is_clear.mean() > 0.5
    np.testing.assert_array_equal(half[is_clear], counts.argmax(-1)[is_clear])
    assert [each.name for each in tmp_path.iterdir()] == ["ids.tif"]


def test_overviews_of_values_are_means_of_what_is_known(tmp_path: Path) -> None:
    depth = GENERATOR.random((SIZE, SIZE), dtype=np.float32)
    depth[:100, ::2] = np.nan
    path = write(tmp_path / "depth.tif", depth[..., np.newaxis], nodata=float("nan"), bands=[("depth", "m")])
    with rasterio.open(path) as file:
        assert (file.descriptions, file.units) == (("depth",), ("m",))
        np.testing.assert_array_equal(file.read(1), depth)
        half = file.read(1, out_shape=(SIZE // 2, SIZE // 2))
    np.testing.assert_allclose(half, np.nanmean(blocks(depth), -1), rtol=1e-5)


def test_control_points_stay(tmp_path: Path) -> None:
    points = [GroundControlPoint(row, column, 10 + column, 50 - row) for row, column in ((0, 0), (0, 600), (600, 0))]
    placing = Georeference(gcps=(points, rasterio.CRS.from_epsg(4326)))
    picture = GENERATOR.integers(0, 256, (600, 600, 3), dtype=np.uint8)
    with rasterio.open(write(tmp_path / "picture.tif", picture, placing)) as file:
        found, crs = file.gcps
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), picture)
    assert crs.to_epsg() == 4326
    assert [(each.row, each.col, each.x, each.y) for each in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_small_file_needs_no_overviews_and_a_broken_run_leaves_nothing(tmp_path: Path) -> None:
    with rasterio.open(write(tmp_path / "small.tif", np.zeros((20, 30), np.uint8))) as file:
        assert file.overviews(1) == []

    def break_off() -> None:
        with open_target(tmp_path / "broken.tif", (20, 30), np.uint8, PLACING):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert [each.name for each in tmp_path.iterdir()] == ["small.tif"]
