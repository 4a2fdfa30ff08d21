"""Conversion of samples to 8 bits: bands, value range, and pixels without data.

Shape letters: H height, W width, C channels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.io.images.bands import Band, name_bands

RGB = npt.NDArray[np.uint8]
Pixels = npt.NDArray[Any]
"""An image: `(H, W, 3)` uint8 RGB, or the bands of a model, `(H, W, B)` float32 in [0, 1]."""
Mask = npt.NDArray[np.bool_]
ValueRange = tuple[float, float]

_USUAL_TOPS = (1, 255, 1023, 4095, 10_000, 16_383, 65_535)
"""Largest values of fractions, 8, 10 and 12 bits, Sentinel-2 reflectance, and 14 and 16 bits."""
_SMALL_SHARE_DEEP = 1 / 3
"""Share of the range of integers above 8 bits: 14 bits in 16 fill a quarter, and few scenes are that dark."""
_SMALL_SHARE = 1 / 16
"""Share of the range of bytes and fractions, of which dark scenes fill less than a third, too."""


class Note(NamedTuple):
    """Note for the user about how an image was read."""

    kind: str
    """Kind of the note; each kind is reported once in a run."""
    text: str


class ImageWarning(UserWarning):
    """A note on how an image was read, as a warning; it can be pickled.

    Args:
        note: Its text is the message; its kind identifies warnings of a run that say the same.
    """

    def __init__(self, note: Note) -> None:
        super().__init__(note)
        self.note = note

    def __str__(self) -> str:
        return self.note.text


@contextmanager
def first_of_each_kind() -> Iterator[None]:
    """Show only the first `ImageWarning` of each kind as long as the context lasts; other warnings as usual."""
    seen: set[str] = set()
    show = warnings.showwarning

    def show_first(message: Warning | str, *details: Any, **more: Any) -> None:
        if isinstance(message, ImageWarning):
            if message.note.kind in seen:
                return
            seen.add(message.note.kind)
        show(message, *details, **more)

    # Not a filter: these match texts, which name the file and its values and so differ from image to image.
    warnings.showwarning = show_first
    try:
        yield
    finally:
        warnings.showwarning = show


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Settings for reading the samples of an image as RGB, or as the bands of a model.

    Raises:
        ValueError: bands are not one or three numbers from 1 up, or as many as the model has; the value range does not
            ascend; or there is one although the model's bands have ranges.
    """

    bands: tuple[int, ...] | None = None
    """Bands for red, green and blue, or for grey, numbered from 1; None for those that the file declares."""
    value_range: ValueRange | None = None
    """Stored values that become black and white; None for the range of the type."""
    is_from_model: bool = False
    """Whether the value range comes from the model; it is then not applied to 8-bit images, with a note."""
    model_bands: tuple[Band, ...] = ()
    """Bands that the model takes; none for RGB of 8 bits. `bands` then says which bands of a file these are."""

    def __post_init__(self) -> None:
        if self.model_bands:
            self._check_for_model()
        elif self.bands is not None:
            object.__setattr__(self, "bands", check_bands(self.bands))
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))

    def _check_for_model(self) -> None:
        named = name_bands(self.model_bands)
        if self.value_range is not None:
            raise ValueError(
                f"The model takes {named}, each with its own range: leave value_range (--value-range) out."
            )
        numbers = (1,) * len(self.model_bands) if self.bands is None else tuple(self.bands)
        if len(numbers) != len(self.model_bands) or any(type(band) is not int or band < 1 for band in numbers):
            raise ValueError(
                f"The model takes {named}: bands (--bands) must be as many band numbers of the file, from 1, not "
                f"{self.bands!r}."
            )


AS_DECLARED = Reading()


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """Decoded image."""

    pixels: Pixels
    """`(H, W, 3)` uint8 RGB, upright; black where there are no data. For a model of B bands `(H, W, B)` float32 in
    [0, 1], 0 where a band has no data."""
    valid: Mask | None = None
    """`(H, W)` bool: where there are data; None if there are data everywhere."""
    notes: tuple[Note, ...] = ()


def check_bands(bands: Sequence[int]) -> tuple[int, ...]:
    """Check band numbers and return them as a tuple.

    Raises:
        ValueError: They are not one or three whole numbers from 1 up.
    """
    numbers = tuple(bands) if isinstance(bands, Sequence) and not isinstance(bands, str) else ()
    if len(numbers) not in (1, 3) or any(type(band) is not int or band < 1 for band in numbers):
        raise ValueError(
            f"bands must be three numbers of at least 1, for red, green and blue, or one for grey, not {bands!r}: "
            "(3, 2, 1) in Python, --bands 3,2,1 on the command line."
        )
    return numbers


