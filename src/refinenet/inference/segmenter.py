"""Segmenter: prepares an image, runs a backend, and names the classes of the result.

Shape letters: H height, W width, K classes, C channels of all outputs together.
"""

from __future__ import annotations

import copy
import typing
from dataclasses import replace

import numpy as np

from refinenet.inference.backends.base import CPU, BackendError
from refinenet.inference.prediction import Prediction
from refinenet.inference.protocol import PLAIN, Protocol, average_outputs
from refinenet.inference.segmentation import Logits, Segmentation, reorder_channels
from refinenet.inference.upsampling import resize
from refinenet.io.arrays import Array, library
from refinenet.io.images.band_images import as_picture
from refinenet.io.images.bands import Band
from refinenet.io.images.codec import ChannelOrder
from refinenet.io.images.sample_values import Mask, Pixels
from refinenet.io.images.shrinking import find_factor, shrink_image
from refinenet.io.processes.threads import survive_fork
from refinenet.labels import LabelMap, LabelSet
from refinenet.models.finishing import split_maps
from refinenet.outputs import CLASS_KIND, CLASSES, OutputSpec, class_output, has_only_classes
from refinenet.settings import is_within


def prepare(pixels: Pixels, device: object = CPU) -> Array:
    """Convert `(H, W, 3)` uint8 RGB to `(1, 3, H, W)` float32 in [0, 1], channels last in memory.

    Bands `(H, W, B)` float32 in [0, 1] keep their values.

    Args:
        pixels: The image.
        device: Device of the backend: images are NumPy arrays for the CPU, and tensors on other devices.
    """
    if str(device) != CPU:
        from refinenet.inference import tensors

        return tensors.prepare(pixels, device)
    if pixels.dtype != np.uint8:
        return np.ascontiguousarray(pixels)[None].transpose(0, 3, 1, 2)
    return np.divide(pixels, np.float32(255), dtype=np.float32, order="C")[None].transpose(0, 3, 1, 2)


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
    def device(self) -> object:
        """Device of the images: "cpu", or a `torch.device`."""

    def __call__(self, images: Array) -> Array:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to the float32 maps `(N, C, h, w)` of all outputs.

        h and w are usually a quarter of H and W, rounded up. Maps of NumPy arrays are NumPy arrays, those of tensors
        are tensors.
        """


class Segmenter:
    """Segments images with a network.

    Args:
        backend: Runs the network.
        label_set: Names and colours of its classes.
        protocol: Inference protocol; by default the whole image, once.
        temperature: Divisor of the logits before softmax; above 1 the network is less confident.
        outputs: Outputs of the network, in the order of its maps.
        bands: Bands of its images; none for RGB of 8 bits.
        longest_side: Length, in pixels, to which the longer side of larger images is reduced before the network, whose
            maps are then resized to the image; None for no limit.
    """

    def __init__(
        self,
        backend: Backend,
        label_set: LabelSet,
        protocol: Protocol = PLAIN,
        temperature: float = 1.0,
        outputs: tuple[OutputSpec, ...] = (CLASSES,),
        bands: tuple[Band, ...] = (),
        longest_side: int | None = None,
    ) -> None:
        self.backend, self.label_set = backend, label_set
        self.protocol, self.temperature, self.outputs, self.bands = protocol, temperature, outputs, bands
        self.longest_side = longest_side

    def under(self, protocol: Protocol) -> Segmenter:
        """Return this segmenter with another inference protocol."""
        changed = copy.copy(self)
        changed.protocol = protocol
        return changed

    def run_by(self, backend: Backend) -> Segmenter:
        """Return this segmenter with another backend for the same network."""
        changed = copy.copy(self)
        changed.backend = backend
        return changed

    def describe_protocol(self) -> str:
        """Describe the inference protocol in words."""
        words = self.protocol.describe()
        if self.longest_side is None:
            return words
        return f"{words}; the longer side of images reduced to {self.longest_side} pixels, if larger"

    def predict(self, pixels: Pixels) -> LabelMap:
        """Predict the label map of an image: `(H, W, 3)` uint8 RGB to `(H, W)` ids."""
        return self.label_set.cast(self._class_scores(self.predict_maps(pixels)).labels())

    def segment(
        self,
        pixels: Pixels,
        abstain_below: float = 0.0,
        valid: Mask | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Segmentation:
        """Segment an image.

        Args:
            pixels: `(H, W, 3)` uint8 RGB, or the bands of the network, `(H, W, B)` float32 in [0, 1].
            abstain_below: Pixels of lower confidence get the label set's ignore index instead of a class.
            valid: `(H, W)` bool: where the image has data; other pixels get the ignore index. None for everywhere.
            channel_order: Order of the channels in the pictures of the result.

        Raises:
            ValueError: `abstain_below` is not in [0, 1].
        """
        check_abstention(abstain_below)
        return self.name(pixels, self._class_scores(self.predict_maps(pixels)), abstain_below, valid, channel_order)

    def predict_outputs(
        self,
        pixels: Pixels,
        abstain_below: float = 0.0,
        valid: Mask | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Prediction:
        """Predict all outputs for an image; see `segment`.

        Raises:
            ValueError: `abstain_below` is not in [0, 1].
        """
        check_abstention(abstain_below)
        return self.compose(pixels, self.predict_maps(pixels), abstain_below, valid, channel_order)

    def compose(
        self,
        pixels: Pixels,
        found: Logits,
        abstain_below: float = 0.0,
        valid: Mask | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Prediction:
        """Make the prediction from the maps `(C, h, w)` of all outputs; other arguments as for `name`.

        Raises:
            NotFiniteError: The maps are not finite.
        """
        maps = self._split(found.values)
        of_classes, segmentation = class_output(self.outputs), None
        if of_classes is None:
            check_finite(found.values)
        else:
            scores = replace(found, values=maps[of_classes.name])
            segmentation = self.name(pixels, scores, abstain_below, valid, channel_order)
        if segmentation is None:
            image = reorder_channels(as_picture(pixels, self.bands), channel_order)
        else:
            image = segmentation.image
        return Prediction(
            outputs=self.outputs,
            size=found.size,
            segmentation=segmentation,
            image=image,
            channel_order=channel_order,
            maps={spec.name: maps[spec.name] for spec in self.outputs if spec.kind != CLASS_KIND},
            valid=valid,
        )

    def name(
        self,
        pixels: Pixels,
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
            image=reorder_channels(as_picture(pixels, self.bands) if self.bands else pixels, channel_order),
            labels=labels,
            label_set=self.label_set,
            scores=scores,
            valid=valid,
            channel_order=channel_order,
        )

    def logits(self, pixels: Pixels) -> Array:
        """Run the network once on the whole image: `(H, W, 3)` uint8 RGB to logits `(K, H, W)`."""
        return self.class_maps(resize(check_finite(self.backend(self._prepare(pixels))), pixels.shape[:2])[0])

    def class_maps(self, maps: Array) -> Array:
        """Return the logits or probabilities `(K, h, w)` in the maps `(C, h, w)` of a network.

        Raises:
            ValueError: the network has no output of classes.
        """
        spec = class_output(self.outputs)
        if spec is None:
            named = ", ".join(each.name for each in self.outputs)
            raise ValueError(f"The network predicts no classes, but {named}: call predict instead of segment.")
        return maps if has_only_classes(self.outputs) else self._split(maps)[spec.name]

    def _split(self, maps: Array) -> dict[str, Array]:
        if len(self.outputs) == 1:
            return {self.outputs[0].name: maps}
        parts = split_maps(maps[None], self.outputs, len(self.label_set))
        return {name: part[0] for name, part in parts.items()}

    def _class_scores(self, found: Logits) -> Logits:
        return replace(found, values=self.class_maps(found.values))

    def predict_maps(self, pixels: Pixels) -> Logits:
        """Predict the maps `(C, h, w)` of all outputs for an image, from which `compose` makes the prediction."""
        survive_fork()
        size = pixels.shape[0], pixels.shape[1]
        image = self._prepare(pixels)
        if self.protocol == PLAIN:
            return Logits(values=check_finite(self.backend(image))[0], size=size, temperature=self.temperature)
        classes = len(self.label_set)
        maps = average_outputs(self.backend, image, self.protocol, self.temperature, self.outputs, classes)
        found = check_finite(maps)
        return Logits(values=found, size=size, temperature=None)

    def _prepare(self, pixels: Pixels) -> Array:
        if self.longest_side is not None:
            pixels = shrink_image(pixels, find_factor(pixels.shape, self.longest_side))
        return prepare(pixels, self.backend.device)


def check_finite(scores: Array) -> Array:
    """Return the output of a network.

    Raises:
        NotFiniteError: A number of it is not finite.
    """
    # A sum costs a ninth of a test of each number. It may overflow for large finite numbers, so each is tested then.
    # Without this check, the argmax of NaN would silently be some class.
    maths = library(scores)
    with np.errstate(over="ignore", invalid="ignore"):
        total = scores.sum()
    if not maths.isfinite(total) and not maths.isfinite(scores).all():
        raise NotFiniteError("The network's output is not finite: its weights are broken. Load or train another model.")
    return scores
