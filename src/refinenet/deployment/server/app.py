"""The application: routes around one model, without any state outside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from refinenet._version import __version__
from refinenet.deployment.server import open_inference, page, routes
from refinenet.deployment.server.gate import Gate
from refinenet.deployment.server.refusals import add_handlers
from refinenet.deployment.server.service import Service
from refinenet.deployment.server.settings import ServerSettings

if TYPE_CHECKING:
    from refinenet.deployment.segmentation_model import SegmentationModel


def create_app(model: SegmentationModel, settings: ServerSettings | None = None) -> FastAPI:
    """Return an ASGI application that serves a model; several in a process do not know of each other.

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

    app = FastAPI(
        title="refinenet",
        summary="Segmentation of images",
        version=__version__,
        lifespan=live,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    add_handlers(app, service.metrics)
    app.include_router(routes.router)
    app.include_router(open_inference.router)
    app.include_router(page.router)
    app.add_middleware(Gate, settings=service.settings, metrics=service.metrics, admit=service.admit)
    return app
