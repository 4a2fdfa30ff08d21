"""Exports of networks with several outputs: one street, one answer in every format, for every output."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
from dense_network import OUTPUTS, new_network

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, Sample
from refinenet.datasets.street_scenes import draw_street
from refinenet.export.formats.table import FORMATS
from refinenet.export.metadata import GraphMetadata, describe
from refinenet.export.output_scores import OutputScores, relative_rise
from refinenet.export.parity import ParityReport, ParityTolerance, Scored, compare, run_in_pytorch, to_images
from refinenet.export.quantisation.bounds import DropBounds, Scores, measure_on
from refinenet.inference.protocol import Protocol
from refinenet.models.inference_graph import DeployedNetwork, list_results, network_to_deploy, trace
from refinenet.outputs import read_outputs

RUN_HERE = [suffix for suffix, each in FORMATS.items() if not each.has_fixed_shape]
"""Formats but those of TensorRT, which only GPUs run."""
NAMES = ["labels", "logits", "depth", "normals", "soil", "far", "far_deviation", "maps"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def model() -> RefineNet:
    return new_network()


@pytest.fixture(scope="module")
def written(model: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network in each format, from one trace."""
    folder = tmp_path_factory.mktemp("written")
    program, metadata = trace(network_to_deploy(model.network)), describe(model.network, model.card)
    for suffix in RUN_HERE:
        if suffix != ".onnx":
            FORMATS[suffix].write(program, metadata, folder / f"net{suffix}")
    # What Triton reads is an ONNX file like any other; writing it once more would take a minute.
    shutil.copy(folder / "net.triton" / "net" / "1" / "model.onnx", folder / "net.onnx")
    return folder


