"""Mask files of every kind, written by hand from their specifications, with nothing of the readers that are tested.

Shape letters: H height, W width, C channels. `values` are what is stored: `(H, W)` or `(H, W, C)` whole numbers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Palette = Sequence[tuple[int, int, int]]


def pack_rows(values: Values, bits: int, order: Any = ">") -> list[bytes]:
    """The rows of `(H, W)` or `(H, W, C)` values, samples of `bits` bits, the first in the highest bits."""
    height = len(values)
    flat = values.reshape(height, -1)
    if bits >= 8:
        kind = {"f": "f", "i": "i"}.get(flat.dtype.kind, "u")
        typed = flat.astype(np.dtype(f"{kind}{bits // 8}").newbyteorder(order))
        return [row.tobytes() for row in typed]
    shifts = np.arange(bits - 1, -1, -1)
    unpacked = (flat[..., np.newaxis] >> shifts & 1).reshape(height, -1).astype(np.uint8)
    return [np.packbits(row).tobytes() for row in unpacked]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(
    values: Values,
    bits: int,
    colour_type: int,
    *,
    palette: Palette = (),
    transparency: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG: colour types 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    parts = [values]
    if interlaced:
        parts = [values[y::dy, x::dx] for y, x, dy, dx in _ADAM7]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in pack_rows(part, bits))
    height, width = values.shape[:2]
    content = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlaced)))]
    if palette:
        content.append(_chunk(b"PLTE", bytes(v for colour in palette for v in colour)))
    if transparency:
        content.append(_chunk(b"tRNS", transparency))
    content += [_chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(content)


def bmp(
    values: Values,
    bits: int,
    *,
    palette: Palette = (),
    top_down: bool = False,
    compression: str = "raw",
    core_header: bool = False,
) -> bytes:
    """A BMP: indices of 1, 4 or 8 bits, or RGB(A) of 16 (5 bits each), 24 or 32 bits. "rle" compresses 4 and 8 bits."""
    height, width = values.shape[:2]
    rows = list(values if top_down else values[::-1])
    if compression == "rle":
        data = b"".join(_rle_row(row, bits) for row in rows) + b"\0\1"
    else:
        data = b"".join(_pad(_bmp_row(row, bits)) for row in rows)
    size = 12 if core_header else 40
    start = 14 + size + len(palette) * (3 if core_header else 4)
    code = {"raw": 0, "rle": 1 if bits == 8 else 2}[compression]
    if core_header:
        header = struct.pack("<IHHHH", size, width, height, 1, bits)
    else:
        signed_height = -height if top_down else height
        header = struct.pack(
            "<IiiHHIIiiII", size, width, signed_height, 1, bits, code, len(data), 0, 0, len(palette), 0
        )
    colours = b"".join(bytes(colour[::-1]) + (b"" if core_header else b"\0") for colour in palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + colours + data


def _bmp_row(row: Values, bits: int) -> bytes:
    if bits <= 8:
        return pack_rows(row[np.newaxis], bits)[0]
    if bits == 16:
        five = row.astype(np.uint16) >> 3
        return (five[:, 0] << 10 | five[:, 1] << 5 | five[:, 2]).astype("<u2").tobytes()
    return row[:, [2, 1, 0, *range(3, bits // 8)]].astype(np.uint8).tobytes()


def _pad(row: bytes) -> bytes:
    return row + b"\0" * (-len(row) % 4)


def _rle_row(row: Values, bits: int) -> bytes:
    """Runs of one index, of up to 255 pixels."""
    out, start = bytearray(), 0
    for end in range(1, len(row) + 1):
        if end == len(row) or row[end] != row[start] or end - start == 255:
            index = int(row[start])
            out += bytes([end - start, index if bits == 8 else index << 4 | index])
            start = end
    return bytes(out + b"\0\0")


def pack_bits(data: bytes) -> bytes:
    """TIFF's PackBits, as literal runs."""
    return b"".join(bytes([len(part) - 1]) + part for part in (data[k : k + 128] for k in range(0, len(data), 128)))


COMPRESSIONS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (1, bytes),
    "deflate": (8, zlib.compress),
    "packbits": (32773, pack_bits),
}


def tiff(
    values: Values,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    compression: str = "raw",
    palette: Palette = (),
    palette_scale: int = 257,
    sample_format: int = 1,
    extra: Sequence[int] = (),
    tile: int = 0,
    planar: bool = False,
    big: bool = False,
    strip_rows: int = 0,
) -> bytes:
    """A TIFF: photometric 0 white is zero, 1 black is zero, 2 RGB, 3 palette; little-endian by "<", or ">"."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    planes = [values[..., c] for c in range(channels)] if planar else [values]
    code, compress = COMPRESSIONS[compression]
    parts = [
        compress(b"".join(pack_rows(block, bits, order)))
        for plane in planes
        for block in _split(plane, tile, strip_rows or height)
    ]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [code]),
        262: ("H", [photometric]),
        277: ("H", [channels]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [sample_format] * channels),
    }
    if palette:
        padded = [*palette, *[(0, 0, 0)] * ((1 << bits) - len(palette))]
        tags[320] = ("H", [colour[c] * palette_scale for c in range(3) for colour in padded])
    if extra:
        tags[338] = ("H", list(extra))
    if tile:
        tags |= {322: ("I", [tile]), 323: ("I", [tile])}
    else:
        tags[278] = ("I", [strip_rows or height])
    return _write_tiff(tags, parts, bool(tile), order, big)


def _split(plane: Values, tile: int, strip_rows: int) -> list[Values]:
    height, width = plane.shape[:2]
    if not tile:
        return [plane[y : y + strip_rows] for y in range(0, height, strip_rows)]
    room = [(0, -height % tile), (0, -width % tile), *[(0, 0)] * (plane.ndim - 2)]
    padded = np.pad(plane, room)
    return [
        padded[y : y + tile, x : x + tile]
        for y in range(0, padded.shape[0], tile)
        for x in range(0, padded.shape[1], tile)
    ]


def _write_tiff(
    tags: dict[int, tuple[str, list[int]]], parts: list[bytes], tiled: bool, order: str, big: bool
) -> bytes:
    out = bytearray(b"II" if order == "<" else b"MM")
    word = "Q" if big else "I"
    out += struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HI", 42, 0)
    offsets = []
    for part in parts:
        offsets.append(len(out))
        out += part + b"\0" * (len(part) % 2)
    tags = tags | {324 if tiled else 273: ("I", offsets), 325 if tiled else 279: ("I", [len(part) for part in parts])}
    entries = []
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(content) > struct.calcsize(word):
            place = len(out)
            out += content + b"\0" * (len(content) % 2)
            content = struct.pack(f"{order}{word}", place)
        entries.append(
            struct.pack(f"{order}HH{word}", tag, {"H": 3, "I": 4}[kind], len(values))
            + content.ljust(struct.calcsize(word), b"\0")
        )
    directory = len(out)
    out += (
        struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
        + b"".join(entries)
        + struct.pack(f"{order}{word}", 0)
    )
    struct.pack_into(f"{order}{word}", out, 8 if big else 4, directory)
    return bytes(out)
