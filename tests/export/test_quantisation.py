"""Int8 stays within the bound that it is given, puts back into float what ruins it, and says so."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
import torch
import warm_start
from openvino import opset13 as operations

from refinenet import RefineNet
from refinenet.datasets.catalog import Sample
from refinenet.datasets.street_scenes import draw_street
from refinenet.export.quantisation.bounds import Scores, as_input, measure_on
from refinenet.export.quantisation.int8 import Quantised, quantise, save
from refinenet.inference.backends.translation.openvino_conversion import convert_program
from refinenet.models.inference_graph import without_changes_in_place
from refinenet.models.network import Network

SIZES = [(64, 96), (61, 83), (72, 80)]
"""Heights and widths of the calibration images."""
CALIBRATION = [as_input(draw_street(100 + seed, *size)[0]) for seed, size in enumerate(SIZES)]
SAMPLES = [
    Sample(name=str(seed), image=pixels, labels=labels)
    for seed, (pixels, labels) in enumerate(draw_street(seed, 120, 160) for seed in range(4))
]


def translate(network: Network) -> Any:
    free = torch.export.Dim.DYNAMIC
    shapes = {"images": {0: free, 2: free, 3: free}}
    traced = without_changes_in_place(copy.deepcopy(network).eval())
    return convert_program(torch.export.export(traced, (torch.zeros(2, 3, 65, 97),), dynamic_shapes=shapes))


def answers(model: Any) -> list[npt.NDArray[Any]]:
    run = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [run([as_input(sample.image)])[0].copy() for sample in SAMPLES]


def agreement(first: Any, second: Any) -> float:
    pairs = zip(answers(first), answers(second), strict=True)
    return float(np.mean([(a.argmax(1) == b.argmax(1)).mean() for a, b in pairs]))


def miou_drop(found: Quantised) -> float:
    assert found.before.miou is not None
    assert found.after.miou is not None
    return found.before.miou - found.after.miou


def count_quantisers(model: Any) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def spoil(model: Any) -> Any:
    """The same function, with one channel a thousand times as large: one scale for all leaves nothing of the others.

    The channel is one of the sixteen of MobileNetV2's first block, which have no activation behind them and one reader.
    """
    spoilt = model.clone()
    first, second = (find_convolution(spoilt, shape) for shape in ([16, 32, 1, 1], [96, 16, 1, 1]))
    bias = next(iter(first.output(0).get_target_inputs())).get_node()
    for node, channel, factor in ((first, (2,), 1e3), (bias, (0, 2), 1e3), (second, (slice(None), 2), 1e-3)):
        values = node.input_value(1).get_node().get_data().copy()
        values[channel] *= factor
        node.input(1).replace_source_output(operations.constant(values).output(0))
    return spoilt


def find_convolution(model: Any, shape: list[int]) -> Any:
    nodes = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    (found,) = [node for node in nodes if list(node.input_value(1).get_shape()) == shape]
    return found


@pytest.fixture(scope="module")
def measure(camvid_model: RefineNet) -> Callable[[Any], Scores]:
    return measure_on(SAMPLES, camvid_model.label_set)


@pytest.fixture(scope="module")
def model(camvid_model: RefineNet) -> Any:
    return translate(camvid_model.network)


@pytest.fixture(scope="module")
def plain(model: Any, measure: Callable[[Any], Scores]) -> Quantised:
    return quantise(model, iter(CALIBRATION), measure, max_drop=0.05)


def test_all_of_the_bundled_model_can_be_int8(model: Any, plain: Quantised) -> None:
    assert plain.kept == ()
    assert count_quantisers(plain.model) > 50
    assert count_quantisers(model) == 0
    assert miou_drop(plain) <= 0.05
    assert agreement(model, plain.model) > 0.95


def test_the_figures_are_those_of_the_measure(
    model: Any, plain: Quantised, measure: Callable[[Any], Scores], camvid_model: RefineNet
) -> None:
    assert plain.before.miou == pytest.approx(measure(model).miou)
    assert plain.after.miou == pytest.approx(measure(plain.model).miou)
    truth, found = [], []
    for sample, logits in zip(SAMPLES, answers(model), strict=True):
        truth.append(sample.labels.ravel())
        found.append(logits.argmax(1).ravel())
    true, predicted = np.concatenate(truth), np.concatenate(found)
    counted = true != camvid_model.label_set.ignore_index
    true, predicted = true[counted], predicted[counted]
    classes = np.union1d(true, predicted)
    ious = [((true == k) & (predicted == k)).sum() / ((true == k) | (predicted == k)).sum() for k in classes]
    assert plain.before.miou == pytest.approx(np.mean(ious))


def test_what_ruins_the_labels_goes_back_into_float_and_is_named(
    model: Any, measure: Callable[[Any], Scores], capfd: pytest.CaptureFixture[str]
) -> None:
    spoilt = spoil(model)
    assert agreement(model, spoilt) > 0.999
    ruined = quantise(spoilt, CALIBRATION, measure, max_drop=1.0)
    assert ruined.kept == ()
    assert miou_drop(ruined) > 0.05
    capfd.readouterr()
    mended = quantise(spoilt, CALIBRATION, measure, max_drop=0.04)
    assert capfd.readouterr().out == ""
    assert miou_drop(mended) <= 0.04
    assert mended.after.miou == pytest.approx(measure(mended.model).miou)
    assert "16 to 96 channels, 1x1" in mended.kept[0]
    assert len(mended.kept) <= 3
    assert count_quantisers(mended.model) >= count_quantisers(ruined.model) - 3
    assert agreement(model, mended.model) > 0.95


def test_a_bound_that_cannot_be_met_is_refused(model: Any) -> None:
    image = np.zeros((1, 3, 32, 32), np.float32)
    with pytest.raises(ValueError, match=r"No int8 model is within 0\.01 .* Allow a larger drop"):
        quantise(model, [image], lambda found: float(count_quantisers(found) == 0), max_drop=0.01)


@pytest.mark.parametrize("bound", [-0.001, 1.5, float("nan")])
def test_a_bound_that_is_no_share_is_refused(model: Any, bound: float) -> None:
    with pytest.raises(ValueError, match="max_drop must be from 0 to 1"):
        quantise(model, CALIBRATION, lambda _: 0.5, max_drop=bound)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([], "no calibration images"),
        ([*CALIBRATION, (CALIBRATION[0] * 255).astype(np.uint8)], r"image 3 .* is uint8 \(1, 3, 64, 96\)"),
        ([CALIBRATION[0] * 255], "divide 8-bit values by 255"),
        ([CALIBRATION[0] * np.float32(np.nan)], r"outside \[0, 1\]"),
        ([CALIBRATION[0][0]], r"not a float32 array \(1, 3, H, W\)"),
        ([CALIBRATION[0][:, :, :0]], "no pixels"),
        (["street.jpg"], "is str"),
    ],
)
def test_unfit_calibration_images_are_refused(model: Any, images: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        quantise(model, images, lambda _: 0.5)


def test_images_of_a_size_that_the_model_does_not_take_are_refused(model: Any) -> None:
    fixed = model.clone()
    fixed.reshape([1, 3, 64, 96])
    with pytest.raises(ValueError, match=r"image 1 .* \(1, 3, 61, 83\), but the model takes \[1,3,64,96\]"):
        quantise(fixed, CALIBRATION, lambda _: 0.5)


def test_an_int8_model_is_not_quantised_again(plain: Quantised) -> None:
    with pytest.raises(ValueError, match="already quantised"):
        quantise(plain.model, CALIBRATION, lambda _: 0.5)


def test_a_measure_without_a_figure_is_refused(model: Any, camvid_model: RefineNet) -> None:
    nothing = np.full((96, 128), camvid_model.label_set.ignore_index, np.uint8)
    unlabelled = Sample(name="void", image=draw_street(0, 96, 128)[0], labels=nothing)
    with pytest.raises(ValueError, match="measure it on images with ground truth"):
        quantise(model, CALIBRATION, measure_on([unlabelled], camvid_model.label_set))


def test_a_saved_model_gives_the_same_answers_from_a_quarter_of_the_bytes(
    model: Any, plain: Quantised, tmp_path: Path
) -> None:
    float_paths, int8_paths = save(model, tmp_path / "float.xml"), save(plain.model, tmp_path / "new" / "int8.xml")
    assert [path.name for path in int8_paths] == ["int8.xml", "int8.bin"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["int8.bin", "int8.xml"]
    assert int8_paths[1].stat().st_size < 0.3 * float_paths[1].stat().st_size
    read = openvino.Core().read_model(int8_paths[0])
    assert agreement(read, plain.model) == 1.0


def test_only_xml_is_written(plain: Quantised, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written as "):
        save(plain.model, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_labels_are_measured_like_logits(model: Any, measure: Callable[[Any], Scores]) -> None:
    labelled = model.clone()
    logits = labelled.outputs[0].get_node().input_value(0)
    labels = operations.topk(logits, operations.constant(1), 1, "max", "value", index_element_type="i32").output(1)
    assert measure(openvino.Model([labels], labelled.get_parameters(), "labels")) == pytest.approx(measure(model))


def test_no_usage_data_is_sent() -> None:
    program = (
        "import os;from refinenet.export.quantisation.int8 import require_nncf;require_nncf();"
        "assert 'NNCF_CI' not in os.environ;"
        "from nncf.telemetry import wrapper; print(isinstance(wrapper.telemetry, wrapper.NNCFTelemetry))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NNCF")}
    done = warm_start.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "False", done.stderr
