"""Predictions of networks with several outputs, compared with their maps."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model_parts import SMALL_DECODER
from PIL import Image

from refinenet import RefineNet
from refinenet.inference.protocol import Protocol, average_outputs
from refinenet.inference.segmenter import Segmenter
from refinenet.labels import LabelSet
from refinenet.outputs import read_outputs

OUTPUTS = "classes,depth:0.5:80,normals,soil=regression[height:m,moisture:%]"


@pytest.fixture(scope="module")
def model() -> RefineNet:
    """A network with four outputs, and values that are neither all positive nor within the range."""
    r = RefineNet(
        encoder="test_resnet",
        decoder=SMALL_DECODER,
        num_classes=3,
        outputs=OUTPUTS,
        device="cpu",
        backend="pytorch",
        seed=3,
    )
    with torch.no_grad():
        r.network.get_buffer("heads.depth.scale").fill_(40)
        r.network.get_buffer("heads.soil.offset").copy_(torch.tensor([2.0, 60.0])[:, None, None])
    return r


@pytest.fixture(scope="module")
def resized(model: RefineNet, street: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The network's maps at the size of the image, `(9, H, W)`."""
    images = torch.from_numpy(street).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        maps: npt.NDArray[np.float32] = model.network(images)[0].numpy()
    return maps


