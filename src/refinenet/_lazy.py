"""Lazy packages: the module of a name is imported when the name is first used (PEP 562)."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package, from the `TYPE_CHECKING` imports in its `__init__.py`.

    Args:
        package: The package's `__name__`.

    Returns:
        The two functions. `__getattr__` raises AttributeError for names that the package does not import.
    """

    @cache
    def homes() -> dict[str, str]:
        spec = find_spec(package)
        # typeshed's Loader lacks `get_source`, which the loaders of files and of zip archives have.
        source = spec.loader.get_source(package) if spec and spec.loader else None  # type: ignore[attr-defined]
        blocks = [node for node in ast.parse(source or "").body if isinstance(node, ast.If)]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        return {alias.name: str(node.module) for node in imports for alias in node.names}

    def find(name: str) -> Any:
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes()[name]), name)

    return find, lambda: sorted(homes())
