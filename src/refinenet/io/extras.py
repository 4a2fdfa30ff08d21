"""Names of optional parts of an installation, for messages that say what to install."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

FULL, SMALL = "refinenet-torch", "refinenet-runtime"
"""Names under which pip installs this package: with PyTorch, and without."""


def install_extra(extra: str, small: str | None = None) -> str:
    """Return the command that installs an optional part of this package.

    Args:
        extra: Name of the part, such as "video".
        small: Its name in the distribution without PyTorch, if it has another there.
    """
    distribution = _find_distribution()
    return f"pip install '{distribution}[{small or extra if distribution == SMALL else extra}]'"


@cache
def _find_distribution() -> str:
    return SMALL if _is_installed(SMALL) and not _is_installed(FULL) else FULL


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
