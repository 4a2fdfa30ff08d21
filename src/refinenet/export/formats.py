"""The formats: how a traced network is written as each, and how each is run by its own program.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet.export.loading.checksum import OPEN_SEAL, SEAL_KEY, close_seal
from refinenet.export.metadata import Facts
from refinenet.export.triton import write_repository
from refinenet.inference.backends.openvino import require_openvino
from refinenet.models.inference_graph import INPUT, LABELS, LOGITS
from refinenet.models.model_file import HEADER_KEY

OPSET = 20
"""Version of ONNX's operators."""

Images = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[Any], npt.NDArray[np.float32]]
"""Labels `(N, H, W)` and logits `(N, K, ceil(H/4), ceil(W/4))`."""
Runner = Callable[[Images], Answer]
"""Float32 RGB images `(N, 3, H, W)` in [0, 1] to what the graph says of them."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of another program."""

    name: str
    packages: Sequence[str]
    """Whose versions a certificate names, beside ours and PyTorch's."""
    require: Callable[[], object]
    """Raises ValueError where what it needs is not installed."""
    write: Callable[[torch.export.ExportedProgram, Facts, Path], None]
    """Writes a traced network to a path that is free."""
    open: Callable[[Path], Runner]
    """Opens what `write` wrote by the program that the format is for."""


def require_onnx() -> Any:
    """The module `onnx`, where all is there that writing and running ONNX files needs.

    Raises:
        ValueError: something is not installed.
    """
    try:
        found = [importlib.import_module(name) for name in ("onnx", "onnxruntime", "onnxscript")]
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'refinenet[export]'") from error
    return found[0]


def _write_onnx(program: torch.export.ExportedProgram, facts: Facts, path: Path) -> None:
    onnx = require_onnx()
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
    onnx.helper.set_model_props(model, {**facts.text_entries(), SEAL_KEY: OPEN_SEAL})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    close_seal(path)


def _name_sizes(graph: Any) -> None:
    """Call the sizes of input and outputs what they are; the trace numbers them."""
    batch, _, height, width = (size.dim_param for size in graph.input[0].type.tensor_type.shape.dim)
    names = {batch: "batch", height: "height", width: "width"}
    known = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = known.sub(lambda found: names[found[0]], size.dim_param)


def _open_onnx(path: Path) -> Runner:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Images) -> Answer:
        try:
            labels, logits = session.run([LABELS, LOGITS], {INPUT: images})
        except (errors.Fail, errors.InvalidArgument, errors.RuntimeException, errors.NotImplemented) as error:
            raise RuntimeError(str(error)) from error
        return labels, logits

    return run


def write_openvino(
    program: torch.export.ExportedProgram,
    facts: Facts,
    path: Path,
    change: Callable[[Any], Any] = lambda model: model,
) -> None:
    """Write a traced network as OpenVINO's `.xml` and `.bin`.

    Args:
        program: As `exported_graph.trace` gives it.
        facts: What is said of it.
        path: A name that is free.
        change: From the `openvino.Model` to the one to be written, of the same outputs in the same order.
    """
    openvino = require_openvino()
    model = openvino.convert_model(program)
    model.reshape([-1, 3, -1, -1])
    model = change(model)
    model.get_parameters()[0].set_layout(openvino.Layout("NCHW"))
    # OpenVINO's Model API refuses a second output of another name than "feature_vector".
    for output, names in zip(model.outputs, ({LABELS, "feature_vector"}, {LOGITS}), strict=True):
        output.get_tensor().set_names(names)
    model.set_rt_info(facts.header, [HEADER_KEY])
    model.set_rt_info(OPEN_SEAL, [SEAL_KEY])
    for key, value in facts.model_info().items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, path, compress_to_fp16=False)
    close_seal(path, [path.with_suffix(".bin")])


def _open_openvino(path: Path) -> Runner:
    openvino = require_openvino()
    # On processors that compute in bfloat16 OpenVINO would do so by default.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(images: Images) -> Answer:
        answer = request.infer({INPUT: images})
        return answer[LABELS].copy(), answer[LOGITS].copy()

    return run


def _write_program(program: torch.export.ExportedProgram, facts: Facts, path: Path) -> None:
    torch.export.save(program, path, extra_files=dict(facts.text_entries()))


def _open_program(path: Path) -> Runner:
    module = torch.export.load(path).module()

    def run(images: Images) -> Answer:
        try:
            with torch.inference_mode():
                labels, logits = module(torch.from_numpy(images))
        except AssertionError as error:  # a condition of the trace that does not hold
            raise RuntimeError(str(error)) from error
        return labels.numpy(), logits.numpy()

    return run


def _write_triton(program: torch.export.ExportedProgram, facts: Facts, path: Path) -> None:
    write_repository(path, facts, lambda file: _write_onnx(program, facts, file))


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
"""By the ending of the file's name."""


def find_format(path: str | os.PathLike[str]) -> Format:
    """The format that a file's name asks for.

    Raises:
        ValueError: none ends so, or what it needs is not installed.
    """
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        allowed = ", ".join(f"{ending} ({found.name})" for ending, found in FORMATS.items())
        raise ValueError(f"Networks are exported as {allowed}, not as {os.fspath(path)!r}. Name a file that ends so.")
    found = FORMATS[suffix]
    found.require()
    return found
