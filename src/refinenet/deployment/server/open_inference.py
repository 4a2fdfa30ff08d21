"""The Open Inference Protocol, version 2, for clients of Triton, KServe and OpenVINO Model Server.

Source: https://github.com/kserve/open-inference-protocol, and Triton's extension for binary tensors
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).

Shape letters: H height, W width, B bands, D channels of an output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from fastapi.responses import Response

from refinenet._version import __version__
from refinenet.deployment.server.http.refusals import Refusal
from refinenet.deployment.server.memory import AROUND_PIXEL_BYTES
from refinenet.deployment.server.routes import REFUSALS, find_service, read_stream
from refinenet.inference.prediction import Prediction
from refinenet.io.images.sample_values import Decoded
from refinenet.outputs import CLASS_KIND

if TYPE_CHECKING:
    from refinenet.deployment.server.service import Service

router = APIRouter(prefix="/v2", responses=REFUSALS)
VERSION = "1"
IMAGE, LABELS, CONFIDENCE = "image", "labels", "confidence"
_HEADER = "Inference-Header-Content-Length"
_OCTETS = "application/octet-stream"
_MOST_OUTPUTS = 64
_TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
    "required": ["name", "datatype", "shape"],
}
_REQUEST = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": {"type": "object"}, "maxItems": _MOST_OUTPUTS},
        "parameters": {"type": "object"},
    },
    "required": ["inputs"],
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _REQUEST},
            _OCTETS: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_NUMBER_BYTES = {"u": 16, "f": 72}
"""Memory for each integer or real number of a tensor as JSON is written: Python's number, and its text twice."""
_TYPES: Mapping[str, npt.DTypeLike] = {"UINT8": "<u1", "UINT16": "<u2", "FP32": "<f4"}


@dataclass(frozen=True, kw_only=True)
class InferenceRequest:
    """An inference request, checked."""

    identifier: str | None
    pixels: npt.NDArray[Any]
    """`(H, W, 3)` uint8 RGB, or `(H, W, B)` float32 in [0, 1]."""
    outputs: Mapping[str, bool]
    """Whether each output asked for is returned as binary data."""


@router.get("")
async def describe_server() -> dict[str, Any]:
    """Describe the server."""
    return {"name": "refinenet", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def describe_model(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """Describe the tensors of the model."""
    service = _find(request, name, version)
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "refinenet",
        "inputs": [_input_of(service)],
        "outputs": _outputs_of(service),
    }


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def is_model_ready(request: Request, name: str, version: str = VERSION) -> dict[str, bool]:
    """Say whether the model takes requests."""
    _find(request, name, version).refuse_unready()
    return {"ready": True}


@router.post("/models/{name}/infer", response_class=Response, openapi_extra=_BODY)
@router.post("/models/{name}/versions/{version}/infer", response_class=Response, openapi_extra=_BODY)
async def infer(request: Request, name: str, version: str = VERSION) -> Response:
    """Predict for one image, given as a tensor."""
    service = _find(request, name, version)
    content, header = await read_stream(request), request.headers.get(_HEADER)

    def run() -> tuple[bytes, int | None]:
        asked = parse(content, header, service)
        prediction = service.predict(Decoded(pixels=asked.pixels))
        return pack(asked, prediction, name, service.settings.max_pixels * AROUND_PIXEL_BYTES)

    body, length = await service.queue.run(run, service.settings.request_seconds)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type=_OCTETS, headers={_HEADER: str(length)})


def _find(request: Request, name: str, version: str) -> Service:
    service = find_service(request)
    if (name, version) != (service.settings.name, VERSION):
        known = f"{service.settings.name!r}, version {VERSION}"
        raise Refusal(404, f"There is no model {name[:100]!r}, version {version[:20]!r}; there is {known}.", "model")
    return service


def _input_of(service: Service) -> dict[str, Any]:
    bands = service.model.card.architecture.bands
    return {"name": IMAGE, "datatype": "FP32" if bands else "UINT8", "shape": [-1, -1, len(bands) or 3]}


def _outputs_of(service: Service) -> list[dict[str, Any]]:
    found = []
    for spec in service.model.outputs:
        if spec.kind == CLASS_KIND:
            ids = "UINT8" if service.model.label_set.dtype is np.uint8 else "UINT16"
            found += [
                {"name": LABELS, "datatype": ids, "shape": [-1, -1]},
                {"name": CONFIDENCE, "datatype": "FP32", "shape": [-1, -1]},
            ]
        else:
            channels = spec.count_channels(len(service.model.label_set))
            found.append({"name": spec.name, "datatype": "FP32", "shape": [channels, -1, -1]})
    return found


def _refuse(message: str) -> NoReturn:
    raise Refusal(400, message, "tensor")


def parse(content: bytes, header: str | None, service: Service) -> InferenceRequest:
    """Parse the body of an inference request.

    Args:
        content: JSON, and after it the bytes of binary tensors.
        header: Length of the JSON, as the header says; None for JSON alone.
        service: Names and types of the tensors.

    Raises:
        Refusal: the body does not keep the protocol, or the tensors are not those of the model.
    """
    if header is not None and not (header.isdecimal() and len(header) < 12 and int(header) <= len(content)):
        _refuse(f"{_HEADER} must be at most the length of the body, {len(content)}, not {header[:20]!r}.")
    length = len(content) if header is None else int(header)
    asked = _load(content[:length])
    inputs, identifier = asked.get("inputs"), asked.get("id")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        _refuse(f"inputs must be a list of one tensor, {IMAGE!r}.")
    if not (identifier is None or isinstance(identifier, str)):
        _refuse("id must be text.")
    pixels = _read_tensor(inputs[0], content[length:], _input_of(service), service.settings.max_pixels)
    return InferenceRequest(identifier=identifier, pixels=pixels, outputs=_choose_outputs(asked, service))


