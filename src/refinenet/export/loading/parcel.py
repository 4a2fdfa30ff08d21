"""What passes between a process and the one that looks at a file for it: a line of JSON, then the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def pack(facts: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Facts, JSON-ready, and files as bytes that `unpack` takes apart."""
    sizes = {name: len(content) for name, content in files.items()}
    return json.dumps({"facts": facts, "sizes": sizes}).encode() + b"\n" + b"".join(files.values())


def unpack(parcel: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The facts and files of `pack`.

    Raises:
        ValueError, KeyError: it is none of those.
    """
    end = parcel.index(b"\n")
    told = json.loads(parcel[:end])
    files, start = {}, end + 1
    for name, size in told["sizes"].items():
        files[name] = parcel[start : start + size]
        start += size
    if start != len(parcel):
        raise ValueError(f"a parcel of {len(parcel)} bytes instead of {start}")
    return told["facts"], files
