"""Images between files, arrays and tensors: what comes in becomes RGB, what goes out a file. H is height, W width."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.files import refuse_address, write_atomically
from refinenet.image_files import (
    DEEP_MODES,
    DOWNLOAD,
    RGB,
    Picture,
    convert,
    load_picture,
    open_picture,
    read_picture,
    to_sixteen_bits,
)
from refinenet.labels import Colour


@runtime_checkable
class TensorLike(Protocol):
    """What is used of a PyTorch tensor, so that images can be read without PyTorch."""

    def detach(self) -> Any:
        """The tensor without its gradient."""

    def cpu(self) -> Any:
        """The tensor in main memory."""

    def numpy(self) -> Any:
        """The tensor as a NumPy array."""


ChannelOrder = Literal["rgb", "bgr"]
"""How the channels of an array follow each other; "bgr" is OpenCV's."""


@runtime_checkable
class Readable(Protocol):
    """What is used of a binary file object: an open file, `io.BytesIO`, an uploaded file of a web framework."""

    def read(self) -> Any:
        """All bytes from where it stands."""


ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | npt.NDArray[Any] | TensorLike
)


def decode(image: ImageSource, *, channel_order: ChannelOrder = "rgb") -> RGB:
    """Read an image from wherever it is.

    Files, bytes and Pillow images (JPEG, PNG, WebP, BMP, TIFF, GIF) are turned upright by their EXIF
    orientation; transparency is laid over black; 16-bit grey is scaled to 8 bits; of an animation the first
    frame is taken, with a `UserWarning` (of a Pillow image, the frame it stands at).

    Args:
        image: a path, the bytes of a file (bytes, bytearray, memoryview), a binary file object, a Pillow image, a
            NumPy array `(H, W)` or `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`, where C is 1, 3 or, with alpha, 4.
            Arrays and tensors are uint8, bool, uint16 (0 to 65535) or floating-point (0 to 1). The source is never
            modified. A file object that can be rewound is read from its beginning, wherever it stands, and stands there
            again afterwards; another one, such as a pipe or an HTTP response, is read to its end. It is not closed.
        channel_order: how the channels of an array or tensor follow each other; "bgr" for OpenCV's.

    Returns:
        `(H, W, 3)` uint8 RGB, contiguous, a copy.

    Raises:
        ValueError: not an image, damaged, past `image_files.MAX_PIXELS` (files, bytes, Pillow images), of a wrong
            shape, with values out of range, or a `channel_order` for a source that knows its own.
        TypeError: the source or its dtype is none of the above, or a file object is open for text or asynchronous.
        OSError: the file is missing (`FileNotFoundError`), a folder (`IsADirectoryError`) or may not be read
            (`PermissionError`).
    """
    check_channel_order(channel_order)
    if isinstance(image, np.ndarray):
        return _from_array(image, channel_order)
    if isinstance(image, TensorLike):
        return _from_array(_tensor_to_array(image), channel_order)
    if channel_order == "bgr":
        raise ValueError("channel_order is for arrays and tensors: files and Pillow images know theirs. Leave it out.")
    if isinstance(image, Image.Image):
        return _to_rgb(load_picture(image, "The Pillow image"))
    if isinstance(image, bytes | bytearray | memoryview):
        content = _as_bytes(image)
        return _to_rgb(read_picture(io.BytesIO(content), f"The image of {len(content):,} bytes"))
    if isinstance(image, str | os.PathLike):
        refuse_address("An image", image, DOWNLOAD)
        return _to_rgb(open_picture(image))
    if isinstance(image, Readable):
        name, content = read_stream(image)
        return _to_rgb(read_picture(io.BytesIO(content), name))
    raise TypeError(
        "An image is a path, the bytes of a file, a binary file object, a Pillow image, an array or a tensor, not "
        f"{type(image).__name__}.{_hint_at(image)}"
    )


def check_channel_order(channel_order: str) -> None:
    """Refuse another order than "rgb" and "bgr".

    Raises:
        ValueError: it is another one.
    """
    if channel_order not in ("rgb", "bgr"):
        raise ValueError(f"channel_order is 'rgb' or 'bgr', not {channel_order!r}.")


def knows_its_order(image: object) -> bool:
    """Whether an image has its channels in a known order, as files and Pillow images do, unlike arrays and tensors."""
    return not isinstance(image, np.ndarray | TensorLike)


