"""A real web server on this machine that behaves as badly as a test asks it to.

A test gives each path a row of behaviours: the first request gets the first, and so on; the last one stays.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler], None]


class HostileServer(ThreadingHTTPServer):
    """The server; `requests` records the path and the headers of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plans: dict[str, list[Behaviour]] = {}
        self.requests: list[tuple[str, Mapping[str, str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def plan(self, path: str, *behaviours: Behaviour) -> str:
        """Set what is answered at `path`; the address to ask for it."""
        self.plans[path] = list(behaviours)
        return self.address + path

    def ranges(self) -> list[str | None]:
        """The Range header of each request so far."""
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: HostileServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        plan = self.server.plans.get(self.path, [status(404)])
        (plan.pop(0) if len(plan) > 1 else plan[0])(self)

    def log_message(self, *args: Any) -> None:
        """Keep silent."""


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    """A server for the time of a test."""
    with HostileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def answer(content: bytes = b"", *, code: int = 200, cut: int | None = None, **headers: str | None) -> Behaviour:
    """Answer with these headers (None leaves out one that is otherwise sent) and the content, perhaps cut off."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        fields: dict[str, str | None] = {"Content-Length": str(len(content))}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        for name, value in fields.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content if cut is None else content[:cut])

    return behave


def status(code: int, retry_after: str | None = None) -> Behaviour:
    """Answer with a status and an error page."""
    return answer(b"<html>an error page</html>", code=code, Retry_After=retry_after)


def redirect(location: str, code: int = 302) -> Behaviour:
    """Lead elsewhere."""
    return answer(code=code, Location=location)


def serve(content: bytes, *, cut: int | None = None, etag: str | None = '"one"', reset: bool = False) -> Behaviour:
    """Serve a file as a good server does, ranges and all; with `cut`, hang up when that many bytes were sent.

    Args:
        content: The file.
        cut: How many bytes of it are sent before the connection ends.
        etag: Which version it is.
        reset: Whether the connection ends in a reset rather than orderly.
    """

    def behave(handler: BaseHTTPRequestHandler) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if match and handler.headers.get("If-Range") in (None, etag):
            start = int(match[1])
            if start >= len(content):
                return status(416)(handler)
            extent = f"bytes {start}-{len(content) - 1}/{len(content)}"
            answer(content[start:], code=206, cut=cut, ETag=etag, Content_Range=extent)(handler)
        else:
            answer(content, cut=cut, ETag=etag)(handler)
        if reset:
            handler.wfile.flush()
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
        return None

    return behave


def hang(content: bytes, sent: int, *, seconds: float = 3) -> Behaviour:
    """Send so many bytes, then nothing, without hanging up."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        answer(content, cut=sent, ETag='"one"')(handler)
        handler.wfile.flush()
        time.sleep(seconds)

    return behave


def drip(content: bytes, *, at_once: int = 0, size: int = 1, pause: float = 0.02) -> Behaviour:
    """Send so much at once, then a few bytes now and then."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        answer(content, cut=at_once)(handler)
        for start in range(at_once, len(content), size):
            handler.wfile.write(content[start : start + size])
            time.sleep(pause)

    return behave


def chunked(content: bytes, *, whole: bool = True, size: int = 1000) -> Behaviour:
    """Send in chunks, without saying how much there is; perhaps without the last chunk."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        answer(b"", Content_Length=None, Transfer_Encoding="chunked")(handler)
        for start in range(0, len(content), size):
            part = content[start : start + size]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return behave


def raw(data: bytes) -> Behaviour:
    """Send just these bytes."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)

    return behave


def in_seconds(seconds: float) -> str:
    """A time to come, as HTTP writes it."""
    return formatdate(time.time() + seconds, usegmt=True)


def endless(start: bytes, again: bytes, *, pause: float = 0.05, seconds: float = 8) -> Behaviour:
    """Send some bytes, then others again and again, long after anybody should have hung up."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(again)
            handler.wfile.flush()
            time.sleep(pause)

    return behave
