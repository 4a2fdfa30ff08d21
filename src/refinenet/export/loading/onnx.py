"""Checks of ONNX files: one whole graph of plain arithmetic, with a header of this package.

Everything else is rejected: external data, operators that run programs, branch, loop, draw random numbers or process
text, other inputs and outputs. The graph is then rebuilt from the checked parts that its logits, or the maps of several
outputs, need.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from refinenet.export.loading.checksum import known_entries
from refinenet.export.loading.memory_bound import Operation, is_proven
from refinenet.export.loading.schema import (
    HEADER_KEY,
    INPUT,
    LABELS,
    LOGITS,
    MAPS,
    MAX_NODES,
    MAX_OUTPUTS,
    MAX_RANK,
    Checked,
    check_bands,
    check_channels,
)
from refinenet.export.loading.size_bounds import MAX_VALUES, Bounded, constant
from refinenet.inference.backends.graph import ONNX_FILE

OLDEST_OPSET = 13
DOMAINS = ("", "ai.onnx")

_OPERATORS = """
Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv
ConvTranspose CumSum DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten
Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax LpNormalization MatMul MatMulInteger Max MaxPool Min Mish Mod Mul Neg Not Or PRelu Pad
Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Shape
Sigmoid Sign Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Tile Transpose
Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Operators of PyTorch's exporter, and others that compute numbers from numbers."""

