"""Images and label maps between files and arrays: the only place that decodes. H is height, W width."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from refinenet.files import write_atomically
from refinenet.labels import Colour, LabelMap

MAX_PIXELS = 50_000_000
"""The most pixels (H times W) that are decoded from a file, bytes or a Pillow image."""


@runtime_checkable
class TensorLike(Protocol):
    """What is used of a PyTorch tensor, so that images can be read without PyTorch."""

    def detach(self) -> Any:
        """The tensor without its gradient."""

    def cpu(self) -> Any:
        """The tensor in main memory."""

    def numpy(self) -> Any:
        """The tensor as a NumPy array."""


ImageSource = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any] | TensorLike
RGB = npt.NDArray[np.uint8]

# WEBP and TIFF come last: reaching them makes Pillow import all of its formats.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_LOSSLESS_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
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


class _Picture(NamedTuple):
    """A picture read whole: upright, a copy that nobody else holds."""

    image: Image.Image
    name: str
    format: str | None
    raw_mode: str
    """How the file stores a sample, in Pillow's words ("L;4": four bits), empty where it is not known."""


def decode(image: ImageSource, *, channel_order: Literal["rgb", "bgr"] = "rgb") -> RGB:
    """Read an image from wherever it is.

    Files, bytes and Pillow images (JPEG, PNG, WebP, BMP, TIFF, GIF) are turned upright by their EXIF
    orientation; transparency is laid over black; 16-bit grey is scaled to 8 bits; of an animation the first
    frame is taken, with a `UserWarning` (of a Pillow image, the frame it stands at).

    Args:
        image: a path, the bytes of a file, a Pillow image, a NumPy array `(H, W)` or `(H, W, C)`, or a tensor
            `(H, W)` or `(C, H, W)`, where C is 1, 3 or, with alpha, 4. Arrays and tensors are uint8, bool,
            uint16 (0 to 65535) or floating-point (0 to 1). The source is never modified.
        channel_order: how the channels of an array or tensor follow each other; "bgr" for OpenCV's.

    Returns:
        `(H, W, 3)` uint8 RGB, contiguous, a copy.

    Raises:
        ValueError: not an image, damaged, larger than `MAX_PIXELS` (files, bytes, Pillow images), of a wrong
            shape, with values out of range, or a `channel_order` for a source that knows its own.
        TypeError: the source or its dtype is none of the above.
        OSError: the file is missing (`FileNotFoundError`), a folder (`IsADirectoryError`) or may not be read
            (`PermissionError`).
    """
    if channel_order not in ("rgb", "bgr"):
        raise ValueError(f"channel_order is 'rgb' or 'bgr', not {channel_order!r}.")
    if isinstance(image, np.ndarray):
        return _from_array(image, channel_order)
    if isinstance(image, TensorLike):
        return _from_array(_tensor_to_array(image), channel_order)
    if channel_order == "bgr":
        raise ValueError("channel_order is for arrays and tensors: files and Pillow images know theirs. Leave it out.")
    if isinstance(image, Image.Image):
        return _to_rgb(_load(image, "The Pillow image"))
    if isinstance(image, bytes):
        return _to_rgb(_read(io.BytesIO(image), f"The image of {len(image):,} bytes"))
    if isinstance(image, str | os.PathLike):
        return _to_rgb(_read_file(image))
    raise TypeError(f"An image is a path, bytes, Pillow image, array or tensor, not {type(image).__name__}.")


