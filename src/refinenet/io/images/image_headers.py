"""Headers of image files: checksums, orientation and kind of samples, without decoding pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""First bytes of every PNG file."""
_PIECE = 2**20


def is_changed(file: bytes) -> bool:
    """Whether the bytes of a PNG file have changed since they were written, or are cut short; False for other files."""
    if not file.startswith(SIGNATURE):
        return False
    return is_changed_stream(io.BytesIO(file))


def is_changed_stream(file: BinaryIO) -> bool:
    """Do as `is_changed` for an open PNG file, which is read chunk by chunk.

    Pillow's `verify` finds such changes, too, but it also rejects sound pixels for damaged metadata behind them, and
    it holds whole chunks in memory.
    """
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        checksum, length = _checksum(file, kind, length)
        stored = file.read(4)
        if length > 0 or len(stored) < 4:
            return True
        # A capital letter marks a critical chunk, one that the pixels depend on (PNG specification, 5.4). Checksums of
        # the others are not compared, because some programs edit metadata without updating them.
        if kind[:1].isupper() and checksum != int.from_bytes(stored):
            return True
        if kind == b"IEND":
            return False
    return True


def _checksum(file: BinaryIO, kind: bytes, length: int) -> tuple[int, int]:
    """Return the CRC-32 of a chunk, and how many of its bytes are missing."""
    checksum = zlib.crc32(kind)
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
    return checksum, length


# What Pillow raises on damaged files: the list of its own fuzzers, and what its parsers let through besides.
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, NotImplementedError, OverflowError, MemoryError, EOFError),
    *(IndexError, KeyError, TypeError, struct.error, zlib.error),
)


def read_orientation(stream: io.BufferedReader) -> int:
    """Read the EXIF orientation of a TIFF, PNG or JPEG file, 1 (upright) to 8; 1 if it has no valid one.

    Only the header is read, whatever the size of the image.

    Args:
        stream: The file, open at its start.
    """
    start = stream.peek(4)[:4]
    try:
        if start[:2] not in (b"II", b"MM"):
            opened = PngImagePlugin.PngImageFile if start == SIGNATURE[:4] else JpegImagePlugin.JpegImageFile
            return exif_orientation(opened(stream))
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if b"+" in start else 8))
        stream.seek(directory.next)
        directory.load(stream)
        return int(directory.get(ExifTags.Base.Orientation, 1))
    except PILLOW_ERRORS:
        return 1


def needs_gdal(stream: io.BufferedReader) -> bool:
    """Whether Pillow cannot read all samples of a file, or cannot tell where it has no data.

    This holds for TIFF files of anything but 8-bit grey, RGB or a palette, for those with alpha, a nodata value or a
    mask, and for PNG files of 16-bit colours. Only headers are read, and the stream is left at its start.
    """
    start = stream.peek(26)[:26]
    if start.startswith(SIGNATURE):
        return start[24:25] == b"\x10" and start[25:26] != b"\0"
    if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    try:
        directories = list(_directories(stream))
    except PILLOW_ERRORS:
        return False
    finally:
        stream.seek(0)
    has_mask = any(_frame_kind(directory) & _MASK_FRAME for directory in directories)
    return has_mask or (bool(directories) and not _is_plain(directories[0]))


def count_pages(stream: io.BufferedReader) -> int:
    """Count the pages of a TIFF file, leaving out masks and overviews; 1 for other files."""
    try:
        return sum(not _frame_kind(directory) & (_MASK_FRAME | _REDUCED_FRAME) for directory in _directories(stream))
    except PILLOW_ERRORS:
        return 1
    finally:
        stream.seek(0)


# Bits of tag 254, NewSubfileType (TIFF 6.0).
_REDUCED_FRAME, _MASK_FRAME = 1, 4
_NODATA_TAG = 42113
"""GDAL_NODATA, a tag of GDAL's own."""
_MAX_DIRECTORIES = 10_000


def _directories(stream: io.BufferedReader) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    start = stream.peek(4)[:4]
    size = 16 if b"+" in start else 8
    directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(size))
    for _ in range(_MAX_DIRECTORIES):
        if not directory.next:
            return
        stream.seek(directory.next)
        directory.load(stream)
        yield directory


def _frame_kind(directory: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    kind = directory.get(254, 0)
    return kind if isinstance(kind, int) else 0


def _is_plain(directory: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether Pillow reads the page completely, or GDAL does not read it at all."""
    # 258 BitsPerSample, 277 SamplesPerPixel, 262 PhotometricInterpretation, 338 ExtraSamples (alpha)
    bits, count, ink = directory.get(258, (1,)), directory.get(277, 1), directory.get(262)
    if _NODATA_TAG in directory:
        return False
    if ink not in (1, 2, 3):  # white stored as 0, and colour spaces that only Pillow converts
        return True
    usual = 3 if ink == 2 else 1
    return all(value <= 8 for value in bits) and count == usual and 338 not in directory


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 if it has no readable one."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except PILLOW_ERRORS:  # unreadable metadata must not cost us sound pixels
        return 1
    return value if isinstance(value, int) else 1
