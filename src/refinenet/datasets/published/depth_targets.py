"""Depth of published datasets as a target, and the normals that follow from it. H is height, W width."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from refinenet.datasets.dataset import Dataset, Intrinsics, Target, TargetReader
from refinenet.datasets.formats.surface_normals import find_normals
from refinenet.io.files import write_atomically
from refinenet.io.images.stored_values import read_stored
from refinenet.outputs import OutputSpec

CameraReader = Callable[[str], Intrinsics | None]


def add_depth(
    dataset: Dataset,
    read_depth: TargetReader,
    *,
    largest: float,
    read_intrinsics: CameraReader | None = None,
    depth_file: Callable[[str], Path | None] | None = None,
) -> Dataset:
    """Return the dataset with the target "depth", and with "normals" computed from it if the cameras are known.

    Args:
        dataset: The dataset.
        read_depth: Maps an item to its depth, `(1, H, W)` float32 metres, NaN where unknown; picklable.
        largest: Largest depth that the sensor measures, in metres.
        read_intrinsics: Maps an item to its camera; picklable.
        depth_file: Maps an item to the file of its depth, if it is one; picklable.
    """
    specs = [OutputSpec(name="depth", kind="depth", range=(0.0, largest))]
    readers: dict[str, TargetReader] = {"depth": read_depth}
    if read_intrinsics is not None:
        specs.append(OutputSpec(name="normals", kind="normals"))
        readers["normals"] = partial(_read_normals, read_depth, read_intrinsics)
        dataset = replace(dataset, read_intrinsics=read_intrinsics)
    files = {} if depth_file is None else {"depth": depth_file}
    return replace(dataset, target_specs=tuple(specs), target_readers=readers, target_files=files)


def _read_normals(read_depth: TargetReader, read_intrinsics: CameraReader, item: str) -> Target:
    camera = read_intrinsics(item)
    assert camera is not None
    return find_normals(read_depth(item)[0], camera)


def write_depth(folder: Path, dataset: Dataset, item: str) -> None:
    """Write the depth of one sample below the folder of a prepared split, unless it is there or a file anyway."""
    if not _is_unfiled(dataset):
        return
    path = _place(folder, item)
    if not path.exists():
        write_atomically(path, _to_bytes(dataset.target_readers["depth"](item)[0]))


def _to_bytes(array: Any) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def write_cameras(folder: Path, dataset: Dataset) -> None:
    """Write range and cameras of the depths that `write_depth` wrote, once all of them are there."""
    if not _is_unfiled(dataset):
        return
    spec = next(spec for spec in dataset.target_specs if spec.name == "depth")
    assert spec.range is not None
    cameras = {item: dataset.read_intrinsics(item) for item in dataset.items}
    known = {item: list(camera) for item, camera in cameras.items() if camera is not None}
    write_atomically(_note(folder), json.dumps({"largest": spec.range[1], "cameras": known}, indent=1).encode())


def add_written_depth(folder: Path, dataset: Dataset) -> Dataset | None:
    """Return a prepared split with the depths that were written for it; None if there are none.

    Raises:
        ValueError: The record of cameras is damaged.
    """
    path = _note(folder)
    if not path.is_file():
        return None
    try:
        note = json.loads(path.read_bytes())
        cameras = {item: Intrinsics(*map(float, numbers)) for item, numbers in note["cameras"].items()}
        largest = float(note["largest"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: delete the file and prepare the dataset again.") from error
    return add_depth(
        dataset,
        partial(_read_written, folder),
        largest=largest,
        read_intrinsics=partial(_find_camera, cameras) if cameras else None,
        depth_file=partial(_place, folder),
    )


def _read_written(folder: Path, item: str) -> Target:
    return read_stored(_place(folder, item))[0].transpose(2, 0, 1)


def _find_camera(cameras: Mapping[str, Intrinsics], item: str) -> Intrinsics | None:
    return cameras.get(item)


def _is_unfiled(dataset: Dataset) -> bool:
    return "depth" in dataset.target_readers and "depth" not in dataset.target_files


def _place(folder: Path, item: str) -> Path:
    return folder / "depth" / f"{item}.npy"


def _note(folder: Path) -> Path:
    return folder / "cameras.json"
