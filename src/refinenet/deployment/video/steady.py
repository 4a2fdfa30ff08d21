"""Steady labels in videos: probabilities of classes averaged over frames, along the motion in the picture.

The mean of the frames so far is carried along by optical flow (DIS: Kroeger et al., ECCV 2016; OpenCV's) and blended
with the probabilities of the new frame, except where the flow is not to be trusted: where the flows forward and
backward disagree, as where something comes into sight (criterion of Sundaram et al., ECCV 2010), and where the picture
has changed along the flow, as after a cut.

Shape letters: H height, W width, K classes, h and w height and width of the network's maps.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.inference.segmentation import Logits
from refinenet.inference.upsampling import softmax
from refinenet.io.arrays import as_numpy
from refinenet.io.extras import install_extra
from refinenet.io.images.sample_values import RGB
from refinenet.models.finishing import split_maps
from refinenet.outputs import OutputSpec, class_output

MEMORY = 0.75
"""Weight of the frames before, where the flow can be trusted; the mean is then over about four frames."""

_CHANGE = 20.0
"""Change along the flow, in grey levels of 0 to 255, averaged over 5 x 5 pixels, at which the weight falls to 1/e."""
_CUT = 0.3
"""Mean trust in the flow below which two pictures count as different scenes; between frames of one it is about 0.9, of
two 0.1."""
_LEAST_SIDE = 32
"""Least height and width, in pixels, of pictures in which flow is found."""
_LONGEST_SIDE = 640
"""Longest side of these pictures: larger ones would take long, and show hardly more."""
_LEAST = 1e-6
"""Least probability, so that its logarithm is finite."""
_AT_ONCE = 4
"""Channels that OpenCV warps at a time."""

Floats = npt.NDArray[np.float32]


def require_opencv() -> None:
    """Check that OpenCV is installed.

    Raises:
        ValueError: it is not.
    """
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        raise ValueError(f"Steady labels need OpenCV, which finds motion: {install_extra('steady')}") from error


@dataclass(frozen=True)
class _Before:
    """What is kept of the frame before."""

    grey: npt.NDArray[np.uint8]
    """The frame in grey levels, of any size."""
    mean: Floats
    """`(h, w, K)`: mean probabilities."""


class Steadier:
    """Averages the class probabilities of the frames of one video, which are passed in order; other outputs are kept.

    Args:
        outputs: Outputs of the network.
        num_classes: K.
        memory: Weight of the frames before, in [0, 1).

    Raises:
        ValueError: OpenCV is not installed, or the network has no output of classes.
    """

    def __init__(self, outputs: Sequence[OutputSpec], num_classes: int, memory: float = MEMORY) -> None:
        require_opencv()
        import cv2

        found = class_output(outputs)
        if found is None:
            raise ValueError("Only labels can be steadied, but the network predicts no classes.")
        self._name, self._outputs, self._num_classes, self._memory = found.name, outputs, num_classes, memory
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._before: _Before | None = None

    def steady(self, pixels: RGB, found: Logits) -> Logits:
        """Return the maps of a frame with steadied class scores; those of the first frame are unchanged.

        Args:
            pixels: The frame, `(H, W, 3)` uint8 RGB.
            found: Maps `(C, h, w)` of all outputs.
        """
        maps = as_numpy(found.values).copy()
        scores = split_maps(maps[None], tuple(self._outputs), self._num_classes)[self._name][0]
        shares = scores.copy() if found.temperature is None else softmax(scores / np.float32(found.temperature))
        mean = np.ascontiguousarray(shares.transpose(1, 2, 0))
        grey, before = _to_grey(pixels, mean.shape[0], mean.shape[1]), self._before
        if before is None or before.mean.shape != mean.shape or before.grey.shape != grey.shape:
            self._before = _Before(grey, mean)
            return found
        mean += self._carry(before, grey, mean)
        self._before = _Before(grey, mean)
        known = mean.transpose(2, 0, 1)
        scores[:] = known if found.temperature is None else np.log(known.clip(_LEAST)) * found.temperature
        return replace(found, values=maps)

    def _carry(self, before: _Before, grey: npt.NDArray[np.uint8], shares: Floats) -> Floats:
        """Return what the frames before add to the probabilities `(h, w, K)` of a frame."""
        height, width = shares.shape[:2]
        backward, trust = self._find_motion(before.grey, grey)
        # The flow is found on a finer grid than that of the maps, and its unit is a pixel of it.
        scale = np.array([width / grey.shape[1], height / grey.shape[0]], np.float32)
        small = _resize(backward, (height, width)) * scale
        weight = _resize(trust, (height, width)) * self._memory
        carried = _warp(before.mean, small)
        carried -= shares
        carried *= weight[..., None]
        return carried

    def _find_motion(self, before: npt.NDArray[np.uint8], now: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Return the flow to the picture before, `(H, W, 2)` in pixels, and how far to trust it, `(H, W)` in [0, 1]."""
        import cv2

        if min(now.shape) < _LEAST_SIDE:
            backward = forward = np.zeros((*now.shape, 2), np.float32)
        else:
            backward, forward = self._flow.calc(now, before, None), self._flow.calc(before, now, None)
        back_again = _warp(forward, backward)
        error = np.square(backward + back_again).sum(-1)
        agrees = error < 0.01 * (np.square(backward).sum(-1) + np.square(back_again).sum(-1)) + 0.5
        change = now.astype(np.float32) - _warp(before.astype(np.float32)[..., None], backward)[..., 0]
        likeness = np.exp(-np.square(cv2.blur(change, (5, 5)) / _CHANGE))
        trust = np.where(agrees & _is_inside(backward), likeness, np.float32(0))
        return backward, trust if trust.mean() > _CUT else np.zeros_like(trust)


def _to_grey(pixels: RGB, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a frame in grey levels, at twice the size of the maps, but not larger than it is or than flow needs."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    sides = min(2 * height, pixels.shape[0]), min(2 * width, pixels.shape[1])
    factor = min(1.0, _LONGEST_SIDE / max(sides))
    return _resize(grey, (max(1, round(factor * sides[0])), max(1, round(factor * sides[1]))))


def _resize(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize `(h, w, ...)` to a height and a width, with averages where it becomes smaller."""
    import cv2

    way = cv2.INTER_AREA if size <= values.shape[:2] else cv2.INTER_LINEAR
    return cv2.resize(values, (size[1], size[0]), interpolation=way)


def _follow(flow: Floats) -> tuple[Floats, Floats]:
    """Return the column and the row, `(h, w)` each, to which a flow leads from each pixel."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]


def _is_inside(flow: Floats) -> npt.NDArray[np.bool_]:
    """Return whether a flow leads to a place in the picture, `(h, w)`."""
    (height, width), (columns, rows) = flow.shape[:2], _follow(flow)
    inside: npt.NDArray[np.bool_] = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    return inside


def _warp(values: Floats, flow: Floats) -> Floats:
    """Return values `(h, w, D)` taken from where a flow `(h, w, 2)` leads, interpolated bilinearly."""
    import cv2

    columns, rows = _follow(flow)
    parts = [
        cv2.remap(
            np.ascontiguousarray(values[..., start : start + _AT_ONCE]),
            columns,
            rows,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(*flow.shape[:2], -1)
        for start in range(0, values.shape[-1], _AT_ONCE)
    ]
    warped: Floats = np.concatenate(parts, axis=-1)
    return warped
