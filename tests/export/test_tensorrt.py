"""TensorRT engines without a GPU: what is refused, the graph of one shape, the steps of the documented interface."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CommandLine
from model_parts import NARROW_CARD, narrow_network

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.export.formats import tensorrt
from refinenet.export.metadata import describe
from refinenet.models.inference_graph import network_to_deploy, trace

SHAPE = (2, 3, 48, 64)


class StandIn:
    """The part of the module `tensorrt` that builds engines, as NVIDIA documents it; an engine is the graph itself."""

    __version__ = "11.0"
    float32, int32, int64 = "float32", "int32", "int64"
    BuilderFlag = SimpleNamespace(TF32="TF32")
    problems: ClassVar[list[str]] = []

    class Logger:
        WARNING = 2

        def __init__(self, level: int) -> None:
            assert level == self.WARNING

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.cleared: list[str] = []

        def create_network(self) -> Any:
            return SimpleNamespace(graph=b"")

        def create_builder_config(self) -> Any:
            return SimpleNamespace(clear_flag=self.cleared.append)

        def build_serialized_network(self, network: Any, config: Any) -> memoryview:
            assert self.cleared == ["TF32"]
            return memoryview(network.graph)

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self.network = network
            self.num_errors = len(StandIn.problems)

        def parse(self, graph: bytes) -> bool:
            self.network.graph = graph
            return not self.num_errors

        def get_error(self, number: int) -> str:
            return StandIn.problems[number]


def refuse(model: RefineNet, path: Path, words: str, **settings: Any) -> None:
    with pytest.raises(ValueError, match=words):
        model.export(path, progress=False, **settings)
    assert not path.exists()


def test_what_does_not_fit_is_refused(camvid_model: RefineNet, tmp_path: Path) -> None:
    engine = tmp_path / "net.engine"
    refuse(camvid_model, engine, r"one shape: pass it, such as --shape 1x3x480x640")
    for shape in ((3, 480, 640), (1, 3, -1, 640), (1, 3, 480.0, 640), (0, 3, 480, 640), (1, 3, 480, 9999), "1x3x48x64"):
        refuse(camvid_model, engine, r"four whole numbers above 0.*Engines of free sizes are not", shape=shape)
    refuse(camvid_model, tmp_path / "net.onnx", r"images of any size: leave out the shape", shape=SHAPE)
    refuse(camvid_model, engine, r"Int8 is supported for OpenVINO", shape=SHAPE, precision="int8")


def test_without_tensorrt_or_a_gpu_one_line_says_so(
    camvid_model: RefineNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_refinenet: CommandLine
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    words = "TensorRT is not installed: pip install tensorrt, on Linux or Windows with an NVIDIA GPU"
    refuse(camvid_model, tmp_path / "net.engine", words, shape=SHAPE)
    found = call_refinenet("export", str(tmp_path / "net.engine"), "--shape", "1x3x480x640")
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert found.stderr.startswith(f"Error: {words}")
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse(camvid_model, tmp_path / "net.engine", "PyTorch finds none here. Export .onnx", shape=SHAPE)


def test_the_command_line_refuses_other_words(call_refinenet: CommandLine, tmp_path: Path) -> None:
    for words, message in (
        (["--shape", "1x3x-1x640"], "is not a shape such as 1x3x480x640"),
        (["--shape", "480x640"], "is not a shape such as 1x3x480x640"),
        (["--shape", "1x3x48x64", "--size", "64x48"], "An engine has one shape"),
        (["--shape", "1x3x48x64", "--dataset", "streets:2"], "An engine has one shape"),
        ([], "--shape 1x3x480x640"),
    ):
        found = call_refinenet("export", str(tmp_path / "net.engine"), *words)
        assert found.returncode in (1, 2)
        assert message in " ".join(found.stderr.split()), words


def test_an_engine_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "net.engine"
    path.write_bytes(b"ftrt" + bytes(1000))
    with pytest.raises(ValueError, match="is a TensorRT engine, a program, which only TensorRT runs"):
        RefineNet(model=path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """What is written of a small network where the stand-in takes TensorRT's place, and its description."""
    network = narrow_network()
    deployed = network_to_deploy(network)
    deployed.label_type = torch.int32
    path = tmp_path_factory.mktemp("engine") / "net.engine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", StandIn)
        patch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
        tensorrt.write(trace(deployed, SHAPE), describe(network, NARROW_CARD), path)
    return path, json.loads(path.with_name("net.engine.json").read_text("utf-8"))


def test_the_graph_has_one_shape_and_labels_that_tensorrt_can_compute(
    written: tuple[Path, Mapping[str, Any]],
) -> None:
    path, facts = written
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == list(SHAPE)
    labels, logits = session.get_outputs()
    assert (labels.shape, labels.type) == ([2, 48, 64], "tensor(int32)")
    assert logits.shape == [2, len(NARROW_CARD.label_set), 12, 16]
    streets = np.stack([draw_street(seed, 48, 64)[0] for seed in (1, 2)])
    images = (streets.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    found = session.run(None, {"images": images})
    with torch.inference_mode():
        expected = narrow_network()(torch.from_numpy(images)).argmax(1).numpy()
    assert (found[0] == expected).mean() > 0.999
    assert not list(path.parent.glob("*.onnx"))
    assert (facts["shape"], facts["batch"], facts["tensorrt"], facts["gpu"]) == ([*SHAPE], "2", "11.0", "a GPU")
    assert facts["names"] == repr(dict(enumerate(NARROW_CARD.label_set.names)))


def test_what_tensorrt_cannot_read_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = narrow_network()
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn)
    monkeypatch.setattr(StandIn, "problems", ["no importer for Resize", "and more"])
    with pytest.raises(ValueError, match="TensorRT cannot read the network: no importer for Resize; and more"):
        tensorrt.write(trace(network_to_deploy(network), SHAPE), describe(network, NARROW_CARD), tmp_path / "n.engine")


def test_an_engine_is_opened_only_as_it_was_built(written: tuple[Path, Mapping[str, Any]], tmp_path: Path) -> None:
    """Damage, other files and foreign engines are named before TensorRT, which would run them, sees any."""
    path, facts = written
    content = path.read_bytes()
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    other = tmp_path / "net.engine"
    description = tmp_path / "net.engine.json"
    other.write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"net\.engine\.json"):
        tensorrt.open_file(other)
    for text in (b"", b"{", b"[]", b"{}", b"\xff"):
        description.write_bytes(text)
        with pytest.raises(ValueError, match=r"net\.engine\.json is not the description of an engine .* Export net"):
            tensorrt.open_file(other)
    description.write_bytes(path.with_name("net.engine.json").read_bytes())
    flipped = bytes([content[0], content[1] ^ 1]) + content[2:]
    for damaged in (b"", content[:-1], content + b"\0", flipped, b"ftrt" + bytes(1000), b"\x89PNG"):
        other.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"net\.engine is not the engine that net\.engine\.json describes"):
            tensorrt.open_file(other)


def test_an_engine_is_opened_where_tensorrt_and_a_gpu_are(
    written: tuple[Path, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = written
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ValueError, match="TensorRT is not installed: pip install tensorrt") as error:
        tensorrt.open_file(path)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"net\.engine is a TensorRT engine, which runs on an NVIDIA GPU"):
        tensorrt.open_file(path)
