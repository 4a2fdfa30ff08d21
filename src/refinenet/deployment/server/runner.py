"""Running the server until it is asked to stop."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from fastapi import FastAPI

from refinenet.deployment.server.app import create_app
from refinenet.deployment.server.connections import BoundedProtocol
from refinenet.deployment.server.memory import read_machine_bytes
from refinenet.deployment.server.service import Service
from refinenet.deployment.server.settings import ServerSettings
from refinenet.io.console import print_note
from refinenet.io.files import quote_controls

if TYPE_CHECKING:
    from refinenet.deployment.segmentation_model import SegmentationModel

_BACKLOG = 128
_HEAD_BYTES = 16 * 1024
_SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep the interpreter. The event loop gives it up at each read and write; with
Python's 5 ms it would wait for that long again each time, and a refusal would take tens of milliseconds."""


def serve(model: SegmentationModel, settings: ServerSettings) -> bool:
    """Serve a model until Ctrl-C or SIGTERM; requests in flight are then finished.

    Args:
        model: A `RefineNet`.
        settings: Where to listen, and limits.

    Returns:
        Whether all work was finished in `drain_seconds`; otherwise a thread still computes.

    Raises:
        OSError: the address cannot be used.
        ValueError: a process of its own cannot load the model.
    """
    app = create_app(model, settings)
    service: Service = app.state.service
    # Pillow warns about clients' images; Python would print each new text, and keep it for ever. The parser of forms
    # logs each byte that it does not expect.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    with _listen(settings) as listener, warnings.catch_warnings(action="ignore"):
        service.warm_up()
        with _without_ending(), _switching_often():
            _Server(_configure(app, settings), service).run(sockets=[listener])
    return service.queue.pending == 0


def _listen(settings: ServerSettings) -> socket.socket:
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        advice = "Choose another --port, or 0 for any free one, or another --host"
        raise OSError(error.errno, f"Cannot listen at {host}, port {port}: {error.strerror}. {advice}") from error


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
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        for line in _describe(self._service, sockets[0].getsockname()[1]):
            print(quote_controls(line), flush=True)
        for line in _warn(self._service):
            print_note(line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.is_draining = True
        super().handle_exit(sig, frame)


def _describe(service: Service, port: int) -> list[str]:
    settings, count = service.settings, len(service.model.label_set)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    outputs = ", ".join(spec.name for spec in service.model.outputs)
    memory = "" if service.needed_bytes is None else f"; up to {service.needed_bytes / 1e9:.1f} GB of memory"
    return [
        f"Serving {settings.name} ({outputs}; {count} classes) at http://{host}:{port}",
        f"Limits: {settings.max_bytes / 2**20:g} MiB and {settings.max_pixels:,} pixels an image, {settings.threads} "
        f"at a time, {settings.queue} waiting, {settings.request_seconds:g} s{memory}. Ctrl-C stops.",
    ]


def _warn(service: Service) -> Iterator[str]:
    settings, needed, there = service.settings, service.needed_bytes, read_machine_bytes()
    if not settings.is_local and settings.token is None:
        yield (
            f"Warning: {settings.host} can be reached from other machines, and no token is set: everybody there "
            "may use this server. Set REFINENET_SERVE_TOKEN, or listen at 127.0.0.1."
        )
    if needed is not None and there is not None and needed > there:
        yield (
            f"Warning: the limits allow {needed / 1e9:.1f} GB of memory, and there are {there / 1e9:.1f}: large images "
            "at the same time can end the server. Lower --max-pixels or --workers."
        )


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
