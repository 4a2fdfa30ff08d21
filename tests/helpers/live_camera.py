"""A camera on this machine: a web server that pushes numbered pictures at its own pace, as JPEG over HTTP."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import numpy as np
import numpy.typing as npt
from hostile_server import hostile_server
from PIL import Image

_BITS, _WIDTH = 10, 6


def draw_number(number: int) -> npt.NDArray[np.uint8]:
    """A picture of 48 x 60 pixels whose stripes are the binary digits of a number."""
    digits = [255 * (number >> place & 1) for place in range(_BITS)]
    row = np.repeat(np.array(digits, np.uint8), _WIDTH)
    return np.broadcast_to(row[None, :, None], (48, len(row), 3)).copy()


def read_number(picture: npt.NDArray[np.uint8]) -> int:
    """The number in a picture, after compression, too."""
    middles = picture[24, _WIDTH // 2 :: _WIDTH, 0] > 127
    return sum(1 << place for place, is_set in enumerate(middles) if is_set)


class LiveCamera:
    """The camera: `sent` counts the pictures of all connections, `is_left` is set when a client has hung up.

    Args:
        rate: Pictures a second.
        silent_after: Number of the picture after which a connection stays open and silent.
        count: Pictures of a connection, after which it ends.
    """

    def __init__(self, rate: float = 50, silent_after: int | None = None, count: int = 1 << _BITS) -> None:
        self.sent = 0
        self.is_left = threading.Event()
        self._rate, self._silent_after, self._count = rate, silent_after, count
        self._end = threading.Event()

    def push(self, handler: BaseHTTPRequestHandler) -> None:
        """Push pictures until the client hangs up or the camera is closed."""
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace;boundary=next")
        handler.end_headers()
        for number in range(self._count):
            if number == self._silent_after:
                self._end.wait()
            if self._end.wait(1 / self._rate):
                return
            content = io.BytesIO()
            Image.fromarray(draw_number(number)).save(content, "JPEG", quality=95)
            head = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % content.tell()
            try:
                handler.wfile.write(head + content.getvalue() + b"\r\n")
            except OSError:
                self.is_left.set()
                return
            self.sent += 1

    def close(self) -> None:
        """End all connections."""
        self._end.set()


@contextmanager
def live_camera(rate: float = 50, silent_after: int | None = None) -> Iterator[tuple[str, LiveCamera]]:
    """A camera for the time of a test, and its address."""
    camera = LiveCamera(rate, silent_after)
    with hostile_server() as server:
        try:
            yield server.plan("/camera", camera.push), camera
        finally:
            camera.close()
