"""Requests byte by byte, as no HTTP library would send them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

HEADERS = {"Host": "127.0.0.1", "Content-Type": "image/png"}


class RawAnswer(NamedTuple):
    """An answer, or status 0 if the connection was closed without one."""

    status: int
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def head(line: str, headers: Mapping[str, object] | Iterable[tuple[str, object]]) -> bytes:
    """A request line and headers, and the empty line after them."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in pairs), "", ""]).encode("latin-1")


def exchange(port: int, *parts: bytes, seconds: float = 60, half_closes: bool = False) -> RawAnswer:
    """Send parts one after the other, as far as the server takes them, and read one answer."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            if half_closes:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered and closed already
        return read_answer(connection)


def read_answer(connection: socket.socket) -> RawAnswer:
    """Read one answer."""
    content = b""
    try:
        while b"\r\n\r\n" not in content:
            received = connection.recv(65536)
            if not received:
                return RawAnswer(0, "", content)
            content += received
        text, _, body = content.partition(b"\r\n\r\n")
        lines = text.decode("latin-1").split("\r\n")
        sizes = [int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")]
        while sizes and len(body) < sizes[0]:
            received = connection.recv(65536)
            if not received:
                break
            body += received
        return RawAnswer(int(lines[0].split()[1]), text.decode("latin-1").lower(), body)
    except (ConnectionResetError, BrokenPipeError):
        return RawAnswer(0, "", b"")
