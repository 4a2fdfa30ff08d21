"""One image to its `Segmentation` or `Prediction`: protocols (sliding windows, scales, mirroring) and backends.

Start reading at `segmenter.Segmenter`.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.inference.backends import (
        AUTO,
        BACKENDS,
        check_backend,
        choose_backend,
        list_backends,
        open_backend,
    )
    from refinenet.inference.backends.base import BackendError, BackendName, InferencePrecision
    from refinenet.inference.backends.graph import (
        ENGINES,
        ONNX_FILE,
        OPENVINO_FILES,
        Engine,
        ExportedModel,
        Graph,
        GraphKind,
        compile_openvino,
        onnxruntime_errors,
        open_onnx,
        require_onnxruntime,
        require_openvino,
        start_engine,
    )
    from refinenet.inference.backends.isolated import (
        SIZE_FACTOR,
        SPARE_BYTES,
        load_engine,
        pack,
        set_limit,
        unpack,
        used_addresses,
    )
    from refinenet.inference.backends.onnxruntime import require_onnx
    from refinenet.inference.backends.pytorch import PyTorchBackend, keep_freed_memory
    from refinenet.inference.output_kinds import (
        KINDS,
        OUTPUT_KINDS,
        OUTPUTS,
        PICTURE_SUFFIXES,
        POLYGONS,
        Kind,
        Output,
    )
    from refinenet.inference.prediction import Prediction
    from refinenet.inference.protocol import PLAIN, Protocol, choose_protocol
    from refinenet.inference.segmentation import Logits, Segmentation, check_output, choose_palette
    from refinenet.inference.segmenter import (
        Backend,
        NotFiniteError,
        Segmenter,
        check_abstention,
        check_finite,
        prepare,
    )
    from refinenet.inference.sliding_window import Block, WindowGrid, blend_windows
    from refinenet.inference.upsampling import largest_class, resize
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "AUTO",
    "BACKENDS",
    "ENGINES",
    "KINDS",
    "ONNX_FILE",
    "OPENVINO_FILES",
    "OUTPUTS",
    "OUTPUT_KINDS",
    "PICTURE_SUFFIXES",
    "PLAIN",
    "POLYGONS",
    "SIZE_FACTOR",
    "SPARE_BYTES",
    "Backend",
    "BackendError",
    "BackendName",
    "Block",
    "Engine",
    "ExportedModel",
    "Graph",
    "GraphKind",
    "InferencePrecision",
    "Kind",
    "Logits",
    "NotFiniteError",
    "Output",
    "Prediction",
    "Protocol",
    "PyTorchBackend",
    "Segmentation",
    "Segmenter",
    "WindowGrid",
    "blend_windows",
    "check_abstention",
    "check_backend",
    "check_finite",
    "check_output",
    "choose_backend",
    "choose_palette",
    "choose_protocol",
    "compile_openvino",
    "keep_freed_memory",
    "largest_class",
    "list_backends",
    "load_engine",
    "onnxruntime_errors",
    "open_backend",
    "open_onnx",
    "pack",
    "prepare",
    "require_onnx",
    "require_onnxruntime",
    "require_openvino",
    "resize",
    "set_limit",
    "start_engine",
    "unpack",
    "used_addresses",
]
