"""Pages for browsers: one to drop an image into, and one that lists the routes; nothing is loaded from other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, StrictUndefined, Template

from refinenet.deployment.server.http.refusals import Refusal
from refinenet.deployment.server.routes import find_service

router = APIRouter(include_in_schema=False)
SCRIPTS = ("alerts", "api", "app", "camera", "legend", "pane", "pixels", "strip")
STATIC = {
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    **{f"{name}.js": "text/javascript" for name in SCRIPTS},
}
"""Media types of the files that pages load."""


@router.get("/", response_class=HTMLResponse)
async def show_page(request: Request) -> str:
    """Return the page; what it shows of the model comes from /model, which may need the token."""
    return _template("page.html").render(name=find_service(request).settings.name)


@router.get("/static/{name}")
async def show_static(name: str) -> Response:
    """Return the style, a script or the icon of the pages."""
    return respond_static(name)


def respond_static(name: str) -> Response:
    """Return a file that pages load, also those of other applications.

    Raises:
        Refusal: There is no such file.
    """
    if name not in STATIC:
        raise Refusal(404, f"There is nothing at /static/{name[:100]}.", "request")
    return Response(_read(f"static/{name}"), media_type=STATIC[name])


@router.get("/docs", response_class=HTMLResponse)
async def show_docs(request: Request) -> str:
    """Return a page of the routes and their parameters, from the same schema as /openapi.json."""
    return _template("docs.html").render(routes=list(_list_routes(request.app.openapi())))


def _list_routes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, methods in schema["paths"].items():
        for method, row in methods.items():
            parameters = [(each["name"], each.get("description", "")) for each in row.get("parameters", ())]
            yield {
                "line": f"{method.upper()} {path}",
                "text": row.get("description", ""),
                "parameters": parameters,
                "bodies": list(row.get("requestBody", {}).get("content", ())),
                "codes": list(row["responses"]),
            }


@cache
def _read(name: str) -> str:
    return files("refinenet.deployment.server").joinpath(name).read_text("utf-8")


@cache
def _template(name: str) -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read(name))
