"""Sources of images besides files: bytes, binary file objects, Pillow images, arrays and tensors."""

from __future__ import annotations

import inspect
import io
import os
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
from PIL import Image


@runtime_checkable
class TensorLike(Protocol):
    """The part of a PyTorch tensor that is used here, so that images can be read without PyTorch."""

    def detach(self) -> Any:
        """Return the tensor without its gradient."""

    def cpu(self) -> Any:
        """Return the tensor in main memory."""

    def numpy(self) -> Any:
        """Return the tensor as a NumPy array."""


@runtime_checkable
class Readable(Protocol):
    """A binary file object: an open file, `io.BytesIO`, an uploaded file of a web framework."""

    def read(self) -> Any:
        """Read all bytes from the current position."""


ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | npt.NDArray[Any] | TensorLike
)


def as_bytes(content: bytes | bytearray | memoryview) -> bytes:
    """Return the bytes of an image file.

    Raises:
        TypeError: A memoryview holds something else.
    """
    if isinstance(content, memoryview) and (content.ndim != 1 or content.itemsize != 1):
        raise TypeError(
            f"A memoryview must hold the bytes of an image file, and this one has shape {content.shape} of "
            f"{content.format!r}. For pixels pass numpy.asarray(view)."
        )
    return bytes(content)


def _hint_at(image: object) -> str:
    if hasattr(image, "iter_content") or hasattr(image, "aread"):
        return " For a response from a server, pass its bytes: response.content."
    if isinstance(image, list | tuple):
        return " Pass one image at a time, or numpy.asarray of rows of pixels."
    return ""


def read_stream(stream: Readable) -> tuple[str, bytes]:
    """Return the name of a binary file object for messages, and its bytes; see `decode`.

    Raises:
        TypeError: It is open for text, or asynchronous.
        ValueError: It is closed, or not open for reading.
        OSError: It cannot be read.
    """
    given_name = next((text for key in ("filename", "name") if isinstance(text := getattr(stream, key, None), str)), "")
    name = f"The file object {given_name!r}" if given_name else f"The file object ({type(stream).__name__})"
    if inspect.iscoroutinefunction(stream.read):
        raise TypeError(f"{name} is asynchronous: pass its `file`, or the bytes of `await upload.read()`.")
    if isinstance(stream, io.TextIOBase):
        raise TypeError(f"{name} is open in text mode, but an image is binary: open it with mode 'rb'.")
    if getattr(stream, "closed", False) is True:
        raise ValueError(f"{name} is closed. Pass it before it is closed, or its path.")
    try:
        content = _read_from_start(stream)
    except UnicodeDecodeError as error:
        raise TypeError(f"{name} is open in text mode, but an image is binary: open it with mode 'rb'.") from error
    except io.UnsupportedOperation as error:
        raise ValueError(f"{name} is not open for reading: open it with mode 'rb'.") from error
    if isinstance(content, str):
        raise TypeError(f"{name} is open in text mode, but an image is binary: open it with mode 'rb'.")
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"{name} returns {type(content).__name__} instead of bytes. Pass the bytes themselves.")
    return name, bytes(content)


def _read_from_start(stream: Any) -> Any:
    """Read a whole stream and restore its position; one that cannot be rewound is read from its current position."""
    try:
        if hasattr(stream, "seekable") and not stream.seekable():
            return stream.read()
        position = stream.tell()
        stream.seek(0)
    except (AttributeError, io.UnsupportedOperation):
        return stream.read()
    content = stream.read()
    stream.seek(position)
    return content


def detach(tensor: Any) -> npt.NDArray[Any]:
    """Return the values of a tensor as an array of the same shape."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type
        tensor = tensor.float()
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def not_an_image(image: object) -> TypeError:
    """Return the error for something that is no source of an image."""
    return TypeError(
        "An image must be a path, the bytes of a file, a binary file object, a Pillow image, an array or a tensor, not "
        f"{type(image).__name__}.{_hint_at(image)}"
    )
