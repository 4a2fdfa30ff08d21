"""Configuration of Sphinx; `make docs` builds the pages."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from reference_pages import link_pages, write_pages  # noqa: E402 - found by the path above

from refinenet import __version__  # noqa: E402 - found by the path above

project = "refinenet"
author = "the refinenet authors"
copyright = "2026, the refinenet authors"  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "reference.md"]  # the last stands for pages that are generated
smartquotes = False  # options begin with two hyphens

myst_enable_extensions = ["deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

os.environ.setdefault("REFINENET_BACKEND", "pytorch")  # no translations, and messages of them, for a few images
nb_execution_mode = "cache"  # in `docs/_build/.jupyter_cache`: a notebook is run again when its code has changed
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_output_stderr = "remove"

default_role = "code"
add_module_names = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_preprocess_types = False

html_theme = "furo"
pygments_dark_style = "github-dark"  # furo's own choice underlines modules, as if they were links
html_title = f"refinenet {__version__}"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")  # old versions name the newest one to search engines
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
linkcheck_timeout = 20


def _write_reference(app: Any) -> None:
    write_pages(HERE / "reference")


def _link_reference(_app: Any, _page: str, source: list[str]) -> None:
    source[0] = link_pages(source[0])


def _mark_code(_app: Any, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Turn `code` of docstrings into reStructuredText's ``code``, also where letters follow, as in `Metric`s."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", _double, line) for line in lines]


def _double(found: re.Match[str]) -> str:
    return f"``{found[1]}``" + ("\\ " if found[2] else "")


def setup(app: Any) -> None:
    """Generate the reference before the pages are read."""
    app.connect("builder-inited", _write_reference)
    app.connect("source-read", _link_reference)
    app.connect("autodoc-process-docstring", _mark_code, priority=400)  # before napoleon, which writes roles
