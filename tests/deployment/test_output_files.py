"""Files of depths, normals and quantities: read back by other libraries, and the same however they were made."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from conftest import CommandLine
from dense_network import new_network
from PIL import Image
from video_samples import read_video, write_video

from refinenet import RefineNet
from refinenet.deployment.inputs import plan_work
from refinenet.deployment.large_images import Windows
from refinenet.inference import output_kinds
from refinenet.inference.output_kinds import OutputKind, PixelForm
from refinenet.inference.segmentation import Segmentation
from refinenet.inference.values.quantities import as_numbers
from refinenet.io.drawing.colour_bar import STRIP_HEIGHT

INTRINSICS = (100.0, 110.0, 59.5, 44.5)

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> RefineNet:
    return new_network()


@pytest.fixture(scope="module")
def saved(model: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def folder(street: npt.NDArray[np.uint8], tmp_path: Path) -> Path:
    """A folder of two streets."""
    (tmp_path / "in").mkdir()
    for name, picture in (("a", street), ("b", street[::-1])):
        Image.fromarray(picture).save(tmp_path / "in" / f"{name}.png")
    return tmp_path


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_raster(path: Path) -> npt.NDArray[Any]:
    """The bands of a file, `(D, H, W)`, read by GDAL."""
    with rasterio.open(path) as dataset:
        bands: npt.NDArray[Any] = dataset.read()
    return bands


def test_depth_in_millimetres(model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    expected = model.predict(street).depth
    shown = model.deploy(street, output="depth", output_file=tmp_path / "depth.png")
    np.testing.assert_array_equal(shown, expected)
    with Image.open(tmp_path / "depth.png") as picture:
        assert picture.mode == "I;16"
        assert picture.info["scale"] == "1000"
        assert picture.info["Description"] == "depth in m = stored value / 1000; 0 = no data"
        np.testing.assert_allclose(np.asarray(picture) / 1000, expected, atol=0.0005)


def test_depth_beyond_sixteen_bits_is_refused_with_a_scale(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    far = model.predict(street)["far"][0]
    assert far.max() > 256
    said = r"depth:far is \d+\.?\d* m somewhere, .* holds 0 to 65\.535 m: choose a smaller scale \(--scale (\d+)\)"
    with pytest.raises(ValueError, match=said) as refused:
        model.deploy(street, output="depth:far", output_file=tmp_path / "far.png")
    assert not (tmp_path / "far.png").exists()
    scale = int(str(refused.value).partition("--scale ")[2].partition(")")[0])
    model.deploy(street, output="depth:far", output_file=tmp_path / "far.png", scale=scale)
    np.testing.assert_allclose(read_raster(tmp_path / "far.png")[0] / scale, far, atol=0.51 / scale)


def test_pixels_without_data(model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    alpha = np.full(street.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.dstack([street, alpha])).save(tmp_path / "cut.png")
    for kind, name in (("depth", "d.png"), ("depth", "d.tif"), ("normals", "n.png"), ("cloud", "c.ply")):
        camera: dict[str, Any] = {"intrinsics": INTRINSICS} if kind == "cloud" else {}
        model.deploy_files(tmp_path / "cut.png", tmp_path / name, kind, progress=False, **camera)
    assert (read_raster(tmp_path / "d.png")[0, :20] == 0).all()
    assert (read_raster(tmp_path / "d.png")[0, 20:] > 0).all()
    assert np.isnan(read_raster(tmp_path / "d.tif")[0, :20]).all()
    assert np.isfinite(read_raster(tmp_path / "d.tif")[0, 20:]).all()
    assert (read_raster(tmp_path / "n.png")[:, :20] == 0).all()
    assert len(read_cloud(tmp_path / "c.ply")) == (street.shape[0] - 20) * street.shape[1]


def read_cloud(path: Path) -> npt.NDArray[Any]:
    """The vertices of a PLY file, by its own header."""
    header, _, content = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    types = {"float": "<f4", "uchar": "u1"}
    fields = [(line.split()[2], types[line.split()[1]]) for line in lines if line.startswith("property")]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    vertices = np.frombuffer(content, np.dtype(fields))
    assert len(vertices) == count
    return vertices


def test_a_point_cloud_projects_onto_its_pixels(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    model.deploy(street, output="cloud", output_file=tmp_path / "street.ply", intrinsics=INTRINSICS)
    points = read_cloud(tmp_path / "street.ply")
    fx, fy, cx, cy = INTRINSICS
    columns, rows = points["x"] / points["z"] * fx + cx, points["y"] / points["z"] * fy + cy
    expected = np.indices(street.shape[:2]).reshape(2, -1)
    np.testing.assert_allclose(np.stack([rows, columns]), expected, atol=1e-3)
    np.testing.assert_allclose(points["z"], model.predict(street).depth.ravel())
    assert np.array_equal(np.stack([points[name] for name in ("red", "green", "blue")], 1), street.reshape(-1, 3))
    with pytest.raises(ValueError, match="cloud needs the camera: pass intrinsics"):
        model.deploy(street, output="cloud", output_file=tmp_path / "other.ply")


def test_normals_are_painted_as_the_field_does(model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    painted = model.deploy(street, output="normals", output_file=tmp_path / "normals.png")
    expected = model.predict(street).normals
    assert np.array_equal(np.asarray(Image.open(tmp_path / "normals.png")), painted)
    np.testing.assert_allclose(painted / 127.5 - 1, expected, atol=0.51 / 127.5)
    # To those who work with BGR the picture comes in BGR; the file is right all the same.
    turned = model.deploy(street[..., ::-1], output="normals", output_file=tmp_path / "bgr.png", channel_order="bgr")
    assert np.array_equal(turned[..., ::-1], painted)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "bgr.png")), painted)


def test_arrays_hold_quantities_with_their_units(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    model.deploy(street, output="values", output_file=tmp_path / "soil.npz")
    model.deploy(street, output="normals", output_file=tmp_path / "normals.npz")
    found, expected = np.load(tmp_path / "soil.npz"), model.predict(street)
    assert list(found) == ["height", "moisture", "units"]
    assert found["units"].tolist() == ["m", "%"]
    assert np.array_equal(found["moisture"], expected.values["moisture"])
    assert np.array_equal(np.load(tmp_path / "normals.npz")["normals"], expected.normals)
    with pytest.raises(ValueError, match=r"values has 2 quantities, .* choose values:height, values:moisture"):
        model.deploy(street, output="values", output_file=tmp_path / "soil.png", scale=100)
    with pytest.raises(ValueError, match="values:moisture in a 16-bit PNG needs a scale"):
        model.deploy(street, output="values:moisture", output_file=tmp_path / "soil.png")
    model.deploy(street, output="values:moisture", output_file=tmp_path / "soil.png", scale=100)
    np.testing.assert_allclose(read_raster(tmp_path / "soil.png")[0] / 100, expected.values["moisture"], atol=0.0051)


def test_a_quantity_may_be_called_units(street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    r = new_network("crop=regression[units:1,height:m],soil=regression[height:m,wet:%]")
    r.deploy(street, output_file=tmp_path / "crop.npz", output="values:crop")
    found, expected = np.load(tmp_path / "crop.npz"), r.predict(street)
    assert np.array_equal(found["units"], expected["crop"][0])
    assert found["units_"].tolist() == ["1", "m"]
    # Without a choice, the first quantity is drawn: a picture shows one.
    assert np.array_equal(r.deploy(street), r.deploy(street, output="values_colour:crop.units"))
    (written,) = r.deploy_files(_save(street, tmp_path), tmp_path / "out", progress=False)
    assert written.outputs == {"values_colour:units": tmp_path / "out" / "street.png"}
    # Two outputs have a height.
    assert list(expected.values) == ["units", "crop.height", "soil.height", "wet"]
    assert np.array_equal(expected.values["soil.height"], expected["soil"][0])
    with pytest.raises(ValueError, match=r"'height' is a quantity of 2 outputs: choose crop\.height or soil\.height"):
        _ = expected.values["height"]
    assert "depth" not in expected.values
    with pytest.raises(ValueError, match=r"choose values:crop\.height or values:soil\.height"):
        r.deploy(street, output="values:height")
    assert np.array_equal(r.deploy(street, output="values:soil.height"), expected["soil"][0])


def _save(picture: npt.NDArray[np.uint8], folder: Path) -> Path:
    Image.fromarray(picture).save(folder / "street.png")
    return folder / "street.png"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limits": 5}, "limits must be a tuple of 2 values, each a number or None, not 5"),
        ({"limits": (60, 0)}, r"the first of the limits \(--limits\) must be below the second"),
        ({"scale": "two"}, "scale must be a number above 0"),
        ({"intrinsics": (0, 1, 1, 1)}, "with fx and fy above 0"),
        ({"colours": "grey"}, "Unknown options of pictures and files: colours"),
        (
            {"scale": 500},
            r"scale \(--scale\) has no effect on depth_colour \(\.png\).* depth \(\.png\), values",
        ),
        ({"intrinsics": INTRINSICS}, r"has no effect on depth_colour .* It is for cloud \(\.ply\)"),
    ],
)
def test_options_are_checked(
    model: RefineNet, street: npt.NDArray[np.uint8], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        model.deploy(street, output="depth_colour", **options)


def test_colours_have_a_bar_and_share_their_limits(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    picture = model.deploy(street, output="depth_colour", output_file=tmp_path / "d.png", limits=(0, 60))
    assert picture.shape == (street.shape[0] + STRIP_HEIGHT, street.shape[1], 3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "d.png")), picture)
    # Near is bright, far is dark, and equal depths have equal colours.
    depth, luminance = model.predict(street).depth, picture[: street.shape[0]] @ np.array([0.299, 0.587, 0.114])
    order = np.argsort(depth, axis=None)
    assert np.corrcoef(depth.ravel()[order], luminance.ravel()[order])[0, 1] < -0.9


def test_limits_are_those_of_one_unit(model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    images, kinds = _save(street, tmp_path), ["values_colour:height", "values_colour:moisture", "labels"]
    words = r"limits \(--limits\) 0,80 would apply to values_colour:height \(m\) and values_colour:moisture \(%\), "
    with pytest.raises(ValueError, match=words + "whose units differ: leave them out, or write each"):
        model.deploy_files(images, tmp_path / "out", kinds, limits=(0, 80), progress=False)
    assert not (tmp_path / "out").exists()
    metres = ["values_colour:height", "depth_colour", "values:moisture"]
    model.deploy_files(images, tmp_path / "out", metres, limits=(0, 80), progress=False)


def test_deviations_of_errors_are_written_where_they_are_predicted(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    shown = model.deploy(street, output="depth_deviation:far", output_file=tmp_path / "far.npz")
    assert np.array_equal(shown, model.predict(street).deviation("far")[0])
    assert np.array_equal(np.load(tmp_path / "far.npz")["far"], shown)
    with pytest.raises(ValueError, match="depth_deviation needs an output that predicts the scale of its errors"):
        model.deploy(street, output="depth_deviation")


def test_kinds_that_the_network_does_not_have_are_refused(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    only_depth = new_network("depth")
    with pytest.raises(ValueError, match="normals shows an output of normals, but the network has none"):
        only_depth.deploy(street, output="normals")
    with pytest.raises(
        ValueError,
        match=r"predicts no classes \(its outputs are .*\), so labels cannot be written; depth, depth_colour",
    ):
        only_depth.deploy(street, output="labels", output_file=tmp_path / "labels.png")
    with pytest.raises(
        ValueError, match=r"the network has no 'near' of this kind\. Choose depth, or one of depth:depth, depth:far"
    ):
        model.deploy(street, output="depth:near")
    with pytest.raises(ValueError, match=r"depth is written as \.png, \.tif, \.npz, not as '\.jpg'"):
        model.deploy(street, output="depth", output_file=tmp_path / "depth.jpg")


def test_a_network_without_classes_draws_its_first_output(folder: Path, street: npt.NDArray[np.uint8]) -> None:
    r = new_network("depth,normals")
    shown = r.deploy(street, output_file=folder / "street.png")
    assert np.array_equal(np.asarray(Image.open(folder / "street.png")), shown)
    assert np.array_equal(shown, r.deploy(street, output="depth_colour"))
    (first, _) = r.deploy_files(folder / "in", folder / "out", progress=False)
    assert first.outputs == {"depth_colour": folder / "out" / "a.png"}
    assert first.areas == {}
    r.deploy_large(folder / "in" / "a.png", folder / "a.tif", "depth", progress=False)
    np.testing.assert_allclose(read_raster(folder / "a.tif")[0], r.predict(street).depth, rtol=1e-5)


def test_a_folder_run_resumes_each_kind(model: RefineNet, folder: Path) -> None:
    kinds = ["labels", "depth:far", "normals"]
    first = model.deploy_files(folder / "in", folder / "out", kinds, scale=50, progress=False)
    assert [result.error for result in first] == [None, None]
    assert first[0].outputs["depth:far"] == folder / "out" / "depth_far" / "a.png"
    again = model.deploy_files(folder / "in", folder / "out", kinds, scale=50, progress=False)
    assert all(result.was_there for result in again)
    assert dict(again[0].areas) == dict(first[0].areas)
    with pytest.raises(ValueError, match="made with --scale 50 instead of --scale 25"):
        model.deploy_files(folder / "in", folder / "out", kinds, scale=25, progress=False)


def test_windows_write_what_one_window_writes(model: RefineNet, folder: Path, street: npt.NDArray[np.uint8]) -> None:
    expected = model.predict(street)
    work = plan_work([folder / "in" / "a.png"], folder / "out", ["labels", "normals", "depth_colour"])
    (found,) = model.deploy_work(work, windows=Windows(size=(256, 256)), limits=(0, 80), progress=False)
    assert found.error is None
    assert np.array_equal(read_raster(found.outputs["labels"])[0], expected.labels)
    assert np.array_equal(
        read_raster(found.outputs["normals"]).transpose(1, 2, 0), model.deploy(street, output="normals")
    )
    colours = model.deploy(street, output="depth_colour", limits=(0, 80))[: street.shape[0]]
    assert np.array_equal(read_raster(found.outputs["depth_colour"]).transpose(1, 2, 0), colours)
    work = plan_work([folder / "in" / "a.png"], folder / "other", ["labels", "values"])
    (found,) = model.deploy_work(work, windows=Windows(size=(256, 256)), progress=False)
    assert "values cannot be written in windows; labels, colour, " in str(found.error)
    for suffix in (".png", ".tif"):
        model.deploy_large(
            folder / "in" / "a.png", folder / f"depth{suffix}", "depth", window=(64, 64), overlap=0.5, progress=False
        )
        model.deploy_large(folder / "in" / "a.png", folder / f"whole{suffix}", "depth", progress=False)
    with Image.open(folder / "depth.png") as picture:
        assert picture.info["scale"] == "1000"
    # In millimetres and in metres the same, from windows; and from one window what the network says.
    blended = read_raster(folder / "depth.tif")[0]
    np.testing.assert_allclose(read_raster(folder / "depth.png")[0] / 1000, blended, atol=0.00051)
    np.testing.assert_allclose(read_raster(folder / "whole.tif")[0], expected.depth, rtol=1e-5)
    with rasterio.open(folder / "depth.tif") as dataset:
        assert dataset.dtypes == ("float32",)
        assert np.isnan(dataset.nodata)
        assert dataset.tags()["units"] == "m"
    with pytest.raises(ValueError, match="In windows, depth_colour needs the values at both ends"):
        model.deploy_large(folder / "in" / "a.png", folder / "colours.png", "depth_colour", progress=False)


def test_a_video_keeps_the_limits_of_its_first_frame(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    frames = [street, street[:, ::-1] // 2]
    video = write_video(tmp_path / "in.mkv", frames, codec="ffv1", pixels="bgr0")
    model.deploy_video(video, tmp_path / "depth.mkv", "depth_colour", progress=False)
    shown, _ = read_video(tmp_path / "depth.mkv")
    limits = tuple(float(value) for value in np.percentile(model.predict(frames[0]).depth, (2, 98)))
    for frame, drawn in zip(frames, shown, strict=True):
        expected = model.deploy(frame, output="depth_colour", limits=limits)
        assert drawn.shape[:2] == (expected.shape[0] + expected.shape[0] % 2, expected.shape[1])
        assert np.abs(drawn[: len(expected)].astype(int) - expected).mean() < 6
    model.deploy_video(video, tmp_path / "normals.mkv", "normals", progress=False)
    painted = model.deploy(frames[1], output="normals")
    assert np.abs(read_video(tmp_path / "normals.mkv")[0][1].astype(int) - painted).mean() < 6
    model.deploy_video(video, tmp_path / "frames", "depth", progress=False)
    with Image.open(tmp_path / "frames" / "000001.png") as picture:
        np.testing.assert_allclose(np.asarray(picture) / 1000, model.predict(frames[1]).depth, atol=0.00051)
    with pytest.raises(ValueError, match=r"would change depth\. Choose a folder"):
        model.deploy_video(video, tmp_path / "depth.mp4", "depth", progress=False)


def test_a_fifth_kind_is_a_row(
    monkeypatch: pytest.MonkeyPatch, model: RefineNet, street: npt.NDArray[np.uint8], folder: Path
) -> None:
    """A kind of file that nobody has built in: soil as a grey picture, registered in the table alone."""
    grey = PixelForm(
        draw=lambda values, _: (255 - values[0] * 5).clip(0, 255).astype(np.uint8), dtype="uint8", channels=1
    )
    numbers = PixelForm(draw=as_numbers, dtype="float32")
    row = OutputKind(of="regression", forms={".png": grey, ".tif": numbers})
    monkeypatch.setitem(output_kinds.OUTPUT_KINDS, "soil_grey", row)
    expected = (255 - model.predict(street).values["height"] * 5).clip(0, 255).astype(np.uint8)
    model.deploy_files(folder / "in", folder / "out", "soil_grey", progress=False)
    assert np.array_equal(np.asarray(Image.open(folder / "out" / "a.png")), expected)
    model.deploy_large(folder / "in" / "a.png", folder / "large.png", "soil_grey:height", progress=False)
    assert np.array_equal(np.asarray(Image.open(folder / "large.png")), expected)


def pack_areas(segmentation: Segmentation, image_name: str) -> bytes:
    """Name of the image, and number of pixels of each class."""
    counts = np.bincount(segmentation.labels.ravel(), minlength=3)
    return f"{image_name},{','.join(map(str, counts))}\n".encode()


def refuse() -> None:
    raise ValueError("Areas need an abacus.")


def test_a_file_of_classes_is_a_row(
    monkeypatch: pytest.MonkeyPatch, model: RefineNet, street: npt.NDArray[np.uint8], folder: Path
) -> None:
    """A kind of file for other programs, registered in the table alone."""
    row = OutputKind(suffix=".csv", media_type="text/csv", pack=pack_areas)
    monkeypatch.setitem(output_kinds.OUTPUT_KINDS, "areas", row)
    model.deploy_files(folder / "in", folder / "out", "areas", progress=False)
    counts = np.bincount(model.segment(street).labels.ravel(), minlength=3)
    assert (folder / "out" / "a.csv").read_text() == f"a.png,{counts[0]},{counts[1]},{counts[2]}\n"
    with pytest.raises(ValueError, match=r"areas is written as \.csv"):
        model.deploy_files(folder / "in" / "a.png", folder / "a.png", "areas", progress=False)
    monkeypatch.setitem(output_kinds.OUTPUT_KINDS, "areas", replace(row, require=refuse))
    with pytest.raises(ValueError, match="need an abacus"):
        model.deploy_files(folder / "in", folder / "other", "areas", progress=False)


def test_a_row_says_how_it_is_written() -> None:
    with pytest.raises(AssertionError, match="render, or pack"):
        OutputKind(suffix=".csv")


def test_the_command_line_writes_depth(
    run_refinenet: CommandLine, saved: Path, model: RefineNet, street_file: Path, tmp_path: Path
) -> None:
    options = ("--kind", "depth", "--kind", "cloud", "--scale", "500", "--intrinsics", "100,110,59.5,44.5", "--json")
    result = run_refinenet("deploy", street_file, "-m", saved, "-o", tmp_path / "out", *options)
    assert result.returncode == 0, result.stderr
    (written,) = json.loads(result.stdout)
    expected = model.predict(street_file).depth
    np.testing.assert_allclose(read_raster(Path(written["outputs"]["depth"]))[0] / 500, expected, atol=0.0011)
    assert len(read_cloud(Path(written["outputs"]["cloud"]))) == expected.size
    piped = run_refinenet("deploy", street_file, "-m", saved, "-k", "depths", "-o", "x.png")
    assert piped.returncode == 2
    assert "'depths' is not one of" in " ".join(piped.stderr.split())


def test_png_texts_survive_pillow(model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    content = model.open_renderer("depth", ".png").encode(model.predict(street))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.info["unit"] == "m"
