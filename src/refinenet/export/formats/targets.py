"""Checks of what an export is written to, before any work is done; nothing here needs PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from refinenet.datasets import street_scenes

ExportPrecision = Literal["float32", "int8"]
Shape = tuple[int, int, int, int]
"""N, bands, H and W of images."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is known of a format without its writer."""

    name: str
    is_folder: bool = False
    """Whether an export is a folder instead of a file."""
    has_fixed_shape: bool = False
    """Whether an export runs on images of one shape; its labels are int32 then, which is all that TensorRT computes."""
    has_int8: bool = False
    """Whether it can be written in int8."""


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        ".onnx": Target(name="ONNX"),
        ".xml": Target(name="OpenVINO", has_int8=True),
        ".pt2": Target(name="PyTorch exported program"),
        ".triton": Target(name="Triton model repository", is_folder=True),
        ".engine": Target(name="TensorRT engine", has_fixed_shape=True),
    }
)
"""Formats by suffix; `formats.FORMATS` has their writers."""


def check_path(
    path: str | os.PathLike[str], precision: ExportPrecision = "float32", shape: Shape | None = None
) -> None:
    """Check the path of an export.

    Args:
        path: Path of the export.
        precision: Precision of its arithmetic.
        shape: Fixed shape of its images.

    Raises:
        ValueError: No format has this suffix or this precision, or the shape does not fit.
        OSError: A folder is in the way of a file, or a file of a folder, or the folder is not writable.
    """
    if precision not in get_args(ExportPrecision):
        raise ValueError(f"precision must be one of {', '.join(get_args(ExportPrecision))}, not {precision!r}.")
    found, target = TARGETS[check_suffix(path)], Path(path)
    if precision == "int8" and not found.has_int8:
        raise ValueError(f"Int8 is supported for OpenVINO (.xml) only, not for {os.fspath(path)!r}.")
    _check_shape(found, shape, path)
    if target.exists() and target.is_dir() != found.is_folder:
        wanted, there = ("folder", "file") if found.is_folder else ("file", "folder")
        raise FileExistsError(
            f"Cannot write {target}: it must be a {wanted}, but a {there} exists there. Choose another path."
        )
    ancestor = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.exists())
    folder = ancestor if ancestor.is_dir() else ancestor.parent
    if ancestor != target.absolute() and not ancestor.is_dir():
        raise NotADirectoryError(f"Cannot write {target}: {ancestor} is a file, not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"Cannot write {target}: the folder {folder} is not writable.")


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a path, a key of `TARGETS`, whether or not the packages of the format are installed.

    Raises:
        ValueError: No format has this suffix.
    """
    suffix = Path(path).suffix
    if suffix not in TARGETS:
        allowed = ", ".join(f"{ending} ({found.name})" for ending, found in TARGETS.items())
        raise ValueError(
            f"Networks are exported as {allowed}, not as {os.fspath(path)!r}. Choose one of these suffixes."
        )
    return suffix


def _check_shape(chosen: Target, shape: Shape | None, path: str | os.PathLike[str]) -> None:
    name = os.fspath(path)
    if not chosen.has_fixed_shape:
        if shape is not None:
            raise ValueError(f"{name!r} will take images of any size: leave out the shape, which is for .engine.")
        return
    if shape is None:
        raise ValueError(
            f"{name!r} will take images of one shape: pass it, such as --shape 1x3x480x640 (in Python "
            "shape=(1, 3, 480, 640)): images, bands, height, width."
        )
    sides = shape if isinstance(shape, tuple | list) else ()
    is_valid = len(sides) == 4 and all(type(side) is int and side >= 1 for side in sides)
    if not is_valid or max(sides[2:]) > street_scenes.LARGEST:
        raise ValueError(
            "A shape must be four whole numbers above 0, such as (1, 3, 480, 640): images, bands, height and width (at "
            f"most {street_scenes.LARGEST}), not {shape!r}. Engines of free sizes are not supported."
        )
