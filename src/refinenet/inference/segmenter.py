"""Segmenter: prepares an image, runs a backend, and names the classes of the result.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import typing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refinenet.inference.backends.base import BackendError
from refinenet.inference.protocol import PLAIN, Protocol, average_probabilities
from refinenet.inference.segmentation import Logits, Segmentation, reorder_channels
from refinenet.inference.upsampling import resize
from refinenet.io.images import ChannelOrder
from refinenet.io.sample_values import Mask
from refinenet.io.threads import survive_fork
from refinenet.labels import LabelMap, LabelSet
from refinenet.settings import is_within


def prepare(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Convert `(H, W, 3)` uint8 RGB to `(1, 3, H, W)` float32 in [0, 1], channels last in memory."""
    if device.type == "cpu":
        # By NumPy: PyTorch's threads, woken for less than a millisecond, would wait busily beside the engine's.
        return torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32, order="C")[None]).permute(
            0, 3, 1, 2
        )
    image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    return image.to(torch.float32).div(255).contiguous(memory_format=torch.channels_last)


def check_abstention(below: float) -> None:
    """Check a confidence threshold.

    Raises:
        ValueError: It is not in [0, 1].
    """
    if not is_within(below, 0, 1):
        raise ValueError(f"abstain_below must be a confidence from 0 to 1, not {below!r}.")


class NotFiniteError(BackendError):
    """Logits that are not finite numbers: the network's weights are broken."""


class Backend(typing.Protocol):
    """Runs a network: from any number of threads at once, after copying and pickling, and in forked processes."""

    @property
    def device(self) -> torch.device:
        """Device of the images."""

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to float32 logits `(N, K, h, w)`.

        h and w are usually a quarter of H and W, rounded up.
        """


class Segmenter:
    """Segments images with a network.

    Args:
        backend: Runs the network.
        label_set: Names and colours of its classes.
        protocol: Inference protocol; by default the whole image, once.
        temperature: Divisor of the logits before softmax; above 1 the network is less confident.
    """

    def __init__(
        self, backend: Backend, label_set: LabelSet, protocol: Protocol = PLAIN, temperature: float = 1.0
    ) -> None:
        self.backend, self.label_set = backend, label_set
        self.protocol, self.temperature = protocol, temperature

    def under(self, protocol: Protocol) -> Segmenter:
        """Return this segmenter with another inference protocol."""
        return Segmenter(self.backend, self.label_set, protocol, self.temperature)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> LabelMap:
        """Predict the label map of an image: `(H, W, 3)` uint8 RGB to `(H, W)` ids."""
        return self.label_set.cast(self._run(pixels).labels())

    def segment(
        self,
        pixels: npt.NDArray[np.uint8],
        abstain_below: float = 0.0,
        valid: Mask | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Segmentation:
        """Segment an image.

        Args:
            pixels: `(H, W, 3)` uint8 RGB.
            abstain_below: Pixels of lower confidence get the label set's ignore index instead of a class.
            valid: `(H, W)` bool: where the image has data; other pixels get the ignore index. None for everywhere.
            channel_order: Order of the channels in the pictures of the result.

        Raises:
            ValueError: `abstain_below` is not in [0, 1].
        """
        check_abstention(abstain_below)
        return self.name(pixels, self._run(pixels), abstain_below, valid, channel_order)

    def name(
        self,
        pixels: npt.NDArray[np.uint8],
        scores: Logits,
        abstain_below: float = 0.0,
        valid: Mask | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Segmentation:
        """Make the segmentation from logits.

        Args:
            pixels: The image, `(H, W, 3)` uint8 RGB.
            scores: Logits or probabilities of the network.
            abstain_below: As for `segment`.
            valid: As for `segment`.
            channel_order: As for `segment`.

        Raises:
            NotFiniteError: The logits are not finite.
        """
        survive_fork()
        check_finite(scores.values)
        labels = self.label_set.cast(scores.labels())
        if abstain_below > 0:
            labels[scores.confidence() < abstain_below] = self.label_set.ignore_index
        if valid is not None:
            labels[~valid] = self.label_set.ignore_index
        return Segmentation(
            image=reorder_channels(pixels, channel_order),
            labels=labels,
            label_set=self.label_set,
            scores=scores,
            valid=valid,
            channel_order=channel_order,
        )

    def logits(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Run the network once on the whole image: `(H, W, 3)` uint8 RGB to logits `(K, H, W)`."""
        return resize(self._forward(pixels), pixels.shape[:2])[0]

    def _run(self, pixels: npt.NDArray[np.uint8]) -> Logits:
        survive_fork()
        size = pixels.shape[0], pixels.shape[1]
        if self.protocol.is_plain:
            return Logits(values=self._forward(pixels)[0], size=size, temperature=self.temperature)
        image = prepare(pixels, self.backend.device)
        found = check_finite(average_probabilities(self.backend, image, self.protocol, self.temperature))
        return Logits(values=found, size=size, temperature=None)

    def _forward(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        return check_finite(self.backend(prepare(pixels, self.backend.device)))


def check_finite(scores: Tensor) -> Tensor:
    """Return the output of a network.

    Raises:
        NotFiniteError: A number of it is not finite.
    """
    # A sum costs a ninth of a test of each number. It may overflow for large finite numbers, so each is tested then.
    # Without this check, the argmax of NaN would silently be some class.
    if not scores.sum().isfinite() and not scores.isfinite().all():
        raise NotFiniteError("The network's output is not finite: its weights are broken. Load or train another model.")
    return scores
