"""Checks of OpenVINO's files: one graph of plain arithmetic, its weights, and a header of this package.

The `.xml` file is parsed, checked, and written anew from the checked parts only, so that OpenVINO's own parser
cannot read anything that was not checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

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
from refinenet.inference.backends.graph import OPENVINO_FILES

MAX_XML_BYTES = 64 * 1024**2
MAX_TAGS = 2_000_000
MAX_DEPTH = 12

_OPERATORS = """
Abs Add AvgPool BatchNormInference Broadcast Ceiling Clamp Concat Const Convert ConvertLike Convolution
ConvolutionBackpropData CumSum DepthToSpace Divide Einsum Elu Equal Erf Exp FakeQuantize Floor FloorMod Gather
GatherElements GatherND Gelu Greater GreaterEqual GridSample GroupConvolution GroupConvolutionBackpropData
GroupNormalization HSigmoid HSwish HardSigmoid Interpolate Less LessEqual Log LogSoftmax LogicalAnd LogicalNot
LogicalOr LogicalXor MVN MatMul MaxPool Maximum Minimum Mish Mod Multiply Negative NormalizeL2 NotEqual PRelu Pad
Parameter Power RMS Range ReLU ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum Reshape Result Roll Round ScatterElementsUpdate ScatterNDUpdate ScatterUpdate Select
ShapeOf Sigmoid Sign Slice SoftMax Softmax SoftPlus SoftSign SpaceToDepth Split Sqrt SquaredDifference Squeeze
StridedSlice Subtract Swish Tanh Tile TopK Transpose Unsqueeze VariadicSplit
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Layers of OpenVINO's converter, and others that compute numbers from numbers."""

_SETS = re.compile(r"opset([1-9]|1[0-9])")
_NUMBERS = "f32 f16 bf16 f64 i8 u8 i16 u16 i32 u32 i64 u64 i4 u4 boolean"
_TYPES = frozenset(_NUMBERS.split())
_NUMBER = re.compile(r"[0-9]{1,18}")
_LAYER_PARTS = {"data", "input", "output", "rt_info"}
_KEPT_MARKS = {"decompression", "keep_const_precision", "nonconvertible_divide", "precise"}
"""Runtime attributes of a layer that change how it is computed; all others are dropped."""


def check_openvino(text: bytes, weights: bytes) -> Checked:
    """Read the content of OpenVINO's files.

    Args:
        text: Content of the `.xml` file.
        weights: Content of the `.bin` file.

    Raises:
        ValueError: They are not a model, or have contents that are not allowed; names them.
    """
    net = _parse(text)
    layers = _check_layers(net)
    _check_constants(layers, len(weights))
    bands = _check_input(layers)
    result, channels = _take_others_off(net, layers)
    header = _find_header(net)
    entries = known_entries(part.tag for rest in net.findall("rt_info") for part in rest.iter())
    # OpenVINO would take settings from here ("runtime_options").
    for rest in net.findall("rt_info"):
        net.remove(rest)
    return Checked(
        files=dict(zip(OPENVINO_FILES, (ElementTree.tostring(net), weights), strict=True)),
        header=header,
        result=result,
        channels=channels,
        bands=bands,
        entries=entries,
        has_bounded_memory=_has_bounded_memory(net, layers, weights, result, bands),
    )


def _parse(text: bytes) -> Element:
    if len(text) > MAX_XML_BYTES or text.count(b"<") > MAX_TAGS:
        found = f"{len(text)} bytes and {text.count(b'<')} tags"
        raise ValueError(f"its .xml has {found}; up to {MAX_XML_BYTES} and {MAX_TAGS} are allowed")
    try:
        plain = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"its .xml is not in UTF-8: {error}") from error
    if "\0" in plain or plain.startswith("\ufeff"):  # as in other encodings, in which "<!" would look different
        raise ValueError("its .xml is not in plain UTF-8, or is damaged")
    if "<!" in plain:  # also in attributes a "<" is written as "&lt;"
        raise ValueError("its .xml has a document type, entities or comments ('<!'), which no export has")
    try:
        net = ElementTree.fromstring(plain, ElementTree.XMLParser(encoding="utf-8"))
    except ElementTree.ParseError as error:
        raise ValueError(f"it is damaged, or not an XML file: {error}") from error
    _check_depth(net)
    parts = [part.tag for part in net]
    if (
        net.tag != "net"
        or net.get("version") not in ("10", "11")
        or sorted({*parts, "rt_info"}) != sorted({"layers", "edges", "rt_info"})
        or len(set(parts)) != len(parts)
    ):
        raise ValueError(
            f"its .xml is <{net.tag} version={net.get('version')!r}> of {parts[:8]}, not OpenVINO's <net> of version "
            "11 with layers, edges and rt_info"
        )
    return net