def read_mask(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map: the ids as stored, which are a palette image's indices and a 1-bit image's 0 and 1.

    Args:
        path: a PNG, TIFF, BMP or GIF file with one channel.

    Returns:
        `(H, W)` ids, uint8, or uint16 from a file of 16 or 32 bits; turned upright as `decode` does it.

    Raises:
        ValueError: not an image, damaged, too large, lossy, or a colour picture instead of ids.
        OSError: as `decode`.
    """
    picture = _read_lossless(path)
    image, depth = picture.image, picture.raw_mode.partition(";")[2]
    if image.mode not in ("1", "L", "P", *_DEEP_MODES[:-1]):
        raise ValueError(
            f"{picture.name} is a colour picture (mode {image.mode}), not ids: a label map has one channel, "
            "the id of each pixel's class. Save the ids, or give the colours of the classes in classes.yaml."
        )
    if image.mode in ("1", "L") and "I" in depth:
        raise ValueError(f"{picture.name} stores white as 0, so its ids are not clear. Save it as PNG.")
    ids = np.asarray(image)
    if image.mode in _DEEP_MODES:
        return _to_sixteen_bits(ids, picture.name)
    # Pillow stretches grey of 2 and 4 bits to 0 to 255, which would multiply the ids.
    return ids.astype(np.uint8) // np.uint8(_grey_step(picture))


def read_palette(path: str | os.PathLike[str]) -> list[Colour] | None:
    """The RGB colours of a palette image's indices, in their order, or None for an image without a palette.

    Raises:
        ValueError: as `read_mask`.
        OSError: as `decode`.
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
        `(H, W, 3)` uint8 RGB, the exact colours; turned upright as `decode` does it.

    Raises:
        ValueError: not an image, damaged, too large, lossy, partly transparent, or of another colour space.
        OSError: as `decode`.
    """
    picture = _read_lossless(path)
    if picture.image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise ValueError(f"{picture.name} has mode {picture.image.mode}: save a mask of colours as 8-bit RGB.")
    pixels = _convert(picture)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise ValueError(f"{picture.name} is partly transparent, so its colours are not clear. Save it without alpha.")
    return np.ascontiguousarray(pixels[..., :3])


def encode(pixels: npt.NDArray[Any], suffix: str, *, palette: Sequence[Colour] | None = None) -> bytes:
    """Make an image file, without any metadata.

    Args:
        pixels: `(H, W, 3)` uint8 RGB, or, for PNG, `(H, W)` uint8 or uint16 ids.
        suffix: ".png", or ".jpg" or ".jpeg" (quality 95, full colour resolution).
        palette: RGB colours of uint8 ids, at most 256; the file still stores the ids. Further ids are black.

    Raises:
        ValueError: another suffix or shape, no pixels, a label map as JPEG (it would change ids), a palette
            for anything but uint8 ids, or a side longer than the format allows.
        TypeError: another dtype.
    """
    image_format = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(suffix.lower())
    if image_format is None:
        raise ValueError(f"Images are written as .png, .jpg or .jpeg, not {suffix!r}.")
    _check_writable(pixels, image_format, palette)
    image = Image.fromarray(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=")))
    if palette is not None:
        image.putpalette(bytes(value for colour in palette for value in colour).ljust(768, b"\0"))
    content = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    try:
        image.save(content, image_format, **options)
    except OSError as error:
        raise ValueError(f"Shape {pixels.shape} cannot be written as {image_format}: {error}.") from error
    return content.getvalue()


def write(path: str | os.PathLike[str], pixels: npt.NDArray[Any], *, palette: Sequence[Colour] | None = None) -> Path:
    """Write `encode(pixels, suffix of path, palette=palette)` to `path`, whole or not at all.

    Returns:
        The path written.

    Raises:
        ValueError: as `encode`.
        TypeError: as `encode`.
        OSError: as `write_atomically`.
    """
    return write_atomically(path, encode(pixels, Path(path).suffix, palette=palette))


def _read_file(path: str | os.PathLike[str]) -> _Picture:
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"Cannot read {target}: it is a folder. Name an image file in it.")
    if target.exists() and not target.is_file():
        raise ValueError(f"Cannot read {target}: it is a pipe or a device. Pass its bytes, or copy it.")
    try:
        stream = target.open("rb")
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {target}: {error.strerror}") from error
    # Pillow gets no name: it would map the file into memory, and a file cut short then kills the process.
    with stream:
        return _read(stream, str(target))


def _read_lossless(path: str | os.PathLike[str]) -> _Picture:
    picture = _read_file(path)
    if picture.format not in _LOSSLESS_FORMATS:
        raise ValueError(
            f"{picture.name} is a {picture.format} file, a lossy format that changes labels: a mask is PNG, "
            "TIFF, BMP or GIF. Make it anew from its source; converting this file does not bring labels back."
        )
    return picture


def _read(stream: BinaryIO, name: str) -> _Picture:
    if not stream.read(1):
        raise ValueError(f"{name} is empty (0 bytes).")
    with _clear_errors(name):
        image = Image.open(stream, formats=_FORMATS)
    return _load(image, name)


def _load(image: Image.Image, name: str) -> _Picture:
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
        upright = image.copy() if method is None else image.transpose(method)
    if animated:
        warnings.warn(f"{name} has more than one frame or page: only the first one is used.", stacklevel=4)
    return _Picture(upright, name, image.format, raw_mode)


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


def _too_large(name: str, size: str) -> ValueError:
    return ValueError(
        f"{name} has {size} pixels, at most {MAX_PIXELS:,} are read. Resize the image or cut it into tiles."
    )


def _raw_mode(image: Image.Image) -> str:
    """The first of the decoder's arguments, which Pillow drops once the pixels are read."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ()
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:  # The pixels are sound, and a note about them that cannot be read is as none.
        return 1
    return value if isinstance(value, int) else 1


def _grey_step(picture: _Picture) -> int:
    bits = picture.raw_mode.partition(";")[2][:1] if picture.image.mode == "L" else ""
    return {"2": 85, "4": 17}.get(bits, 1)


def _to_rgb(picture: _Picture) -> RGB:
    image = picture.image
    if image.mode not in _DEEP_MODES:
        pixels = _convert(picture)
        return pixels if pixels.shape[2] == 3 else _over_black(pixels)
    grey = np.array(image)
    if isinstance(image.info.get("transparency"), int):
        grey[grey == image.info["transparency"]] = 0
    if image.mode != "F":
        grey = _to_sixteen_bits(grey, picture.name)
    return _over_black(_to_bytes(grey, picture.name)[..., np.newaxis])


def _convert(picture: _Picture) -> npt.NDArray[np.uint8]:
    """`(H, W, 4)` RGBA where there is any transparency, else `(H, W, 3)` RGB."""
    image = picture.image
    with _clear_errors(picture.name):
        if image.mode == "La":
            image = image.convert("LA")
        if isinstance(image.info.get("transparency"), int) and image.mode == "L":
            image.info["transparency"] *= _grey_step(picture)
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _to_sixteen_bits(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint16]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise ValueError(f"{name} has values from {low} to {high}: 0 to 65535 are allowed. Rescale them.")
    return values.astype(np.uint16)


def _tensor_to_array(tensor: Any) -> npt.NDArray[Any]:
    shape = tuple(tensor.shape)
    if len(shape) == 4:
        raise ValueError(f"A tensor of shape {shape} is a batch: pass one image, or use r.network for batches.")
    if len(shape) != 2 and (len(shape) != 3 or shape[0] not in (1, 3, 4)):
        raise ValueError(
            f"An image tensor has shape (3, H, W), (1, H, W), (4, H, W) or (H, W), not {shape}. "
            "If the channels come last, use tensor.permute(2, 0, 1)."
        )
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type.
        tensor = tensor.float()
    array: npt.NDArray[Any] = tensor.numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _from_array(array: npt.NDArray[Any], channel_order: str) -> RGB:
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"An image array has shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}. "
            "If the channels come first, use array.transpose(1, 2, 0); of several images pass one at a time."
        )
    if array.size == 0:
        raise ValueError(f"An image array has at least one pixel, this one has shape {array.shape}.")
    pixels = np.atleast_3d(_to_bytes(array, "The array"))
    if channel_order == "bgr" and pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return _over_black(pixels)


