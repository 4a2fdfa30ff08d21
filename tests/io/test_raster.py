"""Bands, pixels without data and value ranges of rasters, against known values.

The network names the brightest channel of each pixel.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from PIL import Image
from torch import Tensor

from refinenet import RefineNet
from refinenet.deployment.large_images import segment_large
from refinenet.inference.segmenter import Segmenter
from refinenet.io.images.codec import decode, read_image
from refinenet.io.images.sample_values import Reading
from refinenet.labels import LabelSet
from refinenet.models.files.model_file import load

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 40, 56
VOID = 255


class Brightest:
    """A network of three classes that names the largest channel of each pixel."""

    device = torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        return 10 * images


SEGMENTER = Segmenter(Brightest(), LabelSet.numbered(3))


@pytest.fixture(autouse=True)
def _without_warnings_of_rasterio() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def draw() -> Array:
    """`(H, W, 3)` uint8 from 40 to 249, without ties between channels."""
    random = np.random.default_rng(5)
    pixels = (
        random.integers(0, 70, (HEIGHT, WIDTH, 1)) * 3
        + 40
        + random.permuted(np.broadcast_to([0, 1, 2], (HEIGHT, WIDTH, 3)), axis=2)
    )
    return np.asarray(pixels, np.uint8)


def hole() -> npt.NDArray[np.bool_]:
    """Where the planted files have data."""
    valid = np.ones((HEIGHT, WIDTH), np.bool_)
    valid[5:17, 20:50] = False
    return valid


PIXELS, VALID = draw(), hole()
CLASSES = PIXELS.argmax(-1).astype(np.uint8)
TRUTH = np.where(VALID, CLASSES, VOID).astype(np.uint8)


def write(path: Path, bands: Array, **options: Any) -> Path:
    """Write bands `(C, H, W)`; `mask`, `nodata` and the colours of bands as rasterio has them."""
    mask, colours = options.pop("mask", None), options.pop("colours", None)
    internal = options.pop("internal", True)
    profile = {"height": HEIGHT, "width": WIDTH, "count": len(bands), "dtype": bands.dtype.name}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(path, "w", driver="GTiff", **profile, **options) as target,
    ):
        if colours is not None:
            target.colorinterp = [rasterio.enums.ColorInterp[colour] for colour in colours]
        target.write(bands)
        if mask is not None:
            target.write_mask(mask)
    return path


def stored(dtype: str) -> tuple[Array, tuple[float, float] | None]:
    """The picture's bands `(3, H, W)` in another type, and the value range that they need."""
    bands = np.moveaxis(PIXELS, -1, 0)
    match dtype:
        case "uint8":
            return bands, None
        case "uint16":
            return bands.astype(np.uint16) * 257, None
        case "int16":
            return bands.astype(np.int16) * 16 - 1000, (-1000, 255 * 16 - 1000)
        case "uint32":
            return bands.astype(np.uint32) * 1000, (0, 255_000)
        case _:
            return (bands / np.float64(255)).astype(dtype), None


def labels_of(path: Path, target: Path, reading: Reading) -> list[tuple[Array, dict[str, float], float]]:
    """Labels, areas and the share without data: as a whole, and in windows."""
    whole = read_image(path, reading=reading)
    found = SEGMENTER.segment(whole.pixels, 0, whole.valid)
    done = segment_large(SEGMENTER, path, target, window=(32, 32), overlap=0.25, reading=reading, progress=False)
    if target.suffix == ".png":
        written = np.asarray(Image.open(target))
    else:
        with rasterio.open(target) as dataset:
            written = dataset.read(1)
            assert dataset.nodata == VOID
    return [(found.labels, dict(found.areas), found.no_data), (written, dict(done.areas), done.no_data)]


GAPS = ("none", "nodata", "mask", "msk", "alpha", "nan")
DTYPES = ("uint8", "uint16", "int16", "uint32", "float32", "float64")
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"interleave": "pixel"},
    {"interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 16},
)


def is_possible(gap: str, dtype: str) -> bool:
    return (gap != "nan" or dtype.startswith("float")) and (gap != "alpha" or dtype in ("uint8", "uint16"))


CASES = [
    (gap, dtype, extra, layout, suffix)
    for gap, dtype, extra, layout, suffix in itertools.product(GAPS, DTYPES, (0, 2), (0, 1), (".tif", ".png"))
    if is_possible(gap, dtype)
]


