"""Refusals: JSON with the reason and the id of the request, never a path or a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from refinenet.deployment.server.metrics import Metrics

_CLOSED_BY_CLIENT = 499
HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every response."""


class Refusal(Exception):  # noqa: N818 - most are the client's errors, some say that the server is busy
    """A request that is not served.

    Args:
        status: HTTP status, from 400 to 599.
        message: What was sent, what is allowed, what to do.
        reason: A word for the metrics.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, message: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.reason, self.headers = status, message, reason, dict(headers or {})


def make_response(refusal: Refusal, request_id: str) -> JSONResponse:
    """Return the response to a refused request."""
    body = {"error": refusal.message, "request_id": request_id}
    headers = {**HEADERS, "x-request-id": request_id, **refusal.headers}
    return JSONResponse(body, refusal.status, headers=headers)


def add_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Make an application respond to all errors as to refusals.

    Args:
        app: The application.
        metrics: Counts refusals by reason.
    """

    # Coroutines, because Starlette calls functions in threads, which refusals under overload would fill.
    def respond(request: Request, refusal: Refusal) -> Response:
        metrics.count_refusal(refusal.reason)
        return make_response(refusal, request.state.request_id)

    async def from_refusal(request: Request, error: Any) -> Response:
        return respond(request, error)

    async def from_framework(request: Request, error: Any) -> Response:
        message = _WORDS.get(error.status_code, str(error.detail)).format(
            method=request.method, path=request.url.path[:200]
        )
        return respond(request, Refusal(error.status_code, message, "request", error.headers))

    async def from_parameters(request: Request, error: Any) -> Response:
        found = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return respond(request, Refusal(422, "; ".join(found), "parameters"))

    async def from_fault(request: Request, _: Exception) -> Response:
        metrics.requests.labels("500").inc()  # Starlette responds to faults outside the gate, which counts all others
        message = "The server failed to process this request; its operator finds the reason in its log."
        return respond(request, Refusal(500, message, "fault"))

    async def from_disconnect(_request: Request, _error: Exception) -> Response:
        return Response(status_code=_CLOSED_BY_CLIENT)

    app.add_exception_handler(Refusal, from_refusal)
    app.add_exception_handler(HTTPException, from_framework)
    app.add_exception_handler(RequestValidationError, from_parameters)
    app.add_exception_handler(ClientDisconnect, from_disconnect)
    app.add_exception_handler(Exception, from_fault)


_WORDS = {
    404: "There is nothing at {path}. /docs lists all addresses.",
    405: "{method} is not allowed at {path}. /docs lists what each address accepts.",
}
