"""Files read and written in parts: the pixels of `io.images.codec.decode`, georeferencing, damage, bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
import warm_start
from conftest import CommandLine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin
from torch import Tensor

from refinenet.deployment.large_images import Picture, Windows, segment_in_windows, segment_large
from refinenet.inference.segmenter import Segmenter
from refinenet.io.images.codec import decode
from refinenet.io.raster.reader import open_upright
from refinenet.labels import LabelSet

Pixels = npt.NDArray[np.uint8]


class Brightness:
    """A network of three classes that classifies each pixel by its largest channel."""

    device = torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        return 10 * images


SEGMENTER = Segmenter(Brightness(), LabelSet.numbered(3))


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _draw(height: int = 150, width: int = 210) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + 2 * columns) % 256], -1).astype(np.uint8)


def _write_tiff(path: Path, bands: npt.NDArray[Any], **options: Any) -> Path:
    height, width = bands.shape[1:]
    profile = {"height": height, "width": width, "count": len(bands), "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **profile, **options) as target:
        target.write(bands)
    return path


def _read_all(path: Path) -> Pixels:
    with open_upright(path) as source:
        parts = [(slice(k, min(k + 64, source.height)), slice(0, source.width)) for k in range(0, source.height, 64)]
        return np.concatenate([source.read(*part) for part in parts])


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _save(folder: Path, kind: str) -> Path:
    """Write a small file of a kind."""
    pixels = _draw()
    image, path = Image.fromarray(pixels), folder / kind.split(" ")[-1]
    if "orientation" in kind:
        exif = Image.Exif()
        exif[274] = int(kind.split(" ")[1])
        image.save(path, exif=exif, quality=95)
    elif "mode" in kind:
        image.convert(kind.split(" ")[1]).save(path)
    elif "alpha" in kind:
        image.putalpha(Image.fromarray(pixels[..., 1]))
        image.convert(kind.split(" ")[1]).save(path)
    elif "transparent" in kind:
        image.convert(kind.split(" ")[1]).save(path, transparency=7 if kind.split(" ")[1] != "RGB" else (3, 5, 13))
    elif "deep" in kind:
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 201 + 77).save(path)
    else:
        image.convert("L").save(path, bits=4)
    return path


KINDS = [
    *("mode RGB a.png", "mode RGB a.tif", "mode RGB a.bmp", "mode L a.png", "mode L a.tif", "mode 1 a.png"),
    *("mode 1 a.tif", "mode P a.png", "mode P a.tif", "alpha RGBA a.png", "alpha RGBA a.tif", "alpha LA a.png"),
    *(
        "transparent L a.png",
        "transparent P a.png",
        "transparent RGB a.png",
        "deep a.png",
        "deep a.tif",
        "4 bits a.png",
    ),
    *(
        "orientation 1 a.png",
        "orientation 2 a.tif",
        "orientation 3 a.jpg",
        "orientation 4 a.tif",
        "orientation 5 a.png",
    ),
    *("orientation 6 a.jpg", "orientation 7 a.tif", "orientation 8 a.tif"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_that_decode_reads(kind: str, tmp_path: Path) -> None:
    path = _save(tmp_path, kind)
    found, expected = _read_all(path), decode(path)
    assert found.shape == expected.shape
    # JPEG decoders interpolate colours differently, which shows at the edges of this picture.
    assert np.abs(found.astype(int) - expected).mean() <= (2 if path.suffix == ".jpg" else 0)


def test_sixteen_bits_of_three_bands_are_scaled(tmp_path: Path) -> None:
    bands = np.moveaxis(_draw().astype(np.uint16) * 257, -1, 0)
    assert (_read_all(_write_tiff(tmp_path / "deep.tif", bands, photometric="RGB")) == _draw()).all()


@pytest.mark.parametrize("name", ["labels.tif", "labels.png"])
@pytest.mark.parametrize("is_area", [True, False])
def test_georeferencing_is_kept(name: str, is_area: bool, tmp_path: Path) -> None:
    transform = from_origin(500_000, 5_400_000, 0.2, 0.2)
    source = _write_tiff(tmp_path / "in.tif", np.moveaxis(_draw(), -1, 0), crs="EPSG:32632", transform=transform)
    with rasterio.open(source, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Area" if is_area else "Point")
    segment_large(SEGMENTER, source, tmp_path / name, window=(64, 64), progress=False)
    with rasterio.open(source) as before, rasterio.open(tmp_path / name) as after:
        assert after.crs == before.crs
        assert after.transform.almost_equals(before.transform)
        assert after.tags()["AREA_OR_POINT"] == before.tags()["AREA_OR_POINT"]
        assert (after.read(1) == _draw().argmax(-1)).mean() > 0.98  # but for ties and the borders of windows


def test_control_points_are_kept(tmp_path: Path) -> None:
    points = [GroundControlPoint(row=r, col=c, x=c / 10, y=-r / 10) for r, c in ((0, 0), (0, 200), (140, 0))]
    source = _write_tiff(tmp_path / "in.tif", np.moveaxis(_draw(), -1, 0), crs="EPSG:4326", gcps=points)
    segment_large(SEGMENTER, source, tmp_path / "out.tif", window=(64, 64), progress=False)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found, system = dataset.gcps
    assert system.to_epsg() == 4326
    assert [(point.row, point.col, point.x, point.y) for point in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_picture_without_georeferencing_does_not_inherit_that_of_the_one_it_replaces(tmp_path: Path) -> None:
    bands, target = np.moveaxis(_draw(), -1, 0), tmp_path / "out.png"
    placed = _write_tiff(tmp_path / "a.tif", bands, crs="EPSG:32632", transform=from_origin(5, 9, 2, 2))
    segment_large(SEGMENTER, placed, target, progress=False)
    segment_large(SEGMENTER, _write_tiff(tmp_path / "b.tif", bands), target, progress=False)
    with rasterio.open(target) as dataset:
        assert dataset.crs is None
    assert _names(tmp_path) == ["a.tif", "b.tif", "out.png"]


def _bad_file(folder: Path, kind: str) -> Path:
    pixels, bands = _draw(), np.moveaxis(_draw(), -1, 0)
    image = Image.fromarray(pixels)
    match kind:
        case "floating-point":
            return _write_tiff(folder / "bad.tif", bands.astype(np.float32))
        case "five bands":
            return _write_tiff(folder / "bad.tif", np.concatenate([bands, bands[:2]]))
        case "CMYK" | "LAB":
            image.convert(kind).save(folder / "bad.tif")
        case "white as 0":
            return _write_tiff(folder / "bad.tif", bands[:1], photometric="MINISWHITE")
        case "a text":
            (folder / "bad.tif").write_text("not an image")
        case "turned on Earth":
            path = _write_tiff(folder / "bad.tif", bands, crs="EPSG:32632", transform=from_origin(5, 9, 2, 2))
            content = path.read_bytes()  # one tag of the directory becomes Orientation 6
            place = content.index((284).to_bytes(2, "little") + b"\3\0\1\0\0\0")
            path.write_bytes(
                content[:place] + (274).to_bytes(2, "little") + b"\3\0\1\0\0\0\6\0" + content[place + 10 :]
            )
        case _:
            image.save(folder / f"whole.{kind}")
            content = (folder / f"whole.{kind}").read_bytes()
            (folder / f"bad.{kind}").write_bytes(content[: len(content) * 2 // 3])
            return folder / f"bad.{kind}"
    return folder / "bad.tif"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("floating-point", "float32; 8 or 16 bits"),
        ("five bands", "5 bands"),
        ("CMYK", "colours as CMYK"),
        ("LAB", "colours as CIELAB"),
        ("white as 0", "white as 0"),
        ("a text", "not a TIFF, PNG, JPEG or BMP"),
        ("turned on Earth", "orientation"),
        ("tif", "damaged"),
        ("png", "damaged"),
        ("jpg", "damaged"),
    ],
)
def test_unreadable_files_are_refused_and_nothing_is_destroyed(kind: str, message: str, tmp_path: Path) -> None:
    source, target = _bad_file(tmp_path, kind), tmp_path / "labels.png"
    target.write_bytes(b"precious")
    before = _names(tmp_path)
    with pytest.raises(ValueError, match=rf"bad\.\w+ .*{message}"):
        segment_large(SEGMENTER, source, target, window=(64, 64), progress=False)
    assert target.read_bytes() == b"precious"
    assert _names(tmp_path) == before


def test_the_image_itself_is_never_overwritten(tmp_path: Path) -> None:
    source = _write_tiff(tmp_path / "in.tif", np.moveaxis(_draw(), -1, 0))
    with pytest.raises(ValueError, match="the input itself"):
        segment_large(SEGMENTER, source, source, progress=False)
    with pytest.raises(ValueError, match=r"\.tif, \.tiff or \.png, not as .*out\.jpg"):
        segment_large(SEGMENTER, source, tmp_path / "out.jpg", progress=False)


_LIMITED = """
import resource, sys
import torch
from test_large_files import Brightness, SEGMENTER
from refinenet.deployment.large_images import segment_large
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
segment_large(SEGMENTER, sys.argv[1], sys.argv[2], "overlay", progress=False)
"""

_MEASURED = """
import sys
import numpy as np
from refinenet.labels import LabelSet
from refinenet.deployment.large_images import segment_large
from refinenet.inference.segmenter import Segmenter

