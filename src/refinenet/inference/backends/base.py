"""Names, precisions and the error that all backends share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

BackendName = Literal["pytorch", "compiled", "openvino", "onnxruntime"]


InferencePrecision = Literal["float32", "bfloat16", "float16"]


PRECISIONS: Mapping[BackendName, tuple[InferencePrecision, ...]] = MappingProxyType(
    {
        "pytorch": ("float32", "bfloat16", "float16"),
        "compiled": ("float32", "bfloat16", "float16"),
        "openvino": ("float32", "bfloat16"),
        "onnxruntime": ("float32",),
    }
)
"""What each backend computes in; float16 in PyTorch on GPUs."""


class BackendError(ValueError):
    """A network that cannot be run: no image is at fault, and none will do."""
