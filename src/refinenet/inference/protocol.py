"""Inference protocols: whole images or sliding windows, scales and mirroring (test-time augmentation).

Shape letters: K classes, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from refinenet.inference.sliding_window import WindowGrid, blend_windows
from refinenet.inference.upsampling import resize, resize_image, softmax
from refinenet.io.arrays import Array, copy_array, library, new_array
from refinenet.models.finishing import split_maps
from refinenet.outputs import CLASS_KIND, CLASSES, OutputSpec
from refinenet.settings import is_number

Forward = Callable[[Array], Array]
"""Function from float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, h, w)`."""

SMALLEST_WINDOW = 32


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of inference on an image.

    Images are resized bilinearly, with antialiasing; logits are resized bilinearly to the image's size. The
    probabilities of several scales and of mirrored images are averaged.

    Raises:
        ValueError: a value is not allowed.
    """

    scales: tuple[float, ...] = (1.0,)
    """Scales relative to the image's size, each in (0, 8]."""
    flip: bool = False
    """Whether each scale is also evaluated mirrored."""
    window: tuple[int, int] | None = None
    """Height and width of the sliding windows, at least 32, or None for whole images. Windows larger than the image
    are reduced to its size."""
    overlap: float = 0.5
    """Minimum overlap of neighbouring windows as a fraction of their side, in [0, 0.9]. Logits are weighted by a
    Gaussian around the window's centre (standard deviation: an eighth of its side). Windows of at least 256 pixels
    start at multiples of 32."""
    shorter_side: tuple[int, int] | None = None
    """Minimum and maximum of the image's shorter side; images outside this range are resized first. None keeps the
    size."""

    def __post_init__(self) -> None:
        problems = [*self._scale_problems(), *self._window_problems(), *self._side_problems()]
        if not isinstance(self.flip, bool):
            problems.append(f"flip must be true or false, not {self.flip!r}")
        if problems:
            raise ValueError("Invalid inference protocol: " + "; ".join(problems) + ".")

    def describe(self) -> str:
        """Describe the protocol in words."""
        sizes = ", ".join(f"{scale:g}" for scale in self.scales)
        several = len(self.scales) > 1 or self.flip
        parts = [
            "single scale" if self.scales == (1.0,) else f"scales {sizes}",
            "whole image" if self.window is None else self._describe_window(),
            "with and without flip" if self.flip else "no flip",
        ]
        if self.shorter_side is not None:
            parts.append("shorter side resized to {} to {} pixels".format(*self.shorter_side))
        resized = "logits resized bilinearly to the image's size before argmax"
        return ", ".join(parts) + "; " + resized + ("; probabilities averaged" if several else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {
            "scales": list(self.scales),
            "flip": self.flip,
            "window": list(self.window) if self.window else None,
            "overlap": self.overlap,
            "shorter_side": list(self.shorter_side) if self.shorter_side else None,
        }

    def _describe_window(self) -> str:
        assert self.window is not None
        size = "windows of {}x{} pixels (height x width)".format(*self.window)
        return f"{size}, overlapping by at least {self.overlap:g}, logits averaged with Gaussian weights"

    def _scale_problems(self) -> Iterator[str]:
        if not isinstance(self.scales, tuple) or not self.scales:
            yield f"scales must be a tuple of at least one number, not {self.scales!r}"
        elif not all(is_number(scale) and 0 < scale <= 8 for scale in self.scales):
            yield f"each scale must be a number above 0 and up to 8, not {self.scales!r}"
        elif len(set(self.scales)) < len(self.scales):
            yield f"a scale occurs twice in {self.scales!r}"

    def _window_problems(self) -> Iterator[str]:
        if self.window is not None and not (_is_pair(self.window) and min(self.window) >= SMALLEST_WINDOW):
            yield f"window must be a height and a width of at least {SMALLEST_WINDOW} pixels, not {self.window!r}"
        if not is_number(self.overlap) or not 0 <= self.overlap <= 0.9:
            yield f"overlap must be a number from 0 to 0.9, not {self.overlap!r}"

    def _side_problems(self) -> Iterator[str]:
        side = self.shorter_side
        if side is not None and not (_is_pair(side) and 1 <= side[0] <= side[1]):
            yield f"shorter_side must be a minimum and a maximum number of pixels, not {side!r}"


PLAIN = Protocol()
"""A single pass over the whole image."""


def choose_protocol(protocol: Protocol | str, model_type: str, paper_side: tuple[int, int] | None = None) -> Protocol:
    """Resolve "plain" and "paper"; a Protocol is returned unchanged.

    Args:
        protocol: "plain", "paper", or a protocol.
        model_type: "full" or "lightweight".
        paper_side: As for `published_protocol`; None for its default.

    Raises:
        ValueError: `protocol` is neither of these.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in ("plain", "paper"):
        raise ValueError(f"protocol must be 'plain', 'paper' or a Protocol, not {protocol!r}.")
    return PLAIN if protocol == "plain" else published_protocol(model_type, paper_side or PAPER_SIDE)


PAPER_SIDE = (450, 800)
"""Range of the shorter side on datasets for which RefineNet's authors set no other."""


def published_protocol(model_type: str, shorter_side: tuple[int, int] = PAPER_SIDE) -> Protocol:
    """Return the protocol of a network's paper.

    RefineNet (Lin et al., CVPR 2017; settings of the authors' published code) averages the probabilities of five
    scales, each enlarged by a fifth, of images whose shorter side is brought into a range. Light-Weight RefineNet
    (Nekrasov et al., BMVC 2018) evaluates the whole image once. Both resize the output bicubically; this package
    resizes bilinearly.

    Args:
        model_type: "full" or "lightweight".
        shorter_side: Minimum and maximum of the image's shorter side, in pixels, that the full network is tested with.
    """
    if model_type == "lightweight":
        return PLAIN
    return Protocol(
        scales=tuple(round(1.2 * scale, 2) for scale in (0.4, 0.6, 0.8, 1.0, 1.2)),
        shorter_side=shorter_side,
    )


def average_outputs(
    backend: Forward,
    image: Array,
    protocol: Protocol,
    temperature: float = 1.0,
    outputs: Sequence[OutputSpec] = (CLASSES,),
    num_classes: int | None = None,
) -> Array:
    """Run a network on an image under a protocol.

    What is averaged over scales and mirrored images are the probabilities of classes and the values of other outputs:
    mirrored back with the signs that mirroring changes, and depths times the scale, since an enlarged image looks
    nearer.

    Args:
        backend: Function that runs the network.
        image: `(1, 3, H, W)` float32 RGB in [0, 1].
        protocol: Scales, mirroring and windows.
        temperature: Divisor of the logits before the softmax.
        outputs: Outputs of the network.
        num_classes: K; needed if there are other outputs than classes.

    Returns:
        Probabilities, and maps of other outputs: `(C, H, W)` float32; not finite where the network's maps are not.
    """
    height, width = image.shape[-2:]
    total: Array | None = None
    passes = 0
    for scale, mirrored in product(protocol.scales, (False, True) if protocol.flip else (False,)):
        factor = scale * _fit(min(height, width), protocol.shorter_side)
        resized = _resize_image(image, factor)
        maps = _run(backend, _mirror(resized) if mirrored else resized, protocol)
        maps = resize(_mirror(maps) if mirrored else maps, (height, width))
        parts = split_maps(maps, outputs, maps.shape[1] if num_classes is None else num_classes)
        values = library(maps).concatenate(
            [_undo(parts[spec.name][0], spec, factor, temperature, mirrored=mirrored) for spec in outputs]
        )
        if total is None:
            total = values
        else:
            total += values
        passes += 1
    assert total is not None
    total /= passes
    return total


def _mirror(values: Array) -> Array:
    """Mirror images or maps from left to right."""
    # A copy, since NumPy's is a view backwards, which PyTorch does not take.
    return copy_array(library(values).flip(values, (-1,)))


def _undo(maps: Array, spec: OutputSpec, factor: float, temperature: float, *, mirrored: bool) -> Array:
    """Return what an output `(D, H, W)` of a resized and perhaps mirrored image means for the image itself."""
    if spec.kind == CLASS_KIND:
        return softmax(maps / temperature)
    values = maps
    if spec.info.shrinks_with_zoom:
        count = spec.count_channels(0)
        # The scales of errors change as the values do; of the maps after these they are the logarithms.
        values = library(maps).concatenate([maps[:count] * factor, maps[count:] + math.log(factor)])
    if mirrored and spec.info.mirrored_channels:
        values = copy_array(values)
        values[list(spec.info.mirrored_channels)] *= -1
    return values


def _fit(side: int, limits: tuple[int, int] | None) -> float:
    """Return the scale that brings a shorter side of `side` pixels into the limits."""
    return 1.0 if limits is None else min(max(side, limits[0]), limits[1]) / side


def _resize_image(image: Array, scale: float) -> Array:
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    return image if tuple(image.shape[-2:]) == (height, width) else resize_image(image, (height, width))


def _run(backend: Forward, image: Array, protocol: Protocol) -> Array:
    """Return the logits `(1, K, H, W)` of an image, blended from windows if the protocol has them."""
    height, width = image.shape[-2:]
    if protocol.window is None or (protocol.window[0] >= height and protocol.window[1] >= width):
        return resize(backend(image), (height, width))
    rows, columns = (
        WindowGrid(side, part, protocol.overlap) for side, part in zip((height, width), protocol.window, strict=True)
    )
    total: Array | None = None
    for block in blend_windows(partial(_run_window, backend, image), rows, columns):
        if total is None:
            total = new_array(block.logits, (1, len(block.logits), height, width))
        total[0, :, block.rows, block.columns] = block.logits
    assert total is not None
    return total


def _run_window(backend: Forward, image: Array, rows: slice, columns: slice) -> Array:
    """Return the logits `(1, K, h, w)` of a window at the window's size."""
    window = copy_array(image[:, :, rows, columns])
    return resize(backend(window), window.shape[-2:])
