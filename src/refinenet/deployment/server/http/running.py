"""Running an application until it is asked to stop: its socket, its connections, its signals."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from refinenet.deployment.server.http.connections import BoundedProtocol
from refinenet.deployment.server.settings import ServerSettings

_BACKLOG = 128
_HEAD_BYTES = 16 * 1024
_SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep the interpreter. The event loop gives it up at each read and write; with
Python's 5 ms it would wait for that long again each time, and a refusal would take tens of milliseconds."""


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises:
        OSError: The address cannot be used.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        advice = f"Choose another --port, or 0 for any free one{'' if settings.is_local else ', or another --host'}"
        raise OSError(error.errno, f"Cannot listen at {host}, port {port}: {error.strerror}. {advice}") from error


def run_app(
    app: FastAPI,
    settings: ServerSettings,
    listener: socket.socket,
    *,
    announce: Callable[[int], object],
    drain: Callable[[], object] = lambda: None,
) -> None:
    """Serve an application until Ctrl-C or SIGTERM; requests in flight are then finished, in `drain_seconds`.

    Args:
        app: The application.
        settings: Limits.
        listener: Where it listens.
        announce: Called with the port as soon as requests are served.
        drain: Called when the server is asked to stop.
    """
    # Pillow warns about clients' images; Python would print each new text, and keep it for ever. The parser of forms
    # logs each byte that it does not expect.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(action="ignore"), _without_ending(), _switching_often():
        _Server(_configure(app, settings), announce, drain).run(sockets=[listener])


def _configure(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("Any", partial(BoundedProtocol, limits=settings)),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[int], object], drain: Callable[[], object]) -> None:
        super().__init__(config)
        self._announce, self._drain = announce, drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        self._announce(sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain()
        super().handle_exit(sig, frame)


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _without_ending() -> Iterator[None]:
    """Keep the signals that uvicorn repeats after a clean stop from ending the process, so that it exits with 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
