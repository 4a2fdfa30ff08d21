"""One image to its `Segmentation` or `Prediction`: protocols (sliding windows, scales, mirroring) and backends.

Start reading at `segmenter.Segmenter`.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.inference.area_table import AREA_COLUMNS, GROUND_COLUMN, area_rows
    from refinenet.inference.backends import (
        AUTO,
        BACKENDS,
        check_backend,
        choose_backend,
        list_backends,
        open_backend,
    )
    from refinenet.inference.backends.base import CPU, INT8, BackendError, BackendName, InferencePrecision
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
        without_telemetry,
    )
    from refinenet.inference.backends.int8 import (
        MAP_LEVELS,
        MOST,
        Signatures,
        apply_record,
        check_network,
        find_bias,
        measure_difference,
        quantise_graph,
        read_constants,
    )
    from refinenet.inference.backends.isolated import SIZE_FACTOR, SPARE_BYTES, load_engine
    from refinenet.inference.backends.onnxruntime import require_onnx
    from refinenet.inference.backends.openvino import translate
    from refinenet.inference.backends.pytorch import PyTorchBackend, keep_freed_memory
    from refinenet.inference.backends.translation.cached_translations import find_folder, read_translation
    from refinenet.inference.backends.translation.openvino_conversion import convert_program
    from refinenet.inference.backends.translation.private_cache import (
        cache_folder,
        read_cached,
        trusted_root,
        write_cached,
    )
    from refinenet.inference.backends.windowed import WindowedBackend
    from refinenet.inference.connected_regions import count_regions, number_regions
    from refinenet.inference.output_kinds import (
        OUTPUT_KINDS,
        PICTURE_SUFFIXES,
        POLYGONS,
        Kind,
        Output,
        OutputKind,
        file_word,
        find_colours,
        is_of_values,
        split_kind,
    )
    from refinenet.inference.prediction import Prediction
    from refinenet.inference.protocol import PLAIN, Protocol, choose_protocol
    from refinenet.inference.regions import find_regions
    from refinenet.inference.rendering import (
        Renderer,
        check_kind,
        check_suffix_of,
        open_renderer,
        open_shown,
        refuse_idle,
    )
    from refinenet.inference.segmentation import Logits, Segmentation, check_output
    from refinenet.inference.segmenter import (
        Backend,
        NotFiniteError,
        Segmenter,
        check_abstention,
        check_finite,
        prepare,
    )
    from refinenet.inference.sliding_window import Block, WindowGrid, blend_windows
    from refinenet.inference.upsampling import largest_class, resize, softmax
    from refinenet.inference.values.subject import AS_USUAL, RenderOptions, kinds_of, usual_kind
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "AREA_COLUMNS",
    "AS_USUAL",
    "AUTO",
    "BACKENDS",
    "CPU",
    "ENGINES",
    "GROUND_COLUMN",
    "INT8",
    "MAP_LEVELS",
    "MOST",
    "ONNX_FILE",
    "OPENVINO_FILES",
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
    "OutputKind",
    "Prediction",
    "Protocol",
    "PyTorchBackend",
    "RenderOptions",
    "Renderer",
    "Segmentation",
    "Segmenter",
    "Signatures",
    "WindowGrid",
    "WindowedBackend",
    "apply_record",
    "area_rows",
    "blend_windows",
    "cache_folder",
    "check_abstention",
    "check_backend",
    "check_finite",
    "check_kind",
    "check_network",
    "check_output",
    "check_suffix_of",
    "choose_backend",
    "choose_protocol",
    "compile_openvino",
    "convert_program",
    "count_regions",
    "file_word",
    "find_bias",
    "find_colours",
    "find_folder",
    "find_regions",
    "is_of_values",
    "keep_freed_memory",
    "kinds_of",
    "largest_class",
    "list_backends",
    "load_engine",
    "measure_difference",
    "number_regions",
    "onnxruntime_errors",
    "open_backend",
    "open_onnx",
    "open_renderer",
    "open_shown",
    "prepare",
    "quantise_graph",
    "read_cached",
    "read_constants",
    "read_translation",
    "refuse_idle",
    "require_onnx",
    "require_onnxruntime",
    "require_openvino",
    "resize",
    "softmax",
    "split_kind",
    "start_engine",
    "translate",
    "trusted_root",
    "usual_kind",
    "without_telemetry",
    "write_cached",
]
