"""Translation of networks for OpenVINO, which runs them on CPUs two to three times as fast as PyTorch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import OPENVINO_FILES, Graph, require_openvino
from refinenet.inference.backends.translation.openvino_conversion import convert_program
from refinenet.models.inference_graph import FREE_SIZES, Maps, example_images
from refinenet.models.network import Network


def translate(network: Network) -> Graph:
    """Translate a network (on the CPU, in evaluation mode) to an OpenVINO graph from images of any size to logits.

    Raises:
        BackendError: OpenVINO cannot translate the network.
    """
    openvino = require_openvino()
    program = torch.export.export(Maps(network), (example_images(network),), dynamic_shapes=dict(FREE_SIZES))
    try:
        model = convert_program(program)
    except _failures() as error:
        raise BackendError(f"OpenVINO cannot translate the network: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in OPENVINO_FILES]
        openvino.save_model(model, paths[0], compress_to_fp16=False)
        return Graph({path.name: path.read_bytes() for path in paths})


def _failures() -> tuple[type[Exception], ...]:
    """Exceptions of OpenVINO's translation, which have no common base class."""
    from openvino import frontend

    return (
        frontend.GeneralFailure,
        frontend.InitializationFailure,
        frontend.NotImplementedFailure,
        frontend.OpConversionFailure,
        frontend.OpValidationFailure,
    )
