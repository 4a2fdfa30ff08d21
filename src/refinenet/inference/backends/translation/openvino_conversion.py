"""Conversion of traced networks to OpenVINO.

`openvino.convert_model` traces a program twice more, to take apart the operations that its frontend does not know. Of
these, convolutional networks have the few in `_DECOMPOSITIONS`, which are replaced in the graph as it is: a network is
converted in a third of the time. Other programs are converted by `convert_model` alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from refinenet.inference.backends.graph import require_openvino
from refinenet.inference.backends.translation.bicubic import decompose_bicubic

aten = torch.ops.aten


def convert_program(program: torch.export.ExportedProgram) -> Any:
    """Convert a program to an `openvino.Model`.

    Raises:
        openvino.frontend.OpConversionFailure, or another exception of OpenVINO: OpenVINO cannot convert the program.
    """
    openvino = require_openvino()
    from openvino import frontend
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    program = decompose_bicubic(program)
    module = program.module(check_guards=False)
    assert isinstance(module, GraphModule)
    _decompose(module.graph)
    module.recompile()
    try:
        return openvino.convert_model(TorchFXPythonDecoder(module, dynamic_shapes=True))
    except frontend.OpConversionFailure:  # an operation that is unknown, too
        return openvino.convert_model(program)


def _decompose(graph: Graph) -> None:
    """Replace the operations of a graph that OpenVINO does not know by those that PyTorch would take them apart to.

    What an operation changes in place is no trouble: traced programs read its result afterwards.
    """
    for node in list(graph.nodes):
        decompose = _DECOMPOSITIONS.get(node.target) if node.op == "call_function" else None
        if decompose is not None:
            with graph.inserting_before(node):
                replacement = decompose(graph, _arguments(node))
            if replacement is not None:
                node.replace_all_uses_with(replacement)
                graph.erase_node(node)


def _arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of an operation by name, with its defaults."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    # Arguments at the end that have their defaults are left out of a graph.
    given = dict(zip((argument.name for argument in schema[: len(node.args)]), node.args, strict=True))
    return {**{argument.name: argument.default_value for argument in schema}, **given, **node.kwargs}


def _input(_graph: Graph, given: Mapping[str, Any]) -> Any:
    """Return the input of an operation that does nothing in evaluation mode."""
    return given["input"]


def _convolution(graph: Graph, given: Mapping[str, Any]) -> Node:
    names = ("input", "weight", "bias", "stride", "padding", "dilation")
    values = (*(given[name] for name in names), False, [0, 0], given["groups"])
    return graph.call_function(aten.convolution.default, values)


def _batch_norm(graph: Graph, given: Mapping[str, Any]) -> Node:
    assert not given["training"], "networks are traced in evaluation mode"
    names = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
    values = tuple(given[name] for name in names)
    return _first(graph, graph.call_function(aten._native_batch_norm_legit_no_training.default, values))


def _max_pool(graph: Graph, given: Mapping[str, Any]) -> Node:
    names = ("self", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    values = tuple(given[name] for name in names)
    return _first(graph, graph.call_function(aten.max_pool2d_with_indices.default, values))


def _pad(graph: Graph, given: Mapping[str, Any]) -> Node | None:
    if given["mode"] != "constant":
        return None
    return graph.call_function(aten.constant_pad_nd.default, (given["self"], given["pad"], given["value"] or 0.0))


def _cast(graph: Graph, given: Mapping[str, Any]) -> Node:
    return graph.call_function(aten._to_copy.default, (given["self"],), {"dtype": given["dtype"]})


def _first(graph: Graph, results: Node) -> Node:
    return graph.call_function(operator.getitem, (results, 0))


_DECOMPOSITIONS: Mapping[Any, Callable[[Graph, Mapping[str, Any]], Node | None]] = MappingProxyType(
    {
        aten.conv2d.default: _convolution,
        aten.batch_norm.default: _batch_norm,
        aten.dropout.default: _input,
        aten.max_pool2d.default: _max_pool,
        aten.pad.default: _pad,
        aten.to.dtype: _cast,
    }
)
"""Functions that add the replacement of an operation to a graph, by its arguments; None leaves the operation."""
