"""Translation of the newest bundled model for OpenVINO, with which it runs without PyTorch: `make bundled`.

It is made anew whenever that model changes; a test compares the two. Kernels are stored in float16 as in the model
file, and beside them, in float32, what batch norms multiply each channel with. Their product, which OpenVINO computes
when it compiles the graph, is the fused kernel up to rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from openvino import opset8 as opset

from refinenet.export.formats import openvino
from refinenet.export.metadata import describe
from refinenet.inference.backends.graph import require_openvino
from refinenet.io.files import write_atomically
from refinenet.models.files.model_card import BUNDLED, bundled_path
from refinenet.models.files.model_file import load
from refinenet.models.inference_graph import network_to_deploy, trace
from refinenet.models.network import Network

Floats = npt.NDArray[np.float32]
_LARGE = 1000
"""Number of values from which on it pays to store a kernel in float16."""


def translate_bundled(name: str, folder: Path) -> list[Path]:
    """Write the translation of a bundled model.

    Args:
        name: Name of the model.
        folder: Folder for the two files, `NAME.xml` and `NAME.bin`.

    Raises:
        ValueError: OpenVINO is not installed.
        OSError: A file cannot be written.
    """
    network, card = load(bundled_path(name))
    with tempfile.TemporaryDirectory() as drafts:
        draft = Path(drafts) / f"{name}.xml"
        program, share = trace(network_to_deploy(network)), partial(_share_kernels, kernels=_read_kernels(network))
        openvino.write(program, describe(network, card), draft, share, has_labels=False)
        return [write_atomically(folder / path.name, path.read_bytes()) for path in sorted(Path(drafts).iterdir())]


def _read_kernels(network: Network) -> list[Floats]:
    """Return the kernels of a network, `(outputs, ...)`, but small ones."""
    return [tensor.numpy() for tensor in network.state_dict().values() if tensor.ndim == 4 and tensor.numel() >= _LARGE]


def _share_kernels(model: Any, kernels: Sequence[Floats]) -> Any:
    """Store in an `openvino.Model` the kernels of a model file in float16, and what batch norms multiply them with.

    Args:
        model: The model, whose constants are kernels, each channel perhaps multiplied by a number.
        kernels: Kernels of the model file, `(outputs, ...)`.
    """
    openvino = require_openvino()
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        values = node.get_data()
        found = next((pair for kernel in kernels if (pair := _factorise(values, kernel)) is not None), None)
        if found is None:
            continue
        halved, factors = found
        stored = opset.multiply(opset.convert(opset.constant(halved), "f32"), opset.constant(factors))
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(stored.output(0))
    return model


def _factorise(values: Floats, kernel: Floats) -> tuple[npt.NDArray[np.float16], Floats] | None:
    """Return float16 numbers and a factor for each channel, whose products are the values up to rounding, or None."""
    if values.size != kernel.size or values.shape[0] != kernel.shape[0]:
        return None
    rows, given = kernel.reshape(len(kernel), -1), values.reshape(len(values), -1)
    halved = rows.astype(np.float16)
    factors = (given * rows).sum(1, dtype=np.float64) / np.maximum((rows * rows).sum(1, dtype=np.float64), 1e-30)
    factors = factors.astype(np.float32)[:, None]
    if not (np.array_equal(halved, rows) and np.allclose(halved * factors, given, rtol=1e-6, atol=0)):
        return None
    return halved.reshape(values.shape), factors.reshape(-1, *(1 for _ in values.shape[1:]))


if __name__ == "__main__":
    for written in translate_bundled(BUNDLED[0], bundled_path(BUNDLED[0]).parent):
        print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
