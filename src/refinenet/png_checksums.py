"""PNG's checksums: a file that a disk or a copy has changed may decode without an error, to other pixels.

Source: the PNG specification, third edition, section 5.3: a chunk is its length, its type, its content and the CRC-32
of type and content.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_changed(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a PNG that has changed since it was written, or lacks its end; others are taken as sound.

    Raises:
        OSError: it cannot be read.
    """
    content = memoryview(Path(path).read_bytes())
    if bytes(content[:8]) != _SIGNATURE:
        return False
    place = 8
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            return True
        (stored,) = struct.unpack_from(">I", content, end)
        # A capital letter marks a chunk that the pixels depend on; sloppy programs damage the others.
        if kind[:1].isupper() and zlib.crc32(content[place + 4 : end]) != stored:
            return True
        if kind == b"IEND":
            return False
        place = end + 4
    return True