def _check_depth(net: Element) -> None:
    level, depth = [net], 0  # level by level: nesting without limit would exhaust a recursion
    while level:
        level, depth = [child for element in level for child in element], depth + 1
        if depth > MAX_DEPTH:
            raise ValueError(f"its .xml is nested more than {MAX_DEPTH} deep")


def _check_layers(net: Element) -> dict[str, Element]:
    layers: dict[str, Element] = {}
    for layer in _part(net, "layers"):
        kind, operators = layer.get("type", ""), layer.get("version", "")
        if layer.tag != "layer" or not _SETS.fullmatch(operators):
            raise ValueError(f"its layer {kind!r} is of {operators!r}, not of OpenVINO's own opset1 to opset19")
        if kind not in OPERATORS:
            raise ValueError(f"its layer {kind!r} is not supported")
        strange = {part.tag for part in layer} - _LAYER_PARTS
        if strange:
            raise ValueError(f"its layer {kind!r} has unexpected parts {sorted(strange)}")
        if layer.get("id", "") in layers:
            raise ValueError(f"its layer {layer.get('id')!r} occurs twice")
        layers[layer.get("id", "")] = layer
        _drop_marks(layer)
    if len(layers) > MAX_NODES:
        raise ValueError(f"it has {len(layers)} layers; up to {MAX_NODES} are allowed")
    return layers


def _drop_marks(layer: Element) -> None:
    for parent in (layer, *layer.iter("port")):
        for marks in parent.findall("rt_info"):
            for mark in list(marks):
                if mark.get("name") not in _KEPT_MARKS:
                    marks.remove(mark)


def _check_constants(layers: dict[str, Element], size: int) -> None:
    end = 0
    for layer in layers.values():
        if layer.get("type") == "Const":
            end = max(end, _end_of(layer))
    if end != size:
        raise ValueError(f"its .bin has {size} bytes, but its .xml says {end}: one of the two belongs to another model")


def _end_of(layer: Element) -> int:
    """Return the offset in the `.bin` file at which the values of a constant end."""
    data = layer.findall("data")
    found = dict(data[0].attrib) if len(data) == 1 else {}
    offset, size, shape = found.get("offset", ""), found.get("size", ""), found.get("shape", "")
    if found.get("element_type") not in _TYPES or shape.count(",") >= MAX_RANK:
        raise ValueError(
            f"its constant {layer.get('name')!r} has the type {found.get('element_type')!r} ({shape[:50]})"
        )
    if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(size)):
        raise ValueError(f"its constant {layer.get('name')!r} lies at {offset[:30]!r}, {size[:30]!r} bytes long")
    return int(offset) + int(size)


def _check_input(layers: dict[str, Element]) -> int:
    """Return the number of bands of the images."""
    found = [layer for layer in layers.values() if layer.get("type") == "Parameter"]
    told = [(port.get("names"), port.get("precision"), _sides(port)) for layer in found for port in layer.iter("port")]
    sides = told[0][2] if len(told) == 1 and INPUT in str(told[0][0]).split(",") and told[0][1] == "FP32" else ()
    if len(sides) != 4 or (sides[0], *sides[2:]) != (-1, -1, -1) or sides[1] < 1:
        raise ValueError(f"its inputs are {told[:8]}, not one {INPUT!r} of FP32 (N, 3, H, W) with N, H and W free")
    return check_bands(sides[1])


def _take_others_off(net: Element, layers: dict[str, Element]) -> tuple[str, int]:
    """Remove the outputs that follow from the logits or maps; return the name of the one kept, and its channels."""
    edges = _part(net, "edges")
    outputs = {}
    for edge in list(edges):
        end = layers.get(edge.get("to-layer", ""))
        if end is not None and end.get("type") == "Result":
            port = _port(layers, edge)
            outputs[_output_name(port)] = (end, edge, port)
    results = sum(layer.get("type") == "Result" for layer in layers.values())
    told = [(name, port.get("precision"), _sides(port)) for name, (_, _, port) in outputs.items()]
    kept = MAPS if MAPS in outputs and results == len(outputs) <= MAX_OUTPUTS else LOGITS
    is_known = kept == MAPS or (results == 2 and set(outputs) == {LABELS, LOGITS} and _is_labels(outputs[LABELS][2]))
    if not is_known or not _is_result(outputs[kept][2]):
        raise ValueError(
            f"its outputs are {told[:8]}, not {LABELS!r} of whole numbers (N, H, W) and {LOGITS!r} of FP32 "
            f"(N, K, h, w), nor among others {MAPS!r} of FP32 (N, C, h, w)"
        )
    for name, (end, edge, _) in outputs.items():
        if name != kept:
            edges.remove(edge)
            _part(net, "layers").remove(end)
    return kept, check_channels(kept, _sides(outputs[kept][2])[1])


