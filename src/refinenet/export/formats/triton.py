"""Model repositories of the Triton inference server, whose ONNX backend runs the graph."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from refinenet.export.formats import onnx
from refinenet.export.metadata import GraphMetadata, Runner
from refinenet.models.inference_graph import INPUT, LABELS, GraphResult

LARGEST_BATCH = 8
"""Greatest number of waiting images of one size that the server puts into a batch."""

_CONFIG = """\
name: {name}
backend: "onnxruntime"
max_batch_size: {largest_batch}
input [
  {{ name: "{images}" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ {bands}, -1, -1 ] }}
]
output [
{outputs}
]
dynamic_batching {{ }}
version_policy: {{ latest {{ num_versions: 1 }} }}
"""


_TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}


def model_name(folder: Path) -> str:
    """Return the server's name for a model: the folder's name without suffix, in letters, digits, "-" and "_"."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", folder.stem) or "refinenet"


def write(program: torch.export.ExportedProgram, metadata: GraphMetadata, folder: Path) -> None:
    """Write a model repository with one model to a folder that does not exist yet."""
    name = model_name(folder)
    (folder / name / "1").mkdir(parents=True)
    config = _CONFIG.format(
        name=json.dumps(name),
        largest_batch=LARGEST_BATCH,
        images=INPUT,
        bands=len(metadata.card.architecture.band_names),
        outputs=",\n".join(map(_describe, metadata.results)),
    )
    (folder / name / "config.pbtxt").write_text(config, "utf-8")
    if metadata.names:
        (folder / name / "labels.txt").write_text("".join(f"{label}\n" for label in metadata.names), "utf-8")
    onnx.write(program, metadata, folder / name / "1" / "model.onnx")


def _describe(result: GraphResult) -> str:
    """Return the entry of a graph output, whose sides that depend on the image are free."""
    sides = ", ".join(str(side) if isinstance(side, int) else "-1" for side in result.shape[1:])
    names = ' label_filename: "labels.txt"' if result.name == LABELS else ""
    return f'  {{ name: "{result.name}" data_type: {_TYPES[result.type]} dims: [ {sides} ]{names} }}'


def open_folder(folder: Path) -> Runner:
    """Open the repository's model in ONNX Runtime, which the server runs it with, too."""
    (model,) = folder.glob("*/1/model.onnx")
    return onnx.open_file(model)
