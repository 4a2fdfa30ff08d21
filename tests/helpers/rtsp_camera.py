"""An RTSP camera on this machine: sends an MPEG transport stream over RTP, interleaved in the RTSP connection.

Sources: RFC 2326 (RTSP), RFC 3550 (RTP), RFC 2250 (MPEG over RTP: payload type 33).
"""

from __future__ import annotations

import re
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PACKET, _PACKETS_AT_ONCE, _PAYLOAD, _CLOCK = 188, 7, 33, 90_000
_DESCRIPTION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"


class RtspCamera(socketserver.ThreadingTCPServer):
    """The camera: sends a transport stream once, at an even rate.

    Args:
        content: The transport stream.
        seconds: How long the sending takes.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.content, self.seconds = content, seconds
        self.share = 0.0
        """How much of the stream has been sent, in [0, 1]."""
        self.is_left = threading.Event()
        """Set when the client has ended the session or hung up."""
        self.end = threading.Event()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.server_address[1]}/live"


class _Connection(socketserver.StreamRequestHandler):
    server: RtspCamera

    def handle(self) -> None:
        while (head := self._read_head()) is not None:
            method, number = head
            headers = ""
            body = _DESCRIPTION if method == "DESCRIBE" else ""
            if method == "OPTIONS":
                headers = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                headers = "Content-Type: application/sdp\r\n"
            elif method == "SETUP":
                headers = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{headers}{length}\r\n{body}".encode())
            if method == "PLAY":
                threading.Thread(target=self._send, daemon=True).start()
        self.server.is_left.set()

    def _read_head(self) -> tuple[str, str] | None:
        """Return the method and the number of the next request; None when the client has hung up."""
        lines: list[str] = []
        try:
            while not lines or lines[-1].strip():
                line = self.rfile.readline()
                if not line:
                    return None
                lines.append(line.decode("latin-1"))
        except OSError:
            return None
        found = re.search(r"CSeq: (\d+)", "".join(lines))
        return lines[0].split()[0].lstrip("$"), found[1] if found else "0"

    def _send(self) -> None:
        server, size = self.server, _PACKET * _PACKETS_AT_ONCE
        starts = range(0, len(server.content), size)
        for number, start in enumerate(starts):
            if server.end.wait(server.seconds / len(starts)):
                return
            stamp = round(number / len(starts) * server.seconds * _CLOCK)
            head = struct.pack(">BBHII", 0x80, _PAYLOAD, number & 0xFFFF, stamp, 1)
            packet = head + server.content[start : start + size]
            try:
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
            except OSError:
                server.is_left.set()
                return
            server.share = (number + 1) / len(starts)


@contextmanager
def rtsp_camera(content: bytes, seconds: float) -> Iterator[RtspCamera]:
    """A camera for the time of a test."""
    with RtspCamera(content, seconds) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.end.set()
            server.shutdown()
