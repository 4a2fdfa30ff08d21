"""Image and mask files into Pillow pictures and ids: the only place that opens them. H is height, W width."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from refinenet.labels import Colour, LabelMap
from refinenet.png_checksums import SIGNATURE, is_changed

MAX_PIXELS = 50_000_000
"""The most pixels (H times W) that are decoded from a file, bytes or a Pillow image."""

RGB = npt.NDArray[np.uint8]

DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes of one channel with more than 8 bits."""

# WEBP and TIFF come last: reaching them makes Pillow import all of its formats.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Of pictures that are read where pillow-heif is installed."""

CAN_READ_AVIF = find_spec("PIL._avif") is not None
CAN_READ_HEIF = find_spec("pillow_heif") is not None
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_LOSSLESS_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on damaged files: its fuzzers' list, and what they let through from its parsers.
_PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, NotImplementedError, OverflowError, MemoryError, EOFError),
    *(IndexError, KeyError, TypeError, struct.error, zlib.error),
)


class TooLargeError(ValueError):
    """A picture of more than `MAX_PIXELS`, which is not read as a whole."""


class Picture(NamedTuple):
    """A picture read whole: upright, a copy that nobody else holds."""

    image: Image.Image
    name: str
    format: str | None
    raw_mode: str
    """How the file stores a sample, in Pillow's words ("L;4": four bits), empty where it is not known."""


def read_mask(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map: the ids as stored, which are a palette image's indices and a 1-bit image's 0 and 1.

    Args:
        path: a PNG, TIFF or BMP file with one channel.

    Returns:
        `(H, W)` ids, uint8, or uint16 from a file of 16 or 32 bits; turned upright as `images.decode` does it.

    Raises:
        ValueError: not an image, damaged, too large, lossy, or a colour picture instead of ids.
        OSError: as `open_picture`.
    """
    picture = _read_lossless(path)
    if picture.format == "GIF":
        raise ValueError(
            f"{picture.name} is a GIF: programs that write one renumber its values, unseen, so it is no label map of "
            "ids. Save the ids as PNG from where they come from."
        )
    image, depth = picture.image, picture.raw_mode.partition(";")[2]
    if image.mode not in ("1", "L", "P", *DEEP_MODES[:-1]):
        raise ValueError(
            f"{picture.name} is a colour picture (mode {image.mode}), not ids: a label map has one channel, "
            "the id of each pixel's class. Save the ids, or give the colours of the classes in classes.yaml."
        )
    if image.mode in ("1", "L") and "I" in depth:
        raise ValueError(f"{picture.name} stores white as 0, so its ids are not clear. Save it as PNG.")
    ids = np.asarray(image)
    if image.mode in DEEP_MODES:
        return to_sixteen_bits(ids, picture.name)
    # Pillow stretches grey of 2 and 4 bits to 0 to 255, which would multiply the ids.
    return ids.astype(np.uint8) // np.uint8(_grey_step(picture))


def read_palette(path: str | os.PathLike[str]) -> list[Colour] | None:
    """The RGB colours of a palette image's indices, in their order, or None for an image without a palette.

    Raises:
        ValueError: as `read_mask`.
        OSError: as `open_picture`.
    """
    image = _read_lossless(path).image
    if image.mode != "P":
        return None
    values = image.getpalette("RGB") or []
    return [(values[k], values[k + 1], values[k + 2]) for k in range(0, len(values) - 2, 3)]


def read_colour_mask(path: str | os.PathLike[str]) -> RGB:
    """Read a label map that is drawn in the colours of its classes.

    Args:
        path: a PNG, TIFF, BMP or GIF file: RGB, grey, or a palette (its colours are read), opaque everywhere.

    Returns:
        `(H, W, 3)` uint8 RGB, the exact colours; turned upright as `images.decode` does it.

    Raises:
        ValueError: not an image, damaged, too large, lossy, partly transparent, or of another colour space.
        OSError: as `open_picture`.
    """
    picture = _read_lossless(path)
    if picture.image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise ValueError(f"{picture.name} has mode {picture.image.mode}: save a mask of colours as 8-bit RGB.")
    pixels = convert(picture)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise ValueError(f"{picture.name} is partly transparent, so its colours are not clear. Save it without alpha.")
    return np.ascontiguousarray(pixels[..., :3])


def open_picture(path: str | os.PathLike[str]) -> Picture:
    """Read the picture in a file.

    Raises:
        ValueError: as `read_picture`, or the path is a pipe or a device.
        OSError: the file is missing (`FileNotFoundError`), a folder (`IsADirectoryError`) or may not be read
            (`PermissionError`).
    """
    # Pillow gets no name: it would map the file into memory, and a file cut short then kills the process.
    with _open(Path(path)) as stream:
        return read_picture(stream, str(path))


def open_verified(path: str | os.PathLike[str]) -> Picture:
    """As `open_picture`, but a PNG must have the checksums that it was written with; other formats have none.

    Raises:
        ValueError: as `open_picture`, or the checksums are others.
        OSError: as `open_picture`.
    """
    with _open(Path(path)) as stream:
        if not stream.peek(len(SIGNATURE)).startswith(SIGNATURE):
            return read_picture(stream, str(path))
        content = stream.read()
    picture = read_picture(io.BytesIO(content), str(path))
    if is_changed(content):
        raise ValueError(f"{path} is damaged: its checksums say that it is not what was written. Get it again.")
    return picture


def _open(target: Path) -> io.BufferedReader:
    if target.is_dir():
        raise IsADirectoryError(f"Cannot read {target}: it is a folder. Name an image file in it.")
    if target.exists() and not target.is_file():
        raise ValueError(f"Cannot read {target}: it is a pipe or a device. Pass its bytes, or copy it.")
    try:
        return target.open("rb")
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {target}: {error.strerror}") from error


def read_picture(stream: BinaryIO, name: str) -> Picture:
    """Read a picture from a stream at its start; messages call it `name`.

    Raises:
        ValueError: as `load_picture`, or the stream is empty or no image of the formats allowed.
    """
    start = stream.read(12)
    if not start:
        raise ValueError(f"{name} is empty (0 bytes).")
    formats = _find_box_formats(start[8:], name) if start[4:8] == b"ftyp" else _FORMATS
    with _clear_errors(name):
        image = Image.open(stream, formats=formats)
    return load_picture(image, name, is_ours=True)


def _find_box_formats(brand: bytes, name: str) -> tuple[str, ...]:
    """The formats that a file of boxes (ISO 14496-12), as telephones write it, may be read as."""
    if brand in (b"avif", b"avis") and CAN_READ_AVIF:
        return ("AVIF",)
    if brand not in _HEIF_BRANDS:
        return _FORMATS
    if not CAN_READ_HEIF:
        raise ValueError(
            f"{name} is a HEIC picture, which needs one more package: pip install 'refinenet[heif]'. Or save it as "
            "JPEG."
        )
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF", "AVIF") if CAN_READ_AVIF else ("HEIF",)


def load_picture(image: Image.Image, name: str, *, is_ours: bool = False) -> Picture:
    """Read the pixels of an opened Pillow image, which is left as it was unless `is_ours`; messages call it `name`.

    Raises:
        ValueError: it is damaged, has no pixels, or more than `MAX_PIXELS`.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height}")
    if width * height == 0:
        raise ValueError(f"{name} has no pixels ({width} x {height}).")
    with _clear_errors(name):
        # The second picture of an MPO, as phones write it, is a preview or a depth map and not missed.
        animated = image.format != "MPO" and getattr(image, "is_animated", False) and image.tell() == 0
        raw_mode = _raw_mode(image)
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        upright = image.transpose(method) if method is not None else image if is_ours else image.copy()
    if animated:
        warnings.warn(f"{name} has more than one frame or page: only the first one is used.", stacklevel=4)
    return Picture(upright, name, image.format, raw_mode)


