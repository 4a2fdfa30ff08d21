"""ONNX Runtime: the network translated once to ONNX, for CPUs."""

from __future__ import annotations

import importlib.util
import warnings

import torch

from refinenet.inference.backends.graph import ONNX_FILE, Graph, require_onnxruntime
from refinenet.models.inference_graph import EXAMPLE_SHAPE, FREE_SIZES, Logits
from refinenet.models.network import Network

PACKAGES = ("onnx", "onnxscript")


def translate(network: Network) -> Graph:
    """A network on the CPU, in evaluation mode, as an ONNX graph of its logits, for images of any size.

    Raises:
        ValueError: what writes ONNX graphs is not installed.
    """
    require_translator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations, which concern nobody here
        program = torch.onnx.export(
            Logits(network),
            (torch.zeros(EXAMPLE_SHAPE),),
            dynamo=True,
            dynamic_shapes=dict(FREE_SIZES),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    return Graph({ONNX_FILE: program.model_proto.SerializeToString()})


def require_translator() -> None:
    """Refuse to go on without ONNX Runtime and the packages that PyTorch writes ONNX graphs by.

    Raises:
        ValueError: one is not installed.
    """
    require_onnxruntime()
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"The package {package} is not installed: pip install 'refinenet[export]'")
