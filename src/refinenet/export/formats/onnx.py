"""ONNX: the writer, and the runner by ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from refinenet.export.loading.checksum import OPEN_SEAL, SEAL_KEY, close_seal
from refinenet.export.metadata import GraphMetadata, GraphOutput, Images, Runner
from refinenet.inference.backends.graph import onnxruntime_errors, open_onnx
from refinenet.models.inference_graph import INPUT

OPSET = 20
"""Version of the ONNX operators."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write(program: torch.export.ExportedProgram, metadata: GraphMetadata, path: Path) -> None:
    """Write a traced network as one file, with its weights and metadata."""
    import onnx

    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=[result.name for result in metadata.results],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    _name_sizes(model.graph)
    onnx.helper.set_model_props(model, {**metadata.text_entries(), SEAL_KEY: OPEN_SEAL})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    close_seal(path)  # last, as the hash is of the whole file


def _name_sizes(graph: Any) -> None:
    """Name the free sides of inputs and outputs; the trace only numbers them."""
    batch, _, height, width = (size.dim_param for size in graph.input[0].type.tensor_type.shape.dim)
    names = {batch: "batch", height: "height", width: "width"}
    known = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = known.sub(lambda found: names[found[0]], size.dim_param)


def open_file(path: Path) -> Runner:
    """Open a graph in ONNX Runtime on the CPU.

    Raises:
        ValueError: ONNX Runtime cannot read it.
    """
    session, errors = open_onnx(path), onnxruntime_errors()

    def run(images: Images) -> GraphOutput:
        try:
            return tuple(session.run(None, {INPUT: images}))
        except errors as error:
            raise RuntimeError(str(error)) from error

    return run
