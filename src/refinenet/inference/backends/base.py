"""Names, precisions and the error that all backends share; imports no PyTorch."""

from __future__ import annotations

from typing import Literal

BackendName = Literal["pytorch", "compiled", "openvino", "onnxruntime"]

InferencePrecision = Literal["float32", "bfloat16", "float16", "int8"]
CPU = "cpu"
"""Device of backends whose images and maps are NumPy arrays."""
INT8: Literal["int8"] = "int8"


class BackendError(ValueError):
    """A backend that cannot run a network, whatever the image."""
