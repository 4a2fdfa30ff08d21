"""Depth, normals and other quantities in a dataset folder: the meaning of the numbers in their files.

The folders `depth`, `normals` and `values` lie beside that of the images and hold files of the same stems: PNG of 8 or
16 bits, TIFF or NumPy files. Keys of `targets.yaml` in the root:

    depth:
      scale: 1000           # stored value of a metre; required for files of integers
      missing: 0            # stored value of pixels without ground truth; 0 by default for integers. NaN always is one
      range: [0.5, 80]      # metres to which predictions are clipped; optional
    normals:
      encoding: rgb         # (n + 1) / 2 as 8 or 16 bits; or xyz, the components, as files of floats have them
      flip: [y, z]          # axes to negate, so that x points right, y down and z into the scene; optional
      missing: 0            # stored value of all three channels; optional. A vector of length 0 always is missing
    values:
      name: soil            # name of the output; "values" by default
      quantities:           # one for each channel
        - {name: height, unit: m, scale: 100, missing: 65535}
        - {name: moisture, unit: "%"}

A folder that is not declared is read all the same if its files hold floats: metres, or the components of normals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, Target
from refinenet.datasets.file_pairs import by_stem, find_by_item, find_stem
from refinenet.datasets.folder.classes_file import load_yaml
from refinenet.datasets.folder.split_files import TARGET_FOLDERS, Layout, SplitFiles
from refinenet.io.image_files import walk_names
from refinenet.io.stored_values import STORED_SUFFIXES, read_stored
from refinenet.labels import shorten
from refinenet.outputs import OutputSpec

FILE = "targets.yaml"
_AXES = ("x", "y", "z")
_ENCODINGS = ("rgb", "xyz")
_LENGTH_ERROR = 0.1
"""Deviation of a normal's length from 1 up to which it is normalised; more than 8 bits and interpolation cause."""
_NO_LENGTH = 0.02
"""Length up to which a normal is missing: 8 bits cannot store 0 exactly."""
_AWAY = 0.3
"""Mean of z from which normals are refused as pointing away from the camera."""