_NUMBERS = "FLOAT FLOAT16 BFLOAT16 DOUBLE INT8 UINT8 INT16 UINT16 INT32 UINT32 INT64 UINT64 BOOL"
_TYPES = frozenset(getattr(onnx.TensorProto, name) for name in _NUMBERS.split())
_LABEL_TYPES = (onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def check_onnx(content: bytes) -> Checked:
    """Read an ONNX file's content.

    Raises:
        ValueError: It is not an ONNX model, or has contents that are not allowed; names them.
    """
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ValueError("it is damaged, or not an ONNX file") from error
    graph = model.graph
    _check_whole(model)
    _check_opsets(model.opset_import)
    _check_nodes(graph.node)
    for tensor in graph.initializer:
        _check_tensor(tensor)
    bands = _check_input(graph)
    result, channels = _check_outputs(graph)
    reduced = _reduced(model, result)
    return Checked(
        files={ONNX_FILE: reduced.SerializeToString()},
        header=_find_header(model),
        result=result,
        channels=channels,
        bands=bands,
        entries=known_entries(entry.key for entry in model.metadata_props),
        has_bounded_memory=_has_bounded_memory(reduced.graph, result, bands),
    )


def _check_whole(model: Any) -> None:
    graph = model.graph
    strangers = {
        "custom functions": model.functions,
        "training instructions": model.training_info,
        "sparse weights": graph.sparse_initializer,
    }
    for name, found in strangers.items():
        if len(found):
            raise ValueError(f"it contains {name}")
    for name, number in (("operators", len(graph.node)), ("tensors", len(graph.initializer))):
        if number > MAX_NODES:
            raise ValueError(f"it has {number} {name}; up to {MAX_NODES} are allowed")


def _check_opsets(opsets: Iterable[Any]) -> None:
    versions = [opset.version for opset in opsets if opset.domain in DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= newest:
        told = ", ".join(map(str, versions)) or "none"
        raise ValueError(f"its operators are of the ONNX opset {told}, not one of {OLDEST_OPSET} to {newest}")


def _check_nodes(nodes: Iterable[Any]) -> None:
    for node in nodes:
        if node.domain not in DOMAINS:
            raise ValueError(f"its operator {node.op_type!r} is of the domain {node.domain!r}, not of ONNX itself")
        if node.op_type not in OPERATORS:
            raise ValueError(f"its operator {node.op_type!r} is not supported")
        for attribute in node.attribute:
            _check_attribute(node, attribute)


def _check_attribute(node: Any, attribute: Any) -> None:
    nested = attribute.HasField("g") or len(attribute.graphs)
    sparse = attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors)
    if nested or sparse or attribute.ref_attr_name or attribute.HasField("tp") or len(attribute.type_protos):
        raise ValueError(f"the attribute {attribute.name!r} of its operator {node.op_type!r} is not a number or tensor")
    for tensor in (*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors):
        _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    if tensor.data_location != onnx.TensorProto.DEFAULT or len(tensor.external_data):
        told = ", ".join(f"{entry.key}={entry.value!r}" for entry in tensor.external_data[:4])
        raise ValueError(f"its tensor {tensor.name!r} is stored in another file ({told}); export to a single file")
    if tensor.data_type not in _TYPES:
        raise ValueError(f"its tensor {tensor.name!r} has the type {tensor.data_type}, which is not a number")
    if len(tensor.dims) > MAX_RANK or any(side < 0 for side in tensor.dims):
        raise ValueError(f"its tensor {tensor.name!r} has the shape {list(tensor.dims[:20])}")
    if tensor.HasField("segment") or len(tensor.string_data):
        raise ValueError(f"its tensor {tensor.name!r} is not a complete tensor of numbers")


def _check_input(graph: Any) -> int:
    """Return the number of bands of the images."""
    # Up to version 3 of ONNX's file format, weights had to be listed among the inputs, too.
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    found = [_describe(value) for value in inputs]
    names = [value.name for value in inputs]
    bands = _count_bands(inputs[0]) if names == [INPUT] else 0
    if not bands or not _fits(inputs[0], (onnx.TensorProto.FLOAT,), (None, bands, None, None)):
        raise ValueError(f"its inputs are {found}, not one {INPUT!r} of float32 (N, 3, H, W) with N, H and W free")
    return check_bands(bands)


def _count_bands(value: Any) -> int:
    sides = value.type.tensor_type.shape.dim
    return int(sides[1].dim_value) if len(sides) == 4 else 0


def _check_outputs(graph: Any) -> tuple[str, int]:
    """Return the name of the output that is kept, and the number of its channels."""
    outputs = {value.name: value for value in graph.output}
    told = [_describe(value) for value in graph.output[:8]]
    if MAPS in outputs and len(outputs) == len(graph.output) <= MAX_OUTPUTS:
        return MAPS, check_channels(MAPS, _count_channels(outputs[MAPS], told))
    if len(graph.output) != 2 or set(outputs) != {LABELS, LOGITS}:
        raise ValueError(_describe_outputs(told))
    classes = _count_channels(outputs[LOGITS], told)
    if not _fits(outputs[LABELS], _LABEL_TYPES, (None, None, None)):
        raise ValueError(_describe_outputs(told))
    return LOGITS, check_channels(LOGITS, classes)


def _count_channels(value: Any, told: Sequence[str]) -> int:
    sides = value.type.tensor_type.shape.dim
    channels: int = sides[1].dim_value if len(sides) == 4 else 0
    if not _fits(value, (onnx.TensorProto.FLOAT,), (None, channels, None, None)):
        raise ValueError(_describe_outputs(told))
    return channels


def _describe_outputs(told: Sequence[str]) -> str:
    return (
        f"its outputs are {list(told)}, not {LABELS!r} of whole numbers (N, H, W) and {LOGITS!r} of float32 "
        f"(N, K, h, w), nor among others {MAPS!r} of float32 (N, C, h, w)"
    )


def _fits(value: Any, types: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Return whether a value is a tensor of one of the types and of a shape, in which None is a free side."""
    if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type not in types:
        return False
    sides = value.type.tensor_type.shape.dim
    found = [side.dim_value if side.WhichOneof("value") == "dim_value" else None for side in sides]
    return found == list(shape)


def _describe(value: Any) -> str:
    tensor = value.type.tensor_type
    sides = [str(side.dim_value) if side.WhichOneof("value") == "dim_value" else "?" for side in tensor.shape.dim[:20]]
    return f"{value.name} of type {tensor.elem_type} ({', '.join(sides)})"


def _find_header(model: Any) -> str:
    found: list[str] = [entry.value for entry in model.metadata_props if entry.key == HEADER_KEY]
    if len(found) != 1:
        raise ValueError(
            f"its metadata have {len(found)} entries {HEADER_KEY!r}, not one: it was not exported by this package, "
            "and does not define its classes and preprocessing"
        )
    return found[0]


def _reduced(model: Any, result: str) -> Any:
    """Return the model without the outputs that follow from its logits or maps, and without texts."""
    graph = model.graph
    needed, kept = {result}, []
    # Nodes come after those that they read, so that one pass from the end finds all that the result needs.
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    reduced = onnx.ModelProto(ir_version=model.ir_version)
    reduced.opset_import.extend(opset for opset in model.opset_import if opset.domain in DOMAINS)
    reduced.graph.name = "network"
    reduced.graph.node.extend(reversed(kept))
    for node in reduced.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    reduced.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    reduced.graph.input.extend(value for value in graph.input if value.name == INPUT)
    reduced.graph.output.extend(value for value in graph.output if value.name == result)
    return reduced


_ELEMENTWISE = {"Add": "add", "Clip": "either", "Div": "divide", "Max": "either", "Min": "either", "Mul": "multiply",
                "PRelu": "", "Pow": "", "Sub": "subtract"}  # fmt: skip
_UNCHANGED = """
BatchNormalization Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Mish Sigmoid Softplus Sqrt Swish Tanh
"""
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(_ELEMENTWISE, "elementwise"),
        **dict.fromkeys(("AveragePool", "MaxPool"), "pool"),
        **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), "reduce"),
        **dict.fromkeys(_UNCHANGED.split(), "same"),
        "Cast": "cast",
        "Ceil": "ceil",
        "Concat": "concat",
        "Conv": "convolution",
        "Floor": "floor",
        "Gather": "gather",
        "GlobalAveragePool": "reduce",
        "Identity": "identity",
        "Neg": "negate",
        "Pad": "pad",
        "Relu": "clip",
        "Reshape": "reshape",
        "Resize": "resize",
        "Shape": "shape",
        "Slice": "slice",
        "Split": "split",
        "Squeeze": "squeeze",
        "Unsqueeze": "unsqueeze",
    }
)  # fmt: skip
"""Operators whose outputs' sizes are understood, in the words of `memory_bound`."""
_EXACT_TYPES = {getattr(onnx.TensorProto, name) for name in ("FLOAT", "DOUBLE", "INT32", "INT64")}


def _has_bounded_memory(graph: Any, result: str, bands: int) -> bool:
    try:
        known = {tensor.name: _bounded(tensor) for tensor in graph.initializer}
        operations = list(_operations(graph))
    except (ValueError, TypeError):  # attributes and values that are not what their operators have
        return False
    return is_proven(operations, known, INPUT, result, bands)


def _bounded(tensor: Any) -> Bounded:
    if tensor.data_type in _EXACT_TYPES and math.prod(tensor.dims) <= MAX_VALUES:
        return Bounded.known(numpy_helper.to_array(tensor))
    return Bounded(tuple(map(constant, tensor.dims)))


def _operations(graph: Any) -> Iterator[Operation]:
    for node in graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        kind, inputs = _KINDS.get(node.op_type, node.op_type), list(node.input)
        # Types that may round numbers or wrap them around: their values are not followed.
        if node.op_type == "Cast" and given.get("to") not in _EXACT_TYPES:
            kind = "same"
        if node.op_type == "Clip":
            inputs = [name for name in inputs if name]
        if node.op_type == "Resize":
            kind, inputs = _sized_resize(given, inputs)
        options = _options(node.op_type, given, len(node.output))
        if node.op_type == "Split" and len(inputs) > 1:
            options["lengths"] = 1
        yield Operation(kind=kind, inputs=inputs, outputs=list(node.output), options=options)


def _sized_resize(given: Mapping[str, Any], inputs: list[str]) -> tuple[str, list[str]]:
    if len(inputs) != 4 or given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" or inputs[1]:
        return "Resize", inputs
    return "resize", [inputs[0], inputs[3]]


def _options(operator: str, given: Mapping[str, Any], outputs: int) -> dict[str, Any]:
    kernel = list(given.get("kernel_shape", ()))
    pads = list(given.get("pads", [0] * 8))
    half = len(pads) // 2
    options: dict[str, Any] = {
        "apart": False,
        "ceil": bool(given.get("ceil_mode", 0)),
        "copies": not given.get("allowzero", 0),
        "count": outputs,
        "dilations": given.get("dilations", [1] * 4),
        "function": _ELEMENTWISE.get(operator, ""),
        "grouped": False,
        "keep": bool(given.get("keepdims", 1)),
        "kernel": kernel,
        "limits": [0],
        "pads": list(zip(pads[:half], pads[half:], strict=True)),
        "part": slice(given.get("start", 0), given.get("end")),
        "same": given.get("auto_pad", b"NOTSET") in (b"SAME_LOWER", b"SAME_UPPER"),
        "strides": given.get("strides", [1] * 4),
    }
    if "axis" in given or operator in ("Gather", "Split"):
        options["axis"] = given.get("axis", 0)
    if "axes" in given:
        options["axes"] = list(given["axes"])
    elif operator == "GlobalAveragePool":
        options["axes"] = [2, 3]
    elif operator == "Resize":
        options["axes"] = range(4)
    return options