def _output_name(port: Element) -> str:
    names = str(port.get("names")).split(",")
    return next((name for name in (LABELS, LOGITS, MAPS) if name in names), names[0])


def _is_labels(port: Element) -> bool:
    return port.get("precision") in ("U8", "I32", "I64") and len(_sides(port)) == 3


def _is_result(port: Element) -> bool:
    sides = _sides(port)
    return port.get("precision") == "FP32" and len(sides) == 4 and sides == (-1, sides[1], -1, -1)


def _port(layers: dict[str, Element], edge: Element) -> Element:
    start = layers.get(edge.get("from-layer", ""))
    ports = [] if start is None else [port for port in start.iter("port") if port.get("id") == edge.get("from-port")]
    if len(ports) != 1:
        raise ValueError(f"its edge {dict(edge.attrib)} has no source layer")
    return ports[0]


def _sides(port: Element) -> Sequence[int]:
    texts = [(dim.text or "").strip() for dim in port.iter("dim")]
    if len(texts) > MAX_RANK or not all(text == "-1" or _NUMBER.fullmatch(text) for text in texts):
        raise ValueError(f"one of its outputs has the shape {texts[:20]}")
    return tuple(int(text) for text in texts)


def _find_header(net: Element) -> str:
    found = [entry.get("value", "") for part in net.findall("rt_info") for entry in part.findall(HEADER_KEY)]
    if len(found) != 1:
        raise ValueError(
            f"its rt_info has {len(found)} entries {HEADER_KEY!r}, not one: it was not exported by this package, "
            "and does not define its classes and preprocessing"
        )
    return found[0]


def _part(net: Element, name: str) -> Element:
    part = net.find(name)
    assert part is not None
    return part


_ELEMENTWISE = {"Add": "add", "Divide": "divide", "FakeQuantize": "", "Maximum": "either", "Minimum": "either",
                "Multiply": "multiply", "PRelu": "", "Power": "", "Subtract": "subtract"}  # fmt: skip
_UNCHANGED = """
BatchNormInference Elu Erf Exp Gelu HSigmoid HSwish HardSigmoid Mish Result Sigmoid SoftPlus Sqrt Swish Tanh
"""
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(_ELEMENTWISE, "elementwise"),
        **dict.fromkeys(("AvgPool", "MaxPool"), "pool"),
        **dict.fromkeys(("Clamp", "ReLU"), "clip"),
        **dict.fromkeys(("Convolution", "GroupConvolution"), "convolution"),
        **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), "reduce"),
        **dict.fromkeys(("Split", "VariadicSplit"), "split"),
        **dict.fromkeys(_UNCHANGED.split(), "same"),
        "Ceiling": "ceil",
        "Concat": "concat",
        "Convert": "cast",
        "Floor": "floor",
        "Gather": "gather",
        "Interpolate": "resize",
        "Negative": "negate",
        "Pad": "pad",
        "Reshape": "reshape",
        "ShapeOf": "shape",
        "Slice": "slice",
        "Squeeze": "squeeze",
        "Unsqueeze": "unsqueeze",
    }
)  # fmt: skip
"""Layers whose outputs' sizes are understood, in the words of `memory_bound`."""
_EXACT_TYPES = {"f32": "<f4", "f64": "<f8", "i32": "<i4", "i64": "<i8"}
_PRECISIONS = {"FP32", "FP64", "I32", "I64"}
_NUMPY_SLICE = (0, 1, 2, 4, 3)
"""OpenVINO has the steps of a slice before its axes."""


def _has_bounded_memory(net: Element, layers: Mapping[str, Element], weights: bytes, name: str, bands: int) -> bool:
    try:
        sources = _sources(net)
        (result,) = (number for number, layer in layers.items() if layer.get("type") == "Result" and number in sources
                     and name in str(_source_port(layers, sources[number][0]).get("names")).split(","))  # fmt: skip
        needed = _needed(sources, result)
        operations = list(_operations({number: layers[number] for number in layers if number in needed}, sources))
        known = dict(_known({number: layers[number] for number in needed}, weights))
        (image,) = (f"{number}:{port.get('id')}" for number in needed for port in layers[number].iter("port")
                    if layers[number].get("type") == "Parameter")  # fmt: skip
    except (ValueError, LookupError, TypeError):
        return False
    return is_proven(operations, known, image, f"{result}:", bands)


