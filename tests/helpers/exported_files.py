"""Exported files for tests, written by PyTorch's and OpenVINO's own exporters, not by this package."""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import openvino
import torch
from model_parts import CARD
from torch import Tensor, nn
from torch.nn import functional

from refinenet.models.files.model_card import ModelCard, make_header
from refinenet.models.files.tensor_files import digest
from refinenet.models.network import Network

FREE = torch.export.Dim.DYNAMIC


class _Deployed(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.logits(images)
        full = functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return full.argmax(1).to(torch.uint8), logits


def export_onnx(network: Network, card: ModelCard = CARD) -> Any:
    """An `onnx.ModelProto` as the contract of exported files asks for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Deployed(network.eval()),
            (torch.zeros(2, 3, 65, 97),),
            dynamo=True,
            dynamic_shapes={"images": {0: FREE, 2: FREE, 3: FREE}},
            input_names=["images"],
            output_names=["labels", "logits"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.metadata_props.add(key="refinenet", value=header_of(network, card))
    return model


def header_of(network: Network, card: ModelCard = CARD) -> str:
    """The header of a model file, as JSON."""
    return json.dumps(make_header(network, card, digest(network.state_dict())))


def write_openvino(model: Any, path: Path, *, half: bool = False) -> None:
    """Write an `onnx.ModelProto` as OpenVINO's `.xml` and `.bin`, the same header in it."""
    source = path.with_suffix(".source")
    source.write_bytes(model.SerializeToString())
    translated = openvino.Core().read_model(source.read_bytes())
    source.unlink()
    header = next(entry.value for entry in model.metadata_props if entry.key == "refinenet")
    translated.set_rt_info(header, "refinenet")
    openvino.save_model(translated, path, compress_to_fp16=half)


def make_tiny() -> Any:
    """An `onnx.ModelProto` that keeps the contract with two operators, to be changed into what does not."""
    helper = onnx.helper
    nodes = [
        helper.make_node("AveragePool", ["images"], ["logits"], kernel_shape=[4, 4], strides=[4, 4],
                         auto_pad="SAME_LOWER", name="pool"),
        helper.make_node("ArgMax", ["images"], ["indices"], axis=1, keepdims=0, name="argmax"),
        helper.make_node("Cast", ["indices"], ["labels"], to=onnx.TensorProto.UINT8, name="cast"),
    ]  # fmt: skip
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    labels = helper.make_tensor_value_info("labels", onnx.TensorProto.UINT8, ["n", "h", "w"])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 3, "h4", "w4"])
    graph = helper.make_graph(nodes, "tiny", [images], [labels, logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="refinenet", value=header_of(Network(CARD.architecture)))
    return model


@cache
def tiny_openvino() -> tuple[str, bytes]:
    """Return the text and the weights of `make_tiny` as an OpenVINO model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.xml"
        write_openvino(make_tiny(), path)
        return path.read_text(), path.with_suffix(".bin").read_bytes()
