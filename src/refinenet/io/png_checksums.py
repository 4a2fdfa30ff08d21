"""PNG's checksums: a file that a disk or a copy has changed may decode without an error, to other pixels.

Source: the PNG specification, third edition, section 5.3: a chunk is its length, its type, its content and the CRC-32
of type and content.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 2**20


def is_changed(file: bytes) -> bool:
    """Whether the bytes of a PNG file were changed since they were written, or lack their end; others are sound."""
    if not file.startswith(SIGNATURE):
        return False
    return is_changed_stream(io.BytesIO(file))


def is_changed_stream(file: BinaryIO) -> bool:
    """As `is_changed`, of a PNG file that is open at its start: it is read chunk by chunk."""
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        checksum, length = _checksum(file, kind, length)
        stored = file.read(4)
        if length > 0 or len(stored) < 4:
            return True
        # A capital letter marks a chunk that the pixels depend on; sloppy programs damage the others.
        if kind[:1].isupper() and checksum != int.from_bytes(stored):
            return True
        if kind == b"IEND":
            return False
    return True


def _checksum(file: BinaryIO, kind: bytes, length: int) -> tuple[int, int]:
    """The CRC-32 of a chunk, and how many of its bytes are missing."""
    checksum = zlib.crc32(kind)
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
    return checksum, length
