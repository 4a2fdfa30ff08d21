"""Quantisers of an int8 OpenVINO model: the error that each causes, and models with some of them removed.

A quantiser is a FakeQuantize operation on a feature map, together with the int8 weights of the convolutions that read
its output. Models are copied, never modified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.inference.backends.graph import compile_openvino, require_openvino

Array = npt.NDArray[Any]
Constants = Mapping[str, Array]
"""Constant values by the name of the operation that reads them."""

CONVOLUTIONS = ("Convolution", "GroupConvolution")
_TRANSPARENT = ("MaxPool", "Reshape", "Transpose", "Interpolate")
"""Operations that preserve integers, exactly or nearly: a convolution behind them still reads the quantiser."""


class QuantisedGraph:
    """An int8 model and its original in floating point.

    Args:
        quantised: An `openvino.Model` made by NNCF.
        original: The model in floating point, with the same names of operations.
    """

    def __init__(self, quantised: Any, original: Any) -> None:
        self._quantised, self._original = quantised, _constants(original)
        self.names = tuple(find_quantisers(quantised))
        """Names of the quantisers, from input to output."""

    def put_back(self, names: Sequence[str]) -> Any:
        """Return a copy of the int8 model without these quantisers: the layers behind them run in floating point."""
        copy = self._quantised.clone()
        quantisers = find_quantisers(copy)
        for name in names:
            # The convolutions first: once the quantiser is bypassed, they are no longer found behind it.
            for convolution in _convolutions_behind(quantisers[name]):
                _restore_bias(convolution, self._original)
                weights = _constant(self._original[convolution.get_friendly_name()])
                convolution.input(1).replace_source_output(weights.output(0))
            quantisers[name].output(0).replace(quantisers[name].input_value(0))
        copy.validate_nodes_and_infer_types()
        return copy

    def measure_damage(self, images: Sequence[Array]) -> dict[str, float]:
        """Return how much each quantiser changes the outputs of a model that is otherwise in floating point.

        The errors of all outputs are added up: see `_distance`. 0 means no change.

        Args:
            images: Inputs of the model.
        """
        copy = self._quantised.clone()
        _make_switchable(copy, self._original, self.names)
        run = compile_openvino(copy, PERFORMANCE_HINT="LATENCY")
        damage = dict.fromkeys(self.names, 0.0)
        for image in images:
            in_float = np.ones(len(self.names), np.float32)
            results = run([image, in_float])
            # Graphs of classes alone have labels and logits; labels decide which quantisers are removed.
            count = len(results) if len(results) > 2 else 1
            expected = [results[place].copy() for place in range(count)]
            for index, name in enumerate(self.names):
                in_float[index] = 0  # this quantiser alone is applied
                found = run([image, in_float])
                damage[name] += sum(_distance(found[place], expected[place]) for place in range(count))
                in_float[index] = 1
        return damage

    def describe(self, names: Sequence[str]) -> tuple[str, ...]:
        """Describe the layers behind quantisers: "Convolution conv_12 (16 to 96 channels, 1x1)"."""
        quantisers = find_quantisers(self._quantised)
        return tuple(dict.fromkeys(_describe(quantisers[name]) for name in names))


def find_quantisers(model: Any) -> dict[str, Any]:
    """Return the FakeQuantize operations on feature maps by name, from input to output."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops() if _is_quantiser(node)}


def _make_switchable(model: Any, known: Constants, names: Sequence[str]) -> None:
    """Add an input `(quantisers,)` float32 to a model: 0 applies the quantiser, 1 bypasses it.

    One compiled model then serves for measuring every quantiser: output + switch * (float value - int8 value).
    """
    from openvino import opset13 as operations

    switches = operations.parameter([len(names)], np.float32, name="switches")
    quantisers, rounded = find_quantisers(model), _constants(model)
    for index, name in enumerate(names):
        switch = operations.gather(switches, operations.constant(index), operations.constant(0))
        for convolution in _convolutions_behind(quantisers[name]):
            _restore_bias(convolution, known)
            # A convolution is linear in its weights, so one with their rounding errors gives its own rounding error.
            weight_errors = known[convolution.get_friendly_name()] - rounded[convolution.get_friendly_name()]
            _add_to(convolution, operations.multiply(_with_other_weights(convolution, weight_errors), switch))
        error = operations.subtract(quantisers[name].input_value(0), quantisers[name])
        _add_to(quantisers[name], operations.multiply(error, switch), except_for=error)
    model.add_parameters([switches])
    model.validate_nodes_and_infer_types()


