"""PNG's checksums: a file that a disk or a copy has changed may decode without an error, to other pixels.

Source: the PNG specification, third edition, section 5.3: a chunk is its length, its type, its content and the CRC-32
of type and content.
"""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_changed(file: bytes) -> bool:
    """Whether the bytes of a PNG file were changed since they were written, or lack their end; others are sound."""
    if not file.startswith(SIGNATURE):
        return False
    content, place = memoryview(file), len(SIGNATURE)
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
