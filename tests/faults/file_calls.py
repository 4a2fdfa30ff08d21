"""The functions of `os` that the package writes through, answered by somebody else for a while."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

LOOKS = ("stat", "lstat", "listdir", "scandir", "statvfs")
"""Only look."""
_CALLS = ("open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "write", "fsync", "close", *LOOKS)

REAL: Mapping[str, Callable[..., Any]] = {**{name: getattr(os, name) for name in _CALLS}, "read": io.open}
"""What really does it; "read" is Python's `open`."""


@contextmanager
def redirected(call: Callable[..., Any]) -> Iterator[None]:
    """Let `call` answer: it is given a name in `REAL`, then what the function was given."""
    try:
        for name in _CALLS:
            setattr(os, name, partial(call, name))
        io.open = partial(call, "read")
        yield
    finally:
        for name in _CALLS:
            setattr(os, name, REAL[name])
        io.open = REAL["read"]
