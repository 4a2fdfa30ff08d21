"""Mask files: label maps of ids, and label maps drawn in the colours of their classes. H is height, W width."""

from __future__ import annotations

import os
import sys

import numpy as np
import numpy.typing as npt

from refinenet.io.images.image_files import (
    DEEP_MODES,
    Picture,
    convert,
    grey_step,
    open_verified,
    read_raw,
    to_sixteen_bits,
)
from refinenet.io.images.sample_values import RGB
from refinenet.labels import Colour, LabelMap

_LOSSLESS_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_COLOUR_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX")
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""The opposite byte order of each raw mode.

Pillow keeps only the high byte of a 16-bit channel; when told the opposite byte order, it keeps the low one."""


def read_mask(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map: the ids as stored, which are the indices of a palette image, and 0 and 1 of a 1-bit image.

    Args:
        path: A PNG, TIFF or BMP file with one channel.

    Returns:
        `(H, W)` ids, uint8, or uint16 from a file of 16 or 32 bits; rotated upright as `codec.decode` does.

    Raises:
        ValueError: Not an image, damaged, too large, lossy, or a colour picture instead of ids.
        OSError: As `open_picture`.
    """
    return read_ids(_read_lossless(path))


def read_ids(picture: Picture) -> LabelMap:
    """Return the ids in a picture, as `read_mask` does for a file.

    Raises:
        ValueError: As `read_mask`, but lossy formats are accepted.
    """
    if picture.format == "GIF":
        raise ValueError(
            f"{picture.name} is a GIF: programs that write one renumber its values silently, so it cannot hold ids. "
            "Save the ids as PNG in the program that made them."
        )
    image = picture.image
    if image.mode == "F":
        raise ValueError(
            f"{picture.name} holds floating-point numbers (mode F), not ids: save 8-bit or 16-bit integers, as PNG "
            "or TIFF."
        )
    if image.mode not in ("1", "L", "P", *DEEP_MODES):
        raise ValueError(
            f"{picture.name} is a colour picture (mode {image.mode}), not ids: a label map has one channel, the id "
            f"of each pixel's class. Save the ids, or define the colours of the classes in classes.yaml."
        )
    if picture.is_white_zero:
        raise ValueError(f"{picture.name} stores white as 0, so its ids are ambiguous. Save it as PNG.")
    ids = np.asarray(image)
    if picture.is_signed and image.mode == "L":
        ids = ids.view(np.int8)  # Pillow reads -1 as 255, which would be void
    if image.mode in DEEP_MODES or ids.dtype == np.int8:
        values = to_sixteen_bits(ids, picture.name)
        return values if image.mode in DEEP_MODES else values.astype(np.uint8)
    # Pillow stretches grey of 2 and 4 bits to the range 0 to 255, which multiplies the ids.
    return ids.astype(np.uint8) // np.uint8(grey_step(picture))


def read_palette(path: str | os.PathLike[str]) -> list[Colour] | None:
    """Read the RGB colours of a palette image, in the order of its indices; None for an image without a palette.

    Raises:
        ValueError: As `read_mask`.
        OSError: As `open_picture`.
    """
    image = _read_lossless(path).image
    if image.mode != "P":
        return None
    values = image.getpalette("RGB") or []
    return [(values[k], values[k + 1], values[k + 2]) for k in range(0, len(values) - 2, 3)]


def read_colour_mask(path: str | os.PathLike[str]) -> RGB:
    """Read a label map that is drawn in the colours of its classes.

    Args:
        path: A PNG, TIFF, BMP or GIF file of RGB, grey or palette colours, opaque everywhere.

    Returns:
        `(H, W, 3)` uint8 RGB, the exact colours; rotated upright as `codec.decode` does.

    Raises:
        ValueError: Not an image, damaged, too large, lossy, partly transparent, or of another colour space.
        OSError: As `open_picture`.
    """
    picture = _read_lossless(path)
    if picture.image.mode not in _COLOUR_MODES:
        raise ValueError(f"{picture.name} has mode {picture.image.mode}: save a mask of colours as 8-bit RGB.")
    pixels = read_colours(picture, path)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise ValueError(f"{picture.name} is partly transparent, so its colours are ambiguous. Save it without alpha.")
    return np.ascontiguousarray(pixels[..., :3])


