"""The result of an image: labels, confidence, probabilities and areas of its classes.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from refinenet.inference.upsampling import largest_class, resize
from refinenet.io.files import write_atomically
from refinenet.io.images import ChannelOrder, encode
from refinenet.io.sample_values import Mask
from refinenet.io.threads import survive_fork
from refinenet.labels import Colour, LabelMap, LabelSet

Output = Literal["labels", "colour", "overlay", "confidence", "palette"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
OVERLAY_OPACITY = 0.5


def in_order(picture: npt.NDArray[np.uint8], channel_order: ChannelOrder) -> npt.NDArray[np.uint8]:
    """An RGB picture `(H, W, 3)` in another order of its channels, or such a picture in RGB again."""
    return picture if channel_order == "rgb" else np.ascontiguousarray(picture[..., ::-1])


def choose_palette(output: Output, label_set: LabelSet) -> Sequence[Colour] | None:
    """The colours that a file of one kind of picture stores beside its ids; None for kinds without a palette.

    Raises:
        ValueError: a palette is asked for and the label set has more classes than a palette can show.
    """
    if output != "palette":
        return None
    if label_set.dtype is not np.uint8:
        raise ValueError(f"A palette is for at most 255 classes, and there are {len(label_set)}. Write labels instead.")
    return label_set.colours


@dataclass(frozen=True, kw_only=True, eq=False)
class Logits:
    """What the network says of an image, from which labels and probabilities follow."""

    values: Tensor
    """`(K, h, w)`: logits, of any h and w; or probabilities of the image's size."""
    size: tuple[int, int]
    """H and W."""
    temperature: float | None
    """What logits are divided by before they become probabilities; None for what are probabilities."""

    def labels(self) -> npt.NDArray[np.int64]:
        """The class of the greatest score, `(H, W)`."""
        found: npt.NDArray[np.int64] = largest_class(self.values.float(), self.size).cpu().numpy()
        return found

    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of the class chosen, `(H, W)` float32."""
        scores = self._resized().permute(1, 2, 0)
        best = scores.amax(-1)
        if self.temperature is not None:
            best = (scores - best[..., None]).div_(self.temperature).exp_().sum(-1).reciprocal_()
        confidence: npt.NDArray[np.float32] = best.cpu().numpy()
        return confidence

    def probabilities(self) -> npt.NDArray[np.float16]:
        """Of all classes, `(K, H, W)` float16; that of the class chosen stays the greatest."""
        scores, labels = self._resized(), self.labels()
        shares = scores if self.temperature is None else (scores / self.temperature).softmax(0)
        rounded: npt.NDArray[np.float16] = np.ascontiguousarray(shares.cpu().numpy(), np.float16)
        rows, columns = np.nonzero(rounded.argmax(0) != labels)
        chosen = labels[rows, columns]
        rounded[chosen, rows, columns] = np.nextafter(rounded[:, rows, columns].max(0), np.float16(2))
        return rounded

    def _resized(self) -> Tensor:
        """`(K, H, W)` float32."""
        survive_fork()
        return resize(self.values[None].float(), self.size)[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What the network sees in one image."""

    image: npt.NDArray[np.uint8]
    """`(H, W, 3)` uint8: the image itself, upright, its channels in `channel_order`."""
    labels: LabelMap
    """`(H, W)` ids, uint8 (uint16 past 255 classes); what they mean says `label_set`. Pixels that were left without a
    class for want of confidence have its ignore index."""
    label_set: LabelSet
    scores: Logits = field(repr=False)
    valid: Mask | None = field(default=None, repr=False)
    """`(H, W)` bool: where the image has data, None for everywhere. Elsewhere it is black, labels are the ignore index,
    and confidence and probabilities are 0."""

    @property
    def no_data(self) -> float:
        """Share of the image's pixels without data, in [0, 1]."""
        return 0.0 if self.valid is None else 1 - int(self.valid.sum()) / self.valid.size

    channel_order: ChannelOrder = "rgb"
    """Order of the channels of `image`, `colour` and `overlay`: that of the array or tensor that was segmented, "rgb"
    for files and Pillow images. Files are written with the right colours in either case."""

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """`(H, W)` float32 in [0, 1]: the probability of the class chosen; made when it is first asked for."""
        confidence = self.scores.confidence()
        if self.valid is not None:
            confidence[~self.valid] = 0
        return confidence

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float16]:
        """`(K, H, W)` float16 in [0, 1], of each class; made when they are first asked for.

        The greatest is that of the class chosen; where rounding makes another one its equal, the next number above
        stands for it.
        """
        probabilities = self.scores.probabilities()
        if self.valid is not None:
            probabilities[:, ~self.valid] = 0
        return probabilities

    @cached_property
    def colour(self) -> npt.NDArray[np.uint8]:
        """`(H, W, 3)` uint8 in `channel_order`: each pixel in its class's colour."""
        return in_order(self.label_set.colourise(self.labels), self.channel_order)

    @property
    def palette(self) -> LabelMap:
        """`(H, W)` ids: `labels`, for a file that stores the classes' colours beside them."""
        return self.labels

    @cached_property
    def overlay(self) -> npt.NDArray[np.uint8]:
        """`(H, W, 3)` uint8 in `channel_order`: image and colours, half and half."""
        mixed = (1 - OVERLAY_OPACITY) * self.image + OVERLAY_OPACITY * self.colour.astype(np.float32)
        return np.rint(mixed).astype(np.uint8)

    @cached_property
    def areas(self) -> Mapping[str, float]:
        """Share of the image's pixels with data by class name, in [0, 1]; classes that do not occur have 0."""
        size = max(1, self.labels.size if self.valid is None else int(self.valid.sum()))
        counts = np.bincount(self.labels.ravel(), minlength=len(self.label_set))[: len(self.label_set)]
        return {name: int(count) / size for name, count in zip(self.label_set.names, counts, strict=True)}

    def render(self, output: Output) -> npt.NDArray[Any]:
        """The picture of one kind.

        Args:
            output: `labels` or `palette`, which are both `(H, W)` ids and differ in the file alone; `colour` or
                `overlay`, `(H, W, 3)` uint8 in `channel_order`; or `confidence`, `(H, W)` uint8, 255 for certain.

        Raises:
            ValueError: there is no such kind, or a palette for more than 255 classes.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output is one of {', '.join(OUTPUTS)}, not {output!r}.")
        if output == "confidence":
            return np.rint(self.confidence * 255).astype(np.uint8)
        if output == "palette":
            choose_palette(output, self.label_set)
        picture: npt.NDArray[Any] = getattr(self, output)
        return picture

    def save(self, path: str | os.PathLike[str], output: Output | None = None) -> Path:
        """Write a picture; missing folders are made, an existing file is replaced.

        Args:
            path: A `.png`, `.jpg` or `.jpeg` file.
            output: Which picture (see `render`); by default `labels` in `.png`, 8-bit grey whose values are the ids
                (16-bit past 255 classes), and `colour` in `.jpg`. `palette` stores the ids with the classes' colours
                beside them; OpenCV reads such a file as colours.

        Raises:
            ValueError: another suffix, an unknown kind, or label ids in JPEG, which would change them.
            OSError: the file cannot be written.
        """
        chosen = check_output(path, output)
        return write_atomically(path, self._encode(Path(path).suffix, chosen))

    def encode(self, path: str | os.PathLike[str], output: Output | None = None) -> bytes:
        """The bytes of the file that `save` writes.

        Args:
            path: The file's name, or its suffix alone: `.png`, `.jpg` or `.jpeg`.
            output: As for `save`.

        Raises:
            ValueError: as `save`.
        """
        text = os.fspath(path)
        name = f"image{text}" if re.fullmatch(r"\.\w+", text) else text
        return self._encode(Path(name).suffix, check_output(name, output))

    def _encode(self, suffix: str, output: Output) -> bytes:
        picture = self.render(output)
        rgb = picture if picture.ndim == 2 else in_order(picture, self.channel_order)
        return encode(rgb, suffix, palette=choose_palette(output, self.label_set))


def check_output(path: str | os.PathLike[str], output: Output | None) -> Output:
    """Which picture a file is to hold, where none is named: label ids in `.png`, colours in `.jpg`.

    Raises:
        ValueError: there is no such picture, the suffix is none of `.png`, `.jpg` and `.jpeg`, or label ids are to be
            written as JPEG, which would change them.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"Pictures are written as .png, .jpg or .jpeg, not as {os.fspath(path)!r}.")
    if output is not None and output not in OUTPUTS:
        raise ValueError(f"output is one of {', '.join(OUTPUTS)}, not {output!r}.")
    chosen: Output = output or ("labels" if suffix == ".png" else "colour")
    if suffix != ".png" and chosen not in ("colour", "overlay"):
        raise ValueError(f"JPEG would change {chosen}. Write {os.fspath(path)!r} as .png.")
    return chosen
