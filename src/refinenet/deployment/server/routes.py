"""Routes: parameters of requests to calls of the service, and its results to responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile

from refinenet.deployment.server.http.refusals import Refusal
from refinenet.deployment.server.service import SUMMARY, Service
from refinenet.inference.output_kinds import OUTPUT_KINDS

_KIND_OF_MEDIA: Mapping[str, tuple[str | None, str | None]] = {
    **{row.media_type: (kind, None) for kind, row in OUTPUT_KINDS.items() if row.media_type},
    "image/png": (None, None),
    "image/jpeg": ("colour", ".jpg"),
    "application/json": (SUMMARY, None),
}
"""Kind and suffix that an Accept header stands for, if the request names no kind."""
_MULTIPART = "multipart/form-data"
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            _MULTIPART: {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    }
}
_ERROR: dict[str, Any] = {
    "description": "Refused: `error` says why.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"error": {"type": "string"}, "request_id": {"type": "string"}},
                "required": ["error", "request_id"],
            }
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys(
    (400, 401, 403, 404, 405, 408, 413, 415, 422, 503, 504), _ERROR
)
"""Refusals in the schema of the routes."""
router = APIRouter(responses=REFUSALS)
_MEDIA_TYPES = {row.media_type_of(suffix) for row in OUTPUT_KINDS.values() for suffix in row.suffixes}
_RESULTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file of the one kind asked for, or JSON with the summary and several files in base64.",
        "content": {media: {} for media in sorted(_MEDIA_TYPES - {"application/json"})},
    },
}


def find_service(request: Request) -> Service:
    """Return the service of the application that got a request."""
    service: Service = request.app.state.service
    return service


@router.post("/segment", responses=_RESULTS, openapi_extra=_BODY, response_class=Response)
async def segment(
    request: Request,
    kind: Annotated[
        list[str] | None,
        Query(
            max_length=32,
            description="What to return: summary (JSON), or a kind of `refinenet deploy`. Several kinds are returned "
            "as JSON with files in base64. Default: by the Accept header, otherwise labels (or depths and the like of "
            "a model without classes).",
        ),
    ] = None,
    suffix: Annotated[str | None, Query(max_length=10, description="File format, such as .jpg or .npz.")] = None,
    abstain_below: Annotated[float, Query(ge=0, le=1, description="Least confidence of a class.")] = 0.0,
    bands: Annotated[str | None, Query(max_length=1000, description="Bands, such as 3,2,1.")] = None,
    value_range: Annotated[str | None, Query(max_length=100, description="Stored values of black and white.")] = None,
    scale: Annotated[float | None, Query(description="Stored value of a unit in .png of depths and values.")] = None,
    limits: Annotated[str | None, Query(max_length=100, description="Values at both ends of colours.")] = None,
    intrinsics: Annotated[str | None, Query(max_length=200, description="Camera: fx,fy,cx,cy in pixels.")] = None,
    opacity: Annotated[float | None, Query(description="Share of the class colours in overlays, 0 to 1.")] = None,
    outline: Annotated[int | None, Query(description="Width of outlines in overlays, in pixels.")] = None,
    legend: Annotated[bool | None, Query(description="Whether overlays have a legend.")] = None,
    show: Annotated[list[str] | None, Query(max_length=1000, description="Classes that overlays show.")] = None,
    hide: Annotated[list[str] | None, Query(max_length=1000, description="Classes that overlays leave out.")] = None,
) -> Response:
    """Predict for an image: its bytes as body, or one file of a multipart form."""
    service = find_service(request)
    kinds, suffix = _choose(request, kind or [], suffix)
    rendering = {
        "scale": scale,
        "limits": _numbers("limits", limits, 2, "0,50"),
        "intrinsics": _numbers("intrinsics", intrinsics, 4, "500,500,320,240"),
        "opacity": opacity,
        "outline": outline,
        "legend": legend,
        "show": show,
        "hide": hide,
    }
    reading: dict[str, Any] = {
        "bands": _bands(bands),
        "value_range": _numbers("value_range", value_range, 2, "0,4095"),
        "abstain_below": abstain_below,
    }
    options = service.check_options(kinds, suffix, rendering, **reading)
    content = await _read_body(request)
    result = await service.queue.run(lambda: service.run(content, options), service.settings.request_seconds)
    if options.is_one_file:
        media, found = next(iter(result.files.values()))
        return Response(found, media_type=media)
    return JSONResponse({"request_id": request.state.request_id, **result.to_dict()})


def _choose(request: Request, kinds: list[str], suffix: str | None) -> tuple[list[str], str | None]:
    """Return the kinds and the suffix asked for, by the Accept header if the address names no kind."""
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")]
    if kinds:
        is_jpeg = suffix is None and "image/jpeg" in accepted and "image/png" not in accepted and len(kinds) == 1
        return kinds, ".jpg" if is_jpeg else suffix
    kind, usual = next((_KIND_OF_MEDIA[media] for media in accepted if media in _KIND_OF_MEDIA), (None, None))
    return [] if kind is None else [kind], suffix or usual


def _numbers(name: str, text: str | None, count: int, example: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise Refusal(422, f"{name} must be {count} numbers such as {example}, not {text!r}.", "parameters")
    return found


def _bands(text: str | None) -> tuple[int, ...] | None:
    parts = [] if text is None else text.split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 9 for part in parts):
        raise Refusal(422, f"bands must be numbers such as 3,2,1, not {text!r}.", "parameters")
    return tuple(int(part) for part in parts) or None


async def read_stream(request: Request) -> bytes:
    """Return the body of a request, whose size and time the gate has limited."""
    # The gate has usually received the whole body, of which joining makes no copy.
    return b"".join([part async for part in request.stream() if part])


async def _read_body(request: Request) -> bytes:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != _MULTIPART:
        if media and not (media.startswith("image/") or media == "application/octet-stream"):
            allowed = f"image/..., application/octet-stream or {_MULTIPART}"
            raise Refusal(415, f"The body has the type {media[:100]!r}; send {allowed}.", "content_type")
        return await read_stream(request)
    async with request.form(max_files=1, max_fields=4, max_part_size=1 << 16) as form:
        uploads = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(uploads) != 1:
            raise Refusal(400, "The form has no file. Send one, in any field.", "form")
        return await uploads[0].read()


@router.get("/model")
async def model(request: Request) -> dict[str, Any]:
    """Describe the model: classes with colours, outputs, kinds of results, and limits."""
    return find_service(request).describe()


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return metrics in Prometheus's text format."""
    return Response(find_service(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/healthz")
@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """Say that the server runs."""
    return {"live": True}


@router.get("/v2/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """Say whether the server takes requests."""
    find_service(request).refuse_unready()
    return {"ready": True}
