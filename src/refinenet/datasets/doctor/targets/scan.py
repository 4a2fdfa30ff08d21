"""Facts about each file of depth, normals or other quantities, as `scan` collects them of images and masks.

Shape letters: H height, W width, D channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.dataset import Intrinsics
from refinenet.datasets.doctor.targets.markers import find_edge_value, find_marker
from refinenet.datasets.doctor.targets.outlines import find_outlines
from refinenet.datasets.folder.target_encoding import (
    LENGTH_ERROR,
    NO_LENGTH,
    ChannelsError,
    TargetEncoding,
    UndeclaredError,
    Values,
)
from refinenet.datasets.formats.surface_normals import find_normals
from refinenet.outputs import OutputSpec

Floats = npt.NDArray[np.float64]

MAX_NUMBERS = 200_000
"""About as many numbers of a channel, evenly spaced, are sorted."""
QUANTILES = (0.05, 0.5, 0.95)
_LEAST = 0.01
_COMPARED = 160
"""Longer side in pixels to which depths are thinned out before normals are computed from them."""
_VIEW = 0.9
"""Focal length, relative to the longer side, of a camera that is not known: an angle of view of 58 degrees."""
_FEWEST_COMPARED = 8
_FAR = 3.0
"""Ratio to the next largest depth from which the largest one may be a marker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelFacts:
    """The facts of one channel, in the unit of its quantity."""

    known: int = 0
    """Number of pixels with finite ground truth."""
    quantiles: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    """`QUANTILES` of them."""
    highest: float = np.nan
    at_highest: float = 0.0
    """Share of them that have the highest value."""
    is_constant: bool = False
    marker: float | None = None
    """A frequent value that is far from all others, as it is stored."""
    edge_value: float | None = None
    """A frequent value at the edge of the others, as it is stored; only of other quantities than depth and normals."""
    least: float = np.nan
    """The size below which `_LEAST` of the values are that are not 0; only of the same quantities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetFacts:
    """The facts of a file, or of the values that a dataset reads for a sample."""

    name: str
    """Name of the output."""
    path: str = ""
    """Empty if the values are not in a file of their own."""
    problem: str = ""
    """The suffix of a kind of finding ("damaged") if it cannot be read; other facts are then unknown."""
    message: str = ""
    size: tuple[int, int] = (0, 0)
    """H and W."""
    dtype: str = ""
    """Type of the stored numbers."""
    zeros: int = 0
    """Number of depths of 0."""
    negative: int = 0
    infinite: int = 0
    is_stretched: bool = False
    """Whether integers go from 0 or 1 to the largest number of their type."""
    channels: tuple[ChannelFacts, ...] = ()
    long: int = 0
    """Number of vectors that are not of length 1."""
    mean: tuple[float, float, float] | None = None
    """Mean of unit vectors, of all of the image."""
    mean_below: float = np.nan
    """Mean of y in the lower third of the image."""
    agreement: tuple[float, float, float] | None = None
    """Mean products of the components of normals and of those computed from the depth; the sum is the mean cosine."""
    digest: bytes = b""
    """Hash of the stored numbers; empty if they are all equal."""
    outlines: bytes = b""
    """See `outlines`."""

    @property
    def known(self) -> int:
        """Number of values with ground truth, of all channels."""
        return sum(channel.known for channel in self.channels)


@dataclass(frozen=True, slots=True)
class _Map:
    """What is kept of a target until the others of its sample are read."""

    kind: str
    values: Values


def read_targets(files: Sequence[tuple[str, str]], encodings: Mapping[str, TargetEncoding]) -> tuple[TargetFacts, ...]:
    """Read the facts of the files of one sample.

    Args:
        files: Names of outputs and paths; files that are missing are left out.
        encodings: The meaning of the numbers, by output.
    """
    found = [_read_file(name, path, encodings[name]) for name, path in files if path]
    return _compare([facts for facts, _ in found], [values for _, values in found], None)


def read_dataset_targets(dataset: Dataset, item: str, names: Sequence[str]) -> tuple[TargetFacts, ...]:
    """Read the facts of the targets of a dataset that defines their meaning itself."""
    specs = {spec.name: spec for spec in dataset.target_specs}
    found = [_read_values(dataset, item, specs[name]) for name in names]
    try:
        camera = dataset.read_intrinsics(item)
    except (ValueError, OSError):  # reported with the normals, which need it
        camera = None
    return _compare([facts for facts, _ in found], [values for _, values in found], camera)


def _read_file(name: str, path: str, encoding: TargetEncoding) -> tuple[TargetFacts, _Map | None]:
    try:
        decoded = encoding.decode(Path(path))
    except (ValueError, OSError) as error:
        return TargetFacts(name=name, path=path, problem=_name_problem(error), message=str(error)), None
    scales = [scale or 1.0 for scale in encoding.scales]
    facts = _collect(name, encoding.spec, decoded.values, scales)
    stored = decoded.stored
    facts = replace(
        facts,
        path=path,
        dtype=str(stored.dtype),
        is_stretched=_is_stretched(stored),
        digest=_digest(stored),
    )
    values = decoded.values * _signs(encoding.flips) if encoding.spec.kind == "normals" else decoded.values
    return _describe_vectors(facts, encoding.spec.kind, values)


def _read_values(dataset: Dataset, item: str, spec: OutputSpec) -> tuple[TargetFacts, _Map | None]:
    try:
        values = dataset.target_readers[spec.name](item).transpose(1, 2, 0).astype(np.float64)
    except (ValueError, OSError) as error:
        return TargetFacts(name=spec.name, problem="damaged", message=str(error)), None
    if values.shape[:2] == (1, 1) and np.isnan(values).all():
        return TargetFacts(name=spec.name), None
    facts = _collect(spec.name, spec, values, [1.0] * values.shape[2])
    return _describe_vectors(replace(facts, dtype="float32", digest=_digest(values)), spec.kind, values)


def _name_problem(error: ValueError | OSError) -> str:
    kinds: dict[type[Exception], str] = {ChannelsError: "channels", UndeclaredError: "undeclared"}
    return kinds.get(type(error), "damaged")


def _collect(name: str, spec: OutputSpec, values: Values, scales: Sequence[float]) -> TargetFacts:
    is_depth, is_normals = spec.kind == "depth", spec.kind == "normals"
    length = np.sqrt((values * values).sum(2)) if is_normals else values[..., 0]
    usable = np.where(np.isinf(values) | ((values <= 0) & is_depth), np.nan, values)
    if is_normals:
        usable[length <= NO_LENGTH] = np.nan
    return TargetFacts(
        name=name,
        size=(values.shape[0], values.shape[1]),
        zeros=int((values == 0).sum()) if is_depth else 0,
        negative=int((values < 0).sum()) if is_depth else 0,
        infinite=int(np.isinf(values).sum()),
        long=int(((np.abs(length - 1) > LENGTH_ERROR) & (length > NO_LENGTH)).sum()) if is_normals else 0,
        channels=tuple(_describe_channel(usable[..., k], scale, spec.kind) for k, scale in enumerate(scales)),
        outlines=find_outlines(usable, spec.kind),
    )


def _describe_channel(values: Floats, scale: float, kind: str) -> ChannelFacts:
    known = values[np.isfinite(values)]
    if not known.size:
        return ChannelFacts()
    distinct, counts = np.unique(known[:: max(1, known.size // MAX_NUMBERS)], return_counts=True)
    marker = None if kind == "normals" else find_marker(distinct, counts)
    if kind == "depth" and marker is not None and marker < _FAR * distinct[-2]:
        marker = None  # the end of a sensor's reach, or a near object before a wall
    is_plain = kind == "regression" and marker is None
    edge_value = find_edge_value(values, distinct, counts, scale) if is_plain else None
    low, middle, high = np.quantile(known, QUANTILES).tolist()
    sizes = np.abs(known[known != 0]) if kind == "regression" else known[:0]
    return ChannelFacts(
        known=known.size,
        quantiles=(low, middle, high),
        highest=float(distinct[-1]),
        at_highest=float(counts[-1] / counts.sum()),
        is_constant=len(distinct) == 1,
        marker=None if marker is None else marker * scale,
        edge_value=None if edge_value is None else edge_value * scale,
        least=float(np.quantile(sizes, _LEAST)) if sizes.size else np.nan,
    )


def _is_stretched(stored: npt.NDArray[Any]) -> bool:
    if stored.dtype not in (np.uint8, np.uint16):
        return False
    return bool(stored.max() == np.iinfo(stored.dtype).max and stored.min() <= 1)


def _signs(flips: Sequence[int]) -> Floats:
    return np.array([-1.0 if axis in flips else 1.0 for axis in range(3)])


def _describe_vectors(facts: TargetFacts, kind: str, values: Values) -> tuple[TargetFacts, _Map]:
    if kind != "normals":
        return facts, _Map(kind, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.sqrt((values * values).sum(2, keepdims=True))
        units = np.where((length > NO_LENGTH) & np.isfinite(length), values / length, np.nan)
    if np.isnan(units).all():
        return facts, _Map(kind, units)
    below = units[2 * len(units) // 3 :, :, 1]
    x, y, z = np.nanmean(units, (0, 1)).tolist()
    mean_below = float(below[~np.isnan(below)].mean()) if not np.isnan(below).all() else np.nan
    return replace(facts, mean=(x, y, z), mean_below=mean_below), _Map(kind, units)


def _compare(
    facts: list[TargetFacts], maps: Sequence[_Map | None], camera: Intrinsics | None
) -> tuple[TargetFacts, ...]:
    """Add the agreement of normals and depth to the facts of normals."""
    kept = {found.kind: (index, found.values) for index, found in enumerate(maps) if found is not None}
    if {"depth", "normals"} <= kept.keys():
        (_, depth), (index, units) = kept["depth"], kept["normals"]
        if depth.shape[:2] == units.shape[:2]:
            facts[index] = replace(facts[index], agreement=_find_agreement(depth[..., 0], units, camera))
    return tuple(facts)


def _find_agreement(depth: Floats, units: Values, camera: Intrinsics | None) -> tuple[float, float, float] | None:
    height, width = depth.shape
    step = max(1, max(height, width) // _COMPARED)
    focal = _VIEW * max(height, width)
    known = camera or Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
    thinned = depth[::step, ::step].astype(np.float32)
    thinned[~((thinned > 0) & np.isfinite(thinned))] = np.nan
    computed = find_normals(thinned, Intrinsics(*(value / step for value in known)), reach=2)
    products = units[::step, ::step].transpose(2, 0, 1) * computed
    products = products[:, ~np.isnan(products).any(0)]
    if products.shape[1] < max(_FEWEST_COMPARED, thinned.size // 20):
        return None
    x, y, z = products.mean(1).tolist()
    return x, y, z


def _digest(stored: npt.NDArray[Any]) -> bytes:
    plain = np.ascontiguousarray(stored)
    if (plain == plain.flat[0]).all() or np.isnan(plain.astype(np.float64)).all():
        return b""
    return hashlib.blake2b(plain.data, digest_size=16, person=f"{stored.dtype}{stored.shape}".encode()[:16]).digest()
