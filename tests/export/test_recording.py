"""Int8 that travels with the weights: NNCF's graph from the record alone, and the same labels wherever it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
import torch
from model_parts import SMALL_DECODER, Parts, narrow_network
from translations import translated

from refinenet import RefineNet
from refinenet.cli.quantise import quantise as quantise_command
from refinenet.datasets.catalog import open_dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.export.quantisation.bounds import as_input
from refinenet.export.quantisation.int8 import quantise
from refinenet.export.quantisation.recording import read_quantisation
from refinenet.inference.backends import list_backends
from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.int8 import apply_record, check_difference, round_weights
from refinenet.inference.backends.translation.openvino_conversion import convert_program
from refinenet.models.files.int8_record import Int8Record
from refinenet.models.inference_graph import network_to_deploy, trace

STREETS = "streets:4:64x48"
IMAGE = draw_street(11, 61, 83)[0]


def make() -> RefineNet:
    """A network whose channels differ widely, with a bias in each convolution of the encoder."""
    small: dict[str, Any] = {"model_type": "lightweight", "encoder": "test_resnet", "decoder": SMALL_DECODER}
    r = RefineNet(num_classes=11, device="cpu", backend="pytorch", seed=3, **small)
    r.label_set = open_dataset(STREETS)("val").label_set
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in r.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.1)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
        r.network.classifier.weight.mul_(30)
    return r


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that `refinenet quantise` has prepared."""
    path = tmp_path_factory.mktemp("int8") / "small.safetensors"
    make().save(path)
    quantise_command(model=str(path), dataset=STREETS, max_drop=1.0, as_json=True)
    return path


def run(model: Any) -> npt.NDArray[np.float32]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found: npt.NDArray[np.float32] = openvino.Core().compile_model(model, "CPU", settings)([as_input(IMAGE)])[1].copy()
    return found


def test_a_record_rebuilds_the_graph_of_nncf() -> None:
    deployed = network_to_deploy(make().network)
    model = convert_program(trace(deployed))
    model.reshape([-1, 3, -1, -1])
    by_nncf = quantise(model, [as_input(draw_street(seed, 48, 64)[0]) for seed in range(3)], lambda _: 0.5).model
    maps, layers = read_quantisation(by_nncf, model, deployed.network)
    record = Int8Record(network_sha256="0" * 64, maps=maps, layers=layers, difference=0.0)
    stored = Int8Record.from_dict(json.loads(json.dumps(record.to_dict())))
    assert stored == record
    rebuilt, expected = run(apply_record(model, stored, deployed.network)), run(by_nncf)
    assert not np.array_equal(expected, run(model))
    np.testing.assert_array_equal(rebuilt, expected)
    unknown = replace(maps[0], node="0" * 16)
    with pytest.raises(BackendError, match=r"other operations than here.*quantise it again"):
        apply_record(model, replace(record, maps=(unknown, *maps[1:])), deployed.network)
    too_many = replace(maps[0], low=(0.0,) * 7, high=(1.0,) * 7)
    with pytest.raises(BackendError, match="quantise it again"):
        apply_record(model, replace(record, maps=(too_many, *maps[1:])), deployed.network)
    wrong = replace(layers[0], correction=(1.0,) * 7)
    with pytest.raises(BackendError, match="quantise it again"):
        apply_record(model, replace(record, layers=(wrong, *layers[1:])), deployed.network)


def test_a_prepared_model_needs_no_image_and_agrees_with_its_export(file: Path, tmp_path: Path) -> None:
    r = RefineNet(model=file, device="cpu", precision="int8")
    r.export(tmp_path / "small.xml", precision="int8", sizes=[(48, 64)], progress=False)
    exported = RefineNet(model=tmp_path / "small.xml")
    labels = r.segment(IMAGE).labels
    np.testing.assert_array_equal(exported.segment(IMAGE).labels, labels)
    in_float = RefineNet(model=file, device="cpu", backend="pytorch").segment(IMAGE)
    assert 0.5 < (in_float.labels == labels).mean() < 1
    assert len(np.unique(labels)) > 2
    certificate = json.loads((tmp_path / "small.xml.certificate.json").read_text())
    assert certificate["precision"] == "int8"
    weights = (tmp_path / "small.bin").stat().st_size
    assert weights < 0.4 * sum(values.nbytes for values in r.network.state_dict().values())


