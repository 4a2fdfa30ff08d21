"""The meaning of the numbers in one folder of depth, normals or other quantities. H is height, W width, D channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Target
from refinenet.io.images.stored_values import read_stored
from refinenet.outputs import OutputSpec

Values = npt.NDArray[np.float64]
AXES = ("x", "y", "z")
ENCODINGS = ("rgb", "xyz")
LENGTH_ERROR = 0.1
"""Deviation of a normal's length from 1 up to which it is normalised; more than 8 bits and interpolation cause."""
NO_LENGTH = 0.02
"""Length up to which a normal is missing: 8 bits cannot store 0 exactly."""
AWAY = 0.3
"""Mean of z from which normals are refused as pointing away from the camera."""


class ChannelsError(ValueError):
    """A file has another number of channels than its output."""


class UndeclaredError(ValueError):
    """The unit or the encoding of the numbers in a file is not known."""


class Decoded(NamedTuple):
    """The numbers in a file, and what they stand for."""

    stored: npt.NDArray[Any]
    """`(H, W, D)` integers or floating-point numbers."""
    values: Values
    """`(H, W, D)` in the unit of the output, or components of vectors of any length in the frame of the file; NaN where
    there is no ground truth."""


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

    has_range: bool = False
    """Whether the range of depths is declared."""
    is_optional: bool = False
    """Whether images without a file have no ground truth, instead of being an error."""

    def read(self, path: Path) -> Target:
        """Read a file as `(D, H, W)` float32 in the unit of the output; NaN where there is no ground truth.

        Raises:
            ValueError: The file is damaged, has another number of channels or values that are not allowed, or the
                meaning of its values is not declared.
            OSError: The file cannot be read.
        """
        values = self.decode(path).values
        if self.spec.kind == "normals":
            values = self._normalise(values, path)
        self._check(values, path)
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)

    def decode(self, path: Path) -> Decoded:
        """Read the values in a file, even those that are not allowed, such as infinities and normals of any length.

        Raises:
            ChannelsError: It has another number of channels.
            UndeclaredError: The unit of integers, or the encoding of normals, is not declared.
            ValueError: The file is damaged.
            OSError: The file cannot be read.
        """
        stored, valid = read_stored(path)
        if stored.shape[2] != len(self.missing):
            raise ChannelsError(
                f"{path} has {stored.shape[2]} channels, but {self.spec.name} has {len(self.missing)}: "
                f"{', '.join(self.spec.channels) or self.spec.info.meaning}.{_hint_at_order(stored, len(self.missing))}"
            )
        is_normals = self.spec.kind == "normals"
        values = self._decode_normals(stored, path) if is_normals else self._rescale(stored, path)
        gaps = self.find_gaps(stored)
        if valid is not None:
            gaps |= ~valid
        values[gaps.any(2) if is_normals else gaps] = np.nan
        return Decoded(stored, values)

    def find_gaps(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
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
            raise UndeclaredError(
                f"{path} holds integers ({stored.dtype}) in an unknown unit. State the stored value of a metre, for "
                f"example 1000 for millimetres, in {self.origin} in two lines: `depth:` and `  scale: 1000`."
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
        raise UndeclaredError(
            f"{path} holds {stored.dtype}, and its encoding {said}. Floats must be xyz; declare uint8 or uint16 that "
            f"hold (n + 1) / 2 in {self.origin} with two lines, `normals:` and `  encoding: rgb`."
        )

    def _normalise(self, values: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.float64]:
        """Return unit vectors in the frame of the camera, NaN for vectors of length 0."""
        length = np.sqrt((values * values).sum(2))
        values[length <= NO_LENGTH] = length[length <= NO_LENGTH] = np.nan
        wrong = np.abs(length - 1) > LENGTH_ERROR
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{path} has a normal of length {length[row, column]:.3g} at row {row}, column {column} ({wrong.sum()} "
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
        if self.spec.kind == "normals" and known.size and known.mean() > AWAY:
            raise ValueError(
                f"{path} has normals that point away from the camera (z is {known.mean():.2f} on average). They should "
                f"have x right, y down and z into the scene: state the axes to negate in {self.origin}, under "
                "`normals:`, for example `flip: [y, z]`."
            )


def _hint_at_order(stored: npt.NDArray[Any], channels: int) -> str:
    """Return a hint if the first axis is that of the channels; it is taken for H."""
    if stored.shape[0] != channels or min(stored.shape[1:]) <= channels:
        return ""
    return (
        f" Its shape {stored.shape} seems to have the channels first: save it as {(*stored.shape[1:], channels)}, "
        "height, width and channels, for example with `np.moveaxis(values, 0, -1)`."
    )
