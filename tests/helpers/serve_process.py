"""A `refinenet serve` process for tests, and plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import warm_start

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)$")


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class ServeProcess:
    """A server on a free port, from the command line, with environment variables of its own."""

    command: tuple[str, ...] = ("serve",)

    def __init__(self, *words: str | Path, folder: Path, **environment: float) -> None:
        self.folder = folder
        named = {f"REFINENET_SERVE_{name.upper()}": str(value) for name, value in environment.items()}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.process = warm_start.Process(
            [sys.executable, "-m", "refinenet", *self.command, "--port", "0", *map(str, words)],
            cwd=folder,
            env={**os.environ, **named},
            stdout=-1,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdout
        self.lines = [self.process.stdout.readline().strip() for _ in range(2)]
        found = _ADDRESS.search(self.lines[0])
        assert found, f"{self.lines} {self.error_text()}"
        self.port = int(found.group(1))

    def error_text(self) -> str:
        """What it has written to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, seconds: float = 60
    ) -> Answer:
        """Send a request over a connection of its own, and return the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def segment(self, body: Any, query: str = "", **headers: str) -> Answer:
        """Send the bytes of an image."""
        sent = {"Content-Type": "application/octet-stream"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.ask("POST", f"/segment{query}", body, sent)

    def children(self) -> list[int]:
        """Its child processes (Linux)."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in tasks for pid in path.read_text().split()]

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Return its exit code; it is killed if it does not end."""
        killer = threading.Timer(30, self.process.kill)
        killer.start()
        try:
            return self.process.wait()
        finally:
            killer.cancel()
            if self.process.stdout:
                self.process.stdout.close()


class CorrectorProcess(ServeProcess):
    """A `refinenet label correct` process."""

    command = ("label", "correct")


def multipart(content: bytes, name: str = "street.jpg", boundary: str = "frontier") -> tuple[bytes, dict[str, str]]:
    """Return the body of a form with one file, and its headers."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
