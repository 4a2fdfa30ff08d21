"""Networks in int8, built from a float graph of OpenVINO and the record in a model file, without any image.

The operations of a graph are named by signatures. That of a convolution says which weights it has and what its input
is; that of any other operation, its type, its small whole-number constants and what its inputs are. So they stay the
same between versions that only name operations differently, and between graphs of a network that go on differently.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import OPENVINO_FILES, Graph, read_openvino, require_openvino, start_engine
from refinenet.models.files.int8_record import Int8Record, QuantisedLayer, QuantisedMap
from refinenet.models.network import Network

CONVOLUTIONS = ("Convolution", "GroupConvolution")
MAP_LEVELS = 256
MOST = 127
"""Largest int8 weight."""
LEAST_RANGE = 0.01
"""Least range of a channel's weights, as a share of the largest range in the layer."""
_SMALL = 16
"""Largest number of whole numbers in a constant that is part of a signature."""
_TEST_SIZE, _TEST_CELLS = (96, 128), (6, 8)
"""Height and width of the random image on which an int8 network is compared with PyTorch, and its number of cells."""
_ALLOWED_FACTOR, _ALLOWED_RISE = 2.0, 0.01
"""A translation's difference from PyTorch may be this many times that in the record, and this much more."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Signatures:
    """Signatures of the operations of a float graph."""

    by_name: Mapping[str, str]
    """Signature of each operation by its name in the graph."""
    weights: Mapping[str, str]
    """Name of the weights of each convolution by its name in the graph."""

    @classmethod
    def of(cls, model: Any, fused: Network) -> Signatures:
        """Find the signatures of a graph.

        Args:
            model: An `openvino.Model` in floating point.
            fused: The network that it was translated from (`inference_graph.fuse`).
        """
        weights = _match_weights(model, fused)
        found: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for node in model.get_ordered_ops():
            name = node.get_friendly_name()
            signature = _sign(node, weights.get(name), found)
            counts[signature] += 1  # what is computed twice is told apart by its order
            found[name] = signature if counts[signature] == 1 else _shorten([signature, counts[signature]])
        return cls(found, weights)


def check_network(record: Int8Record, weights_sha256: str) -> None:
    """Refuse a record of different weights.

    Args:
        record: The record.
        weights_sha256: SHA-256 of the network's weights in float32 (`tensor_files.digest`).

    Raises:
        BackendError: The weights have changed.
    """
    if record.network_sha256 != weights_sha256:
        raise BackendError("The weights have changed since the network was quantised: quantise it again.")


def apply_record(model: Any, record: Int8Record, fused: Network) -> Any:
    """Return an int8 copy of a graph.

    Args:
        model: An `openvino.Model` in floating point.
        record: What to quantise, and how.
        fused: The network that it was translated from.

    Raises:
        BackendError: The graph has other operations than the one that was quantised, or maps of other sizes.
    """
    signatures, copy = Signatures.of(model, fused), model.clone()
    nodes = {node.get_friendly_name(): node for node in copy.get_ordered_ops()}
    layers = {weights: nodes[name] for name, weights in signatures.weights.items()}
    values = read_constants(model, [*signatures.weights])
    places = {signature: nodes[name] for name, signature in signatures.by_name.items()}
    shifted: dict[str, Any] = {}
    try:
        for layer in record.layers:
            convolution = layers[layer.weights]
            name = convolution.get_friendly_name()
            shifted[signatures.by_name[name]] = _quantise_layer(convolution, values[name], layer)
        for item in record.maps:
            node = places[item.node]
            readers = [places[reader].input(port) for reader, port in item.readers]
            _quantise_map(shifted.get(item.node, node.output(0)), readers, item)
        copy.validate_nodes_and_infer_types()
    except (KeyError, IndexError, ValueError, RuntimeError) as error:  # the last two of sizes that do not match
        reason = str(error).strip().splitlines()[-1]
        raise BackendError(
            "The network was quantised with a version of OpenVINO or PyTorch whose graph has other operations "
            f"than here ({reason}): quantise it again (refinenet quantise), or run it in float32."
        ) from error
    return copy


def quantise_graph(graph: Graph, record: Int8Record, fused: Network) -> Graph:
    """Return the int8 graph of a network, from its float graph.

    Raises:
        BackendError: As `apply_record`.
    """
    openvino = require_openvino()
    model = apply_record(read_openvino(openvino, graph), record, fused)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in OPENVINO_FILES]
        openvino.save_model(model, paths[0], compress_to_fp16=False)
        return Graph({path.name: path.read_bytes() for path in paths})


def check_difference(fused: Network, graph: Graph, record: Int8Record) -> None:
    """Refuse an int8 graph that is much further from PyTorch than the record says.

    Raises:
        BackendError: It is.
    """
    difference = measure_difference(fused, graph)
    allowed = _ALLOWED_FACTOR * record.difference + _ALLOWED_RISE
    if not difference <= allowed:
        raise BackendError(
            f"The int8 network differs from the float one by {difference:.2g} of the range of its results here, and "
            f"by {record.difference:.2g} where it was quantised: quantise it here (refinenet quantise), or run it in "
            "float32."
        )


def measure_difference(fused: Network, graph: Graph) -> float:
    """Return the root mean square of a graph's error on a smooth random image, as a share of the range of the maps.

    Args:
        fused: The network that the graph was translated from, which PyTorch runs.
        graph: OpenVINO graph from images to the maps.
    """
    images = _draw_image(len(fused.architecture.band_names))
    with torch.inference_mode():
        expected = fused.maps(images)
    actual = torch.from_numpy(start_engine(graph, "openvino")(images.numpy()))
    error = (actual - expected).square().mean().sqrt()
    return float(error / (expected.max() - expected.min()).clamp(min=1e-12))


def _draw_image(bands: int) -> Tensor:
    """Draw a smooth random image `(1, B, H, W)` float32 in [0, 1]: noise alone would be unlike any image."""
    cells = torch.rand((1, bands, *_TEST_CELLS), generator=torch.Generator().manual_seed(0))
    return functional.interpolate(cells, _TEST_SIZE, mode="bilinear", align_corners=False)


def is_constant(output: Any) -> bool:
    """Whether an output of an operation is that of a constant."""
    return bool(output.get_node().get_type_name() == "Constant")


def read_constants(model: Any, names: Sequence[str]) -> dict[str, Array]:
    """Return the second inputs of operations by their names, float32; they may be computed from constants."""
    openvino, copy = require_openvino(), model.clone()
    wanted = {*names}
    nodes = [node for node in copy.get_ops() if node.get_friendly_name() in wanted]
    values = openvino.Model([node.input_value(1) for node in nodes], [], "constants")
    request = openvino.Core().compile_model(values, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer()
    return {node.get_friendly_name(): request.get_output_tensor(i).data.copy() for i, node in enumerate(nodes)}


def find_bias(convolution: Any) -> Any | None:
    """Return the operation that adds a constant to a convolution's output, if there is one."""
    readers = [port.get_node() for port in convolution.output(0).get_target_inputs()]
    found = [node for node in readers if node.get_type_name() == "Add" and is_constant(node.input_value(1))]
    return found[0] if len(readers) == 1 and found else None


