"""Decoding of images in child processes with limited memory and time, for servers that read images of strangers.

A file that crashes a decoder, or makes it slow or large, ends a child process, which is started again, and not the
program. On systems without memory limits (Windows, macOS) only crashes and time are contained.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refinenet.io.images.bands import Band
from refinenet.io.images.codec import read_image
from refinenet.io.images.image_files import TooLargeError, UnknownFormatError, find_size
from refinenet.io.images.sample_values import Decoded, Note, Reading
from refinenet.io.processes.child_process import (
    pack_message,
    read_message,
    set_limit,
    unpack_message,
    used_addresses,
    write_message,
)

SPARE_BYTES = 768 * 2**20
"""Memory that a decoder may take, in addition to that of each pixel."""
PIXEL_BYTES = 64
"""Memory for each pixel that an image may have: several bands as float32, and Pillow's and our copies of them."""
_HEADER_BYTES = 2**20
_TIFF_MARKS = (b"II", b"MM")
_START = "import sys; sys.path[:] = {path!r}; from refinenet.io.images.isolated_decoding import main; main({pixels})"
_REFUSALS: Mapping[str, type[ValueError]] = {
    error.__name__: error for error in (TooLargeError, UnknownFormatError, ValueError)
}


class DecoderEndedError(RuntimeError):
    """The process that decoded an image crashed, or was ended because it took too long.

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
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(_Decoder(max_pixels))

    def start(self) -> None:
        """Start all processes, without waiting for them, so that the first image finds them ready."""
        for decoder in list(self._idle.queue):
            decoder.start()

    def decode(self, content: bytes, reading: Reading) -> Decoded:
        """Decode the bytes of an image file as `images.read_image` does.

        Raises:
            UnknownFormatError: It is not an image of a supported format.
            TooLargeError: It has too many pixels, or needs too much memory.
            ValueError: It cannot be read, and the message says why.
            DecoderEndedError: The process crashed or took too long.
        """
        decoder = self._idle.get()
        try:
            if decoder.has_ended:
                self._observe_restart()
            decoder.start()
            return decoder.decode(content, reading, self._seconds)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End all processes; those that decode end with an error."""
        for decoder in list(self._idle.queue):
            decoder.end()


class _Decoder:
    """A child process, started when it is first needed and again after it has ended."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether there was a process that does not run any more."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        if self._process is None or self.has_ended:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path, pixels=self._max_pixels)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            weakref.finalize(self, self._process.kill)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def decode(self, content: bytes, reading: Reading, seconds: float) -> Decoded:
        assert self._process is not None
        too_long, process = threading.Event(), self._process

        def stop() -> None:
            # The process of this image: a timer that is late must not end the next one.
            too_long.set()
            process.kill()

        # A timer works on all systems; only some can wait for a pipe with a time limit.
        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            facts, arrays = self._ask(pack_message({"reading": _to_dict(reading)}, {"image": content}))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self.end()
            happened = f"took longer than {seconds:g} s" if too_long.is_set() else "ended the process that decoded it"
            raise DecoderEndedError(
                f"The image {happened}. Save it again with another program.", is_timeout=too_long.is_set()
            ) from error
        finally:
            timer.cancel()
        if "refused" in facts:
            raise _REFUSALS.get(facts["refused"], ValueError)(facts["reason"])
        return _unpack(facts, arrays)

    def _ask(self, message: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        write_message(self._process.stdin, message)
        return unpack_message(read_message(self._process.stdout, _HEADER_BYTES + self._max_pixels * PIXEL_BYTES))


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
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # decoders print to standard output
        while True:
            try:
                asked, files = unpack_message(read_message(sys.stdin.buffer))
            except EOFError:
                return
            # GDAL reads files, so the image is copied to a temporary one; nothing larger can be written.
            set_limit("RLIMIT_FSIZE", len(files["image"]) + _HEADER_BYTES)
            write_message(replies, _answer(files["image"], _from_dict(asked["reading"]), max_pixels))


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