def _to_bytes(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    kind = array.dtype.type
    if kind is np.uint8:
        return array
    if kind is np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if kind is np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind not in (np.float16, np.float32, np.float64):
        raise TypeError(
            f"An image has dtype uint8, bool, uint16, float16, float32 or float64, not {array.dtype}. "
            "Values from 0 to 255: convert to uint8."
        )
    _check_unit_range(array, name)
    scaled: npt.NDArray[Any] = array.astype(np.result_type(kind, np.float32)) * 255
    return (scaled + 0.5).astype(np.uint8)


def _check_unit_range(array: npt.NDArray[Any], name: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = (int(k) for k in np.unravel_index(np.argmax(bad), bad.shape)[:2])
        raise ValueError(
            f"{name} has {int(bad.sum())} values that are NaN or infinite, the first in row {row}, "
            f"column {column}. Replace them by numbers from 0 to 1."
        )
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}: floating-point images range from 0 to 1. "
            "Divide by 255 if they range to 255, clip them if they only just leave the range."
        )


def _over_black(pixels: npt.NDArray[np.uint8]) -> RGB:
    """Lay 1, 3 or 4 channels over black: always a copy."""
    if pixels.shape[2] < 4:
        return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")
    alpha = pixels[..., 3:].astype(np.uint16)
    return ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8, order="C")


def _check_writable(pixels: npt.NDArray[Any], image_format: str, palette: Sequence[Colour] | None) -> None:
    if pixels.dtype.type not in (np.uint8, np.uint16):
        raise TypeError(f"Images are written from uint8, label maps from uint8 or uint16, not from {pixels.dtype}.")
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.type is np.uint8
    if pixels.size == 0 or not (is_colour or pixels.ndim == 2):
        raise ValueError(
            f"Shape {pixels.shape} of {pixels.dtype} cannot be written: (H, W, 3) uint8 RGB, (H, W) uint8 "
            "and (H, W) uint16 can, with at least one pixel."
        )
    if image_format == "JPEG" and not is_colour:
        raise ValueError("A label map cannot be written as JPEG, which would change its ids. Write it as .png.")
    if palette is not None and (is_colour or pixels.dtype.type is not np.uint8 or len(palette) > 256):
        raise ValueError(
            f"A palette is for (H, W) uint8 ids and has at most 256 colours, not for {pixels.dtype} of shape "
            f"{pixels.shape} with {len(palette)} colours. Leave it out."
        )