class FortyClasses:
    device = "cpu"
    def __call__(self, images):
        return images.mean(1, keepdims=True) * np.linspace(-4, 4, 40, dtype=np.float32)[None, :, None, None]

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

segmenter = Segmenter(FortyClasses(), LabelSet.numbered(40))
segment_large(segmenter, sys.argv[2], sys.argv[3], window=(128, 128), progress=False)
before = peak()
segment_large(segmenter, sys.argv[1], sys.argv[3], window=(128, 128), progress=False)
print(peak() - before)
"""


def _run_python(code: str, *arguments: Path, is_warm: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": paths}
    run = warm_start.run if is_warm else subprocess.run
    return run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", ["out.tif", "out.png"])
def test_a_full_disk_is_reported_and_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = _write_tiff(tmp_path / "in.tif", rng.integers(0, 256, (3, 300, 400), np.uint8))
    (tmp_path / name).write_bytes(b"precious")
    result = _run_python(_LIMITED, source, tmp_path / name, is_warm=True)
    assert result.returncode != 0
    assert f"OSError: Cannot write {tmp_path / name}: " in result.stderr
    assert (tmp_path / name).read_bytes() == b"precious"
    assert _names(tmp_path) == ["in.tif", name]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """Logits of the whole image alone would be 960 MB; those in flight are 20 MB."""
    large = _write_tiff(tmp_path / "large.tif", np.resize(_draw().ravel(), (3, 1500, 4000)))
    small = _write_tiff(tmp_path / "small.tif", np.moveaxis(_draw(400, 400), -1, 0))
    result = _run_python(_MEASURED, large, small, tmp_path / "out.tif")
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 250


def test_the_command_uses_windows_when_needed_and_on_request(run_refinenet: CommandLine, tmp_path: Path) -> None:
    _write_tiff(tmp_path / "deep.tif", np.moveaxis(_draw().astype(np.uint16) * 257, -1, 0), photometric="RGB")
    Image.fromarray(_draw()).save(tmp_path / "plain.png")
    result = run_refinenet("deploy", "plain.png", "--output", "labels.tif")
    assert result.returncode == 0, result.stderr
    with rasterio.open(tmp_path / "labels.tif") as dataset:
        assert dataset.shape == (150, 210)
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.colorinterp[0].name == "gray"
    result = run_refinenet("deploy", "deep.tif", "plain.png", "--window", "96x64", "--json", "--output", "found")
    assert result.returncode == 0, result.stderr
    assert _names(tmp_path / "found") == ["deep.png", "deploy.json", "deploy.jsonl", "plain.png"]
    assert "areas" in result.stdout
    result = run_refinenet("deploy", "plain.png", "--window", "large")
    assert result.returncode == 2
    assert "512x512" in result.stderr


def test_windows_are_reduced_as_the_whole_image_is(tmp_path: Path) -> None:
    """For a model of reduced photographs, windows grow by as much as it reduces the image."""
    smooth = np.asarray(Image.fromarray(_draw(20, 28)).resize((1680, 1200), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "in.png")
    segmenter = Segmenter(Brightness(), LabelSet.numbered(3), longest_side=210)
    done = segment_large(segmenter, tmp_path / "in.png", tmp_path / "out.tif", progress=False)
    assert done.windows == 1
    labels = np.asarray(Image.open(tmp_path / "out.tif"))
    assert (labels == segmenter.predict(smooth)).mean() > 0.999
    several = segment_large(segmenter, tmp_path / "in.png", tmp_path / "o.tif", window=(640, 640), progress=False)
    assert several.windows > 10
    assert (np.asarray(Image.open(tmp_path / "o.tif")) == labels).mean() > 0.99


def test_several_pictures_take_one_pass(tmp_path: Path) -> None:
    calls = list[int]()

    class Counting(Brightness):
        def __call__(self, images: Tensor) -> Tensor:
            calls.append(1)
            return super().__call__(images)

    segmenter, windows = Segmenter(Counting(), LabelSet.numbered(3)), Windows(size=(64, 64), overlap=0.5)
    Image.fromarray(_draw()).save(tmp_path / "in.png")
    wanted = {"labels": "ids.tif", "overlay": "overlay.png", "confidence": "confidence.tif"}
    pictures = [Picture(path=tmp_path / name, kind=kind) for kind, name in wanted.items()]
    # The second takes strips of columns.
    for memory, folder in ((2**30, "whole"), (2**18, "strips")):
        calls.clear()
        done = segment_in_windows(segmenter, tmp_path / "in.png", pictures, windows, memory=memory, progress=False)
        assert len(calls) == done.windows
        for kind, name in wanted.items():
            alone = tmp_path / f"alone-{name}"
            segment_large(
                segmenter, tmp_path / "in.png", alone, kind, window=(64, 64), overlap=0.5, memory=memory, progress=False
            )
            with rasterio.open(tmp_path / name) as found, rasterio.open(alone) as expected:
                np.testing.assert_array_equal(found.read(), expected.read(), err_msg=f"{folder} {kind}")