def _as_bytes(content: bytes | bytearray | memoryview) -> bytes:
    if isinstance(content, memoryview) and (content.ndim != 1 or content.itemsize != 1):
        raise TypeError(
            f"A memoryview is taken for the bytes of an image file, and this one has shape {content.shape} of "
            f"{content.format!r}. For pixels pass numpy.asarray(view)."
        )
    return bytes(content)


def _hint_at(image: object) -> str:
    if hasattr(image, "iter_content") or hasattr(image, "aread"):
        return " Of a response from a server pass the bytes: response.content."
    if isinstance(image, list | tuple):
        return " Pass one image at a time, or numpy.asarray of rows of pixels."
    return ""


def read_stream(stream: Readable) -> tuple[str, bytes]:
    """What messages call a binary file object, and its bytes; see `decode`.

    Raises:
        TypeError: it is open for text, or asynchronous.
        ValueError: it is closed, or not open for reading.
        OSError: it cannot be read.
    """
    own = next((text for key in ("filename", "name") if isinstance(text := getattr(stream, key, None), str)), "")
    name = f"The file object {own!r}" if own else f"The file object ({type(stream).__name__})"
    if inspect.iscoroutinefunction(stream.read):
        raise TypeError(f"{name} is asynchronous: pass its `file`, or the bytes of `await upload.read()`.")
    if isinstance(stream, io.TextIOBase):
        raise TypeError(f"{name} is open for text, and an image is bytes: open it with mode 'rb'.")
    if getattr(stream, "closed", False) is True:
        raise ValueError(f"{name} is closed. Pass it before it is closed, or its path.")
    try:
        position = _rewind(stream)
        content = stream.read()
        if position is not None:
            stream.seek(position)  # type: ignore[attr-defined]
    except UnicodeDecodeError as error:
        raise TypeError(f"{name} is open for text, and an image is bytes: open it with mode 'rb'.") from error
    except io.UnsupportedOperation as error:
        raise ValueError(f"{name} is not open for reading: open it with mode 'rb'.") from error
    if isinstance(content, str):
        raise TypeError(f"{name} is open for text, and an image is bytes: open it with mode 'rb'.")
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"{name} gives {type(content).__name__} where bytes are needed. Pass the bytes themselves.")
    return name, bytes(content)


def _rewind(stream: Any) -> int | None:
    """Where a stream stood that is at its beginning now; None for one that cannot be rewound."""
    try:
        if hasattr(stream, "seekable") and not stream.seekable():
            return None
        position: int = stream.tell()
        stream.seek(0)
    except (AttributeError, io.UnsupportedOperation):
        return None
    return position


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
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {"compress_level": _level(pixels)}
    try:
        image.save(content, image_format, **options)
    except OSError as error:
        raise ValueError(f"Shape {pixels.shape} cannot be written as {image_format}: {error}.") from error
    return content.getvalue()


def _level(pixels: npt.NDArray[Any]) -> int:
    """How hard zlib tries, from 1 to 9.

    Its usual 6 takes several times as long, for a tenth less of a picture's bytes and a third less of a label map's few
    (`benchmarks/files.py`).
    """
    return 1 if pixels.ndim == 3 else 3


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


def _to_rgb(picture: Picture) -> RGB:
    image = picture.image
    if image.mode not in DEEP_MODES:
        pixels = convert(picture)
        return pixels if pixels.shape[2] == 3 else over_black(pixels)
    grey = np.array(image)
    if isinstance(image.info.get("transparency"), int):
        grey[grey == image.info["transparency"]] = 0
    if image.mode != "F":
        grey = to_sixteen_bits(grey, picture.name)
    return over_black(to_bytes(grey, picture.name)[..., np.newaxis])


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
    pixels = np.atleast_3d(to_bytes(array, "The array"))
    if channel_order == "bgr" and pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return over_black(pixels)


def to_bytes(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Samples as uint8: uint8 as they are, bool as 0 and 255, uint16 from 0 to 65535 and floating-point from 0 to 1.

    Raises:
        ValueError: a value is out of range; messages call the array `name`.
        TypeError: another dtype.
    """
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


def over_black(pixels: npt.NDArray[np.uint8]) -> RGB:
    """`(H, W, C)` of 1, 3 or, with alpha, 4 channels to `(H, W, 3)`, laid over black: always a copy."""
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