@pytest.mark.parametrize("gap", GAPS)
def test_labels_and_areas_are_the_planted_ones(gap: str, tmp_path: Path) -> None:
    for number, (_, dtype, extra, layout, suffix) in enumerate(case for case in CASES if case[0] == gap):
        bands, value_range = stored(dtype)
        colours = ["red", "green", "blue"]
        options: dict[str, Any] = dict(LAYOUTS[layout])
        if gap == "nodata":
            bands = np.where(VALID, bands, bands.dtype.type(7))
            options["nodata"] = 7
        elif gap in ("mask", "msk"):
            options |= {"mask": VALID, "internal": gap == "mask"}
        elif gap == "nan":
            bands = np.where(VALID, bands, np.nan).astype(dtype)
        if gap == "alpha":
            top = np.iinfo(dtype).max
            bands = np.concatenate([bands, np.where(VALID, top, 0).astype(dtype)[None]])
            colours.append("alpha")
        others = np.full((extra, HEIGHT, WIDTH), 100, bands.dtype)
        path = write(
            tmp_path / f"{number}.tif",
            np.concatenate([bands, others]),
            photometric="rgb",
            colours=[*colours, *["undefined"] * extra],
            **options,
        )
        truth = CLASSES if gap == "none" else TRUTH
        data = truth != VOID
        for labels, areas, no_data in labels_of(path, tmp_path / f"out{suffix}", Reading(value_range=value_range)):
            assert (labels == truth).all(), (gap, dtype, extra, layout, suffix)
            assert list(areas.values()) == [(truth == k).sum() / data.sum() for k in range(3)]
            assert no_data == pytest.approx(1 - data.mean())


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (5, 1, 4)])
def test_bands_are_chosen_by_number_or_by_declared_colour(order: tuple[int, ...], tmp_path: Path) -> None:
    bands = np.full((5, HEIGHT, WIDTH), 9, np.uint8)
    for number, channel in zip(order, np.moveaxis(PIXELS, -1, 0), strict=True):
        bands[number - 1] = channel
    silent = write(tmp_path / "silent.tif", bands, photometric="minisblack")
    with pytest.raises(ValueError, match=r"5 bands .*--bands"):
        read_image(silent)
    colours = ["undefined"] * 5
    for number, colour in zip(order, ("red", "green", "blue"), strict=True):
        colours[number - 1] = colour
    declared = write(tmp_path / "declared.tif", bands, photometric="minisblack", colours=colours)
    for path, reading in ((silent, Reading(bands=order)), (declared, Reading())):
        for labels, _, _ in labels_of(path, tmp_path / "out.tif", reading):
            assert (labels == CLASSES).all()
        (note,) = read_image(path, reading=reading).notes
        assert note.kind == "bands"
        assert f"bands {', '.join(map(str, order))} are used" in note.text
    array = np.moveaxis(bands, 0, -1)
    assert (decode(array, bands=order) == PIXELS).all()
    assert (decode(torch.from_numpy(bands), bands=order) == PIXELS).all()


def test_near_infrared_that_is_marked_as_alpha_changes_nothing(tmp_path: Path) -> None:
    infrared = (255 - PIXELS[..., 1])[None]
    path = write(tmp_path / "nir.tif", np.concatenate([np.moveaxis(PIXELS, -1, 0), infrared]))
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3].name == "alpha"
    for labels, _, no_data in labels_of(path, tmp_path / "out.tif", Reading()):
        assert (labels == CLASSES).all()
        assert no_data == 0
    with pytest.warns(UserWarning, match="band 4 is marked as alpha"):
        decode(path)
    with pytest.warns(UserWarning, match="band 4 is marked as alpha"):
        decode(path.read_bytes())


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB key", "webp"])
def test_transparent_places_of_web_images_have_no_class_and_half_transparent_ones_do(kind: str, tmp_path: Path) -> None:
    alpha = np.where(VALID, np.where(np.arange(WIDTH) < 10, 128, 255), 0).astype(np.uint8)
    image = Image.fromarray(np.dstack([PIXELS, alpha]))
    path = tmp_path / f"image.{'webp' if kind == 'webp' else 'png'}"
    if kind == "RGB key":
        Image.fromarray(np.where(VALID[..., None], PIXELS, np.uint8(3))).save(path, transparency=(3, 3, 3))
    elif kind == "P":
        indices = np.where(VALID, CLASSES, 3).astype(np.uint8)
        palette = Image.fromarray(indices)
        palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 90, 90, 90])
        palette.save(path, transparency=bytes([255, 128, 255, 0]))
    else:
        image.convert("LA" if kind == "LA" else "RGBA").save(path, lossless=True)
    decoded = read_image(path)
    assert decoded.valid is not None
    assert (decoded.valid == VALID).all()
    assert (decoded.pixels[~VALID] == 0).all()
    found = SEGMENTER.segment(decoded.pixels, 0, decoded.valid)
    assert (found.labels[~VALID] == VOID).all()
    assert (found.confidence[~VALID] == 0).all()
    assert (found.probabilities[:, ~VALID] == 0).all()
    assert (found.colour[~VALID] == 0).all()
    assert sum(found.areas.values()) == pytest.approx(1)
    if kind != "webp":
        segment_large(SEGMENTER, path, tmp_path / "out.png", progress=False)
        assert (np.asarray(Image.open(tmp_path / "out.png")) == found.labels).all()


def test_an_image_without_any_data_has_no_areas(tmp_path: Path) -> None:
    path = write(tmp_path / "none.tif", np.full((3, HEIGHT, WIDTH), 7, np.uint8), nodata=7)
    for labels, areas, no_data in labels_of(path, tmp_path / "out.tif", Reading()):
        assert (labels == VOID).all()
        assert set(areas.values()) == {0.0}
        assert no_data == 1


