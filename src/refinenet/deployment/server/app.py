"""The application: routes around one model, without any state outside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from refinenet.deployment.server import open_inference, page, routes
from refinenet.deployment.server.http.guarded_app import create_guarded_app
from refinenet.deployment.server.service import Service
from refinenet.deployment.server.settings import ServerSettings

if TYPE_CHECKING:
    from refinenet.deployment.segmentation_model import SegmentationModel

OPEN_PATHS = frozenset(
    {"/", *(f"/static/{name}" for name in page.STATIC), "/healthz", "/v2/health/live", "/v2/health/ready"}
)
"""Paths that need no token: they reveal nothing but the page and whether the server runs."""


def create_app(model: SegmentationModel, settings: ServerSettings | None = None) -> FastAPI:
    """Return an ASGI application that serves a model; several in one process are independent of each other.

    `runner.serve` adds limits on connections, which only a server can enforce.

    Args:
        model: A `RefineNet`.
        settings: Limits, token and allowed hosts; by default those of `ServerSettings`.
    """
    service = Service(model=model, settings=settings or ServerSettings())

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        if not service.is_warm:
            await asyncio.to_thread(service.warm_up)
        yield
        service.close()

    app = create_guarded_app(
        "Segmentation of images",
        service.settings,
        service.metrics,
        admit=service.admit,
        open_paths=OPEN_PATHS,
        lifespan=live,
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(open_inference.router)
    app.include_router(page.router)
    return app