def test_the_file_states_images_and_scores(file: Path) -> None:
    record = RefineNet(model=file, device="cpu", backend="pytorch").card.int8
    assert record is not None
    assert record.scores["dataset"].startswith("streets")
    assert (record.scores["images"], record.scores["calibration_images"]) == (4, 4)
    assert 0 < record.scores["miou_after"] < 1
    assert 0 < record.difference < 0.2
    assert record.made["nncf"]


def test_a_model_that_was_not_prepared_is_refused(tmp_path: Path) -> None:
    plain = make()
    plain.save(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="says nothing about int8: `refinenet quantise"):
        RefineNet(model=tmp_path / "plain.safetensors", device="cpu", precision="int8")
    with pytest.raises(ValueError, match="pytorch does not support int8"):
        RefineNet(model=tmp_path / "plain.safetensors", device="cpu", backend="pytorch", precision="int8")
    with pytest.raises(ValueError, match=r"pass dataset .*or a model file that `refinenet quantise` has prepared"):
        plain.export(tmp_path / "plain.xml", precision="int8")


def test_changed_weights_are_not_run_and_not_saved_with_the_record(file: Path, tmp_path: Path) -> None:
    r = RefineNet(model=file, device="cpu", precision="int8")
    r.save(tmp_path / "same.safetensors")
    assert RefineNet(model=tmp_path / "same.safetensors", device="cpu", backend="pytorch").card.int8 == r.card.int8
    with torch.no_grad():
        r.network.classifier.weight.add_(1)
    with pytest.raises(ValueError, match="weights have changed since the network was quantised"):
        r.segment(IMAGE)
    r.save(tmp_path / "changed.safetensors")
    assert RefineNet(model=tmp_path / "changed.safetensors", device="cpu", backend="pytorch").card.int8 is None


def test_a_graph_further_from_pytorch_than_the_record_says_is_refused(file: Path) -> None:
    record = RefineNet(model=file, device="cpu", backend="pytorch").card.int8
    assert record is not None
    network, graph = narrow_network(), translated(narrow_network())
    check_difference(network, graph, replace(record, difference=0.0))
    with torch.no_grad():
        network.classifier.weight[0].neg_()
    with pytest.raises(BackendError, match=r"differs from the float one by .* where it was quantised"):
        check_difference(network, graph, replace(record, difference=0.0))


def test_the_hash_of_the_header_covers_the_record(file: Path, tmp_path: Path) -> None:
    parts = Parts.read(file)
    parts.ours["int8"]["maps"].pop()
    parts.write_texts(tmp_path / "changed.safetensors", json.dumps(parts.ours))
    with pytest.raises(ValueError, match="it is damaged: its header has the SHA-256"):
        RefineNet(model=tmp_path / "changed.safetensors", device="cpu", backend="pytorch")


def test_latency_budgets_try_int8_of_a_prepared_model(file: Path) -> None:
    network = RefineNet(model=file, device="cpu", backend="pytorch").network
    assert ("openvino", "int8") in list(list_backends(network, "openvino", has_int8=True))
    assert ("openvino", "int8") not in list(list_backends(network, "openvino"))


def test_weights_are_rounded_by_channel() -> None:
    weights = np.array([[1.27, -0.5], [0.0127, 0.0064], [0.001, 0.0]], np.float32)[:, :, None, None]
    rounded, scale = round_weights(weights, 1)
    # The third channel has a range of a hundredth of the largest: NNCF's bound.
    np.testing.assert_array_equal(rounded[:, :, 0, 0], [[127, -50], [127, 64], [10, 0]])
    np.testing.assert_allclose(scale.flatten(), [0.01, 0.0001, 0.0001], rtol=1e-6)
    halved, wider = round_weights(weights, 2)
    assert np.abs(halved).max() in (63, 64)  # 63.5, rounded
    np.testing.assert_allclose(wider, 2 * scale)
