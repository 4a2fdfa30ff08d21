"""Model repositories of the Triton inference server, whose ONNX backend runs the graph."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from refinenet.export import onnx_format
from refinenet.export.metadata import GraphMetadata, Runner
from refinenet.models.inference_graph import INPUT, LABELS, LOGITS

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


def write(program: torch.export.ExportedProgram, metadata: GraphMetadata, folder: Path) -> None:
    """Write a model repository with one model to a folder that does not exist yet."""
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
    onnx_format.write(program, metadata, folder / name / "1" / "model.onnx")


def open_folder(folder: Path) -> Runner:
    """Open the repository's model in ONNX Runtime, which the server runs it with, too."""
    (model,) = folder.glob("*/1/model.onnx")
    return onnx_format.open_file(model)