def check_value_range(value_range: Sequence[float]) -> ValueRange:
    """Check a value range and return it as two floats.

    Raises:
        ValueError: It is not two finite numbers, the first below the second.
    """
    values = tuple(value_range) if isinstance(value_range, Sequence) and not isinstance(value_range, str) else ()
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
        raise ValueError(
            f"value_range must be two numbers, the value for black below the one for white, not {value_range!r}: "
            "(0, 4095) in Python, --value-range 0,4095 on the command line."
        )
    return numbers[0], numbers[1]


def choose_reading(
    model_range: ValueRange | None,
    bands: Sequence[int] | None,
    value_range: ValueRange | None,
    model_bands: tuple[Band, ...] = (),
) -> tuple[Reading, tuple[Note, ...]]:
    """Choose how to read images for a model, and what to report about that.

    Args:
        model_range: Value range that the model was trained with, if recorded.
        bands: Band numbers from 1 for red, green and blue, or one for grey; None for those that files declare.
        value_range: Stored values for black and white; None for the model's.
        model_bands: Bands that the model takes, if it does not take RGB of 8 bits; `bands` are then as many numbers.

    Raises:
        ValueError: the bands or the value range are not valid.
    """
    chosen = None if bands is None else tuple(bands)
    if model_bands:
        return Reading(bands=chosen, value_range=value_range, model_bands=model_bands), ()
    if value_range is None:
        return Reading(bands=chosen, value_range=model_range, is_from_model=True), ()
    asked = check_value_range(value_range)
    if model_range is None or model_range == asked:
        return Reading(bands=chosen, value_range=asked), ()
    low, high = model_range
    note = Note(
        "other-range",
        f"The model was trained with the value range {low:g},{high:g}; {asked[0]:g},{asked[1]:g} is used.",
    )
    return Reading(bands=chosen, value_range=asked), (note,)


