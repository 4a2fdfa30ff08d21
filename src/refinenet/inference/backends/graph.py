"""Graphs in memory, and the engines that run them. Nothing here needs PyTorch.

Shape letters: N batch, K classes, H height, W width, h and w a quarter of these, rounded up.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refinenet.inference.backends.base import BackendError
from refinenet.io.extras import install_extra

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], Floats]
"""Function from images `(N, 3, H, W)` float32 RGB in [0, 1] to logits `(N, K, h, w)` float32, in any memory layout."""

Engine = Literal["onnxruntime", "openvino"]
GraphKind = Literal["onnx", "openvino"]
ENGINES: Mapping[GraphKind, tuple[Engine, ...]] = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}
"""Engines for each kind of graph, the default first."""

ONNX_FILE = "network.onnx"
OPENVINO_FILES = ("network.xml", "network.bin")
MAX_IDLE = 8
"""Number of OpenVINO inference requests kept for later calls; further concurrent calls create new ones."""
_STARTED: weakref.WeakSet[Run] = weakref.WeakSet()
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Arithmetic of what is not in int8."""


@dataclass(frozen=True)
class Graph:
    """A graph with one input, images, and one output, the maps of all outputs: of classes alone their logits."""

    files: Mapping[str, bytes] = field(repr=False)
    """Content of "network.onnx", or of "network.xml" and "network.bin"."""
    has_bounded_memory: bool = True
    """Whether it needs memory in proportion to the image; one that may not runs in a process of limited memory."""

    @property
    def kind(self) -> GraphKind:
        """Format: "onnx", or "openvino" for OpenVINO's intermediate representation."""
        return "onnx" if ONNX_FILE in self.files else "openvino"


@dataclass(frozen=True)
class ExportedModel:
    """A checked graph from a file, which can be run but not trained."""

    path: Path
    graph: Graph
    channels: int
    """Channels of its maps: of classes alone their number."""
    sha256: str
    """Hexadecimal SHA-256 of the file, or of OpenVINO's two files concatenated; of a translation, that of the stored
    weights."""
    is_translation: bool = False
    """Whether it is the translation of a network that can be loaded."""


def start_engine(graph: Graph, engine: Engine, precision: str = "float32", threads: int | None = None) -> Run:
    """Load a graph into an engine.

    Args:
        graph: Graph to run on the CPU.
        engine: Engine for its kind.
        precision: Precision of the arithmetic; "bfloat16" with OpenVINO only.
        threads: Number of threads; None leaves it to OpenVINO, and means one per core for ONNX Runtime.

    Raises:
        ValueError: the engine is not installed, or cannot read the graph.
    """
    if engine == "openvino":
        run = _start_openvino(graph, precision, threads)
    else:
        run = _start_onnxruntime(graph, threads or os.cpu_count() or 1)
    _STARTED.add(run)
    return run


def _keep_inherited() -> None:
    """Keep the engines that a forked process inherits alive until it ends.

    Their threads do not survive the fork, and their destructors would wait for them and abort the process.
    """
    for run in list(_STARTED):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(run))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)


def _start_onnxruntime(graph: Graph, threads: int) -> Run:
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session, errors = open_onnx(graph.files[ONNX_FILE], options), onnxruntime_errors()
    name = session.get_inputs()[0].name

    def run(images: Floats) -> Floats:
        try:
            logits: Floats = session.run(None, {name: np.ascontiguousarray(images)})[0]
        except errors as error:
            raise ValueError(f"ONNX Runtime cannot run the graph: {error}") from error
        return logits

    return run


def open_onnx(graph: bytes | Path, options: Any = None) -> Any:
    """Open an ONNX graph, or the file of one, as an `onnxruntime.InferenceSession` on the CPU.

    Args:
        graph: Content of the file, or its path.
        options: `onnxruntime.SessionOptions`; None for those of ONNX Runtime.

    Raises:
        ValueError: ONNX Runtime is not installed, or cannot read the graph.
    """
    onnxruntime = require_onnxruntime()
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except onnxruntime_errors() as error:
        raise BackendError(f"ONNX Runtime cannot read the graph: {error}") from error


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*errors, RuntimeError)


