"""The gate before all routes: which clients are allowed, limits on size and pace of requests, headers of responses."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refinenet.deployment.server.http.refusals import HEADERS, Refusal, make_response
from refinenet.deployment.server.metrics import Metrics
from refinenet.deployment.server.settings import ServerSettings, is_loopback

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLOSE = {"Connection": "close"}
_COSTLY = ("/segment", "/v2/models/")
"""Beginnings of the paths at which images are posted."""


class Gate:
    """ASGI middleware around an application.

    Args:
        app: The application.
        settings: Limits, hosts and token.
        metrics: Counts requests.
        admit: Raises `Refusal` if no further image can be taken.
        open_paths: Paths that need no token: they reveal nothing but the page and whether the server runs.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        metrics: Metrics,
        admit: Callable[[], object],
        open_paths: frozenset[str],
    ) -> None:
        self._app, self._settings, self._metrics, self._admit = app, settings, metrics, admit
        self._open_paths = open_paths
        self._held = 0
        """Bytes of the bodies of all requests that are not answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request; other events pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**HEADERS, "x-request-id": request_id})
                self._metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        body = _Body()
        bounded = self._bound(receive, body)
        received: Receive | None = bounded
        try:
            self._check(scope, headers)
            if scope["method"] == "POST" and scope["path"].startswith(_COSTLY):
                # Here rather than in the routes: under overload most requests are refused, and under an attack most
                # bodies never end, and both must cost little.
                self._admit()
                received = await _receive_whole(bounded, body)
        except Refusal as refusal:
            self._metrics.count_refusal(refusal.reason)
            await make_response(refusal, request_id)(scope, receive, send_counted)
        else:
            if received is not None:
                await self._app(scope, received, send_counted)
        finally:
            self._held -= body.size
            self._metrics.request_seconds.observe(time.perf_counter() - started)

    def _check(self, scope: Scope, headers: Headers) -> None:
        self._check_host(headers)
        token = self._settings.token
        if token is not None and scope["path"] not in self._open_paths:
            # Bytes, because `compare_digest` takes no text outside ASCII.
            sent = headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
                message = "This server needs a token: send the header Authorization: Bearer TOKEN."
                raise Refusal(401, message, "token", {"WWW-Authenticate": "Bearer"})
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "Compressed bodies are not accepted. Send the image file as it is.", "encoding", _CLOSE)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.max_bytes:
            raise self._too_large(f"{int(length):,}")

    def _check_host(self, headers: Headers) -> None:
        """Refuse requests of other sites' pages in a browser on this machine, also by DNS rebinding."""
        settings, host = self._settings, headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # such as "[", which begins an IPv6 address without an end
            raise Refusal(400, f"The Host header {host[:100]!r} is not a host name.", "host", _CLOSE) from None
        is_restricted = settings.is_local or bool(settings.allowed_hosts)
        if is_restricted and name not in settings.allowed_names and not is_loopback(name):
            raise Refusal(403, f"Requests to the host {name[:100]!r} are not served here.", "host", _CLOSE)
        origin = headers.get("origin")
        # By its own rule, an origin is a scheme and a host, or "null".
        if origin is not None and origin.partition("://")[2] != host:
            raise Refusal(403, f"Pages of {origin[:100]!r} may not use this server.", "origin", _CLOSE)

    def _too_large(self, size: str) -> Refusal:
        message = f"The body has {size} bytes; at most {self._settings.max_bytes:,} are read. Send a smaller file."
        return Refusal(413, message, "body_size")

    def _bound(self, receive: Receive, body: _Body) -> Receive:
        """Return a function that receives the body within the limits of size and time."""
        settings = self._settings
        deadline = time.monotonic() + settings.body_seconds

        async def bounded() -> Message:
            if body.is_whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError:
                text = f"The body did not arrive within {settings.body_seconds:g} s. Send it faster."
                raise Refusal(408, text, "body_time", _CLOSE) from None
            size = len(message.get("body", b""))
            body.is_whole = not message.get("more_body", False)
            self._hold(body, size)
            return message

        return bounded

    def _hold(self, body: _Body, size: int) -> None:
        """Count bytes that have arrived; many large uploads at a time would fill the memory before any is computed."""
        if body.size + size > self._settings.max_bytes:
            raise self._too_large(f"more than {self._settings.max_bytes:,}")
        if self._held + size > self._settings.body_budget:
            # Free at once: otherwise all that grow at the same time would be refused, until none is left.
            self._held -= body.size
            body.size = 0
            message = "The server receives too many large images at once. Try again in 2 s."
            raise Refusal(503, message, "body_budget", {"Retry-After": "2"})
        body.size += size
        self._held += size


@dataclass
class _Body:
    """What has arrived of the body of a request."""

    size: int = 0
    is_whole: bool = False


async def _receive_whole(receive: Receive, body: _Body) -> Receive | None:
    """Wait for the whole body; return a function that receives it at once, or None if the client has gone."""
    content = bytearray()
    while not body.is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        content += message.get("body", b"")
    parts = [bytes(content)]
    del content

    async def replay() -> Message:
        return {"type": "http.request", "body": parts.pop(), "more_body": False} if parts else await receive()

    return replay