def test_each_output_has_its_channels_and_its_unit(
    model: RefineNet, street: npt.NDArray[np.uint8], resized: npt.NDArray[np.float32]
) -> None:
    found = model.predict(street)
    height, width = street.shape[:2]
    assert resized.shape == (9, height, width)
    assert np.array_equal(found.labels, model.segment(street).labels)
    assert (found.labels == resized[:3].argmax(0)).mean() > 0.999
    assert found.depth.shape == (height, width)
    assert found.depth.dtype == np.float32
    np.testing.assert_allclose(found.depth, np.abs(resized[3]).clip(0.5, 80), rtol=1e-4, atol=1e-4)
    assert found.normals.shape == (height, width, 3)
    np.testing.assert_allclose(np.linalg.norm(found.normals, axis=-1), 1, rtol=1e-5)
    expected = resized[4:7] / np.linalg.norm(resized[4:7], axis=0)
    np.testing.assert_allclose(found.normals, expected.transpose(1, 2, 0), atol=1e-4)
    assert list(found.values) == ["height", "moisture"]
    np.testing.assert_allclose(found.values["moisture"], resized[8], rtol=1e-4, atol=1e-3)
    assert np.array_equal(found["soil"][0], found.values["height"])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_backends_predict_the_same_values(
    model: RefineNet, backend: str, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    model.save(tmp_path / "model.safetensors")
    other = RefineNet(model=tmp_path / "model.safetensors", device="cpu", backend=backend)  # type: ignore[arg-type]
    found, expected = other.predict(street), model.predict(street)
    np.testing.assert_allclose(found.depth, expected.depth, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found.normals, expected.normals, atol=1e-3)
    assert (found.labels == expected.labels).mean() > 0.999


def test_a_file_keeps_outputs_and_their_units(model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    model.save(tmp_path / "model.safetensors")
    loaded = RefineNet(model=tmp_path / "model.safetensors", device="cpu", backend="pytorch")
    assert loaded.network.architecture == model.network.architecture
    assert np.array_equal(loaded.predict(street).depth, model.predict(street).depth)


def test_a_model_with_other_outputs_keeps_all_that_it_has(
    model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    model.save(tmp_path / "model.safetensors")
    outputs = "normals,classes,depth,wet=regression[moisture:%]"
    changed = RefineNet(model=tmp_path / "model.safetensors", outputs=outputs, device="cpu", backend="pytorch")
    assert [spec.to_text() for spec in changed.card.architecture.outputs] == [
        "normals",
        "classes",
        "depth:0.5:80.0",
        "wet=regression[moisture:%]",
    ]
    assert changed.label_set == model.label_set
    before, after = model.predict(street), changed.predict(street)
    assert np.array_equal(before.labels, after.labels)
    assert np.array_equal(before.depth, after.depth)
    assert np.array_equal(before.normals, after.normals)
    assert after.values["moisture"].std() > 0
    again = RefineNet(model=tmp_path / "model.safetensors", outputs=outputs, device="cpu", backend="pytorch")
    assert np.array_equal(again.predict(street).values["moisture"], after.values["moisture"])


def test_pixels_without_data_have_no_value(model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    alpha = np.full(street.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.dstack([street, alpha])).save(tmp_path / "cut.png")
    found = model.predict(tmp_path / "cut.png")
    assert np.isnan(found.depth[:20]).all()
    assert np.isfinite(found.depth[20:]).all()
    assert np.isnan(found.normals[:20]).all()


def test_a_network_without_classes(street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    r = RefineNet(encoder="test_resnet", outputs="depth", device="cpu", backend="pytorch")
    r.save(tmp_path / "depth.safetensors")
    r = RefineNet(model=tmp_path / "depth.safetensors", device="cpu", backend="pytorch")
    found = r.predict(street)
    assert found.depth.shape == street.shape[:2]
    assert found.segmentation is None
    with pytest.raises(ValueError, match=r"no output of classes: its outputs are depth \(depth\)"):
        _ = found.labels
    with pytest.raises(ValueError, match="The network predicts no classes, but depth: call predict instead of segment"):
        r.segment(street)
    with pytest.raises(ValueError, match="no output of normals"):
        _ = found.normals


def test_scales_and_mirroring_average_what_values_mean() -> None:
    """A network that sees depth inversely to the image's size, and normals that point where brightness grows."""
    outputs = read_outputs("classes,depth,normals")

    def forward(images: torch.Tensor) -> torch.Tensor:
        size = images.shape[-1]
        slope = images[:, :1, :, -1:].mean() - images[:, :1, :, :1].mean()
        maps = [images[:, :1], torch.full_like(images[:, :1], 640 / size), torch.ones_like(images) * slope.sign()]
        return torch.cat(maps, 1)

    image = torch.linspace(0, 1, 64)[None, None, None].expand(1, 3, 48, 64).contiguous()
    found = average_outputs(forward, image, Protocol(scales=(0.5, 1.0, 2.0), flip=True), 1.0, outputs, 1)
    torch.testing.assert_close(found[1], torch.full((48, 64), 10.0))
    torch.testing.assert_close(found[2], torch.ones(48, 64))  # x: mirrored back with its sign
    torch.testing.assert_close(found[3:], torch.zeros(2, 48, 64))  # y and z keep theirs, which here cancel


def test_copies_predict_the_same(model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    assert np.array_equal(copy.deepcopy(model).predict(street).depth, model.predict(street).depth)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ("", "is not an output"),
        ("colour", "The kind of an output must be one of classes, depth, normals, regression, not 'colour'"),
        ("depth,depth", "Each output needs its own name"),
        ("classes,b=classes", "A network can have only one output of classes"),
        ("depth:80:0.5", "A range must be two numbers of metres"),
        ("depth:a:b", "A range must be two numbers, such as depth:0.5:80, not 'a'"),
        ("regression", "must name 1 to 64 different quantities"),
        ("regression[a,a]", "must name 1 to 64 different quantities"),
        ("normals:0:1", "has no range"),
        ("depth[a]", "has no named quantities"),
        ("Depth=depth", "The name of an output must have 1 to 40 letters"),
    ],
)
def test_outputs_that_are_not_valid_are_refused(outputs: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RefineNet(encoder="test_resnet", outputs=outputs, device="cpu")


def test_the_scale_of_errors_is_predicted_in_the_unit_of_the_values(street: npt.NDArray[np.uint8]) -> None:
    """A Laplace distribution has a standard deviation of the root of 2 times its scale, a normal one of its scale."""
    outputs = "depth~laplace:0.5:80,soil=regression~gaussian[height:m,moisture:%]"
    r = RefineNet(encoder="test_resnet", outputs=outputs, device="cpu", backend="pytorch", seed=3)
    small = street[:64, :96]
    plain = r.predict(small)
    with torch.no_grad():
        r.network.get_buffer("heads.depth.scale").fill_(40)
        r.network.get_buffer("heads.soil.scale").copy_(torch.tensor([2.0, 60.0])[:, None, None])
    found = r.predict(small)
    with torch.inference_mode():
        maps = r.network(torch.from_numpy(small).permute(2, 0, 1)[None] / 255)[0].numpy()
    assert maps.shape == (6, 64, 96)
    np.testing.assert_allclose(found.depth, np.abs(maps[0]).clip(0.5, 80), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.deviation("depth")[0], np.sqrt(2) * np.exp(maps[1]), rtol=1e-4)
    np.testing.assert_allclose(found.deviation("depth"), 40 * plain.deviation("depth"), rtol=1e-4)
    np.testing.assert_allclose(found.values["height"], maps[2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.deviation("soil"), np.exp(maps[4:]), rtol=1e-4)
    larger = r._segmenter.under(Protocol(scales=(2.0,))).predict_outputs(small)
    with torch.inference_mode():
        enlarged = torch.nn.functional.interpolate(
            torch.from_numpy(small).permute(2, 0, 1)[None] / 255, scale_factor=2, mode="bilinear", antialias=True
        )
        scale = torch.nn.functional.interpolate(r.network(enlarged), (64, 96), mode="bilinear")[0, 1].exp().numpy()
    # What looks twice as large is half as far, and so are the errors.
    np.testing.assert_allclose(larger.deviation("depth")[0], 2 * np.sqrt(2) * scale, rtol=0.01)


def test_an_output_without_a_likelihood_has_no_deviation(model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"uncertainty of the output 'depth': train .* depth~laplace:0\.5:80"):
        model.predict(street).deviation("depth")
    with pytest.raises(ValueError, match="no likelihood"):
        read_outputs("normals~laplace")
    with pytest.raises(ValueError, match="one of laplace, gaussian, as in depth~laplace, not 'cauchy'"):
        read_outputs("depth~cauchy")
    (spec,) = read_outputs("far=depth~gaussian:1:9")
    assert read_outputs(spec.to_text()) == read_outputs([spec.to_dict()]) == (spec,)


def test_models_and_predictions_describe_themselves(model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    found = model.predict(street)
    new = RefineNet(encoder="test_resnet", num_classes=3, outputs=OUTPUTS, device="cpu", backend="pytorch")
    assert repr(new) == (
        "RefineNet(lightweight, test_resnet, 3 classes, outputs depth:0.5:80.0, normals, "
        "soil=regression[height:m,moisture:%], untrained, cpu, pytorch, float32)"
    )
    assert repr(found) == "Prediction(120x90, outputs: classes, depth, normals, soil (regression))"
    assert found.segmentation is not None
    name, share = max(found.areas.items(), key=lambda item: item[1])
    assert repr(found.segmentation).startswith(f"Segmentation(120x90, 3 classes: {name} {100 * share:.0f} %")
    shown = np.asarray(Image.open(io.BytesIO(found._repr_png_() or b"")))
    assert np.array_equal(shown[:90], found.segmentation.overlay)
    assert len(shown) > 90  # the legend


class CloseCalls:
    """A network whose class probabilities are all equal in float16."""

    device = torch.device("cpu")

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return 1e-5 * np.random.default_rng(1).random((1, 4, *images.shape[-2:]), np.float32)


def test_the_label_has_the_greatest_probability_even_where_float16_rounds_it_away() -> None:
    segmenter = Segmenter(CloseCalls(), LabelSet.numbered(4))
    found = segmenter.segment(np.zeros((48, 64, 3), np.uint8))
    assert len(np.unique(found.labels)) == 4
    assert (found.probabilities.argmax(0) == found.labels).all()
    assert np.abs(found.probabilities.astype(float) - 0.25).max() < 1e-3
