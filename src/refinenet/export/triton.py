"""A model repository for NVIDIA's Triton Inference Server: `tritonserver --model-repository=FOLDER`.

Source: docs.nvidia.com/deeplearning/triton-inference-server, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from refinenet.export.metadata import Facts
from refinenet.models.inference_graph import INPUT, LABELS, LOGITS

LARGEST_BATCH = 8
"""Images of one size that the server puts together, at most, where requests for them wait."""

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
    """What the server calls a model: the folder's name without its ending, of letters, digits, "-" and "_"."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", folder.stem) or "refinenet"


def write_repository(folder: Path, facts: Facts, write_onnx: Callable[[Path], None]) -> None:
    """Write a repository with one model.

    Args:
        folder: Where; it is not there yet.
        facts: What is said of the network.
        write_onnx: Writes the graph to a path.
    """
    name = model_name(folder)
    (folder / name / "1").mkdir(parents=True)
    classes = len(facts.names)
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
    (folder / name / "labels.txt").write_text("".join(f"{label}\n" for label in facts.names), "utf-8")
    write_onnx(folder / name / "1" / "model.onnx")
