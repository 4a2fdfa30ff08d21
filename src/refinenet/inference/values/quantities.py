"""Files and pictures of quantities with units: depths and regressions. The functions are those of `PixelForm`.

Shape letters: H height, W width, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from refinenet.inference.prediction import Prediction, Values
from refinenet.inference.values.subject import Subject
from refinenet.io.arrays import pack_arrays
from refinenet.io.drawing.colour_bar import draw_colour_bar, find_limits, paint

LARGEST = 65_535
"""Largest number of 16 bits."""
UNITS = "units"
"""Name of the array of units in `.npz` files."""


def as_numbers(values: Values, subject: Subject) -> Values:  # noqa: ARG001 - as all forms
    """Return the values themselves, `(H, W)` or `(H, W, D)` float32; NaN where there is none."""
    return values[0] if len(values) == 1 else np.ascontiguousarray(np.moveaxis(values, 0, -1))


def describe_numbers(subject: Subject) -> Mapping[str, str]:
    """Return names and units of the channels."""
    names, units = zip(*subject.quantities, strict=True)
    return {"output": subject.spec.name, "quantities": ", ".join(names), "units": ", ".join(units), "no_data": "nan"}


def as_integers(values: Values, subject: Subject) -> npt.NDArray[np.uint16]:
    """Return `(H, W)` uint16: values times the scale, at least 1; 0 where there is none.

    Raises:
        ValueError: a value is negative, or larger than 16 bits hold.
    """
    assert subject.scale is not None
    stored = np.rint(values[0].astype(np.float64) * subject.scale)
    known = np.isfinite(stored)
    lowest, highest = (float(find(stored, where=known, initial=0)) for find in (np.min, np.max))
    if lowest < 0 or highest > LARGEST:
        raise ValueError(_describe_excess(lowest if lowest < 0 else highest, subject))
    # 0 stands for no data, so that values below half a step become the least value above it.
    return np.where(known, stored.clip(1, LARGEST), 0).astype(np.uint16)


def _describe_excess(stored: float, subject: Subject) -> str:
    assert subject.scale is not None
    unit = subject.quantities[0][1] or "units"
    advice = "write .tif or .npz"
    if stored > 0:
        scale = 2.0 ** math.floor(math.log2(LARGEST * subject.scale / stored))
        advice = f"choose a smaller scale (--scale {scale:g}), or {advice}"
    return (
        f"{subject.kind} is {stored / subject.scale:.6g} {unit} somewhere, and a 16-bit PNG of {subject.scale:g} steps "
        f"for each unit holds 0 to {LARGEST / subject.scale:.6g} {unit}: {advice}."
    )


def describe_integers(subject: Subject) -> Mapping[str, str]:
    """Return what the numbers of `as_integers` mean."""
    assert subject.scale is not None
    name, unit = subject.quantities[0]
    scale = f"{subject.scale:.12g}"
    words = f"{name} in {unit or 'its unit'} = stored value / {scale}; 0 = no data"
    return {"output": subject.spec.name, "unit": unit, "scale": scale, "no_data": "0", "Description": words}


def check_integers(subject: Subject) -> None:
    """Refuse several quantities, and a missing scale."""
    check_single(subject)
    if subject.scale is None:
        raise ValueError(
            f"{subject.kind} in a 16-bit PNG needs a scale, the stored value of one unit: pass scale (--scale), or "
            "write .tif or .npz."
        )


def check_likelihood(subject: Subject) -> None:
    """Refuse an output that does not predict the scale of its errors."""
    if subject.spec.likelihood is None:
        raise ValueError(
            f"{subject.kind} needs an output that predicts the scale of its errors, such as "
            f"{subject.spec.kind}~laplace; {subject.spec.name} does not."
        )


def check_single(subject: Subject) -> None:
    """Refuse several quantities in one picture."""
    if len(subject.quantities) > 1:
        names = ", ".join(f"{subject.kind.partition(':')[0]}:{name}" for name, _ in subject.spec.quantities)
        raise ValueError(
            f"{subject.kind} has {len(subject.quantities)} quantities, but this picture shows one: choose {names}."
        )


def paint_quantity(values: Values, subject: Subject) -> npt.NDArray[np.uint8]:
    """Return `(H, W, 3)` uint8 RGB: depths from bright, near, to dark; other quantities from dark, low, to bright."""
    low, high = subject.limits or find_limits(values[0])
    return paint(values[0], low, high, subject.row.colours)


def with_limits(values: Values, subject: Subject) -> Subject:
    """Return the subject with limits: its own, or those of the values."""
    return subject if subject.limits is not None else replace(subject, limits=find_limits(values[0]))


def add_colour_bar(picture: npt.NDArray[np.uint8], subject: Subject) -> npt.NDArray[np.uint8]:
    """Return the picture above a bar with its colours in units."""
    assert subject.limits is not None
    bar = draw_colour_bar(picture.shape[1], *subject.limits, subject.title, subject.row.colours)
    return np.concatenate([picture, bar])


def describe_colours(subject: Subject) -> Mapping[str, str]:
    """Return the values at both ends of the colours."""
    ends = {} if subject.limits is None else {"limits": ", ".join(f"{limit:.9g}" for limit in subject.limits)}
    return {"output": subject.spec.name, "quantity": subject.title, **ends}


def pack_values(prediction: Prediction, subject: Subject) -> bytes:
    """Return a `.npz` file of a float32 array for each quantity, `(H, W)` (normals `(H, W, 3)`), and `UNITS`.

    If a quantity has the name of `UNITS`, these are stored under it with "_" appended.
    """
    values = subject.row.read(prediction, subject.spec.name)[subject.channels]
    names = [name for name, _ in subject.quantities]
    parts = [as_numbers(values, subject)] if len(names) == 1 else list(values)
    units = np.array([unit for _, unit in subject.quantities])
    key = UNITS
    while key in names:
        key += "_"
    return pack_arrays({**dict(zip(names, parts, strict=True)), key: units})
