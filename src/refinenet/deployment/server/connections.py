"""Connections of the server: HTTP/1.1 by uvicorn, with a time limit for everything that a slow client can draw out."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from refinenet.deployment.server.refusals import Refusal, make_response
from refinenet.deployment.server.settings import ServerSettings, is_loopback


class BoundedProtocol(H11Protocol):
    """A connection that is cut when a head, a refused body or an unread response takes too long.

    Args:
        limits: Times and numbers of connections.
        arguments: Arguments of uvicorn's protocol.
    """

    def __init__(self, *, limits: ServerSettings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        if self._is_one_too_many():
            self.app = _refuse_connection
        self._head_timer = self._cut_after(self._limits.header_seconds)

    def _is_one_too_many(self) -> bool:
        address = self.client[0] if self.client else ""
        clients = [getattr(each, "client", None) for each in self.connections]
        same = sum(client is not None and client[0] == address for client in clients)
        is_greedy = same > self._limits.connections_per_address and not is_loopback(address)
        return is_greedy or len(self.connections) > self._limits.connections

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        super().data_received(data)
        if self._awaits_head():
            if self._head_timer is None:
                self._head_timer = self._cut_after(self._limits.header_seconds)
        elif self._head_timer is not None and not self._awaits_rest():
            self._head_timer.cancel()
            self._head_timer = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - as uvicorn, whose words say no more
        """Answer what is not HTTP, as JSON like all refusals."""
        refusal = Refusal(400, "This is not a valid HTTP/1.1 request.", "protocol", {"Connection": "close"})
        response = make_response(refusal, uuid.uuid4().hex)
        head = h11.Response(status_code=400, headers=response.raw_headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that was refused, which is thrown away."""
        super().on_response_complete()
        if self._awaits_rest() and self._head_timer is None:
            self._head_timer = self._cut_after(self._limits.body_seconds)

    def _awaits_head(self) -> bool:
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _awaits_rest(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def pause_writing(self) -> None:
        """Wait for a client that reads slower than the server writes."""
        super().pause_writing()
        self._write_timer = self._cut_after(self._limits.write_seconds)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._cancel(self._write_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._cancel(self._head_timer)
        self._cancel(self._write_timer)

    def _cut_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


async def _refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    message = "The server has too many connections. Try again later, or use fewer at a time."
    headers = {"Retry-After": "5", "Connection": "close"}
    await make_response(Refusal(503, message, "connections", headers), uuid.uuid4().hex)(scope, receive, send)