DEEP = PIXELS[..., 0].astype(np.uint16) * 16


@pytest.mark.parametrize("form", ["array", "tensor", "I", "I;16", "F", "png", "tif", "rgb tif", "rgb png", "float tif"])
def test_twelve_bits_are_reported_and_scaled_where_asked_for(form: str, tmp_path: Path) -> None:
    source: Any
    match form:
        case "array":
            source = DEEP
        case "tensor":
            source = torch.from_numpy(DEEP)
        case "I":
            source = Image.fromarray(DEEP.astype(np.int32))
        case "I;16":
            source = Image.fromarray(DEEP)
        case "F":
            source = Image.fromarray(DEEP.astype(np.float32))
        case "png" | "tif":
            source = tmp_path / f"deep.{form}"
            Image.fromarray(DEEP).save(source)
        case "rgb png":
            write(tmp_path / "deep.tif", np.stack([DEEP] * 3), photometric="rgb")
            with (
                rasterio.open(tmp_path / "deep.tif") as opened,
                rasterio.open(
                    tmp_path / "deep.png", "w", driver="PNG", count=3, height=HEIGHT, width=WIDTH, dtype="uint16"
                ) as target,
            ):
                target.write(opened.read())
            source = tmp_path / "deep.png"
        case "rgb tif":
            source = write(tmp_path / "deep.tif", np.stack([DEEP] * 3), photometric="rgb")
        case _:
            source = write(tmp_path / "deep.tif", DEEP[None].astype(np.float32))
    if form in ("F", "float tif"):
        with pytest.raises(ValueError, match="value_range"):
            decode(source)
    else:
        with pytest.warns(UserWarning, match=rf"from {DEEP.min()} to {DEEP.max()}.*--value-range 0,4095"):
            decode(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(source, value_range=(0, 4080))
    assert (found == PIXELS[..., :1]).all()


def test_values_outside_the_range_are_clipped_and_counted() -> None:
    values = np.array([[0, 100, 200, 300]], np.uint16)
    with pytest.warns(UserWarning, match=r"2 of 4 values \(50.00%\) are outside the value range 50,250"):
        assert decode(values, value_range=(50, 250))[0, :, 0].tolist() == [0, 64, 191, 255]


@pytest.mark.parametrize("good", [PIXELS, PIXELS.astype(np.uint16) * 257, PIXELS / 255])
def test_usual_images_are_not_reported(good: Array) -> None:
    assert read_image(good).notes == ()


@pytest.mark.parametrize("dark", [(PIXELS / 255 / 255), PIXELS // 17, PIXELS.astype(np.uint16) * 39])
def test_images_that_were_scaled_twice_or_not_at_all_are_reported(dark: Array) -> None:
    assert [note.kind for note in read_image(dark).notes] == ["dark"]


@pytest.mark.parametrize("bands", [(), (1, 2), (0, 1, 2), "123", (1.0, 2, 3)])
def test_bands_that_are_none_are_refused(bands: Any) -> None:
    with pytest.raises(ValueError, match="bands must be three numbers"):
        Reading(bands=bands)


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0,), (0, float("nan")), "01", (0, "1")])
def test_value_ranges_that_are_none_are_refused(value_range: Any) -> None:
    with pytest.raises(ValueError, match="value_range must be two numbers"):
        Reading(value_range=value_range)


def test_a_scale_that_a_file_declares_is_named_and_not_applied(tmp_path: Path) -> None:
    path = write(tmp_path / "scaled.tif", np.moveaxis(PIXELS, -1, 0), nodata=7)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.0001,) * 3
    decoded = read_image(path)
    assert (decoded.pixels == PIXELS).all()
    assert [note.kind for note in decoded.notes] == ["scale"]


def test_overviews_are_no_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "cog.tif", np.moveaxis(PIXELS, -1, 0), nodata=7)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode(path) == PIXELS).all()


def test_a_folder_reports_each_kind_once_and_the_model_s_own_range_is_used(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(DEEP).save(tmp_path / f"{name}.png")
    network = RefineNet(model="camvid", device="cpu", backend="pytorch")
    with pytest.warns(UserWarning, match="--value-range") as told:
        network.deploy_files(tmp_path, tmp_path / "out", progress=False)
    assert len([str(w.message) for w in told if "--value-range" in str(w.message)]) == 1
    network._adopt(network.network, replace(network.card, value_range=(0, 4080)))
    network.save(tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors")[1].value_range == (0, 4080)
    again = RefineNet(model=tmp_path / "m.safetensors", device="cpu", backend="pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = again.segment(DEEP)
    assert (found.image == PIXELS[..., :1]).all()
    with pytest.warns(UserWarning, match="trained with the value range 0,4080; 0,9000 is used"):
        again.segment(DEEP, value_range=(0, 9000))
    with pytest.warns(UserWarning, match="has 8 bits"):
        again.segment(PIXELS)
