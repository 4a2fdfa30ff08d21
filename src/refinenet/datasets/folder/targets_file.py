"""targets.yaml in the root of a dataset folder: the meaning of the numbers in depth/, normals/, values/ and others.

These folders lie beside that of the images and hold files of the same stems: PNG of 8 or 16 bits, TIFF or NumPy files.

    depth:
      scale: 1000           # stored value of a metre; required for files of integers
      missing: 0            # stored value of pixels without ground truth; 0 by default for integers. NaN always is one
      range: [0.5, 80]      # metres to which predictions are clipped; optional
      optional: true        # images without a file have no ground truth; otherwise this is an error
    normals:
      encoding: rgb         # (n + 1) / 2 as 8 or 16 bits; or xyz, the components, as files of floats have them
      flip: [y, z]          # axes to negate, so that x points right, y down and z into the scene; optional
      missing: 0            # stored value of all three channels; optional. A vector of length 0 always is missing
      optional: true        # as for depth
    values:
      name: soil            # name of the output; "values" by default
      quantities:           # one for each channel
        - {name: height, unit: m, scale: 100, missing: 65535}
        - {name: moisture, unit: "%"}
      optional: true        # as for depth
    height:                 # any other folder, here height/: one quantity of this name, an output of its own
      unit: m
      scale: 100
      missing: 65535
      optional: true        # as for depth

A folder that is not declared is read all the same if its files hold floats: metres, or the components of normals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinenet.datasets.folder.classes_file import load_yaml
from refinenet.datasets.folder.split_files import TARGET_FOLDERS
from refinenet.datasets.folder.target_encoding import AXES, ENCODINGS, TargetEncoding
from refinenet.labels import shorten
from refinenet.outputs import DEFAULT_RANGE, OutputSpec

FILE = "targets.yaml"


def read_encodings(path: Path, folders: Collection[str], elsewhere: Collection[str] = ()) -> dict[str, TargetEncoding]:
    """Return the encoding of each folder that has one.

    Args:
        path: The targets.yaml, which may not exist.
        folders: Those of `TARGET_FOLDERS` and of `list_quantity_folders` that a split has, in their order.
        elsewhere: Those that other splits have, which may be declared without effect on this one.

    Raises:
        ValueError: The file, which the message names, is damaged or has an invalid entry.
        FileNotFoundError: It declares a folder that does not exist.
        OSError: It cannot be read.
    """
    values = (load_yaml(path) if path.is_file() else None) or {}
    if not isinstance(values, Mapping) or not set(values) <= {*TARGET_FOLDERS, *folders, *elsewhere}:
        found = shorten(sorted(map(str, values)) if isinstance(values, Mapping) else values)
        raise ValueError(
            f"{path}: it may have the keys {', '.join(TARGET_FOLDERS)} and names (a-z, 0-9, _) of other folders beside "
            f"the images; it has {found}."
        )
    absent = [name for name in values if name not in folders and name not in elsewhere]
    if absent:
        raise FileNotFoundError(f"{path} declares {absent[0]!r}, but there is no folder {absent[0]} beside the images.")
    parsers = {"depth": _parse_depth, "normals": _parse_normals, "values": _parse_values}
    # Quantities without names cannot be an output, so a folder of other values is left alone unless it is declared.
    wanted = [name for name in folders if name in values or name in ("depth", "normals")]
    encodings = {name: parsers.get(name, _parse_quantity)(_Entry(path, name, values.get(name, {}))) for name in wanted}
    names = [encoding.spec.name for encoding in encodings.values()]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two outputs have the same name: {', '.join(names)}. Change 'name' of 'values'.")
    return encodings


def list_quantity_folders(path: Path) -> tuple[str, ...]:
    """Return the names of the folders of one quantity that a targets.yaml declares.

    Args:
        path: The targets.yaml; one that is damaged or does not exist declares none, and `read_encodings` reports it.

    Raises:
        OSError: It cannot be read.
    """
    try:
        values = load_yaml(path) if path.is_file() else None
    except ValueError:
        return ()
    names = values if isinstance(values, Mapping) else ()
    # Names of quantities are identifiers, unlike paths to other places.
    return tuple(name for name in names if name not in TARGET_FOLDERS and isinstance(name, str) and name.isidentifier())


_QUANTITY = ("name", "unit", "scale", "missing")


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
        return ValueError(
            f"{self.path}: {key!r} of {self.name!r} must be {allowed}, not {shorten(self.values.get(key))}."
        )

    def number(self, key: str, *, is_scale: bool = False) -> float | None:
        """Return a number, or None if it is not given."""
        if key not in self.values:
            return None
        number = _as_number(self.values[key])
        if number is None or (is_scale and not (0 < number < math.inf)):
            raise self.refuse(key, "a number above 0: the stored value of one unit" if is_scale else "a number")
        return number

    def is_true(self, key: str) -> bool:
        """Return whether a key is true; false if it is not given."""
        value = self.values.get(key, "false")
        if value not in ("true", "false"):  # load_yaml leaves words as text
            raise self.refuse(key, "true or false")
        return bool(value == "true")


def _as_number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, str | int) else None  # load_yaml leaves fractions as text
    except ValueError:
        return None


def _parse_depth(entry: _Entry) -> TargetEncoding:
    entry.check_keys(("scale", "missing", "range", "optional"))
    try:
        spec = OutputSpec(name="depth", kind="depth", range=_parse_range(entry))
    except ValueError as error:
        raise ValueError(f"{entry.path}: {error}") from error
    scale, missing = entry.number("scale", is_scale=True), entry.number("missing")
    return TargetEncoding(
        spec=spec,
        origin=entry.path,
        scales=(scale,),
        missing=(missing,),
        has_range="range" in entry.values,
        is_optional=entry.is_true("optional"),
    )


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
    entry.check_keys(("encoding", "flip", "missing", "optional"))
    encoding, flips = entry.values.get("encoding"), entry.values.get("flip", [])
    if encoding not in (None, *ENCODINGS):
        raise entry.refuse("encoding", " or ".join(ENCODINGS))
    if not isinstance(flips, list) or not all(axis in AXES for axis in flips) or len(set(flips)) < len(flips):
        raise entry.refuse("flip", "a list of axes to negate, such as [y, z]")
    return TargetEncoding(
        spec=OutputSpec(name="normals", kind="normals"),
        origin=entry.path,
        scales=(None,) * 3,
        missing=(entry.number("missing"),) * 3,
        encoding=encoding,
        flips=tuple(AXES.index(axis) for axis in flips),
        is_optional=entry.is_true("optional"),
    )


def _parse_values(entry: _Entry) -> TargetEncoding:
    entry.check_keys(("name", "quantities", "optional"))
    listed = entry.values.get("quantities")
    if not isinstance(listed, list) or not listed:
        raise entry.refuse("quantities", "a list, such as [{name: height, unit: m}]")
    quantities = [_Entry(entry.path, f"values, quantity {k}", values) for k, values in enumerate(listed, start=1)]
    for quantity in quantities:
        quantity.check_keys(_QUANTITY)
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
        is_optional=entry.is_true("optional"),
    )


def _parse_quantity(entry: _Entry) -> TargetEncoding:
    entry.check_keys((*_QUANTITY[1:], "optional"))
    try:
        spec = OutputSpec(
            name=entry.name, kind="regression", channels=(entry.name,), units=(entry.values.get("unit", ""),)
        )
    except ValueError as error:
        raise ValueError(f"{entry.path}: {entry.name!r}: {error}") from error
    return TargetEncoding(
        spec=spec,
        origin=entry.path,
        scales=(entry.number("scale", is_scale=True),),
        missing=(entry.number("missing"),),
        is_optional=entry.is_true("optional"),
    )


def write_encodings(encodings: Mapping[str, TargetEncoding]) -> str:
    """Return the text of a targets.yaml for the encodings of folders, from which `read_encodings` returns the same."""
    described = {name: _describe(name, encoding) for name, encoding in encodings.items()}
    # JSON on one line is YAML.
    return "".join(
        f"{name}: {json.dumps(values, ensure_ascii=False)}\n"
        for name, values in described.items()
        if values or name not in TARGET_FOLDERS  # other folders are not read unless they are declared
    )


def _describe(folder: str, encoding: TargetEncoding) -> dict[str, Any]:
    spec, values = encoding.spec, {}
    if folder not in TARGET_FOLDERS:
        values = _drop_none(unit=spec.units[0] or None, scale=encoding.scales[0], missing=encoding.missing[0])
    elif spec.kind == "regression":
        rows = zip(spec.channels, spec.units, encoding.scales, encoding.missing, strict=True)
        values = {
            "name": spec.name,
            "quantities": [_drop_none(**dict(zip(_QUANTITY, row, strict=True))) for row in rows],
        }
    elif spec.kind == "normals":
        axes = [AXES[axis] for axis in encoding.flips]
        values = _drop_none(encoding=encoding.encoding, flip=axes or None, missing=encoding.missing[0])
    else:
        limits = list(spec.range or DEFAULT_RANGE) if encoding.has_range else None
        values = _drop_none(scale=encoding.scales[0], missing=encoding.missing[0], range=limits)
    return values | ({"optional": True} if encoding.is_optional else {})


def _drop_none(**values: Any) -> dict[str, Any]:
    whole = {key: int(value) for key, value in values.items() if isinstance(value, float) and value.is_integer()}
    return {key: value for key, value in (values | whole).items() if value is not None}
