"""Export formats: the table of their writers, and of their runners by the program that each format is for.

A new format is a module here, a row of `FORMATS`, and one of `targets.TARGETS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from refinenet.export.formats import onnx, openvino, pt2, tensorrt, triton
from refinenet.export.formats.targets import TARGETS, Target, check_suffix
from refinenet.export.metadata import GraphMetadata, Runner
from refinenet.inference.backends.graph import require_openvino
from refinenet.inference.backends.onnxruntime import require_onnx


@dataclass(frozen=True, kw_only=True)
class Format(Target):
    """An export format."""

    packages: Sequence[str] = ()
    """Packages whose versions a certificate names, in addition to ours and PyTorch's."""
    opset: int | None = None
    """Version of the ONNX operators; None if it has none."""
    require: Callable[[], object] = lambda: None
    """Raises ValueError if a package that it needs is not installed."""
    write: Callable[[torch.export.ExportedProgram, GraphMetadata, Path], None]
    """Writes a traced network to a path that does not exist yet."""
    write_int8: Callable[[torch.export.ExportedProgram, GraphMetadata, Path, Callable[[Any], Any]], None] | None = None
    """Writes it after a function has quantised the model in the format; None if the format has no int8."""
    open: Callable[[Path], Runner]
    """Opens such a file by the program that the format is for."""


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".onnx": Format(
            **asdict(TARGETS[".onnx"]),
            packages=onnx.PACKAGES,
            opset=onnx.OPSET,
            require=require_onnx,
            write=onnx.write,
            open=onnx.open_file,
        ),
        ".xml": Format(
            **asdict(TARGETS[".xml"]),
            packages=("openvino",),
            require=require_openvino,
            write=openvino.write,
            write_int8=openvino.write,
            open=openvino.open_file,
        ),
        ".pt2": Format(**asdict(TARGETS[".pt2"]), write=pt2.write, open=pt2.open_file),
        ".triton": Format(
            **asdict(TARGETS[".triton"]),
            packages=onnx.PACKAGES,
            opset=onnx.OPSET,
            require=require_onnx,
            write=triton.write,
            open=triton.open_folder,
        ),
        ".engine": Format(
            **asdict(TARGETS[".engine"]),
            packages=("tensorrt", *onnx.PACKAGES),
            opset=onnx.OPSET,
            require=tensorrt.require_tensorrt,
            write=tensorrt.write,
            open=tensorrt.open_file,
        ),
    }
)
"""Formats by suffix."""


def find_format(path: str | os.PathLike[str]) -> Format:
    """Return the format of a path by its suffix, whether or not the packages that it needs are installed.

    Raises:
        ValueError: No format has this suffix.
    """
    return FORMATS[check_suffix(path)]
