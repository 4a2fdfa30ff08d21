"""Deployment of networks for images of named bands: files, windows, scales, large images and exports agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from band_scenes import BANDS, draw_scene, write_folder, write_tiff
from conftest import CommandLine
from PIL import Image
from torch.nn import functional

from refinenet import RefineNet
from refinenet.inference.protocol import Protocol
from refinenet.io.images.bands import read_bands
from refinenet.labels import LabelMap

SCENE = draw_scene(3, 70, 90)[0]


@pytest.fixture(scope="module")
def model() -> RefineNet:
    network = RefineNet(encoder="test_resnet", num_classes=3, bands=BANDS, device="cpu")
    network._untrained = None
    return network


@pytest.fixture(scope="module")
def expected(model: RefineNet) -> LabelMap:
    """Labels by the network itself, on an image scaled by hand."""
    return model._segmenter.predict(_scaled())


def _tiff(folder: Path) -> Path:
    pytest.importorskip("rasterio")
    write_tiff(folder / "scene.tif", SCENE)
    return folder / "scene.tif"


def test_files_and_pictures(model: RefineNet, expected: LabelMap, tmp_path: Path) -> None:
    tiff = _tiff(tmp_path)
    found = model.segment(tiff)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.overlay.shape == (70, 90, 3)
    np.testing.assert_array_equal(found.image, SCENE[..., :3].astype(np.uint8))
    turned = np.ascontiguousarray(SCENE[..., ::-1])
    np.testing.assert_array_equal(model.segment(turned, bands=(5, 4, 3, 2, 1)).labels, expected)
    (written,) = model.deploy_files(tmp_path, output=tmp_path / "out", progress=False)
    assert written.error is None
    limited = model.segment(tiff, max_latency_ms=1e6)
    assert (limited.labels == expected).mean() > 0.99  # full scale, by the fastest backend


def test_the_image_of_a_network_without_classes_is_a_picture() -> None:
    network = RefineNet(encoder="test_resnet", outputs="depth", bands=BANDS, device="cpu", backend="pytorch")
    with pytest.warns(UserWarning, match="untrained"):
        found = network.predict(SCENE)
    np.testing.assert_array_equal(found.image, SCENE[..., :3].astype(np.uint8))
    assert found.image.dtype == np.uint8


def test_arrays_of_a_folder(model: RefineNet, expected: LabelMap, tmp_path: Path) -> None:
    """Images of networks of named bands; others say that they skip them."""
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "scene.npy", SCENE)
    for source in (tmp_path / "in", tmp_path / "in" / "*.npy"):
        (written,) = model.deploy_files(source, tmp_path / f"out-{source.name[:2]}", progress=False)
        np.testing.assert_array_equal(_read(written.outputs["labels"]), expected)
    plain = RefineNet(encoder="test_resnet", num_classes=3, device="cpu", backend="pytorch")
    plain._untrained = None
    with pytest.raises(ValueError, match=r"holds no images .* with named bands, and are skipped: scene\.npy\."):
        plain.deploy_files(tmp_path / "in", tmp_path / "none", progress=False)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    with pytest.warns(UserWarning, match=r"and are skipped: scene\.npy\."):
        (written,) = plain.deploy_files(tmp_path / "in", tmp_path / "plain", progress=False)
    assert written.image.name == "a.png"


def test_windows_of_a_large_image(model: RefineNet, tmp_path: Path) -> None:
    tiff = _tiff(tmp_path)
    whole = model.deploy_large(tiff, tmp_path / "whole.png", window=(96, 96), progress=False)
    assert whole.size == (70, 90)
    model.deploy_large(tiff, tmp_path / "parts.png", window=(64, 64), progress=False)
    protocol = Protocol(window=(64, 64))
    blended = model._segmenter.under(protocol).predict(_scaled())
    np.testing.assert_array_equal(_read(tmp_path / "whole.png"), model.segment(tiff).labels)
    assert (_read(tmp_path / "parts.png") == blended).mean() > 0.99
    both = model._segmenter.under(Protocol(scales=(1.0, 0.5), flip=True)).predict(_scaled())
    assert (both == _average(model)).mean() > 0.99


def _average(model: RefineNet) -> npt.NDArray[np.int64]:
    """Labels by the mean of the probabilities at two scales, each with and without mirroring, by hand."""
    image = torch.from_numpy(_scaled()).permute(2, 0, 1)[None]
    total = torch.zeros(3, 70, 90)
    for size in ((70, 90), (35, 45)):
        resized = functional.interpolate(image, size, mode="bilinear", antialias=True)
        for mirrored in (False, True):
            with torch.inference_mode():
                logits = model.network(resized.flip(-1) if mirrored else resized)
            logits = logits.flip(-1) if mirrored else logits
            total += functional.interpolate(logits, (70, 90), mode="bilinear")[0].softmax(0)
    labels: npt.NDArray[np.int64] = total.argmax(0).numpy()
    return labels


def test_what_is_refused(model: RefineNet, tmp_path: Path) -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="takes 5 bands: red, green, blue, nir, height; The array has 3"):
        model.segment(rgb)
    with pytest.raises(ValueError, match="as many band numbers"):
        model.segment(SCENE, bands=(3, 2, 1))
    with pytest.raises(ValueError, match="its own range"):
        model.segment(SCENE, value_range=(0, 100))
    with pytest.raises(ValueError, match="Videos have RGB frames"):
        model.deploy_video("clip.mp4", tmp_path / "clip.mp4")
    (tmp_path / "bands.yaml").write_text("images: [red]\nnir: [nir]\n")
    with pytest.raises(FileNotFoundError, match=r"bands\.yaml declares 'images'"):
        model.deploy_files(tmp_path, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="in the order of the model"):
        model.segment(SCENE, channel_order="bgr")
    with pytest.raises(ValueError, match="has 5"):
        RefineNet(encoder="test_resnet", bands="red", device="cpu").deploy_large(_tiff(tmp_path), tmp_path / "o.png")


def test_bands_in_several_files_are_those_of_one(model: RefineNet, tmp_path: Path, call_refinenet: CommandLine) -> None:
    """A folder whose bands.yaml spreads the bands over several folders, also after one of the files has changed."""
    root, out = tmp_path / "fields", tmp_path / "out"
    for name, channels in (("rgb", slice(0, 3)), ("nir", slice(3, 4)), ("height", slice(4, 5))):
        (root / name / "deep").mkdir(parents=True)
        for item in ("a", "deep/b"):
            np.save(root / name / f"{item}.npy", SCENE[..., channels])
    (root / "bands.yaml").write_text("rgb: [red, green, blue]\nnir: [nir]\nheight: [height]\n")
    model.save(tmp_path / "bands.safetensors")
    command = ("deploy", root, "-o", out, "--model", tmp_path / "bands.safetensors", "--device", "cpu")
    assert call_refinenet(*command).returncode == 0
    expected = model.segment(SCENE).labels
    for item in ("a", "deep/b"):
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"{item}.png")), expected)
    darker = SCENE[..., 3:4] // 2
    np.save(root / "nir" / "a.npy", darker)
    found = model.deploy_files(root, out, progress=False)
    assert [each.was_there for each in found] == [False, True]
    changed = np.concatenate([SCENE[..., :3], darker, SCENE[..., 4:]], -1)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a.png")), model.segment(changed).labels)
    (root / "height" / "deep" / "b.npy").unlink()
    (lost,) = (each for each in model.deploy_files(root, tmp_path / "new", progress=False) if each.error is not None)
    assert "has no file for the image deep/b" in str(lost.error)
    with pytest.raises(ValueError, match="cannot be segmented in windows"):
        raise next(e.error for e in model.deploy_files(root, tmp_path / "t", suffix=".tif", progress=False) if e.error)


def test_an_export_answers_the_same(model: RefineNet, expected: LabelMap, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "bands.onnx"
    folder = write_folder(tmp_path / "scenes", 2)
    certificate = model.export(path, dataset=folder, sizes=[(32, 40)], progress=False)
    assert certificate.graph["input"]["shape"] == ["N", 5, "H", "W"]
    exported = RefineNet(model=path)
    assert exported.card.architecture.bands == read_bands(BANDS)
    found = exported.segment(_tiff(tmp_path))
    assert (found.labels == expected).mean() > 0.999
    with pytest.raises(ValueError, match="takes 5 bands"):
        exported.segment(np.zeros((8, 8, 3), np.uint8))


def _scaled() -> npt.NDArray[np.float32]:
    low, high = np.array([band.range for band in read_bands(BANDS)]).T
    scaled: npt.NDArray[np.float32] = np.clip((SCENE - low) / (high - low), 0, 1).astype(np.float32)
    return scaled


def _read(path: Path) -> LabelMap:
    return np.asarray(Image.open(path))
