"""A live HLS source on this machine: a playlist that grows, and segments of numbered pictures, filmed at their pace.

Source: RFC 8216 (HTTP Live Streaming): a playlist without EXT-X-ENDLIST is live, and is asked for again and again.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler

import av
from hostile_server import HostileServer, answer, hostile_server
from live_camera import draw_number

_LISTED = 6
"""Segments in the playlist; older ones leave it."""


class HlsCamera:
    """The camera: each segment is listed when its last picture has been taken.

    Args:
        server: Serves the playlist and the segments.
        rate: Pictures a second.
        seconds: Length of a segment.
    """

    def __init__(self, server: HostileServer, rate: int, seconds: float) -> None:
        self._server, self._rate, self._size = server, rate, round(rate * seconds)
        self.taken: dict[int, float] = {}
        """`time.monotonic()` at which each picture was taken, by its number."""
        self.is_finished = False
        """Whether the playlist says that nothing follows."""
        self.listed: list[int] = []
        """Number of segments that had been filmed at each request for the playlist."""
        self._segments: list[str] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._film(0, paced=False)
        self.address = server.plan("/live.m3u8", self._list)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop filming, and say so in the playlist."""
        self._end.set()
        self._thread.join()
        self.is_finished = True

    def close(self) -> None:
        """Stop filming."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        segment = 1
        while not self._end.is_set():
            self._film(segment, paced=True)
            segment += 1

    def _film(self, segment: int, *, paced: bool) -> None:
        content, first = io.BytesIO(), segment * self._size
        with av.open(content, "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=self._rate)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 60, 48, "yuv420p", 1_000_000
            stream.codec_context.time_base = Fraction(1, self._rate)
            stream.codec_context.max_b_frames = 0
            for number in range(first, first + self._size):
                if paced and self._end.wait(1 / self._rate):
                    return
                self.taken[number] = time.monotonic()
                frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, self._rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        name = f"{segment}.ts"
        self._server.plan(f"/{name}", answer(content.getvalue(), Content_Type="video/mp2t"))
        with self._lock:
            self._segments.append(name)

    def _list(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            names = list(self._segments)
            self.listed.append(len(names))
        seconds = self._size / self._rate
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{max(1, round(seconds))}"]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{max(0, len(names) - _LISTED)}")
        for name in names[-_LISTED:]:
            lines += [f"#EXTINF:{seconds:.3f},", name]
        lines += ["#EXT-X-ENDLIST"] if self.is_finished else []
        text = "\n".join([*lines, ""])
        answer(text.encode(), Content_Type="application/vnd.apple.mpegurl")(handler)


@contextmanager
def hls_camera(rate: int = 20, seconds: float = 0.5) -> Iterator[HlsCamera]:
    """A camera for the time of a test."""
    with hostile_server() as server:
        camera = HlsCamera(server, rate, seconds)
        try:
            yield camera
        finally:
            camera.close()
