"""Self-contained HTML pages from Jinja2 templates: the evaluation report and the list of suspected label errors.

Jinja2 is imported when a page is made, since most commands make none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from refinenet.io.files import quote_controls

if TYPE_CHECKING:
    from jinja2 import Template

HEAD = "page_head.html"
"""Template that others include: character set, security policy, colours."""


def open_template(package: str, name: str, filters: Mapping[str, Callable[..., object]] | None = None) -> Template:
    """Compile a template with autoescape, in which an undefined variable is an error.

    Args:
        package: Package that holds the template, such as "refinenet.labelling".
        name: File name of the template.
        filters: Further filters by name.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_make_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda wanted: read_text("refinenet.io" if wanted == HEAD else package, wanted)),
    )
    environment.filters |= filters or {}
    # Classes keep the order of the dataset: by default `tojson` sorts keys.
    environment.policies["json.dumps_kwargs"] = {}
    return environment.get_template(name)


def read_text(package: str, name: str) -> str:
    """Return the text of a file in a package."""
    return (files(package) / name).read_text(encoding="utf-8")


def _make_visible(value: Any) -> Any:
    r"""Write control characters and marks of writing direction in names as `\x1b` or `\u202e`.

    Escaping makes names safe as HTML, but does not stop them from reordering or hiding the text around them. Jinja2
    calls this for every value before escaping it; Markup passes unchanged.
    """
    return value if hasattr(value, "__html__") or not isinstance(value, str) else quote_controls(value)
