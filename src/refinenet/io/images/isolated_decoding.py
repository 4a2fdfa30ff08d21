"""Decoding of images in child processes with limited memory and time, for servers that read images of strangers.

A file that crashes a decoder, or makes it slow or large, ends a child process, which is started again, and not the
program. On systems without memory limits (Windows, macOS) only crashes and time are contained.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refinenet.io.images.bands import Band
from refinenet.io.images.codec import read_image
from refinenet.io.images.image_files import TooLargeError, UnknownFormatError, find_size
from refinenet.io.images.sample_values import Decoded, Note, Reading
from refinenet.io.processes.child_process import (
    ChildEndedError,
    ChildProcess,
    answer_messages,
    open_replies,
    pack_message,
    set_limit,
    used_addresses,
)

SPARE_BYTES = 768 * 2**20
"""Memory that a decoder may take, in addition to that of each pixel."""
PIXEL_BYTES = 64
"""Memory for each pixel that an image may have: several bands as float32, and Pillow's and our copies of them."""
_HEADER_BYTES = 2**20
_TIFF_MARKS = (b"II", b"MM")
_CLOSED = "The image was not decoded, because the processes that decode images were ended. Send it again later."
_REFUSALS: Mapping[str, type[ValueError]] = {
    error.__name__: error for error in (TooLargeError, UnknownFormatError, ValueError)
}


class DecoderEndedError(RuntimeError):
    """The process that decoded an image crashed, was ended because it took too long, or could not be started.

    Args:
        message: What happened.
        is_timeout: Whether it took too long.
    """

    def __init__(self, message: str, *, is_timeout: bool) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout


class DecoderPool:
    """Child processes that decode images, one image each at a time. May be used from several threads.

    Args:
        count: Number of processes.
        max_pixels: Height times width that an image may have.
        seconds: Time for an image.
        observe_restart: Called whenever a process has ended and another one takes its place.
    """

    def __init__(
        self, count: int, *, max_pixels: int, seconds: float, observe_restart: Callable[[], object] = lambda: None
    ) -> None:
        self._seconds, self._observe_restart = seconds, observe_restart
        self._decoders = tuple(_Decoder(max_pixels) for _ in range(count))
        self._is_closing = threading.Event()
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)

    def start(self) -> None:
        """Start all processes, without waiting for them, so that the first image finds them ready.

        Raises:
            ValueError: The system cannot start them.
        """
        try:
            for decoder in list(self._idle.queue):
                decoder.start()
        except ChildEndedError as error:
            self.close()
            advice = "End other programs, or decode fewer images at a time"
            raise ValueError(f"A process that decodes images {error}. {advice}.") from error

    def decode(self, content: bytes, reading: Reading) -> Decoded:
        """Decode the bytes of an image file as `images.read_image` does.

        Raises:
            UnknownFormatError: It is not an image of a supported format.
            TooLargeError: It has too many pixels, or needs too much memory.
            ValueError: It cannot be read, and the message says why.
            DecoderEndedError: The process crashed, took too long, cannot be started, or was ended by `close`.
        """
        decoder = self._idle.get()
        try:
            self._restart(decoder)
            return decoder.decode(content, reading, self._seconds)
        except ChildEndedError as error:
            raise DecoderEndedError(self._explain(error), is_timeout=error.is_timeout) from error
        finally:
            self._idle.put(decoder)

    def _restart(self, decoder: _Decoder) -> None:
        """Start the process of a decoder if it does not run.

        Raises:
            DecoderEndedError: The system cannot start it, or the pool is closed.
        """
        had_ended = decoder.has_ended
        try:
            decoder.start()
        except ChildEndedError as error:
            message = f"The process that decodes images {error}. Try again later."
            raise DecoderEndedError(message, is_timeout=False) from error
        if self._is_closing.is_set():  # also while this process was started, so that `close` has not ended it
            decoder.end()
            raise DecoderEndedError(_CLOSED, is_timeout=False)
        if had_ended:
            self._observe_restart()

    def _explain(self, error: ChildEndedError) -> str:
        if self._is_closing.is_set():
            return _CLOSED
        happened = str(error) if error.is_timeout else "ended the process that decoded it"
        return f"The image {happened}. Save it again with another program."

    def close(self) -> None:
        """End all processes; those that decode end with an error."""
        self._is_closing.set()
        for decoder in self._decoders:
            decoder.end()


