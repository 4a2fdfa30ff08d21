"""Translation of networks to ONNX, for ONNX Runtime on CPUs."""

from __future__ import annotations

import importlib.util
import warnings

import torch

from refinenet.inference.backends.graph import ONNX_FILE, Graph, require_onnxruntime
from refinenet.inference.backends.translation.cached_translations import PACKAGES
from refinenet.io.extras import install_extra
from refinenet.models.inference_graph import FREE_SIZES, Maps, example_images
from refinenet.models.network import Network


def translate(network: Network) -> Graph:
    """Translate a network (on the CPU, in evaluation mode) to an ONNX graph from images of any size to logits.

    Raises:
        ValueError: a package that writes ONNX graphs is not installed.
    """
    require_onnx()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter, of no use to users
        program = torch.onnx.export(
            Maps(network),
            (example_images(network),),
            dynamo=True,
            dynamic_shapes=dict(FREE_SIZES),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    return Graph({ONNX_FILE: program.model_proto.SerializeToString()})


def require_onnx() -> None:
    """Check that ONNX Runtime and the packages with which PyTorch writes ONNX graphs are installed.

    Raises:
        ValueError: a package is not installed.
    """
    require_onnxruntime()
    for package in PACKAGES["onnxruntime"]:
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"The package {package} is not installed: {install_extra('export')}")
