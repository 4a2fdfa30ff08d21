"""How an image is put before the network: whole or in windows, at one size or several, mirrored or not.

Shape letters: K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from refinenet.inference.sliding_window import WindowGrid, blend_windows
from refinenet.inference.upsampling import resize
from refinenet.settings import is_number

Look = Callable[[Tensor], Tensor]
"""Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, h, w)`, which are resized to H and W."""

SMALLEST_WINDOW = 32


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an image is put before the network.

    Images are resized bilinearly, with a low-pass filter where they shrink; logits are resized bilinearly to the
    image's size. Where there are several answers for a pixel, their probabilities are averaged.

    Raises:
        ValueError: a value is not allowed.
    """

    scales: tuple[float, ...] = (1.0,)
    """Sizes that the network sees the image in, relative to its own; each in (0, 8]."""
    flip: bool = False
    """Whether it sees each of them mirrored, too."""
    window: tuple[int, int] | None = None
    """Height and width of the windows that it sees of each, or None for whole images; at least 32. A window that is
    larger than the image is as large as the image."""
    overlap: float = 0.5
    """The least share of its side that a window has in common with the next one, in [0, 0.9]. Pixels near a window's
    middle count more, by a Gaussian of an eighth of its side. Windows from 256 pixels on begin at multiples of 32."""
    shorter_side: tuple[int, int] | None = None
    """Least and greatest length of the image's shorter side, to which images beyond are resized first; None leaves
    their size as it is."""

    def __post_init__(self) -> None:
        problems = [*self._scale_problems(), *self._window_problems(), *self._side_problems()]
        if not isinstance(self.flip, bool):
            problems.append(f"flip is true or false, not {self.flip!r}")
        if problems:
            raise ValueError("Images cannot be shown to the network like this: " + "; ".join(problems) + ".")

    @property
    def is_plain(self) -> bool:
        """Whether the network sees the whole image once, as it is."""
        return self == PLAIN

    def describe(self) -> str:
        """The protocol in words."""
        sizes = ", ".join(f"{scale:g}" for scale in self.scales)
        several = len(self.scales) > 1 or self.flip
        parts = [
            "single scale" if self.scales == (1.0,) else f"scales {sizes}",
            "whole image" if self.window is None else self._describe_window(),
            "with and without flip" if self.flip else "no flip",
        ]
        if self.shorter_side is not None:
            parts.append("shorter side brought into {} to {} pixels".format(*self.shorter_side))
        resized = "logits resized bilinearly to the image's size before argmax"
        return ", ".join(parts) + "; " + resized + ("; probabilities averaged" if several else "")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
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
        return f"{size}, which overlap by {self.overlap:g} at least and whose logits are averaged with Gaussian weights"

    def _scale_problems(self) -> Iterator[str]:
        if not isinstance(self.scales, tuple) or not self.scales:
            yield f"scales is a tuple of at least one number, not {self.scales!r}"
        elif not all(is_number(scale) and 0 < scale <= 8 for scale in self.scales):
            yield f"each scale is a number above 0 and up to 8, not {self.scales!r}"
        elif len(set(self.scales)) < len(self.scales):
            yield f"a scale is named twice in {self.scales!r}"

    def _window_problems(self) -> Iterator[str]:
        if self.window is not None and not (_is_pair(self.window) and min(self.window) >= SMALLEST_WINDOW):
            yield f"window is a height and a width of at least {SMALLEST_WINDOW} pixels, not {self.window!r}"
        if not is_number(self.overlap) or not 0 <= self.overlap <= 0.9:
            yield f"overlap is a number from 0 to 0.9, not {self.overlap!r}"

    def _side_problems(self) -> Iterator[str]:
        side = self.shorter_side
        if side is not None and not (_is_pair(side) and 1 <= side[0] <= side[1]):
            yield f"shorter_side is a least and a greatest number of pixels, not {side!r}"


PLAIN = Protocol()
"""The whole image, once, as it is."""


def choose_protocol(protocol: Protocol | str, dataset: str, model_type: str) -> Protocol:
    """The protocol that is meant by "plain", "paper" or itself.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in ("plain", "paper"):
        raise ValueError(f"protocol is 'plain', 'paper' or a Protocol, not {protocol!r}.")
    return PLAIN if protocol == "plain" else published_protocol(dataset, model_type)


def published_protocol(dataset: str, model_type: str) -> Protocol:
    """How the networks' papers measured on a dataset.

    RefineNet (Lin et al., CVPR 2017; the settings are those of the code that its authors published) averages the
    probabilities of five scales, all of which are enlarged by a fifth, of images whose shorter side is brought into a
    range. Light-Weight RefineNet (Nekrasov et al., BMVC 2018) sees the whole image once. Both resize what the network
    says bicubically, which is bilinear here.

    Args:
        dataset: Its name.
        model_type: "full" or "lightweight".
    """
    if model_type == "lightweight":
        return PLAIN
    return Protocol(
        scales=tuple(round(1.2 * scale, 2) for scale in (0.4, 0.6, 0.8, 1.0, 1.2)),
        shorter_side=(600, 1100) if dataset == "cityscapes" else (450, 800),
    )


def average_probabilities(backend: Look, image: Tensor, protocol: Protocol, temperature: float = 1.0) -> Tensor:
    """What a network says of an image under a protocol.

    Args:
        backend: Runs the network.
        image: `(1, 3, H, W)` float32 RGB in [0, 1].
        protocol: How the image is put before it.
        temperature: What logits are divided by first.

    Returns:
        Probabilities `(K, H, W)`, float32; not finite where the network's logits are not.
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    answers = 0
    for scale, mirrored in product(protocol.scales, (False, True) if protocol.flip else (False,)):
        resized = _resize_image(image, scale * _fit(min(height, width), protocol.shorter_side))
        seen = resized.flip(-1) if mirrored else resized
        logits = _look(backend, seen, protocol)
        logits = resize(logits.flip(-1) if mirrored else logits, (height, width))
        found = (logits[0].float() / temperature).softmax(0)
        total = found if total is None else total.add_(found)
        answers += 1
    assert total is not None
    return total.div_(answers)


def _fit(side: int, limits: tuple[int, int] | None) -> float:
    """By what an image whose shorter side is `side` is resized first."""
    return 1.0 if limits is None else min(max(side, limits[0]), limits[1]) / side


def _resize_image(image: Tensor, scale: float) -> Tensor:
    size = tuple(max(1, round(side * scale)) for side in image.shape[-2:])
    if tuple(image.shape[-2:]) == size:
        return image
    # Rounding may leave the range of the image by the last digit.
    return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def _look(backend: Look, image: Tensor, protocol: Protocol) -> Tensor:
    """Logits `(1, K, H, W)` of an image, put together from windows where the protocol says so."""
    height, width = image.shape[-2:]
    if protocol.window is None or (protocol.window[0] >= height and protocol.window[1] >= width):
        return resize(backend(image), (height, width))
    rows, columns = (
        WindowGrid(side, part, protocol.overlap) for side, part in zip((height, width), protocol.window, strict=True)
    )
    total: Tensor | None = None
    for block in blend_windows(partial(_look_at, backend, image), rows, columns):
        if total is None:
            total = block.logits.new_empty(1, len(block.logits), height, width)
        total[0, :, block.rows, block.columns] = block.logits
    assert total is not None
    return total


def _look_at(backend: Look, image: Tensor, rows: slice, columns: slice) -> Tensor:
    """Logits `(1, K, h, w)` of a window, of the window's size."""
    seen = image[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
    return resize(backend(seen), seen.shape[-2:])