def _start_openvino(graph: Graph, precision: str, threads: int | None) -> Run:
    openvino = require_openvino()
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    with _openvino_guard():
        model = _with_channels_last(openvino, read_openvino(openvino, graph))
    compiled = compile_openvino(model, **settings)

    # A request holds the images and logits of one call, so concurrent calls must not share one.
    idle: deque[Any] = deque([compiled.create_infer_request()], maxlen=MAX_IDLE)

    def run(images: Floats) -> Floats:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            outputs = request.infer([np.ascontiguousarray(images.transpose(0, 2, 3, 1))], share_inputs=True)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot run the graph: {error}") from error
        logits: Floats = next(iter(outputs.values())).copy().transpose(0, 3, 1, 2)
        idle.append(request)
        return logits

    return run


def compile_openvino(model: Any, **settings: Any) -> Any:
    """Compile an OpenVINO model for the CPU, in float32 where it is not int8 unless the settings say otherwise.

    Args:
        model: An `openvino.Model`, or the path of one.
        settings: Properties of OpenVINO's CPU plugin, by name.

    Returns:
        An `openvino.CompiledModel`.

    Raises:
        ValueError: OpenVINO is not installed, or cannot read the model.
    """
    openvino = require_openvino()
    # On processors that compute in bfloat16 OpenVINO would do so by default.
    settings = {"INFERENCE_PRECISION_HINT": _HINTS["float32"], **settings}
    with _openvino_guard():
        return openvino.Core().compile_model(model, "CPU", settings)


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _openvino_guard() -> Iterator[None]:
    """Translate OpenVINO's errors, and restore this thread's alternate signal stack, which it replaces by its own.

    OpenVINO frees its stack with the model. If another thread does that, this one is left with a stack that no longer
    exists, and the next signal, such as Ctrl-C, crashes the process.
    """
    libc, before = ctypes.CDLL(None) if sys.platform == "linux" else None, _SignalStack()
    if libc is not None:
        libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot read the graph: {error}") from error
    finally:
        if libc is not None:
            libc.sigaltstack(ctypes.byref(before), None)


def read_openvino(openvino: Any, graph: Graph) -> Any:
    """Read a graph as an `openvino.Model`."""
    core = openvino.Core()
    if graph.kind == "onnx":
        return core.read_model(graph.files[ONNX_FILE], b"")
    text, weights = (graph.files[name] for name in OPENVINO_FILES)
    return core.read_model(text, openvino.Tensor(np.frombuffer(weights, np.uint8)))


def _with_channels_last(openvino: Any, model: Any) -> Any:
    """Return the model with channels-last input and output, the layout of the package, so that nothing is copied."""
    steps = openvino.preprocess.PrePostProcessor(model)
    outside, inside = openvino.Layout("NHWC"), openvino.Layout("NCHW")
    steps.input().tensor().set_layout(outside)
    steps.input().model().set_layout(inside)
    steps.output().tensor().set_layout(outside)
    steps.output().model().set_layout(inside)
    return steps.build()


def computes_in_bfloat16() -> bool:
    """Whether OpenVINO computes faster in bfloat16 on this processor."""
    return "BF16" in require_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def require_onnxruntime() -> Any:
    """Import `onnxruntime`.

    Raises:
        ValueError: The package is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"ONNX Runtime is not installed: {install_extra('export', small='onnx')}") from error
    return onnxruntime


@contextmanager
def without_telemetry(variable: str, value: str) -> Iterator[None]:
    """Set an environment variable by which a package sends no usage data when it is imported.

    Args:
        variable: Its name. It is restored afterwards, as other programs read it, too.
        value: What the package understands as "in continuous integration", its only switch.
    """
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def require_openvino() -> Any:
    """Import `openvino` with its telemetry switched off.

    Raises:
        ValueError: The package is not installed.
    """
    try:
        with without_telemetry("CI", "true"):
            import openvino
            import openvino.preprocess
    except ImportError as error:
        raise ValueError(f"OpenVINO is not installed: {install_extra('openvino')}") from error
    return openvino