def _with_other_weights(convolution: Any, weights: Array) -> Any:
    """Return a convolution of the same input with other weights."""
    from openvino import opset13 as operations

    make = {"Convolution": operations.convolution, "GroupConvolution": operations.group_convolution}
    attributes = convolution.get_attributes()
    return make[convolution.get_type_name()](convolution.input_value(0), _constant(weights), **attributes)


def _add_to(node: Any, addition: Any, except_for: Any = None) -> None:
    """Add a value to a node's output for all its readers except one."""
    from openvino import opset13 as operations

    # The readers are listed before the sum becomes one of them. The node that computes the addition keeps its input;
    # reading the sum, it would depend on itself.
    excluded = None if except_for is None else except_for.get_friendly_name()
    readers = [port for port in node.output(0).get_target_inputs() if port.get_node().get_friendly_name() != excluded]
    total = operations.add(node, addition)
    for port in readers:
        port.replace_source_output(total.output(0))


def _distance(actual: Array, expected: Array) -> float:
    """Return the share of labels that differ; of other numbers the sum of squared errors over that of squares."""
    if np.issubdtype(expected.dtype, np.integer):
        return float((actual != expected).mean())
    scale = float(np.square(expected, dtype=np.float64).sum())
    return float(np.square(actual - expected, dtype=np.float64).sum()) / (scale or 1.0)


def _is_quantiser(node: Any) -> bool:
    return bool(node.get_type_name() == "FakeQuantize" and not _is_constant(node.input_value(0)))


def _readers(node: Any) -> list[Any]:
    """Return the operations that read a node, once each, sorted by name."""
    readers = {port.get_node().get_friendly_name(): port.get_node() for port in node.output(0).get_target_inputs()}
    return [readers[name] for name in sorted(readers)]


def _convolutions_behind(node: Any) -> list[Any]:
    convolutions = []
    for reader in _readers(node):
        if reader.get_type_name() in CONVOLUTIONS:
            convolutions.append(reader)
        elif reader.get_type_name() in _TRANSPARENT:
            convolutions.extend(_convolutions_behind(reader))
    return convolutions


def _describe(quantiser: Any) -> str:
    if convolutions := _convolutions_behind(quantiser):
        return " and ".join(_describe_convolution(node) for node in convolutions)
    reader = _readers(quantiser)[0]
    return f"{reader.get_type_name()} {reader.get_friendly_name()}"


def _describe_convolution(node: Any) -> str:
    weights = [int(side) for side in node.input_value(1).get_shape()]
    groups = weights.pop(0) if node.get_type_name() == "GroupConvolution" else 1
    channels = f"{groups * weights[1]} to {groups * weights[0]} channels"
    return f"{node.get_type_name()} {node.get_friendly_name()} ({channels}, {'x'.join(map(str, weights[2:]))})"


def _restore_bias(convolution: Any, known: Constants) -> None:
    """Undo NNCF's correction of a convolution's bias, which only suits int8; an added bias becomes 0."""
    for node in _readers(convolution):
        if _has_constant(node, "Add"):
            corrected = node.input_value(1)
            before = known.get(node.get_friendly_name(), np.zeros(1, np.float32))
            bias = np.broadcast_to(before, corrected.get_shape()) if before.size == 1 else before
            node.input(1).replace_source_output(_constant(bias.reshape(corrected.get_shape())).output(0))


def _has_constant(node: Any, kind: str) -> bool:
    return bool(node.get_type_name() == kind and _is_constant(node.input_value(1)))


def _is_constant(output: Any) -> bool:
    return bool(output.get_node().get_type_name() == "Constant")


def _constants(model: Any) -> Constants:
    """Return the weights of convolutions and the constants of additions, by the operation's name.

    Weights may be compressed, so OpenVINO evaluates them as the outputs of a model of their own.
    """
    openvino, copy = require_openvino(), model.clone()
    nodes = [node for node in copy.get_ops() if node.get_type_name() in CONVOLUTIONS or _has_constant(node, "Add")]
    # Additions of whole numbers compute sizes, which are not quantised.
    nodes = [node for node in nodes if node.get_element_type() == openvino.Type.f32]
    values = openvino.Model([node.input_value(1) for node in nodes], [], "constants")
    run = compile_openvino(values).create_infer_request()
    run.infer()
    return {node.get_friendly_name(): run.get_output_tensor(i).data.copy() for i, node in enumerate(nodes)}


def _constant(values: Array) -> Any:
    from openvino import opset13 as operations

    return operations.constant(np.ascontiguousarray(values, np.float32))