def convert(picture: Picture) -> npt.NDArray[np.uint8]:
    """`(H, W, 4)` RGBA where there is any transparency, else `(H, W, 3)` RGB."""
    image = picture.image
    with _clear_errors(picture.name):
        if image.mode == "La":
            image = image.convert("LA")
        if isinstance(image.info.get("transparency"), int) and image.mode == "L":
            image.info["transparency"] *= _grey_step(picture)
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def to_sixteen_bits(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint16]:
    """`(H, W)` whole numbers as uint16.

    Raises:
        ValueError: one is negative or above 65535; `name` is named.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise ValueError(f"{name} has values from {low} to {high}: 0 to 65535 are allowed. Rescale them.")
    return values.astype(np.uint16)


def _read_lossless(path: str | os.PathLike[str]) -> Picture:
    picture = open_verified(path)
    if picture.format not in _LOSSLESS_FORMATS:
        raise ValueError(
            f"{picture.name} is a {picture.format} file, a lossy format that changes labels: a mask is PNG, "
            "TIFF or BMP. Make it anew from its source; converting this file does not bring labels back."
        )
    return picture


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(name, count.group() if count else "too many") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is not a JPEG, PNG, WebP, BMP, TIFF or GIF image, or its start is damaged. "
            "Save it anew as one of them."
        ) from error
    except _PILLOW_ERRORS as error:
        raise ValueError(
            f"{name} is damaged, incomplete or of a kind that cannot be read "
            f"({type(error).__name__}: {error}). Get it again, or save it anew as PNG."
        ) from error


def _too_large(name: str, size: str) -> TooLargeError:
    return TooLargeError(
        f"{name} has {size} pixels, at most {MAX_PIXELS:,} are read as a whole. Segment its file in windows "
        "(`refinenet deploy FILE --window 1024x1024`, by pip install 'refinenet[large]'), or resize the image."
    )


def _raw_mode(image: Image.Image) -> str:
    """The first of the decoder's arguments, which Pillow drops once the pixels are read."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ()
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def read_orientation(path: str | os.PathLike[str]) -> int:
    """How a TIFF, PNG or JPEG file is to be turned: EXIF's 1 (not at all) to 8; 1 where nothing sound says so.

    Only its header is read, whatever size the image has.

    Raises:
        ValueError, OSError: as `open_picture`.
    """
    with _open(Path(path)) as stream:
        start = stream.peek(4)[:4]
        try:
            if start[:2] not in (b"II", b"MM"):
                opened = PngImagePlugin.PngImageFile if start == SIGNATURE[:4] else JpegImagePlugin.JpegImageFile
                return _orientation(opened(stream))
            directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if b"+" in start else 8))
            stream.seek(directory.next)
            directory.load(stream)
            return int(directory.get(ExifTags.Base.Orientation, 1))
        except _PILLOW_ERRORS:
            return 1


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:  # The pixels are sound, and a note about them that cannot be read is as none.
        return 1
    return value if isinstance(value, int) else 1


def _grey_step(picture: Picture) -> int:
    bits = picture.raw_mode.partition(";")[2][:1] if picture.image.mode == "L" else ""
    return {"2": 85, "4": 17}.get(bits, 1)