def round_weights(weights: Array, stretch: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 weights and the scale of each output channel: their product is near the weights.

    They are scaled as NNCF does it, the range of a channel being at least a hundredth of the largest, and rounded as
    OpenVINO's FakeQuantize of 255 levels does in float32, so that they equal those of NNCF.

    Args:
        weights: `(O, I, h, w)`, or in groups `(G, O, I, h, w)`, float32.
        stretch: See `QuantisedLayer`.
    """
    axes = tuple(range(1 if weights.ndim == 4 else 2, weights.ndim))
    largest = np.abs(weights).max(axis=axes, keepdims=True).astype(np.float32)
    least = LEAST_RANGE * float(largest.max()) or 1.0
    bound = np.maximum(largest, np.float32(least)) * np.float32(stretch)
    rounded = np.rint((weights + bound) / (2 * bound) * np.float32(2 * MOST)) - MOST
    return rounded.astype(np.int8), bound / np.float32(MOST)


def _match_weights(model: Any, fused: Network) -> dict[str, str]:
    """Return the names of the weights of each convolution of a graph, by their values."""
    known: dict[bytes, list[str]] = {}
    for name, tensor in fused.state_dict().items():
        if tensor.ndim == 4:
            known.setdefault(_hash(tensor.numpy()), []).append(name)
    nodes = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in CONVOLUTIONS]
    values = read_constants(model, nodes)
    matched = {}
    for node in nodes:
        names = known.get(_hash(values[node]), [])
        if names:  # layers with equal weights keep their order
            matched[node] = names.pop(0) if len(names) > 1 else names[0]
    return matched


def _hash(values: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).digest()


def _sign(node: Any, weights: str | None, known: Mapping[str, str]) -> str:
    sources = list(_sources(node, known))
    if weights is not None:
        sources[1] = weights
    kind = node.get_type_name()
    own = _describe_constant(node) if kind == "Constant" else None
    return _shorten([kind, own, sources])


def _shorten(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode("ascii")).hexdigest()[:16]


def _sources(node: Any, known: Mapping[str, str]) -> Iterator[str]:
    for port in node.inputs():
        source = port.get_source_output()
        yield f"{known[source.get_node().get_friendly_name()]} {source.get_index()}"


def _describe_constant(node: Any) -> list[int] | str:
    kind = str(node.get_element_type().to_dtype())
    values = node.get_data() if node.get_element_type().is_integral() else None
    return [int(value) for value in values.flatten()] if values is not None and values.size <= _SMALL else kind


def _quantise_layer(convolution: Any, weights: Array, layer: QuantisedLayer) -> Any:
    """Replace the weights of a convolution by int8 ones, correct its bias, and return its output."""
    from openvino import opset13 as operations

    rounded, scale = round_weights(weights, layer.stretch)
    product = operations.multiply(
        operations.convert(operations.constant(rounded), np.float32), operations.constant(scale)
    )
    convolution.input(1).replace_source_output(product.output(0))
    if not layer.correction:
        return convolution.output(0)
    correction = np.asarray(layer.correction, np.float32).reshape(1, -1, 1, 1)
    bias = find_bias(convolution)
    if bias is not None:
        value = bias.input_value(1).get_node().get_data()
        bias.input(1).replace_source_output(operations.constant(value + correction).output(0))
        return convolution.output(0)
    readers = list(convolution.output(0).get_target_inputs())
    corrected = operations.add(convolution, operations.constant(correction))
    for port in readers:
        port.replace_source_output(corrected.output(0))
    return corrected.output(0)


def _quantise_map(output: Any, readers: Sequence[Any], item: QuantisedMap) -> None:
    """Round a feature map for some of its readers, or for all."""
    from openvino import opset13 as operations

    chosen = list(readers) or list(output.get_target_inputs())
    shape = () if len(item.low) == 1 else (1, -1, 1, 1)
    low, high = (operations.constant(np.asarray(ends, np.float32).reshape(shape)) for ends in (item.low, item.high))
    rounded = operations.fake_quantize(output, low, high, low, high, MAP_LEVELS)
    for port in chosen:
        port.replace_source_output(rounded.output(0))
