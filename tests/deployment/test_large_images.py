"""Images segmented in windows from a file: the labels are those of the same windows in memory."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.large_images import segment_large
from refinenet.inference.output_kinds import OUTPUT_KINDS, OUTPUTS, Output
from refinenet.inference.protocol import Protocol
from refinenet.inference.segmenter import Segmenter

Pixels = npt.NDArray[np.uint8]
WINDOW = (128, 160)


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@pytest.fixture(scope="module")
def network() -> RefineNet:
    return RefineNet(model="camvid", device="cpu")


@pytest.fixture(scope="module")
def street() -> Pixels:
    return draw_street(3, 500, 700)[0]


@pytest.fixture(scope="module")
def in_memory(network: RefineNet, street: Pixels) -> npt.NDArray[np.uint8]:
    return _plain_windows(network, street, WINDOW, 0.25).astype(np.uint8)


def _plain_windows(
    network: RefineNet, pixels: Pixels, window: tuple[int, int], overlap: float
) -> npt.NDArray[np.int64]:
    """Reference: logits of the whole image, summed with Gaussian weights and divided by the sum of weights."""
    height, width = pixels.shape[:2]
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    starts, total, norm = [], torch.zeros(11, height, width), torch.zeros(height, width)
    for side, part in zip((height, width), window, strict=True):
        count = -(-(side - part) // int(part * (1 - overlap))) + 1
        starts.append(np.linspace(0, side - part, count).round().astype(int))
    shape = [np.exp(-0.5 * ((np.arange(part) - (part - 1) / 2) / (part / 8)) ** 2).clip(1e-4) for part in window]
    weights = torch.from_numpy(np.outer(*shape)).float()
    for top, left in itertools.product(*starts):
        place = (slice(top, top + window[0]), slice(left, left + window[1]))
        with torch.inference_mode():
            total[:, *place] += network.network(image[:, :, *place])[0] * weights
        norm[place] += weights
    return (total / norm).argmax(0).numpy()


def _save_tiff(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], **options: object) -> Path:
    bands = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    profile = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **profile, **options) as target:
        target.write(bands)
    return path


def _read(path: Path) -> npt.NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        values: npt.NDArray[np.uint8] = dataset.read()
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("tiled.tif", "labels.tif"),
        ("striped.tif", "labels.png"),
        ("big.tif", "labels.tiff"),
        ("image.png", "labels.png"),
    ],
)
def test_labels_are_those_of_the_same_windows_in_memory(
    network: RefineNet, street: Pixels, in_memory: Pixels, tmp_path: Path, name: str, result: str
) -> None:
    if name == "image.png":
        Image.fromarray(street).save(tmp_path / name)
    else:
        tiles = {"tiled": True, "blockxsize": 256, "blockysize": 128} if name == "tiled.tif" else {}
        _save_tiff(tmp_path / name, street, **tiles, bigtiff="yes" if name == "big.tif" else "no", compress="lzw")
    found = network.deploy_large(tmp_path / name, tmp_path / result, window=WINDOW, overlap=0.25, progress=False)
    labels = _read(tmp_path / result)
    assert (labels == in_memory).mean() >= 0.9999
    assert found.size == (500, 700)
    for index, class_name in enumerate(network.label_set.names):
        assert found.areas[class_name] == pytest.approx((labels == index).mean())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, result])


def test_the_protocol_in_memory_gives_the_same(network: RefineNet, street: Pixels, in_memory: Pixels) -> None:
    protocol = Protocol(window=WINDOW, overlap=0.25)
    segmenter = Segmenter(network._segmenter.backend, network.label_set, protocol)
    assert (segmenter.predict(street) == in_memory).mean() >= 0.9999


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_strips_of_columns_change_nothing(network: RefineNet, tmp_path: Path, overlap: float) -> None:
    """Memory is so small that the image takes three strips, like an image of a hundred thousand columns."""
    pixels = draw_street(5, 160, 1300)[0]
    source = _save_tiff(tmp_path / "wide.tif", pixels)
    for name, memory in (("whole.tif", 2**30), ("strips.tif", 2**20)):
        segment_large(
            network._segmenter,
            source,
            tmp_path / name,
            window=(96, 192),
            overlap=overlap,
            memory=memory,
            progress=False,
        )
    assert (_read(tmp_path / "whole.tif") == _read(tmp_path / "strips.tif")).mean() >= 0.9999


@pytest.mark.parametrize("kind", OUTPUTS)
def test_all_pictures_are_those_of_a_segmentation(
    network: RefineNet, street: Pixels, tmp_path: Path, kind: Output
) -> None:
    part = street[250:410, 100:360]
    source = _save_tiff(tmp_path / "in.tif", part)
    protocol = Protocol(window=WINDOW, overlap=0.5)
    expected = network._segmenter.under(protocol).segment(part, abstain_below=0.6).render(kind)
    network.deploy_large(
        source,
        tmp_path / "out.png",
        kind,
        window=WINDOW,
        overlap=0.5,
        abstain_below=0.6,
        progress=False,
    )
    with Image.open(tmp_path / "out.png") as picture:
        found = np.asarray(picture)
        row = OUTPUT_KINDS[kind]
        assert picture.mode == ("P" if row.has_palette else "L" if row.channels == 1 else "RGB")
    assert (found == expected).mean() >= 0.999
