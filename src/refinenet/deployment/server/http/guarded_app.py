"""An application behind the gate, with errors as refusals and without routes of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from refinenet._version import __version__
from refinenet.deployment.server.http.gate import Gate
from refinenet.deployment.server.http.refusals import add_handlers
from refinenet.deployment.server.metrics import Metrics
from refinenet.deployment.server.settings import ServerSettings


def create_guarded_app(
    summary: str,
    settings: ServerSettings,
    metrics: Metrics,
    *,
    admit: Callable[[], object],
    open_paths: frozenset[str],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """Return an ASGI application without routes that serves or refuses requests as `Gate` says.

    Args:
        summary: What it is for, in its schema.
        settings: Limits, token and allowed hosts.
        metrics: Counts requests and refusals.
        admit: Raises `Refusal` if no further image can be taken.
        open_paths: Paths that need no token.
        lifespan: Starts and stops what the routes use.
    """
    app = FastAPI(
        title="refinenet",
        summary=summary,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,
    )
    add_handlers(app, metrics)
    app.add_middleware(Gate, settings=settings, metrics=metrics, admit=admit, open_paths=open_paths)
    return app
