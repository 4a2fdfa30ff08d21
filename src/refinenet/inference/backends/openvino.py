"""OpenVINO: the network translated once for this machine's CPU, two to three times the speed of PyTorch there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import OPENVINO_FILES, Graph, require_openvino
from refinenet.models.inference_graph import EXAMPLE_SHAPE, FREE_SIZES, Logits
from refinenet.models.network import Network

__all__ = ["PACKAGES", "require_openvino", "translate"]

PACKAGES = ("openvino",)


def translate(network: Network) -> Graph:
    """A network on the CPU, in evaluation mode, as OpenVINO's graph of its logits, for images of any size."""
    openvino = require_openvino()
    program = torch.export.export(Logits(network), (torch.zeros(EXAMPLE_SHAPE),), dynamic_shapes=dict(FREE_SIZES))
    try:
        model = openvino.convert_model(program)
    except _failures() as error:
        raise BackendError(f"OpenVINO cannot translate the network: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in OPENVINO_FILES]
        openvino.save_model(model, paths[0], compress_to_fp16=False)
        return Graph({path.name: path.read_bytes() for path in paths})


def _failures() -> tuple[type[Exception], ...]:
    """What OpenVINO raises where it cannot translate: classes of its own, without a common one."""
    from openvino import frontend

    return (
        frontend.GeneralFailure,
        frontend.InitializationFailure,
        frontend.NotImplementedFailure,
        frontend.OpConversionFailure,
        frontend.OpValidationFailure,
    )
