"""Images for models of named bands, from all sources."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from refinenet.io.images.band_images import as_picture
from refinenet.io.images.bands import read_bands
from refinenet.io.images.codec import read_image
from refinenet.io.images.sample_values import Reading
from refinenet.io.raster.band_reader import open_bands

BANDS = read_bands("red,green,blue,nir:0:4000,height:-10:10")
READING = Reading(model_bands=BANDS)


def _samples() -> npt.NDArray[np.float32]:
    """A 2x3 image of five bands as float32, of 8-bit colours, 12 bits and metres."""
    samples = np.zeros((2, 3, 5), np.float32)
    samples[..., :3] = np.arange(18, dtype=np.float32).reshape(2, 3, 3) / 17
    samples[..., 3] = [[0, 1000, 2000], [3000, 4000, 5000]]
    samples[..., 4] = np.array([[-10, -5, 0], [5, 10, np.nan]])
    return samples


def _tiff(path: Path, samples: npt.NDArray[Any], nodata: float | None = None) -> Path:
    rasterio = pytest.importorskip("rasterio")
    options = {"driver": "GTiff", "height": samples.shape[0], "width": samples.shape[1], "count": samples.shape[2]}
    with rasterio.open(path, "w", dtype=samples.dtype, nodata=nodata, crs="EPSG:32632", **options) as file:
        file.write(np.moveaxis(samples, -1, 0))
    return path


def test_every_source_gives_the_same_values(tmp_path: Path) -> None:
    samples = _samples()
    expected = samples.copy()
    expected[..., 3] = [[0, 0.25, 0.5], [0.75, 1, 1]]  # 5000 is clipped
    expected[..., 4] = [[0, 0.25, 0.5], [0.75, 1, 0]]  # NaN is 0
    np.save(tmp_path / "a.npy", samples)
    tiff = _tiff(tmp_path / "a.tif", samples)
    sources = (
        samples,
        torch.from_numpy(samples).permute(2, 0, 1),
        tmp_path / "a.npy",
        (tmp_path / "a.npy").read_bytes(),
        tiff,
        io.BytesIO(tiff.read_bytes()),
    )
    for source in sources:
        decoded = read_image(source, reading=READING)
        assert decoded.pixels.dtype == np.float32
        np.testing.assert_allclose(decoded.pixels, expected, atol=1e-6)
        assert decoded.valid is None  # the other bands have data where height has none
        assert [note.kind for note in decoded.notes] == ["clipped-nir"]
    with open_bands(tiff, READING) as reader:
        part, valid = reader.read_with_mask(slice(1, 2), slice(1, 3))
    np.testing.assert_allclose(part, expected[1:2, 1:3], atol=1e-6)
    assert valid.all()


def test_integers_are_scaled_by_their_type(tmp_path: Path) -> None:
    red = Reading(model_bands=read_bands("red"))
    for dtype, top in ((np.uint8, 255), (np.uint16, 65_535)):
        decoded = read_image(np.array([[0, top]], dtype), reading=red)
        assert decoded.pixels.ravel().tolist() == [0, 1]
    Image.fromarray(np.array([[0, 65_535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", reading=red).pixels.ravel().tolist() == [0, 1]
    rgb = np.array([[[0, 51, 255]]], np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    colours = Reading(model_bands=read_bands("red,green,blue"))
    np.testing.assert_allclose(read_image(tmp_path / "rgb.png", reading=colours).pixels, rgb / 255, atol=1e-7)


def test_pixels_without_data_in_all_bands_have_none(tmp_path: Path) -> None:
    samples = np.full((2, 2, 2), 7, np.uint16)
    samples[0, 0] = 0
    samples[0, 1, 1] = 0
    reading = Reading(model_bands=read_bands("nir:0:14,swir:0:14"))
    decoded = read_image(_tiff(tmp_path / "gaps.tif", samples, nodata=0), reading=reading)
    assert decoded.valid is not None
    assert decoded.valid.tolist() == [[False, True], [True, True]]
    np.testing.assert_allclose(decoded.pixels[0, 1], [0.5, 0])


def test_other_bands_are_refused_by_name_or_chosen_by_number(tmp_path: Path) -> None:
    np.save(tmp_path / "six.npy", np.dstack([_samples(), np.zeros((2, 3, 1), np.float32)]))
    with pytest.raises(ValueError, match=r"takes 5 bands: red, green, blue, nir, height; .*six\.npy has 6"):
        read_image(tmp_path / "six.npy", reading=READING)
    chosen = Reading(model_bands=read_bands("height:-10:10,red"), bands=(5, 1))
    decoded = read_image(tmp_path / "six.npy", reading=chosen)
    np.testing.assert_allclose(decoded.pixels[0, :, 0], [0, 0.25, 0.5])
    np.testing.assert_allclose(decoded.pixels[0, :, 1], _samples()[0, :, 0], atol=1e-6)
    with pytest.raises(ValueError, match="no band 9"):
        read_image(_samples(), reading=Reading(model_bands=read_bands("red"), bands=(9,)))
    with pytest.raises(ValueError, match="as many band numbers"):
        Reading(model_bands=BANDS, bands=(3, 2, 1))
    with pytest.raises(ValueError, match="its own range"):
        Reading(model_bands=BANDS, value_range=(0, 100))


def test_values_that_need_a_range_are_refused() -> None:
    reading = Reading(model_bands=read_bands("nir"))
    with pytest.raises(ValueError, match="nir:LOW:HIGH"):
        read_image(np.full((2, 2), 300, np.float32), reading=reading)
    with pytest.raises(ValueError, match="int32"):
        read_image(np.zeros((2, 2), np.int32), reading=reading)


def test_pictures_for_people() -> None:
    pixels = np.zeros((1, 1, 4), np.float32)
    pixels[..., :] = [0.2, 0.4, 0.6, 1]
    assert as_picture(pixels, read_bands("blue,green,red,nir")).tolist() == [[[153, 102, 51]]]
    assert as_picture(pixels[..., 3:], read_bands("nir")).tolist() == [[[255, 255, 255]]]
    rgb = np.zeros((1, 1, 3), np.uint8)
    assert as_picture(rgb, ()) is rgb
