"""HTML that cannot be written by what it tells of: texts are escaped unless they are HTML already."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

_EMPTY = frozenset({"img", "input"})
"""Elements that end where they begin."""


class Markup(str):
    """HTML, which `element` and `join` leave as it is."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | int | float | None) -> Markup:
    """An element with its children; texts and values are escaped.

    Args:
        tag: Its name.
        children: `Markup`, or texts.
        attributes: By name, with "_" for "-", and one at the end of a word of Python ("class_"); None leaves one out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>" if tag in _EMPTY else f"<{tag}{written}>{join(children)}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """HTML and texts after each other; texts are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(part) for part in parts))


def data_block(values: Any, name: str) -> Markup:
    """JSON for scripts to read, in an element of that id, which nothing in it can end early."""
    written = json.dumps(values).replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return Markup(f'<script type="application/json" id="{html.escape(name)}">{written}</script>')
