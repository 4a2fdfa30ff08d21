"""Export formats: a writer for each, and a runner by the program that the format is for.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet._version import __version__
from refinenet.export.loading.checksum import OPEN_SEAL, SEAL_KEY, close_seal
from refinenet.inference.backends.graph import (
    compile_openvino,
    onnxruntime_errors,
    open_onnx,
    require_openvino,
)
from refinenet.inference.backends.onnxruntime import require_onnx
from refinenet.models.encoders.feature_info import STRIDES
from refinenet.models.inference_graph import INPUT, LABELS, LOGITS
from refinenet.models.model_file import HEADER_KEY, ModelCard, make_header
from refinenet.models.network import Network
from refinenet.models.tensor_files import digest

SUGGESTED_SIDE = 512
"""Image side for programs that ask for one; the graphs take all sizes."""


@dataclass(frozen=True, kw_only=True)
class GraphMetadata:
    """Metadata of a graph."""

    card: ModelCard
    """Model card, with the hash of the weights."""
    header: str
    """JSON text of `model_file.make_header`, in ASCII, on one line."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by id."""
        return self.card.label_set.names

    def text_entries(self) -> Mapping[str, str]:
        """Return metadata for formats that hold a text under each key.

        "refinenet" is the header. The others are those that Ultralytics' `AutoBackend` reads (docs.ultralytics.com,
        "Export"): Python literals as texts. "palette" holds a list of RGB colours, 0 to 255, as JSON.
        """
        return {
            HEADER_KEY: self.header,
            "task": "semantic",
            "names": repr(dict(enumerate(self.names))),
            "stride": str(STRIDES[-1]),
            "channels": "3",
            "batch": "1",
            "imgsz": repr([SUGGESTED_SIDE, SUGGESTED_SIDE]),
            "args": repr({"dynamic": True}),
            "description": f"RefineNet ({self.card.architecture.model_type}, {self.card.architecture.encoder})",
            "author": "refinenet",
            "version": __version__,
            "license": self.card.licence,
            "palette": json.dumps(self.card.label_set.to_dict()["colours"]),
        }

    def model_info(self) -> Mapping[str, Any]:
        """Return the "model_info" that OpenVINO's Model API reads.

        The API passes images in BGR from 0 to 255, and splits labels at spaces, so that names have underscores here.
        Its masks are upsampled from labels at a quarter of the size; the output "labels" is finer.
        Source: openvinotoolkit.github.io/model_api, "Segmentation".
        """
        return {
            "model_type": "Segmentation",
            "labels": " ".join(name.replace(" ", "_") for name in self.names),
            "reverse_input_channels": "True",
            "scale_values": "255.0",
            "return_soft_prediction": "False",
            "blur_strength": "-1",
        }


def describe(network: Network, card: ModelCard) -> GraphMetadata:
    """Collect the metadata of a network's graph."""
    known = replace(card, weights_sha256=card.weights_sha256 or digest(network.state_dict()))
    header = make_header(network, known, known.weights_sha256)
    return GraphMetadata(card=known, header=json.dumps(header, sort_keys=True, allow_nan=False))


LARGEST_BATCH = 8
"""Greatest number of waiting images of one size that the server puts into a batch."""

_CONFIG = """\
name: {name}
backend: "onnxruntime"
max_batch_size: {largest_batch}
input [
  {{ name: "{images}" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1, -1 ] }}
]
output [
  {{ name: "{labels}" data_type: {label_type} dims: [ -1, -1 ] label_filename: "labels.txt" }},
  {{ name: "{logits}" data_type: TYPE_FP32 dims: [ {classes}, -1, -1 ] }}
]
dynamic_batching {{ }}
version_policy: {{ latest {{ num_versions: 1 }} }}
"""


def model_name(folder: Path) -> str:
    """Return the server's name for a model: the folder's name without suffix, in letters, digits, "-" and "_"."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", folder.stem) or "refinenet"


def write_repository(folder: Path, metadata: GraphMetadata, write_onnx: Callable[[Path], None]) -> None:
    """Write a model repository with one model.

    Args:
        folder: A folder that does not exist yet.
        metadata: Metadata of the network.
        write_onnx: Writes the graph to a path.
    """
    name = model_name(folder)
    (folder / name / "1").mkdir(parents=True)
    classes = len(metadata.names)
    config = _CONFIG.format(
        name=json.dumps(name),
        largest_batch=LARGEST_BATCH,
        images=INPUT,
        labels=LABELS,
        logits=LOGITS,
        label_type="TYPE_UINT8" if classes <= 255 else "TYPE_INT32",
        classes=classes,
    )
    (folder / name / "config.pbtxt").write_text(config, "utf-8")
    (folder / name / "labels.txt").write_text("".join(f"{label}\n" for label in metadata.names), "utf-8")
    write_onnx(folder / name / "1" / "model.onnx")


OPSET = 20
"""Version of the ONNX operators."""

Images = npt.NDArray[np.float32]
GraphOutput = tuple[npt.NDArray[Any], npt.NDArray[np.float32]]
"""Labels `(N, H, W)` and logits `(N, K, ceil(H/4), ceil(W/4))`."""
Runner = Callable[[Images], GraphOutput]
"""From float32 RGB images `(N, 3, H, W)` in [0, 1] to the outputs of the graph."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """An export format."""

    name: str
    packages: Sequence[str]
    """Packages whose versions a certificate names, in addition to ours and PyTorch's."""
    require: Callable[[], object]
    """Raises ValueError if a package that it needs is not installed."""
    write: Callable[[torch.export.ExportedProgram, GraphMetadata, Path], None]
    """Writes a traced network to a path that does not exist yet."""
    open: Callable[[Path], Runner]
    """Opens such a file by the program that the format is for."""


