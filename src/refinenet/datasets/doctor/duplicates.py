"""The same picture more than once: pixel by pixel, or nearly (compressed, resized or brightened anew).

Pictures are nearly the same where their small grey versions are, up to brightness and contrast: where these correlate
(Pearson) by `MIN_CORRELATION` or more, and no small pixel differs by more than `MAX_DIFFERENCE` after the best fit.
Of CamVid's frames, copies as JPEG of quality 60, of nine tenths of the size, or 5 % brighter have 0.9992 and 12 at
worst; neighbouring frames of the moving camera, a fifteenth of a second apart, 0.9990 and 14 at best.

Shape letters: N pictures, T small pixels of each.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.doctor.listing import Pair
from refinenet.datasets.doctor.scan import Facts, ImageFacts

MIN_CORRELATION = 0.9991
MAX_DIFFERENCE = 12.5
MIN_CONTRAST = 3.0
"""Standard deviation, of 255, below which a picture is too empty to be compared."""

_CHUNK = 1024
_START = 1 << 16

Floats = npt.NDArray[np.float32]


def group_equal(facts: Sequence[Facts]) -> list[list[Facts]]:
    """Samples whose images are the same pixel by pixel, in groups of two and more."""
    groups: dict[bytes, list[Facts]] = defaultdict(list)
    for fact in facts:
        if fact.image and fact.image.digest:
            groups[fact.image.digest].append(fact)
    return [group for group in groups.values() if len(group) > 1]


def group_equal_files(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Samples whose image files are the same byte by byte, in groups that lie in two splits or more.

    Only files of equal size are read, and only those that begin alike to their end. What cannot be read is in none.
    """
    groups = [[pair for pair in pairs if pair.image]]
    for key in (_find_size, _digest_start, _digest_file):
        groups = [part for group in groups for part in _part(group, key) if len({pair.split for pair in part}) > 1]
    return groups


def _part(group: Sequence[Pair], key: Callable[[str], Hashable]) -> list[list[Pair]]:
    parts: dict[Hashable, list[Pair]] = defaultdict(list)
    for pair in group:
        try:
            parts[key(pair.image)].append(pair)
        except OSError:  # the examination of this file reports it
            continue
    return list(parts.values())


def _find_size(path: str) -> int:
    return Path(path).stat().st_size


def _digest_start(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.blake2b(stream.read(_START)).digest()


def _digest_file(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


def find_near(facts: Sequence[Facts]) -> list[tuple[Facts, Facts]]:
    """Pairs of samples of two splits whose images are nearly, but not exactly, the same."""
    splits: dict[str, list[tuple[Facts, ImageFacts]]] = defaultdict(list)
    for fact in facts:
        if fact.image and fact.image.thumbnail:
            splits[fact.pair.split].append((fact, fact.image))
    ordered = [splits[name] for name in sorted(splits)]
    return [
        (first, second)
        for index, one in enumerate(ordered)
        for other in ordered[index + 1 :]
        for first, second in _find_between(one, other)
    ]


def _find_between(
    one: list[tuple[Facts, ImageFacts]], other: list[tuple[Facts, ImageFacts]]
) -> Iterator[tuple[Facts, Facts]]:
    for start in range(0, len(one), _CHUNK):
        left = one[start : start + _CHUNK]
        left_pixels, left_unit = _normalise(left)
        for begin in range(0, len(other), _CHUNK):
            right = other[begin : begin + _CHUNK]
            right_pixels, right_unit = _normalise(right)
            for i, j in np.argwhere(left_unit @ right_unit.T >= MIN_CORRELATION):
                is_equal = left[i][1].digest == right[j][1].digest
                if not is_equal and _differ(left_pixels[i], right_pixels[j]) <= MAX_DIFFERENCE:
                    yield left[i][0], right[j][0]


def _normalise(images: Sequence[tuple[Facts, ImageFacts]]) -> tuple[Floats, Floats]:
    """`(N, T)` small pixels less their mean, and the same at length 1, or 0 where there is too little contrast."""
    pixels = np.frombuffer(b"".join(image.thumbnail for _, image in images), np.uint8)
    rows = pixels.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    has_contrast = length > MIN_CONTRAST * np.sqrt(rows.shape[1])
    return rows, np.divide(rows, length, out=np.zeros_like(rows), where=has_contrast)


def _differ(one: Floats, other: Floats) -> float:
    """The largest difference of a small pixel, once one picture has the other's contrast."""
    gain = float(one @ other) / float(one @ one)
    return float(np.abs(other - gain * one).max())
