"""From the maps of a network to the values of its outputs. Arrays are NumPy's, or tensors of PyTorch.

Shape letters: N batch, D channels of an output, H and W height and width of an image, h and w those of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from refinenet.io.arrays import Array, library
from refinenet.outputs import LIKELIHOODS, OutputSpec

_LOG_SCALES = (-30.0, 30.0)
"""Least and largest log scale; others are moved to these, so that scales are finite and above 0."""
_SHORTEST = 1e-12
"""Length below which normals are divided by this instead, as PyTorch's `normalize` does."""


def _finish_depth(values: Array, spec: OutputSpec) -> Array:
    # The absolute value, as in the published multi-task network, whose head is linear, too.
    assert spec.range is not None
    return library(values).clip(abs(values), *spec.range)


def _finish_normals(values: Array, spec: OutputSpec) -> Array:  # noqa: ARG001 - the same parameters for all kinds
    lengths = (values * values).sum(1)[:, None] ** 0.5
    return values / library(values).clip(lengths, _SHORTEST, None)


FINISH: dict[str, Callable[[Array, OutputSpec], Array]] = {"depth": _finish_depth, "normals": _finish_normals}
"""Functions that make the values of a kind valid, `(N, D, H, W)` to the same shape; other kinds need none."""


def finish(values: Array, spec: OutputSpec) -> Array:
    """Make the values of an output valid.

    Args:
        values: `(N, D, H, W)` float32, the maps of the output, resized; any log scales after them are left out.
        spec: Specification of the output.

    Returns:
        `(N, D, H, W)`: depths within their range, in metres; normals of length 1; other kinds unchanged.
    """
    if spec.likelihood is not None:
        values = values[:, : values.shape[1] // 2]
    return FINISH[spec.kind](values, spec) if spec.kind in FINISH else values


def finish_deviations(values: Array, spec: OutputSpec) -> Array:
    """Return the standard deviations of the errors of an output with a likelihood.

    Args:
        values: `(N, 2 D, H, W)` float32, the maps of the output, resized: values, then log scales.
        spec: Specification of the output.

    Returns:
        `(N, D, H, W)`, in the unit of the output.
    """
    assert spec.likelihood is not None
    maths, log_scales = library(values), values[:, values.shape[1] // 2 :]
    return LIKELIHOODS[spec.likelihood] * maths.exp(maths.clip(log_scales, *_LOG_SCALES))


def split_maps(maps: Array, outputs: Sequence[OutputSpec], num_classes: int) -> dict[str, Array]:
    """Split the maps of a network, `(N, all channels, h, w)`, into those of each output `(N, D, h, w)`, by name."""
    ends = accumulate((spec.count_maps(num_classes) for spec in outputs), initial=0)
    parts = {spec.name: maps[:, start:end] for spec, (start, end) in zip(outputs, pairwise(ends), strict=True)}
    assert sum(part.shape[1] for part in parts.values()) == maps.shape[1]
    return parts