def _write_onnx(program: torch.export.ExportedProgram, metadata: GraphMetadata, path: Path) -> None:
    import onnx

    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=[LABELS, LOGITS],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    _name_sizes(model.graph)
    onnx.helper.set_model_props(model, {**metadata.text_entries(), SEAL_KEY: OPEN_SEAL})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    close_seal(path)


def _name_sizes(graph: Any) -> None:
    """Name the free sides of inputs and outputs; the trace only numbers them."""
    batch, _, height, width = (size.dim_param for size in graph.input[0].type.tensor_type.shape.dim)
    names = {batch: "batch", height: "height", width: "width"}
    known = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = known.sub(lambda found: names[found[0]], size.dim_param)


def _open_onnx(path: Path) -> Runner:
    session, errors = open_onnx(path), onnxruntime_errors()

    def run(images: Images) -> GraphOutput:
        try:
            labels, logits = session.run([LABELS, LOGITS], {INPUT: images})
        except errors as error:
            raise RuntimeError(str(error)) from error
        return labels, logits

    return run


def write_openvino(
    program: torch.export.ExportedProgram,
    metadata: GraphMetadata,
    path: Path,
    change: Callable[[Any], Any] = lambda model: model,
) -> None:
    """Write a traced network as OpenVINO's `.xml` and `.bin`.

    Args:
        program: The result of `inference_graph.trace`.
        metadata: Metadata of the network.
        path: A path that does not exist yet.
        change: Maps the `openvino.Model` to the one to write, which has the same outputs in the same order.
    """
    openvino = require_openvino()
    model = openvino.convert_model(program)
    model.reshape([-1, 3, -1, -1])
    model = change(model)
    model.get_parameters()[0].set_layout(openvino.Layout("NCHW"))
    # OpenVINO's Model API refuses a second output of another name than "feature_vector".
    for output, names in zip(model.outputs, ({LABELS, "feature_vector"}, {LOGITS}), strict=True):
        output.get_tensor().set_names(names)
    model.set_rt_info(metadata.header, [HEADER_KEY])
    model.set_rt_info(OPEN_SEAL, [SEAL_KEY])
    for key, value in metadata.model_info().items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, path, compress_to_fp16=False)
    close_seal(path, [path.with_suffix(".bin")])


def _open_openvino(path: Path) -> Runner:
    request = compile_openvino(path, PERFORMANCE_HINT="LATENCY").create_infer_request()

    def run(images: Images) -> GraphOutput:
        answer = request.infer({INPUT: images})
        return answer[LABELS].copy(), answer[LOGITS].copy()

    return run


def _write_program(program: torch.export.ExportedProgram, metadata: GraphMetadata, path: Path) -> None:
    torch.export.save(program, path, extra_files=dict(metadata.text_entries()))


def _open_program(path: Path) -> Runner:
    module = torch.export.load(path).module()

    def run(images: Images) -> GraphOutput:
        try:
            with torch.inference_mode():
                labels, logits = module(torch.from_numpy(images))
        except AssertionError as error:  # a condition of the trace that does not hold
            raise RuntimeError(str(error)) from error
        return labels.numpy(), logits.numpy()

    return run


def _write_triton(program: torch.export.ExportedProgram, metadata: GraphMetadata, path: Path) -> None:
    write_repository(path, metadata, lambda file: _write_onnx(program, metadata, file))


def _open_triton(path: Path) -> Runner:
    (model,) = path.glob("*/1/model.onnx")
    return _open_onnx(model)


_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".onnx": Format(name="ONNX", packages=_ONNX_PACKAGES, require=require_onnx, write=_write_onnx, open=_open_onnx),
        ".xml": Format(
            name="OpenVINO",
            packages=("openvino",),
            require=require_openvino,
            write=write_openvino,
            open=_open_openvino,
        ),
        ".pt2": Format(
            name="PyTorch exported program",
            packages=(),
            require=lambda: None,
            write=_write_program,
            open=_open_program,
        ),
        ".triton": Format(
            name="Triton model repository",
            packages=_ONNX_PACKAGES,
            require=require_onnx,
            write=_write_triton,
            open=_open_triton,
        ),
    }
)
"""Formats by suffix."""


def find_format(path: str | os.PathLike[str]) -> Format:
    """Return the format of a path by its suffix.

    Raises:
        ValueError: No format has this suffix, or a package that it needs is not installed.
    """
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        allowed = ", ".join(f"{ending} ({found.name})" for ending, found in FORMATS.items())
        raise ValueError(f"Networks are exported as {allowed}, not as {os.fspath(path)!r}. Name a file that ends so.")
    found = FORMATS[suffix]
    found.require()
    return found