class _Decoder:
    """A child process, started when it is first needed and again after it has ended."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._child: ChildProcess | None = None

    @property
    def has_ended(self) -> bool:
        """Whether there was a process that does not run any more."""
        return self._child is not None and not self._child.is_ready

    def start(self) -> None:
        if self._child is None or self.has_ended:
            self._child = ChildProcess(__name__, self._max_pixels)

    def end(self) -> None:
        if self._child is not None:
            self._child.end()

    def decode(self, content: bytes, reading: Reading, seconds: float) -> Decoded:
        assert self._child is not None
        message = pack_message({"reading": _to_dict(reading)}, {"image": content})
        largest = _HEADER_BYTES + self._max_pixels * PIXEL_BYTES
        facts, arrays = self._child.ask(message, seconds=seconds, largest=largest)
        if "refused" in facts:
            raise _REFUSALS.get(facts["refused"], ValueError)(facts["reason"])
        return _unpack(facts, arrays)


def _to_dict(reading: Reading) -> dict[str, Any]:
    return {
        "bands": reading.bands,
        "value_range": reading.value_range,
        "is_from_model": reading.is_from_model,
        "model_bands": [band.to_dict() for band in reading.model_bands],
    }


def _from_dict(values: Mapping[str, Any]) -> Reading:
    return Reading(
        bands=None if values["bands"] is None else tuple(values["bands"]),
        value_range=None if values["value_range"] is None else tuple(values["value_range"]),
        is_from_model=values["is_from_model"],
        model_bands=tuple(Band(**band) for band in values["model_bands"]),
    )


def _pack(decoded: Decoded) -> bytes:
    pixels, valid = decoded.pixels, decoded.valid
    facts = {"shape": pixels.shape, "type": pixels.dtype.name, "notes": decoded.notes}
    arrays = {"pixels": pixels.tobytes()} | ({} if valid is None else {"valid": valid.tobytes()})
    return pack_message(facts, arrays)


def _unpack(facts: Mapping[str, Any], arrays: Mapping[str, bytes]) -> Decoded:
    kind = {"uint8": np.uint8, "float32": np.float32}[facts["type"]]
    pixels = np.frombuffer(arrays["pixels"], kind).reshape(facts["shape"]).copy()  # writable, as PyTorch asks
    valid = arrays.get("valid")
    return Decoded(
        pixels=pixels,
        valid=None if valid is None else np.frombuffer(valid, np.bool_).reshape(pixels.shape[:2]),
        notes=tuple(Note(str(kind), str(text)) for kind, text in facts["notes"]),
    )


def main(max_pixels: int) -> None:
    """Read images from standard input, one after the other, and write their pixels to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the server, which finishes its requests
    taken = used_addresses()
    set_limit("RLIMIT_CORE", 0)
    if taken:
        set_limit("RLIMIT_AS", taken + SPARE_BYTES + PIXEL_BYTES * max_pixels)

    def answer(asked: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
        # GDAL reads files, so the image is copied to a temporary one; nothing larger can be written.
        set_limit("RLIMIT_FSIZE", len(files["image"]) + _HEADER_BYTES)
        return _answer(files["image"], _from_dict(asked["reading"]), max_pixels)

    with open_replies() as replies:
        answer_messages(replies, answer)


def _answer(content: bytes, reading: Reading, max_pixels: int) -> bytes:
    name = f"The image of {len(content):,} bytes"
    limit = f"too many pixels: at most {max_pixels:,} are read. Send a smaller one."
    try:
        height, width = (0, 0) if reading.model_bands else _find_size(content, name)
        if height * width > max_pixels:
            return _refuse(TooLargeError, f"{name}, {width} x {height}, has {limit}")
        return _pack(read_image(content, reading=reading))
    except TooLargeError:
        return _refuse(TooLargeError, f"{name} has {limit}")
    except MemoryError:
        return _refuse(TooLargeError, f"{name} needs too much memory. Send a smaller one, or fewer bands.")
    except UnknownFormatError as error:
        return _refuse(UnknownFormatError, str(error))
    except ValueError as error:
        return _refuse(ValueError, str(error))


def _refuse(error: type[ValueError], reason: str) -> bytes:
    return pack_message({"refused": error.__name__, "reason": reason}, {})


def _find_size(content: bytes, name: str) -> tuple[int, int]:
    try:
        return find_size(content, name)
    except UnknownFormatError:
        if content[:2] in _TIFF_MARKS:
            return 0, 0  # of more bands than Pillow knows; rasterio has a limit of its own
        raise
