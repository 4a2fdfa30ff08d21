"""From an image to its `Segmentation`: prepare, run a backend, argmax, name.

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
from refinenet.inference.segmentation import Logits, Segmentation, in_order
from refinenet.inference.upsampling import resize
from refinenet.io.images import ChannelOrder
from refinenet.io.sample_values import Mask
from refinenet.io.threads import survive_fork
from refinenet.labels import LabelMap, LabelSet
from refinenet.settings import is_within


def prepare(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """`(H, W, 3)` uint8 RGB to `(1, 3, H, W)` float32 in [0, 1], channels last in memory."""
    if device.type == "cpu":
        # By NumPy: PyTorch's threads, woken for less than a millisecond, would wait busily beside the engine's.
        return torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32, order="C")[None]).permute(
            0, 3, 1, 2
        )
    image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    return image.to(torch.float32).div(255).contiguous(memory_format=torch.channels_last)


def check_abstention(below: float) -> None:
    """Refuse what is no confidence.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not is_within(below, 0, 1):
        raise ValueError(f"abstain_below is a confidence from 0 to 1, not {below!r}.")


class NotFiniteError(BackendError):
    """A network whose answer is not finite numbers: its weights are broken."""


class Backend(typing.Protocol):
    """What runs a network: from any number of threads at once, after copying and pickling, and in forked processes."""

    @property
    def device(self) -> torch.device:
        """Where images have to be."""

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to float32 logits `(N, K, h, w)`.

        h and w, as a rule a quarter of H and W, rounded up, are resized bilinearly to H and W.
        """


class Segmenter:
    """Segments images with a network.

    Args:
        backend: Runs the network.
        label_set: What its classes are.
        protocol: How it sees an image; by default whole, once.
        temperature: What its logits are divided by before they become probabilities; above 1 it is less confident.
    """

    def __init__(
        self, backend: Backend, label_set: LabelSet, protocol: Protocol = PLAIN, temperature: float = 1.0
    ) -> None:
        self.backend, self.label_set = backend, label_set
        self.protocol, self.temperature = protocol, temperature

    def under(self, protocol: Protocol) -> Segmenter:
        """This segmenter under another protocol."""
        return Segmenter(self.backend, self.label_set, protocol, self.temperature)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> LabelMap:
        """The label map of an image: `(H, W, 3)` uint8 RGB to `(H, W)` ids."""
        return self.label_set.cast(self._run(pixels).labels())

    def segment(
        self,
        pixels: npt.NDArray[np.uint8],
        abstain_below: float = 0.0,
        valid: Mask | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Segmentation:
        """The label map of an image with all that belongs to it.

        Args:
            pixels: `(H, W, 3)` uint8 RGB.
            abstain_below: Pixels of less confidence than this get no class: the label set's ignore index.
            valid: `(H, W)` bool: where the image has data; elsewhere there is no class. None for everywhere.
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
        """The segmentation that a network's answer means.

        Args:
            pixels: The image, `(H, W, 3)` uint8 RGB.
            scores: What the network says of it.
            abstain_below: As for `segment`.
            valid: As for `segment`.
            channel_order: As for `segment`.

        Raises:
            NotFiniteError: the answer is not finite numbers.
        """
        survive_fork()
        _check(scores.values)
        labels = self.label_set.cast(scores.labels())
        if abstain_below > 0:
            labels[scores.confidence() < abstain_below] = self.label_set.ignore_index
        if valid is not None:
            labels[~valid] = self.label_set.ignore_index
        return Segmentation(
            image=in_order(pixels, channel_order),
            labels=labels,
            label_set=self.label_set,
            scores=scores,
            valid=valid,
            channel_order=channel_order,
        )

    def logits(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """What the network says of the whole image, once: `(H, W, 3)` uint8 RGB to logits `(K, H, W)`."""
        return resize(self._look_once(pixels), pixels.shape[:2])[0]

    def _run(self, pixels: npt.NDArray[np.uint8]) -> Logits:
        survive_fork()
        size = pixels.shape[0], pixels.shape[1]
        if self.protocol.is_plain:
            return Logits(values=self._look_once(pixels)[0], size=size, temperature=self.temperature)
        image = prepare(pixels, self.backend.device)
        found = _check(average_probabilities(self.backend, image, self.protocol, self.temperature))
        return Logits(values=found, size=size, temperature=None)

    def _look_once(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        return _check(self.backend(prepare(pixels, self.backend.device)))


def _check(scores: Tensor) -> Tensor:
    # A sum costs a ninth of looking at each number; of very large ones it overflows, and then each is looked at.
    # The class of pixels that are not finite would be told without a word.
    if not scores.sum().isfinite() and not scores.isfinite().all():
        raise NotFiniteError("The network's answer is not finite: its weights are broken. Load or train another model.")
    return scores
