"""Connections of the server: HTTP/1.1 by uvicorn, with a time limit for every phase that a slow client can prolong."""

from __future__ import annotations

import asyncio
import selectors
import socket
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from refinenet.deployment.server.http.refusals import Refusal, make_response
from refinenet.deployment.server.settings import ServerSettings, is_loopback

_LOOKED_AT = 8
_DRIPS_AFTER = 1.0
"""Seconds after which a request that is not whole is taken for a slow one, when there are too many connections."""
_SILENT_AFTER = 0.25
"""Seconds after which a client that has sent nothing is taken for a slow one, when there are too many connections, and
one that has read little, when there are too many unread responses."""
_LEAST_READ = 2**16
"""Bytes per second that a client reads if it is not taken for a slow one."""


class BoundedProtocol(H11Protocol):
    """A connection that is closed when a header, a refused body or an unread response takes too long.

    Args:
        limits: Times and numbers of connections.
        arguments: Arguments of uvicorn's protocol.
    """

    def __init__(self, *, limits: ServerSettings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._waits_since, self._is_cut = 0.0, False
        self._unread_at_first = 0
        # Shared by all connections of a server: those that wait for a head, and those that wait for the rest of a body,
        # the one that waits for longest first.
        self._idle: OrderedDict[BoundedProtocol, None] = vars(self.server_state).setdefault("idle", OrderedDict())
        self._receiving: OrderedDict[BoundedProtocol, None] = vars(self.server_state).setdefault(
            "receiving", OrderedDict()
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        # asyncio does so only where the listening socket names its protocol. Otherwise the body of each response waits
        # for the client to acknowledge the head, which on connections that are used again takes 40 ms.
        with suppress(OSError):  # of a client that is gone already (EINVAL on macOS): the next read says so
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waits_since = self.loop.time()
        self._idle[self] = None
        if self._is_greedy() or not self._has_room():
            self.app = _refuse_connection
        self._head_timer = self._cut_after(self._limits.header_seconds)

    def _is_greedy(self) -> bool:
        address = self.client[0] if self.client else ""
        if is_loopback(address):
            return False
        same = sum(each.client is not None and each.client[0] == address for each in self._all())
        return same > self._limits.connections_per_address

    def _all(self) -> list[BoundedProtocol]:
        return [each for each in self.connections if isinstance(each, BoundedProtocol) and not each._is_cut]

    def _has_room(self) -> bool:
        """Whether this connection may stay, if need be instead of the one whose client has been slow for longest.

        Otherwise a few hundred connections that send nothing would keep all others out until their time is over.
        """
        if len(self.connections) <= self._limits.connections:
            return True
        slowest = self._find_slow()
        if slowest is not None:
            slowest._cut()
        return slowest is not None or len(self._all()) <= self._limits.connections

    def _find_slow(self) -> BoundedProtocol | None:
        """Return the connection that is to give way.

        Those that have been silent for a while come first, then slow bodies, then slow readers, as most is lost there;
        at last clients that have only just connected, and may be about to send.
        """
        # Without a search, and a few are looked at: thousands of clients may connect within a second.
        idle, bodies = self._oldest(self._idle), self._oldest(self._receiving)
        slow = next((each for each in (*idle, *bodies) if each._is_slow), None)
        if slow is not None:
            return slow
        readers = [each for each in self._all() if each is not self and each._unread > 0]
        readers.sort(key=lambda each: each._waits_since)
        slow = next((each for each in readers[:_LOOKED_AT] if each._is_slow), None)
        return slow or next((each for each in idle if not each._has_sent), None)

    def _oldest(self, waiting: Iterable[BoundedProtocol]) -> list[BoundedProtocol]:
        """Return some connections other than this one, the one that waits for longest first."""
        return list(islice((each for each in waiting if each is not self), _LOOKED_AT))

    @property
    def _is_slow(self) -> bool:
        """Whether a request has begun long ago and is not whole, or the client has sent nothing for a while."""
        waited = self.loop.time() - self._waits_since
        has_begun = self._awaits_head() or self.conn.their_state is h11.SEND_BODY
        return (has_begun and waited > _DRIPS_AFTER) or (waited > _SILENT_AFTER and not self._has_sent)

    @property
    def _has_sent(self) -> bool:
        """Whether bytes have arrived that this busy process has not read yet, so that the client is not to blame."""
        if self.transport.is_closing():
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return bool(selector.select(0))

    @property
    def _unread(self) -> int:
        """Bytes of responses that the client has not read."""
        return self.transport.get_write_buffer_size()

    @property
    def _reads_slowly(self) -> bool:
        """Whether the client has had time to read its response and has read little of it."""
        waited = self.loop.time() - self._waits_since
        return (
            not self._is_cut and waited > _SILENT_AFTER and self._unread_at_first - self._unread < waited * _LEAST_READ
        )

    def _cut(self) -> None:
        self._is_cut = True
        self._forget()
        self.transport.abort()

    def _forget(self) -> None:
        self._idle.pop(self, None)
        self._receiving.pop(self, None)

    def _note_phase(self) -> None:
        """Keep the lists of connections that wait for their clients."""
        if self.conn.their_state is not h11.IDLE:
            self._idle.pop(self, None)
        if self.conn.their_state is h11.SEND_BODY and not self._is_cut:
            self._receiving.setdefault(self, None)
        else:
            self._receiving.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._waits_since = self.loop.time()  # the first byte of a request
        super().data_received(data)
        self._note_phase()
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
        self._waits_since = self.loop.time()
        if self.conn.their_state is h11.IDLE:
            self._idle[self] = None
        self._note_phase()
        if self._awaits_rest() and self._head_timer is None:
            self._head_timer = self._cut_after(self._limits.body_seconds)

    def _awaits_head(self) -> bool:
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _awaits_rest(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def pause_writing(self) -> None:
        """Wait for a client that reads slower than the server writes."""
        super().pause_writing()
        self._waits_since, self._unread_at_first = self.loop.time(), self._unread
        self._write_timer = self._cut_after(self._limits.write_seconds)
        self._bound_unread()

    def _bound_unread(self) -> None:
        """Give up responses that would fill the memory, those that have waited for longest first.

        Clients that do not read share one limit; those that read give way only beyond a larger one.
        """
        waiting = sorted((each for each in self._all() if each._unread > 0), key=lambda each: each._waits_since)
        unread = sum(each._unread for each in waiting)
        for limit, is_last in ((self._limits.body_budget, False), (self._limits.response_budget, True)):
            for each in waiting:
                if unread <= limit:
                    break
                if each._reads_slowly or (is_last and each is not self and not each._is_cut):
                    unread -= each._unread
                    each._cut()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._cancel(self._write_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._forget()
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