def read_colours(picture: Picture, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Return the exact colours of a mask that was read from `path`.

    A mask of 16 bits per channel may hold 8-bit colours as they are (0 to 255), times 256 or times 257.

    Returns:
        `(H, W, 4)` uint8 RGBA if there is any transparency, else `(H, W, 3)` RGB.

    Raises:
        ValueError: Its palette lacks a colour that is used, or its colours have more than 8 bits.
        OSError: As `open_picture`.
    """
    image = picture.image
    if image.mode in ("P", "PA"):
        _refuse_missing_colours(picture)
    high = convert(picture)
    if picture.bits > 8 and (picture.is_planar or ";16" not in picture.raw_mode):
        raise _too_deep(picture.name)  # Pillow reads 16-bit planes as if they had 8 bits, or only their high bytes
    if ";16" not in picture.raw_mode:
        return high
    low = _read_low_bytes(picture, path)
    if low.shape != high.shape:
        raise _too_deep(picture.name)
    parts = [_to_eight_bits(high[..., :3], low[..., :3], picture.name)]
    if high.shape[2] == 4:
        alpha = _to_eight_bits(high[..., 3:], low[..., 3:], picture.name)
        parts.append(alpha)
    return np.concatenate(parts, 2)


def _refuse_missing_colours(picture: Picture) -> None:
    """Refuse indices beyond the palette, to which Pillow gives arbitrary colours."""
    indices = np.asarray(picture.image)
    indices = indices[..., 0] if indices.ndim == 3 else indices
    count = len(picture.image.getpalette("RGB") or ()) // 3
    if indices.max() >= count:
        raise ValueError(
            f"{picture.name} has the index {indices.max()}, but its palette has only {count} colours. "
            "Save the mask again, as RGB or with its complete palette."
        )


def _to_eight_bits(high: npt.NDArray[np.uint8], low: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """Recover 8-bit values `v` from both bytes of 16-bit ones, which are `v`, `256 * v` or `257 * v` throughout."""
    if not high.any():
        return low
    if not low.any() or np.array_equal(high, low):
        return high
    raise _too_deep(name)


def _too_deep(name: str) -> ValueError:
    return ValueError(
        f"{name} has 16 bits a channel, and its values are not 8-bit colours: all have to be 0 to 255, or these times "
        "256 or 257. Save a mask of colours as 8-bit RGB."
    )


def _read_low_bytes(picture: Picture, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read the low bytes of 16-bit channels, in the form in which `convert` returns the high ones."""
    if picture.raw_mode == "LA;16B":
        raw_mode = "RGBA"  # four bytes: high and low of grey, high and low of alpha
    else:
        kind, _, order = picture.raw_mode.partition(";")
        if order not in _OTHER_BYTE or kind not in ("RGB", "RGBA", "RGBX"):
            raise _too_deep(picture.name)
        raw_mode = f"{kind};{_OTHER_BYTE[order]}"
    pixels = convert(read_raw(path, picture.name, raw_mode))
    return pixels if raw_mode != "RGBA" else pixels[..., [1, 1, 1, 3]]


def _read_lossless(path: str | os.PathLike[str]) -> Picture:
    picture = open_verified(path)
    if picture.is_lossy or picture.format not in _LOSSLESS_FORMATS:
        kind = "TIFF file compressed as JPEG or WebP" if picture.format == "TIFF" else f"{picture.format} file"
        raise ValueError(
            f"{picture.name} is a {kind}, a lossy format that changes labels: a mask must be PNG, "
            "TIFF or BMP. Create it again from its source; converting this file does not restore labels."
        )
    return picture
