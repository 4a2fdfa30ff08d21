"""Segmentation results: labels, confidence, probabilities and class areas of one image.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.inference.area_table import AREA_COLUMNS, area_rows
from refinenet.inference.connected_regions import count_regions
from refinenet.inference.output_kinds import OUTPUT_KINDS, OUTPUTS, PICTURE_SUFFIXES, Output
from refinenet.inference.upsampling import largest_class, largest_share, resize, softmax
from refinenet.io.arrays import Array, as_numpy
from refinenet.io.drawing.overlay import USUAL_STYLE, OverlayStyle, draw_overlay
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import ChannelOrder, encode
from refinenet.io.images.sample_values import Mask
from refinenet.io.processes.threads import survive_fork
from refinenet.io.tables import to_frame
from refinenet.labels import Colour, LabelMap, LabelSet

NOTEBOOK_WIDTH = 640
"""Largest width of the picture that notebooks show, in pixels."""


def reorder_channels(picture: npt.NDArray[np.uint8], channel_order: ChannelOrder) -> npt.NDArray[np.uint8]:
    """Convert an RGB picture `(H, W, 3)` to a channel order, or a picture of that order back to RGB."""
    return picture if channel_order == "rgb" else np.ascontiguousarray(picture[..., ::-1])


def choose_palette(output: Output, label_set: LabelSet) -> Sequence[Colour] | None:
    """Return the palette stored in files of an output kind; None for kinds without one.

    Raises:
        ValueError: the kind has a palette and the label set has more than 255 classes.
    """
    if not OUTPUT_KINDS[output].has_palette:
        return None
    if label_set.dtype is not np.uint8:
        raise ValueError(f"A palette has at most 255 classes, but there are {len(label_set)}. Write labels instead.")
    return label_set.colours


@dataclass(frozen=True, kw_only=True, eq=False)
class Logits:
    """Network output for an image, from which labels and probabilities are computed."""

    values: Array
    """`(K, h, w)`: logits of any h and w, or probabilities at the image's size."""
    size: tuple[int, int]
    """Height and width of the image."""
    temperature: float | None
    """Divisor of the logits before the softmax; None if `values` are probabilities."""

    def labels(self) -> npt.NDArray[np.int64]:
        """Return the class of the largest score, `(H, W)` int64."""
        return as_numpy(largest_class(self.values, self.size))

    def confidence(self) -> npt.NDArray[np.float32]:
        """Return the probability of the predicted class, `(H, W)` float32."""
        survive_fork()
        return as_numpy(largest_share(self.values, self.size, self.temperature))

    def probabilities(self) -> npt.NDArray[np.float16]:
        """Return the probabilities of all classes, `(K, H, W)` float16; the predicted class keeps the largest."""
        scores, labels = self._resized(), self.labels()
        shares = scores if self.temperature is None else softmax(scores / self.temperature)
        rounded: npt.NDArray[np.float16] = np.ascontiguousarray(as_numpy(shares), np.float16)
        # In float16 close probabilities become equal, and the first of them would be taken for the predicted class.
        # There that of the label becomes the next number above the largest.
        rows, columns = np.nonzero(rounded.argmax(0) != labels)
        chosen = labels[rows, columns]
        rounded[chosen, rows, columns] = np.nextafter(rounded[:, rows, columns].max(0), np.float16(2))
        return rounded

    def _resized(self) -> Array:
        """Return the values at the image's size, `(K, H, W)` float32."""
        survive_fork()
        return resize(self.values[None], self.size)[0]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Segmentation:
    """Segmentation of one image."""

    image: npt.NDArray[np.uint8]
    """`(H, W, 3)` uint8: the image itself, upright, its channels in `channel_order`."""
    labels: LabelMap
    """`(H, W)` class ids of `label_set`, uint8 (uint16 above 255 classes). Pixels without data or below the requested
    confidence have its ignore index."""
    label_set: LabelSet
    scores: Logits
    valid: Mask | None = None
    """`(H, W)` bool: pixels with data; None if all have. Other pixels are black, have the ignore index as label,
    and confidence and probabilities 0."""

    @property
    def no_data(self) -> float:
        """Fraction of pixels without data, in [0, 1]."""
        return 0.0 if self.valid is None else 1 - int(self.valid.sum()) / self.valid.size

    channel_order: ChannelOrder = "rgb"
    """Channel order of `image`, `colour` and `overlay`: that of the segmented array or tensor, "rgb" for files and
    Pillow images. Written files have the correct colours in either case."""

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """`(H, W)` float32 in [0, 1]: the probability of the predicted class; computed on first access."""
        confidence = self.scores.confidence()
        if self.valid is not None:
            confidence[~self.valid] = 0
        return confidence

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float16]:
        """`(K, H, W)` float16 in [0, 1]: the probability of each class; computed on first access.

        The predicted class has the largest; where rounding makes another class equal to it, the predicted class gets
        the next larger float16 number.
        """
        probabilities = self.scores.probabilities()
        if self.valid is not None:
            probabilities[:, ~self.valid] = 0
        return probabilities

    @cached_property
    def colour(self) -> npt.NDArray[np.uint8]:
        """`(H, W, 3)` uint8 in `channel_order`: the colour of each pixel's class."""
        return reorder_channels(self.label_set.colourise(self.labels), self.channel_order)

    @property
    def palette(self) -> LabelMap:
        """`(H, W)` ids: `labels`, for files that store the classes' colours as a palette."""
        return self.labels

    @cached_property
    def overlay(self) -> npt.NDArray[np.uint8]:
        """`(H, W, 3)` uint8 in `channel_order`: equal blend of image and class colours, the usual picture of `draw`."""
        return self.draw()

    def draw(
        self,
        opacity: float = USUAL_STYLE.opacity,
        outline: int = USUAL_STYLE.outline,
        legend: bool = USUAL_STYLE.legend,
        show: Sequence[str] = USUAL_STYLE.show,
        hide: Sequence[str] = USUAL_STYLE.hide,
    ) -> npt.NDArray[np.uint8]:
        """Draw the classes over the image; pixels of other classes, or of none, show the image alone.

        Args:
            opacity: Share of the class colour in the mixture, from 0 (the image) to 1 (the colour).
            outline: Width, in pixels, of the opaque outline inside each region; 0 for none.
            legend: Whether to add a legend below the picture: colour, name and area of the classes drawn.
            show: Names of the classes to draw; empty for all except those coloured black (usually background).
            hide: Names of classes not to draw.

        Returns:
            `(H, W, 3)` uint8 in `channel_order`; with a legend it is taller.

        Raises:
            ValueError: a value is out of range, or a name is not one of the classes.
        """
        return self.draw_as(
            OverlayStyle(opacity=opacity, outline=outline, legend=legend, show=tuple(show), hide=tuple(hide))
        )

    def draw_as(self, style: OverlayStyle) -> npt.NDArray[np.uint8]:
        """Draw the classes over the image in a style; see `draw`."""
        image = reorder_channels(self.image, self.channel_order)
        picture = draw_overlay(image, self.labels, self.label_set, self.areas, style)
        return reorder_channels(picture, self.channel_order)

    @cached_property
    def areas(self) -> Mapping[str, float]:
        """Fraction of the pixels with data for each class name, in [0, 1]; 0 for classes that do not occur."""
        size = max(1, self._count_known())
        counts = np.bincount(self.labels.ravel(), minlength=len(self.label_set))[: len(self.label_set)]
        return {name: int(count) / size for name, count in zip(self.label_set.names, counts, strict=True)}

    def to_frame(self, pixel_area: float | None = None) -> Any:
        """Return the areas of the classes as a `pandas.DataFrame`, a row for each class.

        Args:
            pixel_area: Ground area of a pixel in square metres, such as `io.read_pixel_area` returns for a
                georeferenced file.

        Returns:
            The columns `id`, `class`, `pixels`, `share` (of the pixels with data, in [0, 1]), `regions` (number of
            4-connected regions) and `square_metres` (NaN without `pixel_area`).

        Raises:
            ValueError: pandas is not installed.
        """
        regions = count_regions(self.labels, self.label_set)
        return to_frame(list(area_rows(self.areas, self._count_known(), regions, pixel_area)), AREA_COLUMNS)

    def _count_known(self) -> int:
        """Return the number of pixels with data."""
        return self.labels.size if self.valid is None else int(self.valid.sum())

    def __repr__(self) -> str:
        height, width = self.labels.shape
        largest = sorted(self.areas.items(), key=lambda item: -item[1])[:3]
        found = ", ".join(f"{name} {100 * area:.0f} %" for name, area in largest if area > 0) or "no class"
        rest = "" if self.channel_order == "rgb" else f", channel_order={self.channel_order!r}"
        return f"Segmentation({width}x{height}, {len(self.label_set)} classes: {found}{rest})"

    def _repr_png_(self) -> bytes:
        """Return what notebooks show: the overlay, at most `NOTEBOOK_WIDTH` pixels wide, above a legend."""
        step = -(-self.labels.shape[1] // NOTEBOOK_WIDTH)
        image = reorder_channels(self.image[::step, ::step], self.channel_order)
        labels = self.labels[::step, ::step]
        return encode(draw_overlay(image, labels, self.label_set, self.areas, OverlayStyle(legend=True)), ".png")

    def render(self, output: Output) -> npt.NDArray[Any]:
        """Return a picture of one kind.

        Args:
            output: `labels` or `palette`, which are both `(H, W)` ids and differ in the file alone; `colour` or
                `overlay`, `(H, W, 3)` uint8 in `channel_order`; or `confidence`, `(H, W)` uint8, 255 for certain.

        Raises:
            ValueError: the kind is unknown, or is a palette of more than 255 classes.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, not {output!r}.")
        choose_palette(output, self.label_set)
        render = OUTPUT_KINDS[output].render
        assert render is not None
        return render(self)

    def save(self, path: str | os.PathLike[str], output: Output | None = None) -> Path:
        """Write a picture; missing folders are created, an existing file is replaced.

        Args:
            path: A `.png`, `.jpg` or `.jpeg` file.
            output: Kind of picture (see `render`); by default `labels` in `.png`, 8-bit grey with the ids as values
                (16-bit above 255 classes), and `colour` in `.jpg`. `palette` stores the ids with the classes' colours
                as a palette; OpenCV reads such a file as colours.

        Raises:
            ValueError: the suffix or the kind is unknown, or label ids would be written as JPEG, which changes them.
            OSError: the file cannot be written.
        """
        chosen = check_output(path, output)
        return write_atomically(path, self.encode(path, chosen))

    def encode(self, path: str | os.PathLike[str], output: Output | None = None) -> bytes:
        """Return the bytes of the file that `save` writes.

        Args:
            path: File name, or only its suffix: `.png`, `.jpg` or `.jpeg`.
            output: As for `save`.

        Raises:
            ValueError: as `save`.
        """
        text = os.fspath(path)
        name = f"image{text}" if re.fullmatch(r"\.\w+", text) else text
        chosen = check_output(name, output)
        picture = self.render(chosen)
        rgb = picture if picture.ndim == 2 else reorder_channels(picture, self.channel_order)
        return encode(rgb, Path(name).suffix, palette=choose_palette(chosen, self.label_set))


def check_output(path: str | os.PathLike[str], output: Output | None) -> Output:
    """Return the kind of picture for a file; by default label ids for `.png` and colours for `.jpg`.

    Raises:
        ValueError: the kind is unknown, the suffix is not `.png`, `.jpg` or `.jpeg`, or label ids would be written as
            JPEG, which changes them.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"Pictures are written as .png, .jpg or .jpeg, not as {os.fspath(path)!r}.")
    if output is not None and output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, not {output!r}.")
    chosen: Output = output or ("labels" if suffix == ".png" else "colour")
    if suffix != ".png" and not OUTPUT_KINDS[chosen].survives_jpeg:
        raise ValueError(f"JPEG would change {chosen}. Write {os.fspath(path)!r} as .png.")
    return chosen
