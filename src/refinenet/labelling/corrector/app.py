"""The application of the corrector: the page, and routes that show images and take their masks.

Images are addressed by their place in the list with which the server was started: no path comes from a client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from refinenet.deployment import (
    Metrics,
    Refusal,
    ServerSettings,
    WorkQueue,
    create_guarded_app,
    read_stream,
    respond_static,
)
from refinenet.io.console import describe_error
from refinenet.io.html_pages import open_template, read_text
from refinenet.labelling.corrector.corrections import Corrections
from refinenet.labelling.formats.base import VOID_COLOUR

_PACKAGE = "refinenet.labelling.corrector"
OWN = {
    "corrector.css": "text/css",
    **{f"{name}.js": "text/javascript" for name in ("corrector", "mask_file", "painting", "view")},
}
"""Media types of the files of the page; others are those of the page of `refinenet serve`."""
OPEN_PATHS = frozenset({"/", *(f"/static/{name}" for name in (*OWN, "page.css", "icon.svg", "api.js", "alerts.js"))})
"""Paths that need no token."""
router = APIRouter()
Result = TypeVar("Result")


@dataclass(kw_only=True)
class Desk:
    """The images, the limits, and the threads that read and write."""

    corrections: Corrections
    settings: ServerSettings
    metrics: Metrics = field(init=False)
    queue: WorkQueue = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(lambda: self.queue.pending, lambda: True)
        settings = self.settings
        self.queue = WorkQueue(
            settings.workers, settings.queue, self.metrics.queue_seconds.observe, settings.request_seconds
        )

    async def run(self, index: int, function: Callable[[int], Result]) -> Result:
        """Run a function of an image in a thread.

        Raises:
            Refusal: There is no such image, or the function fails; the message names no path.
        """
        images, folder = self.corrections.images, self.corrections.drafts.folder
        if not 0 <= index < len(images):
            raise Refusal(404, f"There is no image {index}: there are 0 to {len(images) - 1}.", "request")
        try:
            return await self.queue.run(lambda: function(index), self.settings.request_seconds)
        except (ValueError, OSError) as error:
            image, message = images[index], describe_error(error)
            for path in (image.file, image.ids, folder):
                for form in (str(path), str(path.resolve())):
                    message = message.replace(form, image.name)
            raise Refusal(422, message, "labels") from error


def create_corrector(corrections: Corrections, settings: ServerSettings) -> FastAPI:
    """Return an ASGI application in which a person corrects drafts.

    Args:
        corrections: The images with their drafts.
        settings: Limits and token.
    """
    desk = Desk(corrections=corrections, settings=settings)

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.queue.close()

    app = create_guarded_app(
        "Correction of labels",
        settings,
        desk.metrics,
        admit=desk.queue.refuse_if_full,
        open_paths=OPEN_PATHS,
        lifespan=live,
    )
    app.state.desk = desk
    app.include_router(router)
    return app


def _find_desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


@router.get("/", response_class=HTMLResponse)
async def show_page() -> str:
    """Return the page; what it shows comes from other routes, which may need the token."""
    return open_template(_PACKAGE, "page.html").render()


@router.get("/static/{name}")
async def show_static(name: str) -> Response:
    """Return the style, a script or the icon of the page."""
    if name in OWN:
        return Response(read_text(_PACKAGE, f"static/{name}"), media_type=OWN[name])
    return respond_static(name)


@router.get("/list")
async def list_images(request: Request) -> dict[str, Any]:
    """Return the classes and the images."""
    corrections = _find_desk(request).corrections
    labels, options = corrections.label_set, corrections.drafts.options
    images = enumerate(corrections.images)
    return {
        "classes": [
            {"name": name, "colour": list(colour)} for name, colour in zip(labels.names, labels.colours, strict=True)
        ],
        "ignore_index": labels.ignore_index,
        "void": {"name": options.void_name, "colour": list(VOID_COLOUR)},
        "images": [
            {"name": image.name, "reasons": image.reasons, "is_reviewed": corrections.is_reviewed(index)}
            for index, image in images
        ],
    }


@router.get("/images/{index}/picture")
async def show_picture(request: Request, index: int) -> Response:
    """Return an image, upright."""
    desk = _find_desk(request)
    content, media = await desk.run(index, desk.corrections.read_picture)
    return Response(content, media_type=media)


@router.get("/images/{index}/labels")
async def show_labels(request: Request, index: int) -> Response:
    """Return the ids of an image, row by row, as bytes or as little-endian numbers of two bytes."""
    desk = _find_desk(request)
    labels = await desk.run(index, desk.corrections.read_labels)
    content = labels.astype(labels.dtype.newbyteorder("<")).tobytes()
    size = {"x-height": str(labels.shape[0]), "x-width": str(labels.shape[1])}
    return Response(content, media_type="application/octet-stream", headers=size)


@router.put("/images/{index}/labels")
async def accept_labels(request: Request, index: int) -> dict[str, bool]:
    """Take the mask of an image: a PNG file of ids."""
    desk = _find_desk(request)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "image/png":
        raise Refusal(415, f"The body has the type {media[:100]!r}; send image/png.", "content_type")
    content = await read_stream(request)
    await desk.run(index, lambda place: desk.corrections.accept(place, content))
    return {"is_reviewed": True}


@router.delete("/images/{index}/labels")
async def withdraw_labels(request: Request, index: int) -> dict[str, bool]:
    """Remove the accepted mask of an image."""
    desk = _find_desk(request)
    await desk.run(index, desk.corrections.withdraw)
    return {"is_reviewed": False}
