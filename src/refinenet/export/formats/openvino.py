"""OpenVINO's intermediate representation: the writer, also of int8 models, and the runner by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from refinenet.export.loading.checksum import OPEN_SEAL, SEAL_KEY, close_seal
from refinenet.export.metadata import GraphMetadata, GraphOutput, Images, Runner
from refinenet.inference.backends.graph import compile_openvino, require_openvino
from refinenet.inference.backends.translation.openvino_conversion import convert_program
from refinenet.models.files.model_card import HEADER_KEY
from refinenet.models.inference_graph import INPUT, LABELS


def write(
    program: torch.export.ExportedProgram,
    metadata: GraphMetadata,
    path: Path,
    change: Callable[[Any], Any] = lambda model: model,
    has_labels: bool = True,
) -> None:
    """Write a traced network as OpenVINO's `.xml` and `.bin`.

    Args:
        program: The result of `inference_graph.trace`.
        metadata: Metadata of the network.
        path: A path that does not exist yet.
        change: Maps the `openvino.Model` to the one to write, which has the same outputs in the same order.
        has_labels: Whether the file has labels of classes besides their logits, for programs other than this package.
    """
    openvino = require_openvino()
    model = convert_program(program)
    model.reshape([-1, len(metadata.card.architecture.band_names), -1, -1])
    model = change(model)
    model.get_parameters()[0].set_layout(openvino.Layout("NCHW"))
    # OpenVINO's Model API refuses a second output of another name than "feature_vector".
    for output, result in zip(model.outputs, metadata.results, strict=True):
        output.get_tensor().set_names({result.name, "feature_vector"} if result.name == LABELS else {result.name})
    labels = [result for result in model.get_results() if LABELS in result.output(0).get_names()]
    for result in [] if has_labels else labels:
        model.remove_result(result)
    model.set_rt_info(metadata.header, [HEADER_KEY])
    model.set_rt_info(OPEN_SEAL, [SEAL_KEY])
    for key, value in metadata.model_info().items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, path, compress_to_fp16=False)
    close_seal(path, [path.with_suffix(".bin")])


def open_file(path: Path) -> Runner:
    """Compile a model for the CPU.

    Raises:
        ValueError: OpenVINO cannot read it.
    """
    request = compile_openvino(path, PERFORMANCE_HINT="LATENCY").create_infer_request()

    def run(images: Images) -> GraphOutput:
        # The request writes its next outputs to the same memory, hence the copies.
        answer = request.infer({INPUT: images})
        return tuple(answer[output].copy() for output in request.model_outputs)

    return run
