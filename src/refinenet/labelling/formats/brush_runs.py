"""Label Studio's run lengths of brush masks: a stream of bits, in lists of bytes.

32 bits hold the number of values, 5 bits the bits of a value less one, and four times 4 bits the bits of a length less
one. Then follow blocks until all values are there: a bit that is set for a run, 2 bits that choose one of the four
sizes, a length less one of that size, and the value, or for other blocks as many values as the length says. The values
are those of RGBA pixels, row by row; the last one of each pixel tells whether it was painted.

Source: rle-pack of https://github.com/thi-ng/umbrella, as documented by label-studio-converter (`brush.py`).

Shape letters: H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CHANNELS = 4
_LENGTH_BITS = (3, 6, 10, 16)
"""Bits of a run's length that are written; short ones for small regions, long ones for the surroundings."""
_VALUE_BITS = 8


def pack_runs(region: npt.NDArray[np.bool_]) -> list[int]:
    """Encode a region `(H, W)` as a list of bytes."""
    flat = region.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = CHANNELS * np.diff(np.append(starts, flat.size))
    values = flat[starts].astype(np.int64) * 255
    longest = 1 << _LENGTH_BITS[-1]
    pieces = -(-lengths // longest)
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    parts = np.full(int(pieces.sum()), longest, np.int64)
    parts[last] = lengths - longest * (pieces - 1)
    choice = np.searchsorted(1 << np.array(_LENGTH_BITS), parts)
    bits = np.array(_LENGTH_BITS)[choice]
    blocks = ((((1 << 2) | choice) << bits) | (parts - 1)) << _VALUE_BITS | values
    head = [*_to_bits(CHANNELS * flat.size, 32), *_to_bits(_VALUE_BITS - 1, 5)]
    for size in _LENGTH_BITS:
        head += _to_bits(size - 1, 4)
    widest = 3 + _LENGTH_BITS[-1] + _VALUE_BITS
    places = np.arange(widest - 1, -1, -1)
    all_bits = (blocks[:, None] >> places) & 1
    body = all_bits[places < (3 + bits + _VALUE_BITS)[:, None]]
    packed: list[int] = np.packbits(np.concatenate([np.array(head), body]).astype(np.uint8)).tolist()
    return packed


def _to_bits(number: int, count: int) -> list[int]:
    return [number >> place & 1 for place in range(count - 1, -1, -1)]


def unpack_runs(packed: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a list of bytes to a region `(H, W)`; `size` is H and W.

    Raises:
        ValueError: It is no such list, or of another size.
    """
    if not isinstance(packed, list) or not all(type(value) is int and 0 <= value < 256 for value in packed):
        raise ValueError("its 'rle' is not a list of bytes, whole numbers from 0 to 255.")
    reader = _BitReader(packed)
    count, pixels = reader.take(32), size[0] * size[1]
    if count != CHANNELS * pixels:
        raise ValueError(
            f"its 'rle' has {count} values, but its image of {size[1]}x{size[0]} pixels needs {CHANNELS * pixels}."
        )
    value_bits = reader.take(5) + 1
    lengths = [reader.take(4) + 1 for _ in range(4)]
    values = np.zeros(count, bool)
    place = 0
    while place < count:
        is_run = reader.take(1)
        end = place + 1 + reader.take(lengths[reader.take(2)])
        if end > count:
            raise ValueError("its 'rle' has a run beyond the last pixel: it is damaged.")
        if is_run:
            values[place:end] = reader.take(value_bits) > 0
        else:
            values[place:end] = [reader.take(value_bits) > 0 for _ in range(end - place)]
        place = end
    return values[CHANNELS - 1 :: CHANNELS].reshape(size)


class _BitReader:
    """Reads whole numbers from a list of bytes, the highest bit first."""

    def __init__(self, packed: list[int]) -> None:
        self._bits = "".join(map(str, np.unpackbits(np.array(packed, np.uint8)).tolist()))
        self._place = 0

    def take(self, count: int) -> int:
        """Read a number of `count` bits.

        Raises:
            ValueError: The bytes end before.
        """
        start, self._place = self._place, self._place + count
        if self._place > len(self._bits):
            raise ValueError("its 'rle' ends in the middle of a run: it is cut off.")
        return int(self._bits[start : self._place], 2)