@dataclass(frozen=True, kw_only=True)
class TargetEncoding:
    """The meaning of the numbers in the files of one folder."""

    spec: OutputSpec
    origin: Path
    """The targets.yaml, which may not exist."""
    scales: tuple[float | None, ...]
    """The stored value of one unit, for each channel; None if it is not declared. Unused for normals."""
    missing: tuple[float | None, ...]
    """The stored value of pixels without ground truth, for each channel; None if it is not declared."""
    encoding: str | None = None
    """How normals are stored, "rgb" or "xyz"; None if it is not declared."""
    flips: tuple[int, ...] = ()
    """The channels of normals to negate."""

    def read(self, path: Path) -> Target:
        """Read a file as `(D, H, W)` float32 in the unit of the output; NaN where there is no ground truth.

        Raises:
            ValueError: The file is damaged, has another number of channels or values that are not allowed, or the
                meaning of its values is not declared.
            OSError: The file cannot be read.
        """
        stored, valid = read_stored(path)
        if stored.shape[2] != len(self.missing):
            raise ValueError(
                f"{path} has {stored.shape[2]} channels, and {self.spec.name} has {len(self.missing)}: "
                f"{', '.join(self.spec.channels) or self.spec.info.meaning}."
            )
        values = self._decode_normals(stored, path) if self.spec.kind == "normals" else self._rescale(stored, path)
        gaps = self._find_gaps(stored)
        if valid is not None:
            gaps |= ~valid
        values[gaps.any(2) if self.spec.kind == "normals" else gaps] = np.nan
        if self.spec.kind == "normals":
            values = self._normalise(values, path)
        self._check(values, path)
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)

    def _find_gaps(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return where the stored values mean that there is no ground truth, `(H, W, D)`."""
        is_whole = stored.dtype.kind in "ui"
        usual = 0.0 if is_whole and self.spec.kind == "depth" else None
        values = [usual if value is None else value for value in self.missing]
        # Compared in the type of the file: 1e20 as float32 is another number than as float64.
        comparable = [value if is_whole or value is None else stored.dtype.type(value) for value in values]
        gaps = [
            np.zeros(stored.shape[:2], np.bool_) if v is None else stored[..., k] == v for k, v in enumerate(comparable)
        ]
        if self.spec.kind == "normals":  # a channel may well have this value, but not all of them
            gaps = [np.logical_and.reduce(gaps)] * len(gaps)
        return np.stack(gaps, 2)

    def _rescale(self, stored: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float64]:
        if self.spec.kind == "depth" and self.scales[0] is None and stored.dtype.kind in "ui":
            raise ValueError(
                f"{path} holds integers ({stored.dtype}), and their unit is not known. State in {self.origin} the "
                "stored value of a metre, for example 1000 for millimetres, in two lines: `depth:` and `  scale: 1000`."
            )
        values: npt.NDArray[np.float64] = stored.astype(np.float64)
        values /= [1.0 if scale is None else scale for scale in self.scales]
        return values

    def _decode_normals(self, stored: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float64]:
        if stored.dtype.kind == "f" and self.encoding != "rgb":
            return stored.astype(np.float64)
        if stored.dtype in (np.uint8, np.uint16) and self.encoding == "rgb":
            return stored.astype(np.float64) / np.iinfo(stored.dtype).max * 2 - 1
        said = "is not declared" if self.encoding is None else f"is {self.encoding} in {self.origin}"
        raise ValueError(
            f"{path} holds {stored.dtype}, and its encoding {said}. Floats are xyz; uint8 or uint16 that hold "
            f"(n + 1) / 2 are declared in {self.origin} by two lines, `normals:` and `  encoding: rgb`."
        )

    def _normalise(self, values: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.float64]:
        """Return unit vectors in the frame of the camera, NaN for vectors of length 0."""
        length = np.sqrt((values * values).sum(2))
        values[length <= _NO_LENGTH] = length[length <= _NO_LENGTH] = np.nan
        wrong = np.abs(length - 1) > _LENGTH_ERROR
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{path} has at row {row}, column {column} a normal of length {length[row, column]:.3g} ({wrong.sum()} "
                f"pixels in total are not of length 1). If these have no ground truth, state their stored value in "
                f"{self.origin}, under `normals:`, for example `missing: 0`."
            )
        values /= length[..., np.newaxis]
        values[..., list(self.flips)] *= -1
        return values

    def _check(self, values: npt.NDArray[np.float64], path: Path) -> None:
        is_depth = self.spec.kind == "depth"
        wrong = np.isinf(values) | (values <= 0) if is_depth else np.isinf(values)
        if wrong.any():
            row, column, channel = np.argwhere(wrong)[0]
            what = "depths that are not above 0 and finite" if is_depth else "infinite values"
            raise ValueError(
                f"{path} has {what}, {values[row, column, channel]:g} at row {row}, column {column} ({wrong.sum()} in "
                f"total). If these have no ground truth, state their stored value in {self.origin}: `missing: VALUE`."
            )
        known = values[..., -1][~np.isnan(values[..., -1])]
        if self.spec.kind == "normals" and known.size and known.mean() > _AWAY:
            raise ValueError(
                f"{path} has normals that point away from the camera (z is {known.mean():.2f} on average). They should "
                f"have x right, y down and z into the scene: state the axes to negate in {self.origin}, under "
                "`normals:`, for example `flip: [y, z]`."
            )


def add_targets(dataset: Dataset, layout: Layout, files: SplitFiles) -> Dataset:
    """Return the dataset of a split with the targets in the folders beside its images.

    Files are not opened, and no problem of theirs is reported until a target is read.

    Raises:
        ValueError: The targets.yaml, which the message names, is damaged or has an invalid entry.
        FileNotFoundError: It declares a folder that does not exist.
    """
    folders = {name: folder for name in TARGET_FOLDERS if (folder := _find_folder(layout, files, name)) is not None}
    encodings = _read_file(layout.root / FILE, folders)
    specs, readers, located = [], {}, {}
    for name, encoding in encodings.items():
        find = _match(folders[name], dataset, files)
        specs.append(encoding.spec)
        located[encoding.spec.name] = find
        readers[encoding.spec.name] = partial(_read_item, encoding, find)
    return replace(dataset, target_specs=tuple(specs), target_readers=readers, target_files=located)


def _read_item(encoding: TargetEncoding, find: Callable[[str], Path], item: str) -> Target:
    return encoding.read(find(item))


def _find_folder(layout: Layout, files: SplitFiles, name: str) -> Path | None:
    """Find depth/SPLIT beside images/SPLIT, or depth/ beside images/, within the root."""
    parent, split = files.images.parent, files.images.name
    candidates = (parent.parent / name / split, parent / name / split, parent / name)
    return next((path for path in candidates if path.is_relative_to(layout.root) and path.is_dir()), None)


@dataclass(frozen=True)
class _Finder:
    """Maps an item to its file."""

    folder: Path
    find: Callable[[str], Path]
    lacking: frozenset[str]

    def __call__(self, item: str) -> Path:
        if item in self.lacking:
            raise FileNotFoundError(
                f"{self.folder} has no file for the image {item}: {item} with one of the suffixes "
                f"{', '.join(STORED_SUFFIXES)} is expected."
            )
        return self.find(item)


def _match(folder: Path, dataset: Dataset, files: SplitFiles) -> Callable[[str], Path]:
    """Return a picklable function from an item to its file in a folder."""
    try:
        names = by_stem(sorted(walk_names(folder, STORED_SUFFIXES)), "", folder)
    except ValueError as error:
        return partial(_refuse, str(error))
    found = {}
    for item in dataset.items:
        image = dataset.image_file(item)
        assert image is not None
        stem = find_stem(image.relative_to(files.images).as_posix())
        if item in names or stem in names:
            found[item] = names[item if item in names else stem]
    return _Finder(folder, find_by_item(folder, found), frozenset(dataset.items) - found.keys())


def _refuse(message: str, _item: str) -> NoReturn:
    raise ValueError(message)


def _read_file(path: Path, folders: Mapping[str, Path]) -> dict[str, TargetEncoding]:
    """Return the encoding of each folder that has one."""
    values = load_yaml(path) if path.is_file() else {}
    if not isinstance(values, Mapping) or not set(values) <= set(TARGET_FOLDERS):
        found = shorten(sorted(map(str, values)) if isinstance(values, Mapping) else values)
        raise ValueError(f"{path}: it may have the keys {', '.join(TARGET_FOLDERS)}; it has {found}.")
    absent = [name for name in values if name not in folders]
    if absent:
        raise FileNotFoundError(f"{path} declares {absent[0]!r}, and there is no folder {absent[0]} beside the images.")
    parsers = {"depth": _parse_depth, "normals": _parse_normals, "values": _parse_values}
    # Quantities without names cannot be an output, so a folder of other values is left alone unless it is declared.
    wanted = [name for name in TARGET_FOLDERS if name in values or (name in folders and name != "values")]
    encodings = {name: parsers[name](_Entry(path, name, values.get(name, {}))) for name in wanted}
    names = [encoding.spec.name for encoding in encodings.values()]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two outputs have the same name: {', '.join(names)}. Change 'name' of 'values'.")
    return encodings


@dataclass(frozen=True)
class _Entry:
    """A mapping in a targets.yaml."""

    path: Path
    name: str
    values: Any

    def check_keys(self, allowed: Sequence[str]) -> None:
        """Refuse unknown keys, and anything but a mapping."""
        if not isinstance(self.values, Mapping) or not set(self.values) <= set(allowed):
            found = shorten(sorted(map(str, self.values)) if isinstance(self.values, Mapping) else self.values)
            raise ValueError(f"{self.path}: {self.name!r} may have the keys {', '.join(allowed)}; it has {found}.")

    def refuse(self, key: str, allowed: str) -> ValueError:
        """Return the error for a value that is not allowed."""
        return ValueError(f"{self.path}: {key!r} of {self.name!r} is {allowed}, not {shorten(self.values.get(key))}.")

    def number(self, key: str, *, is_scale: bool = False) -> float | None:
        """Return a number, or None if it is not given."""
        if key not in self.values:
            return None
        number = _as_number(self.values[key])
        if number is None or (is_scale and not (0 < number < math.inf)):
            raise self.refuse(key, "a number above 0: the stored value of one unit" if is_scale else "a number")
        return number


def _as_number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, str | int) else None  # load_yaml leaves fractions as text
    except ValueError:
        return None


def _parse_depth(entry: _Entry) -> TargetEncoding:
    entry.check_keys(("scale", "missing", "range"))
    try:
        spec = OutputSpec(name="depth", kind="depth", range=_parse_range(entry))
    except ValueError as error:
        raise ValueError(f"{entry.path}: {error}") from error
    scale, missing = entry.number("scale", is_scale=True), entry.number("missing")
    return TargetEncoding(spec=spec, origin=entry.path, scales=(scale,), missing=(missing,))


def _parse_range(entry: _Entry) -> tuple[float, float] | None:
    """Return the range of depths; None if it is not given."""
    if "range" not in entry.values:
        return None
    given = entry.values["range"]
    numbers = [_as_number(value) for value in given] if isinstance(given, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise entry.refuse("range", "two numbers of metres, such as [0.5, 80]")
    return numbers[0], numbers[1]


def _parse_normals(entry: _Entry) -> TargetEncoding:
    entry.check_keys(("encoding", "flip", "missing"))
    encoding, flips = entry.values.get("encoding"), entry.values.get("flip", [])
    if encoding not in (None, *_ENCODINGS):
        raise entry.refuse("encoding", " or ".join(_ENCODINGS))
    if not isinstance(flips, list) or not all(axis in _AXES for axis in flips) or len(set(flips)) < len(flips):
        raise entry.refuse("flip", "a list of axes to negate, such as [y, z]")
    return TargetEncoding(
        spec=OutputSpec(name="normals", kind="normals"),
        origin=entry.path,
        scales=(None,) * 3,
        missing=(entry.number("missing"),) * 3,
        encoding=encoding,
        flips=tuple(_AXES.index(axis) for axis in flips),
    )


def _parse_values(entry: _Entry) -> TargetEncoding:
    entry.check_keys(("name", "quantities"))
    listed = entry.values.get("quantities")
    if not isinstance(listed, list) or not listed:
        raise entry.refuse("quantities", "a list, such as [{name: height, unit: m}]")
    quantities = [_Entry(entry.path, f"values, quantity {k}", values) for k, values in enumerate(listed, start=1)]
    for quantity in quantities:
        quantity.check_keys(("name", "unit", "scale", "missing"))
    try:
        spec = OutputSpec(
            name=entry.values.get("name", "values"),
            kind="regression",
            channels=tuple(quantity.values.get("name") for quantity in quantities),
            units=tuple(quantity.values.get("unit", "") for quantity in quantities),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{entry.path}: 'values': {error}") from error
    return TargetEncoding(
        spec=spec,
        origin=entry.path,
        scales=tuple(quantity.number("scale", is_scale=True) for quantity in quantities),
        missing=tuple(quantity.number("missing") for quantity in quantities),
    )