def _sources(net: Element) -> dict[str, dict[int, str]]:
    """For each layer the outputs that feed its inputs, as "layer:port", by input."""
    found: dict[str, dict[int, str]] = {}
    for edge in _part(net, "edges"):
        start = f"{edge.get('from-layer')}:{edge.get('from-port')}"
        found.setdefault(edge.get("to-layer", ""), {})[int(edge.get("to-port", ""))] = start
    return found


def _source_port(layers: Mapping[str, Element], source: str) -> Element:
    number, place = source.split(":")
    return next(port for port in layers[number].iter("port") if port.get("id") == place)


def _needed(sources: Mapping[str, Mapping[int, str]], result: str) -> set[str]:
    waiting, needed = [result], set[str]()
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            waiting.extend(source.split(":")[0] for source in sources.get(number, {}).values())
    return needed


def _known(layers: Mapping[str, Element], weights: bytes) -> Iterator[tuple[str, Bounded]]:
    for number, layer in layers.items():
        if layer.get("type") != "Const":
            continue
        data, (port,) = layer.findall("data")[0], layer.iter("port")
        shape = _integers(data, "shape")
        kind = _EXACT_TYPES.get(data.get("element_type", ""))
        if kind is None or math.prod(shape) > MAX_VALUES:
            tensor = Bounded(tuple(map(constant, shape)))
        else:
            start, length = int(data.get("offset", "")), int(data.get("size", ""))
            tensor = Bounded.known(np.frombuffer(weights[start : start + length], kind).reshape(shape))
        yield f"{number}:{port.get('id')}", tensor


def _operations(layers: Mapping[str, Element], sources: Mapping[str, Mapping[int, str]]) -> Iterator[Operation]:
    for number, layer in layers.items():
        operator = layer.get("type", "")
        if operator in ("Const", "Parameter"):
            continue
        given = sources.get(number, {})
        inputs = [given.get(place, "") for place in range(max(given, default=-1) + 1)]
        ports = [port for part in layer.findall("output") for port in part.iter("port")]
        data = next(iter(layer.findall("data")), layer)
        kind = _KINDS.get(operator, operator)
        # Types that may round numbers or wrap them around: their values are not followed.
        if kind == "cast" and ports[0].get("precision") not in _PRECISIONS:
            kind = "same"
        if operator == "Interpolate" and not _is_plain_resize(layer, data):
            kind = operator
        if operator == "Pad":
            inputs = inputs[:3]  # without the value to fill with, which has no effect on sizes
        if operator == "Slice":
            inputs = [inputs[place] if place < len(inputs) else "" for place in _NUMPY_SLICE]
        outputs = [f"{number}:{port.get('id')}" for port in ports] or [f"{number}:"]
        yield Operation(kind=kind, inputs=inputs, outputs=outputs, options=_options(operator, data, len(ports)))


def _is_plain_resize(layer: Element, data: Element) -> bool:
    pads = [*_integers(data, "pads_begin"), *_integers(data, "pads_end")]
    return layer.get("version") == "opset11" and data.get("shape_calculation_mode") == "sizes" and not any(pads)


def _integers(data: Element, name: str) -> list[int]:
    return [int(text) for text in data.get(name, "").split(",") if text.strip()]


def _options(operator: str, data: Element, outputs: int) -> dict[str, Any]:
    begins, ends = _integers(data, "pads_begin"), _integers(data, "pads_end")
    options: dict[str, Any] = {
        "apart": True,
        "ceil": data.get("rounding_type", "floor") != "floor",
        "copies": data.get("special_zero") == "true",
        "count": outputs,
        "dilations": _integers(data, "dilations") or [1] * 4,
        "function": _ELEMENTWISE.get(operator, ""),
        "grouped": operator == "GroupConvolution",
        "keep": data.get("keep_dims") == "true",
        "kernel": _integers(data, "kernel"),
        "limits": [float(data.get(name, "0")) for name in ("min", "max")],
        "pads": list(zip(begins, ends, strict=True)),
        "part": slice(None),
        "same": data.get("auto_pad") in ("same_lower", "same_upper"),
        "strides": _integers(data, "strides"),
    }
    if operator == "Concat":
        options["axis"] = int(data.get("axis", ""))
    if operator == "VariadicSplit":
        options["lengths"] = 2
    return options