def _load(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=lambda word: _refuse(f"{word} is not JSON."))
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "The request is not JSON, or nested too deeply.", "tensor") from error
    if not isinstance(found, dict):
        _refuse("The request must be a JSON object.")
    return found


def _read_tensor(tensor: Mapping[str, Any], binary: bytes, expected: Mapping[str, Any], most: int) -> npt.NDArray[Any]:
    if (tensor.get("name"), tensor.get("datatype")) != (expected["name"], expected["datatype"]):
        _refuse(f"The input must be {expected['name']!r} of {expected['datatype']}.")
    shape, bands = tensor.get("shape"), expected["shape"][-1]
    if not (isinstance(shape, list) and len(shape) in (3, 4) and all(type(side) is int and side > 0 for side in shape)):
        _refuse(f"shape must be [height, width, {bands}].")
    height, width, channels = shape[-3:]
    if channels != bands or shape[:-3] not in ([], [1]):
        _refuse(f"shape must be [height, width, {bands}], or with a 1 before it, not {str(shape)[:100]}.")
    if height * width > most:
        raise Refusal(413, f"{width} x {height} pixels are too many: at most {most:,} are read.", "image_size")
    dtype, sides = np.dtype(_TYPES[expected["datatype"]]), (height, width, channels)
    parameters = _parameters_of(tensor)
    if "binary_data_size" in parameters:
        pixels = _from_binary(parameters["binary_data_size"], binary, dtype, sides)
    else:
        pixels = _from_numbers(tensor.get("data"), dtype, sides)
    if dtype.kind == "f" and not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        _refuse("Values must be finite and from 0 to 1.")
    return pixels


def _parameters_of(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row.get("parameters", {})
    if not isinstance(found, dict):
        _refuse("parameters must be a JSON object.")
    return found


def _from_binary(size: Any, binary: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    needed = math.prod(shape) * dtype.itemsize
    if size != needed or len(binary) != needed:
        _refuse(f"A tensor of this shape has {needed} bytes; {len(binary)} follow the JSON.")
    return np.frombuffer(binary, dtype).reshape(shape)


def _from_numbers(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        values = np.array(data, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refusal(400, "data must be a list of numbers, flat or nested as the shape.", "tensor") from error
    if values.size != math.prod(shape):
        _refuse(f"A tensor of this shape has {math.prod(shape)} numbers, but data has {values.size}.")
    if dtype.kind == "u" and not ((values >= 0) & (values <= 255) & (values == np.rint(values))).all():
        _refuse("UINT8 numbers are whole and from 0 to 255.")
    return values.astype(dtype).reshape(shape)


def _choose_outputs(asked: Mapping[str, Any], service: Service) -> dict[str, bool]:
    known = [row["name"] for row in _outputs_of(service)]
    all_binary = _parameters_of(asked).get("binary_data_output") is True
    listed = asked.get("outputs")
    if listed is None:
        return dict.fromkeys([name for name in known if name != CONFIDENCE], all_binary)
    if not isinstance(listed, list) or len(listed) > _MOST_OUTPUTS:
        _refuse(f"outputs must be a list of some of {', '.join(known)}.")
    chosen = {}
    for row in listed:
        name = row.get("name") if isinstance(row, dict) else None
        if name not in known:
            _refuse(f"outputs must be some of {', '.join(known)}, not {str(name)[:100]!r}.")
        chosen[str(name)] = bool(_parameters_of(row).get("binary_data", all_binary))
    return chosen


def pack(asked: InferenceRequest, prediction: Prediction, name: str, memory: int) -> tuple[bytes, int | None]:
    """Return the body of the response, and the length of its JSON if binary tensors follow it.

    Args:
        asked: The request.
        prediction: What was predicted for it.
        name: Name of the model.
        memory: Bytes that numbers may take while they are written as JSON.

    Raises:
        Refusal: the numbers would take more.
    """
    rows, parts = list[dict[str, Any]](), list[bytes]()
    for output, is_binary in asked.outputs.items():
        values = _values_of(output, prediction)
        memory -= 0 if is_binary else values.size * _NUMBER_BYTES[values.dtype.kind]
        if memory < 0:
            _refuse(f"{output} has too many numbers for JSON, {values.size:,}. Set its parameter binary_data to true.")
        row: dict[str, Any] = {"name": output, "datatype": _name_type(values), "shape": list(values.shape)}
        if is_binary:
            parts.append(values.tobytes())
            row["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            row["data"] = values.ravel().tolist()
        rows.append(row)
    described: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": rows}
    if asked.identifier is not None:
        described["id"] = asked.identifier
    head = json.dumps(described, separators=(",", ":")).encode()
    return (b"".join([head, *parts]), len(head)) if parts else (head, None)


def _values_of(output: str, prediction: Prediction) -> npt.NDArray[Any]:
    if prediction.segmentation is not None and output in (LABELS, CONFIDENCE):
        segmentation = prediction.segmentation
        return segmentation.labels if output == LABELS else segmentation.confidence
    return prediction[output]


def _name_type(values: npt.NDArray[Any]) -> str:
    return next(name for name, dtype in _TYPES.items() if values.dtype == np.dtype(dtype))