def images_of(street: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return to_images([street])


@pytest.mark.parametrize("suffix", RUN_HERE)
def test_every_format_gives_every_output(
    model: RefineNet, written: Path, suffix: str, street: npt.NDArray[np.uint8]
) -> None:
    found = dict(zip(NAMES, FORMATS[suffix].open(written / f"net{suffix}")(images_of(street)), strict=True))
    expected = model.predict(street)
    assert found["labels"].shape == (1, *street.shape[:2])
    assert (found["labels"][0] == expected.labels).mean() > 0.999
    np.testing.assert_allclose(found["depth"][0, 0], expected.depth, rtol=1e-4)
    np.testing.assert_allclose(found["far"], expected["far"][None], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["far_deviation"][0], expected.deviation("far"), rtol=1e-4)
    np.testing.assert_allclose(found["normals"][0].transpose(1, 2, 0), expected.normals, atol=1e-4)
    np.testing.assert_allclose(found["soil"][0, 1], expected.values["moisture"], rtol=1e-4)


def test_plain_onnx_runtime_gives_depth_in_metres(
    model: RefineNet, written: Path, street: npt.NDArray[np.uint8]
) -> None:
    session = onnxruntime.InferenceSession(written / "net.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == NAMES
    assert session.get_outputs()[2].shape == ["batch", 1, "height", "width"]
    (depth,) = session.run(["depth"], {"images": images_of(street)})
    np.testing.assert_allclose(depth[0, 0], model.predict(street).depth, rtol=1e-4)
    said = json.loads(session.get_modelmeta().custom_metadata_map["outputs"])
    assert [(output["name"], output["units"]) for output in said] == [
        ("depth", ["m"]),
        ("normals", [""]),
        ("soil", ["m", "%"]),
        ("far", ["m"]),
        ("far_deviation", ["m"]),
    ]


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_a_file_that_is_read_back_predicts_the_same(
    model: RefineNet, written: Path, name: str, street: npt.NDArray[np.uint8]
) -> None:
    loaded = RefineNet(model=written / name)
    assert loaded.card.architecture == model.card.architecture
    assert loaded._model.graph.has_bounded_memory  # type: ignore[union-attr]
    for protocol in (Protocol(), Protocol(window=(64, 64), scales=(0.75, 1.0), flip=True)):
        found, expected = (r._segmenter.under(protocol).predict_outputs(street) for r in (loaded, model))
        assert (found.labels == expected.labels).mean() > 0.999
        for output in ("depth", "far", "soil"):
            np.testing.assert_allclose(found[output], expected[output], rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(found.normals, expected.normals, atol=1e-3)


def test_triton_names_each_output(written: Path) -> None:
    config = (written / "net.triton" / "net" / "config.pbtxt").read_text()
    entries = re.findall(r'name: "(\w+)" data_type: (\w+) (?:format: \w+ )?dims: \[ ([-\d, ]+) \]', config)
    assert entries == [
        ("images", "TYPE_FP32", "3, -1, -1"),
        ("labels", "TYPE_UINT8", "-1, -1"),
        ("logits", "TYPE_FP32", "3, -1, -1"),
        ("depth", "TYPE_FP32", "1, -1, -1"),
        ("normals", "TYPE_FP32", "3, -1, -1"),
        ("soil", "TYPE_FP32", "2, -1, -1"),
        ("far", "TYPE_FP32", "1, -1, -1"),
        ("far_deviation", "TYPE_FP32", "1, -1, -1"),
        ("maps", "TYPE_FP32", "11, -1, -1"),
    ]


def test_a_certificate_bounds_each_output(tmp_path: Path) -> None:
    """A network without classes, whose certificate has nothing of labels."""
    model = new_network("depth:0.5:80,soil=regression[height:m,moisture:%]")
    issued = model.export(tmp_path / "net.pt2", sizes=[(64, 96)], progress=False)
    made = json.loads(json.dumps(issued.to_dict()))
    assert made == json.loads((tmp_path / "net.pt2.certificate.json").read_text())
    assert "agreement" not in made
    assert [(value["name"], value["unit"]) for value in made["values"]] == [
        ("depth", "m"),
        ("height", "m"),
        ("moisture", "%"),
    ]
    assert all(value["agreement"] == 1 and value["relative"] < 1e-3 for value in made["values"])
    assert [output["name"] for output in made["graph"]["outputs"]] == ["depth", "soil", "maps"]
    assert made["graph"]["outputs"][0]["values"] == "metres along the optical axis"


def test_an_output_that_differs_is_named(model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    outputs = model.outputs
    expected = run_in_pytorch(DeployedNetwork(model.network).eval(), images_of(street))
    wrong = [part.copy() for part in expected]
    wrong[2] *= 1.01  # depth
    wrong[-1][:, 8] += 0.05 * np.ptp(expected[-1][:, 8])  # moisture before resizing
    report = ParityReport(cases=[compare("street", outputs, expected, tuple(wrong))], scored=None)
    problems = report.problems(ParityTolerance())
    assert len(problems) == 2
    assert problems[0].startswith("depth agrees on 0")
    assert problems[1].startswith("moisture differs by")
    assert not ParityReport(cases=[compare("street", outputs, expected, expected)], scored=None).problems(
        ParityTolerance()
    )


def read_truth(truth: npt.NDArray[np.float32], _: str) -> npt.NDArray[np.float32]:
    return truth


def test_errors_against_ground_truth(model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    truth = {spec.name: np.full((spec.count_channels(3), *street.shape[:2]), 7.0, np.float32) for spec in model.outputs}
    truth["depth"][:, :10] = np.nan
    specs = tuple(spec for spec in model.outputs if spec.name in ("depth", "soil"))
    dataset = Dataset(
        name="streets",
        split="val",
        label_set=model.label_set,
        items=["a"],
        read_image=lambda _: street,
        read_labels=lambda _: model.segment(street).labels,
        target_specs=specs,
        target_readers={spec.name: partial(read_truth, truth[spec.name]) for spec in specs},
    ).with_targets(["depth", "soil"])
    scores = OutputScores(model.outputs, dataset, model.label_set)
    scores.add(dataset[0], run_in_pytorch(DeployedNetwork(model.network).eval(), images_of(street)))
    expected = model.predict(street)
    assert scores.miou() == pytest.approx(1.0, abs=0.01)
    rmse = scores.rmse()
    assert list(rmse) == ["depth", "height", "moisture"]
    assert rmse["depth"] == pytest.approx(np.sqrt(np.square(expected.depth[10:] - 7).mean()), rel=1e-4)
    assert rmse["moisture"] == pytest.approx(np.sqrt(np.square(expected.values["moisture"] - 7).mean()), rel=1e-4)
    assert (relative_rise(2.0, 2.5), relative_rise(0.0, 0.0)) == (0.25, 0.0)
    broken = [answer.copy() for answer in run_in_pytorch(DeployedNetwork(model.network).eval(), images_of(street))]
    depth_at = [result.name for result in list_results(model.outputs, 3)].index("depth")
    broken[depth_at][..., 0, :] = np.nan  # without ground truth there
    scores.add(dataset[0], tuple(broken))
    assert scores.rmse()["depth"] == pytest.approx(rmse["depth"])
    broken[depth_at][..., 10, 0] = np.nan
    scores.add(dataset[0], tuple(broken))
    assert np.isnan(scores.rmse()["depth"] or 0.0)


def test_an_error_that_can_no_longer_be_measured_is_no_pass() -> None:
    assert relative_rise(2.0, None) == np.inf
    assert relative_rise(None, None) == 0.0
    assert not DropBounds().allow(Scores(rmse={"depth": 2.0}), Scores(rmse={}))
    scored = Scored(dataset="a", split="val", images=1, miou_before=None, miou_after=None, rmse={"depth": (2.0, None)})
    assert scored.rmse_rises == {"depth": np.inf}


def test_one_function_measures_labels_and_values(
    model: RefineNet, written: Path, street: npt.NDArray[np.uint8]
) -> None:
    """Labels that no pixel has are no score, also where other outputs have one."""
    nothing = np.full(street.shape[:2], model.label_set.ignore_index, np.uint8)
    graph = openvino.Core().read_model(written / "net.xml")
    found = measure_on([Sample(name="a", image=street, labels=nothing)], model.label_set, model.outputs)(graph)
    assert found.miou is not None
    assert np.isnan(found.miou)
    assert found.rmse == {}


def test_files_that_contradict_their_header_are_refused(model: RefineNet, written: Path, tmp_path: Path) -> None:
    """Read as another network would be: with the header of one without the last output."""
    other = new_network(OUTPUTS.rpartition(",")[0])
    metadata: GraphMetadata = dataclasses.replace(describe(other.network, other.card))
    for path in (written / "net.onnx",):
        graph = onnx.load(path)
        del graph.metadata_props[:]
        graph.metadata_props.add(key="refinenet", value=metadata.header)
        (tmp_path / path.name).write_bytes(graph.SerializeToString())
        with pytest.raises(ValueError, match="names outputs of 9 channels, but its maps have 11"):
            RefineNet(model=tmp_path / path.name)
    shutil.copy(written / "net.onnx", tmp_path / "renamed.onnx")
    graph = onnx.load(tmp_path / "renamed.onnx")
    del graph.graph.output[-1]
    del graph.metadata_props[:]
    graph.metadata_props.add(key="refinenet", value=metadata.header)
    (tmp_path / "renamed.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match="nor among others 'maps' of float32"):
        RefineNet(model=tmp_path / "renamed.onnx")


def test_names_of_the_graph_are_refused_as_outputs() -> None:
    with pytest.raises(ValueError, match="An output named 'maps' cannot be exported, because graphs have another"):
        list_results(read_outputs("classes,maps=depth"), 3)


def test_int8_keeps_each_output_within_its_bound(tmp_path: Path) -> None:
    model = new_network("depth:0.5:80")
    streets = [draw_street(seed, 64, 96)[0] for seed in range(4)]
    spec = model.outputs[0]

    def split(name: str) -> Dataset:
        return Dataset(
            name="streets",
            split=name,
            label_set=model.label_set,
            items=["0", "1"] if name == "train" else ["2", "3"],
            read_image=lambda item: streets[int(item)],
            read_labels=lambda item: np.zeros(streets[int(item)].shape[:2], np.uint8),
            target_specs=(spec,),
            target_readers={"depth": lambda item: model.predict(streets[int(item)]).depth[None] + 1},
        )

    options: dict[str, Any] = {"sizes": [(64, 96)], "precision": "int8", "progress": False}
    made = model.export(tmp_path / "net.xml", dataset=split, max_rise=0.5, **options).to_dict()
    measured = made["dataset"]["rmse"]["depth"]
    assert measured["before"] == pytest.approx(1.0, rel=1e-3)
    assert measured["after"] <= 1.5 * measured["before"]
    assert made["bounds"]["largest_rmse_rise"] == 0.5
    found = RefineNet(model=tmp_path / "net.xml").predict(streets[2]).depth
    assert np.abs(found - model.predict(streets[2]).depth).mean() < 1
    with pytest.raises(ValueError, match="has no ground truth for"):
        model.export(
            tmp_path / "other.xml",
            dataset=lambda name: dataclasses.replace(split(name), target_specs=(), target_readers={}),
            **options,
        )
