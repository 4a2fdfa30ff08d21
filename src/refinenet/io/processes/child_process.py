"""Messages between this program and a child process, and limits on what the child may take.

A message is JSON-ready facts and named bytes. Nothing is pickled, so that a child that decodes hostile files and is
taken over by one cannot run code in this program.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_LENGTH = struct.Struct("<Q")


def pack_message(facts: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Join JSON-ready facts and files into bytes that `unpack_message` takes apart."""
    sizes = {name: len(content) for name, content in files.items()}
    return json.dumps({"facts": facts, "sizes": sizes}).encode() + b"\n" + b"".join(files.values())


def unpack_message(message: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the facts and files of `pack_message`.

    Raises:
        ValueError, KeyError: The message was not made by `pack_message`.
    """
    end = message.index(b"\n")
    header = json.loads(message[:end])
    files, start = {}, end + 1
    for name, size in header["sizes"].items():
        files[name] = message[start : start + size]
        start += size
    if start != len(message):
        raise ValueError(f"a message of {len(message)} bytes instead of {start}")
    return header["facts"], files


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Write a message of `pack_message` to a pipe."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes], largest: int = sys.maxsize) -> bytes:
    """Read what `write_message` wrote.

    Args:
        stream: The pipe.
        largest: Number of bytes that a message may have.

    Raises:
        EOFError: The pipe was closed before the end of the message.
        ValueError: The message is larger.
    """
    length = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))[0]
    if length > largest:
        raise ValueError(f"a message of {length} bytes; at most {largest} are allowed")
    return _read_exactly(stream, length)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def set_limit(kind: str, wanted: int) -> None:
    """Limit what this process may take, by the name of a constant of `resource`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    which = getattr(resource, kind)
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def used_addresses() -> int:
    """Return the size of this process's address space in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