class Scale:
    """Conversion of the stored samples of one image to bytes, part by part.

    Args:
        name: Name of the image in messages.
        dtype: Type of the samples.
        reading: Settings, of which the value range is used.
        bits: Bits of an integer sample that the file declares; by default all.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], reading: Reading, bits: int | None = None) -> None:
        self.name, self.dtype, self._requested = name, dtype, reading.value_range
        self._is_skipped = reading.is_from_model and dtype in (np.dtype(np.uint8), np.dtype(np.bool_))
        self.range = None if self._is_skipped else self._requested
        if self.range is None and bits is not None and 8 < bits < 16:
            self.range = (0.0, 2.0**bits - 1)
        self._clipped = self._seen = 0
        self._fill: Note | None = None

    def __call__(self, values: npt.NDArray[Any], valid: Mask | None = None) -> npt.NDArray[np.uint8]:
        """Convert `(H, W, C)` samples to bytes; pixels that are not `valid` become 0, whatever they hold.

        Raises:
            ValueError: A value is not allowed without a value range.
            TypeError: The type of the samples is not allowed without a value range.
        """
        gaps = None if valid is None or valid.all() else ~valid
        if self.range is None:
            if gaps is not None:
                values = np.where(gaps[..., np.newaxis], values.dtype.type(0), values)
            return to_bytes(values, self.name)
        low, high = self.range
        # float32 holds integers up to 2^24 exactly: enough for 16 bits, not for 32.
        work: Any = np.float32 if self.dtype.itemsize <= 2 else np.float64
        samples: npt.NDArray[Any] = values.astype(work)
        if gaps is not None:
            samples[gaps] = low
        if not np.isfinite(samples).all():
            _check_finite(samples, self.name)
        self._seen += samples.size
        self._clipped += int(np.count_nonzero((samples < low) | (samples > high)))
        scaled = (np.clip(samples, low, high) - work(low)) * work(255 / (high - low))
        rounded: npt.NDArray[np.uint8] = (scaled + work(0.5)).astype(np.uint8)
        return rounded

    def check_range(self, values: npt.NDArray[Any], valid: Mask | None = None) -> None:
        """Check on a part of the image whether its values fill their range, for `notes`.

        Args:
            values: `(H, W, C)` or `(H, W)`: the image or a part of it.
            valid: `(H, W)` bool: where there are data.
        """
        if self.dtype.kind == "b" or (
            self.dtype == np.uint8 and values[::16, ::16].max(initial=0) >= _SMALL_SHARE * 256
        ):
            return
        low, high = self.range or _range_of(self.dtype)
        data = values if valid is None else values[valid]
        if data.size == 0:
            return
        least, most = float(data.min()), float(data.max())
        is_deep = self.dtype.kind in "iu" and self.dtype.itemsize > 1
        # A few hot pixels must not hide that the rest is dark.
        typical = float(np.percentile(data, 99)) if is_deep else most
        share = (typical - low) / (high - low)
        if least == most or share > (_SMALL_SHARE_DEEP if is_deep else _SMALL_SHARE):
            return
        top = next((top for top in _USUAL_TOPS if top >= typical), most)
        self._fill = Note(
            "dark",
            f"{self.name} has values from {least:g} to {most:g}, 99 % of them up to {typical:g}, where {low:g} is "
            f"black and {high:g} is white, so the network sees it nearly black. If {top:g} should be white, add "
            f"--value-range {min(0, math.floor(least)):g},{top:g} (value_range=({min(0, math.floor(least)):g}, "
            f"{top:g})).",
        )

    def notes(self) -> tuple[Note, ...]:
        """Return the notes on what has been read so far."""
        reported = [] if self._fill is None else [self._fill]
        if self._is_skipped and self._requested is not None:
            low, high = self._requested
            reported.append(
                Note(
                    "range-of-model",
                    f"{self.name} has 8 bits: the model's own value range {low:g},{high:g} is not applied to it.",
                )
            )
        if self._clipped and self.range is not None:
            low, high = self.range
            reported.append(
                Note(
                    "clipped",
                    f"{self.name}: {self._clipped:,} of {self._seen:,} values ({self._clipped / self._seen:.2%}) are "
                    f"outside the value range {low:g},{high:g} and are clipped to it.",
                )
            )
        return tuple(reported)


def _range_of(dtype: np.dtype[Any]) -> ValueRange:
    return (0.0, float(np.iinfo(dtype).max)) if dtype.kind in "iu" else (0.0, 1.0)


def to_bytes(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Convert samples to uint8: bool to 0 and 255, uint16 from 0 to 65535 and floating-point from 0 to 1.

    Raises:
        ValueError: A value is out of range; `name` is used in the message.
        TypeError: Another dtype.
    """
    kind = array.dtype.type
    if kind is np.uint8:
        return array
    if kind is np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if kind is np.uint16:
        # 65535 / 255 = 257; adding half of it rounds to nearest, in uint32 because the sum may exceed 65535.
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind not in (np.float16, np.float32, np.float64):
        raise TypeError(
            f"An image must have dtype uint8, bool, uint16, float16, float32 or float64, not {array.dtype}. "
            "Values from 0 to 255: convert to uint8. Other values: specify which are black and white with "
            "value_range (--value-range)."
        )
    _check_finite(array, name)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}: floating-point images range from 0 to 1. Divide by 255 if "
            "they range to 255, clip them if they exceed the range slightly, or specify which values are black and "
            "white: value_range=(0, 255) (--value-range 0,255)."
        )
    scaled: npt.NDArray[Any] = array.astype(np.result_type(kind, np.float32)) * 255
    return (scaled + 0.5).astype(np.uint8)


def _check_finite(array: npt.NDArray[Any], name: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = (int(k) for k in np.unravel_index(np.argmax(bad), bad.shape)[:2])
        raise ValueError(
            f"{name} has {int(bad.sum())} values that are NaN or infinite, the first in row {row}, "
            f"column {column}. Replace them with numbers from 0 to 1."
        )


def over_black(pixels: npt.NDArray[np.uint8]) -> RGB:
    """Lay `(H, W, C)` of 1, 3 or, with alpha, 4 channels over black, as `(H, W, 3)`; always a copy."""
    if pixels.shape[2] < 4:
        return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")
    alpha = pixels[..., 3:].astype(np.uint16)
    # Adding half of the divisor rounds to nearest; 255 * 255 + 127 fits into uint16.
    return ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8, order="C")


def opaque_somewhere(alpha: npt.NDArray[Any]) -> Mask | None:
    """Return where alpha is above 0, `(H, W)` bool, or None if it is everywhere."""
    return None if alpha.all() else alpha != 0


def is_transparency(alpha: npt.NDArray[Any]) -> bool:
    """Whether a band marked as alpha can be transparency: it has only 0 and the largest value of its type."""
    return bool(((alpha == 0) | (alpha == np.iinfo(alpha.dtype).max)).all())


def unused_alpha(name: str, band: int) -> Note:
    """Return the note that a band is marked as alpha but does not look like transparency."""
    return Note(
        "alpha",
        f"{name}: band {band} is marked as alpha but has values between transparent and opaque, like a "
        "near-infrared band, so it is not used as transparency.",
    )
