"""TensorRT engines: built on the machine, and for the GPU, that runs them, from an ONNX graph of one fixed shape.

Source: docs.nvidia.com/deeplearning/tensorrt, "Python API Documentation". Written after it, and not run on a GPU yet.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import torch

from refinenet.export.formats import onnx
from refinenet.export.metadata import GraphMetadata, GraphOutput, Images, Runner
from refinenet.inference.backends.onnxruntime import require_onnx
from refinenet.models.inference_graph import INPUT

DESCRIPTION_ENDING = ".json"
"""Suffix after the name of an engine, which itself holds no metadata that programs of NVIDIA would read."""


def require_tensorrt() -> None:
    """Check that engines can be built here.

    Raises:
        ValueError: TensorRT or ONNX is not installed, or there is no GPU.
    """
    require_onnx()
    _import_tensorrt()
    if not torch.cuda.is_available():
        raise ValueError(
            "A TensorRT engine is built on the GPU that runs it, but PyTorch finds none here. Export .onnx, and build "
            "the engine on the machine that has one."
        )


def _import_tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise ValueError(
            "TensorRT is not installed: pip install tensorrt, on Linux or Windows with an NVIDIA GPU. Or export to "
            ".onnx and build the engine with trtexec."
        ) from error


def write(program: torch.export.ExportedProgram, metadata: GraphMetadata, path: Path) -> None:
    """Build an engine of a network that was traced with a fixed shape, and describe it in a JSON file beside it.

    Raises:
        ValueError: TensorRT cannot build it.
    """
    tensorrt = _import_tensorrt()
    graph = path.with_suffix(".onnx")
    onnx.write(program, metadata, graph)
    engine = _build(tensorrt, graph.read_bytes())
    path.write_bytes(engine)
    graph.unlink()
    assert program.example_inputs is not None
    shape = list(program.example_inputs[0][0].shape)
    facts = {
        **metadata.text_entries(),
        "args": repr({"dynamic": False}),
        "batch": str(shape[0]),
        "imgsz": repr(shape[2:]),
        "shape": shape,
        "sha256": hashlib.sha256(engine).hexdigest(),
        "tensorrt": tensorrt.__version__,
        "gpu": torch.cuda.get_device_name(),
    }
    path.with_name(path.name + DESCRIPTION_ENDING).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def _build(tensorrt: Any, graph: bytes) -> bytes:
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network, config = builder.create_network(), builder.create_builder_config()
    # Products of 10 bits, the default up to TensorRT 10, would be out of the tolerance of float32.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        problems = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ValueError(f"TensorRT cannot read the network: {problems}")
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("TensorRT cannot build an engine of the network; it says why on standard error.")
    return bytes(engine)


def _read(path: Path) -> bytes:
    """Return an engine whose bytes are those that were built: TensorRT runs what a damaged file says.

    Raises:
        ValueError: They are not, or nothing says what they were.
        OSError: The file or its description cannot be read.
    """
    description = path.with_name(path.name + DESCRIPTION_ENDING)
    content = path.read_bytes()
    try:
        expected = json.loads(description.read_bytes())["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{description} is not the description of an engine that was exported here. Export {path.name} again."
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(
            f"{path} is not the engine that {description.name} describes: it is damaged or another file. Export it "
            "again."
        )
    return content


def open_file(path: Path) -> Runner:
    """Load an engine that was built here; one of a stranger is a program, and must not be loaded.

    Raises:
        ValueError: It is not what `write` has written, TensorRT is not installed, there is no GPU, or TensorRT cannot
            load it.
        OSError: The file or its description cannot be read.
    """
    content = _read(path)
    tensorrt = _import_tensorrt()
    if not torch.cuda.is_available():
        raise ValueError(f"{path} is a TensorRT engine, which runs on an NVIDIA GPU, but PyTorch finds none here.")
    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING)).deserialize_cuda_engine(content)
    if engine is None:
        raise ValueError(f"TensorRT cannot load {path}; it says why on standard error.")
    context = engine.create_execution_context()
    types = {tensorrt.float32: torch.float32, tensorrt.int32: torch.int32, tensorrt.int64: torch.int64}
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    results = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT]

    def run(images: Images) -> GraphOutput:
        tensors = {INPUT: torch.from_numpy(images).cuda().contiguous()}
        for name in results:
            shape, dtype = tuple(engine.get_tensor_shape(name)), types[engine.get_tensor_dtype(name)]
            tensors[name] = torch.empty(shape, dtype=dtype, device="cuda")
        for name, tensor in tensors.items():
            context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # PyTorch has no types for it
        stream.wait_stream(torch.cuda.current_stream())
        if not context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT could not run the engine; it says why on standard error.")
        stream.synchronize()
        return tuple(tensors[name].cpu().numpy() for name in results)

    return run
