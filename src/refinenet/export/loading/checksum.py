"""A hash inside an exported file, of the file itself: it tells what was damaged on the way, not who made it.

The file states it as `refinenet-content-sha256:` and 64 hexadecimal digits, in its metadata. It is the SHA-256 of the
file with zeros for these digits, followed by the files beside it that belong to it (OpenVINO's weights).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

SEAL_KEY = "refinenet_seal"
"""The entry of the metadata."""
_MARK, _ZEROS = b"refinenet-content-sha256:", b"0" * 64
OPEN_SEAL = (_MARK + _ZEROS).decode("ascii")
"""What is written there first."""
_TRACES = (
    SEAL_KEY.encode("ascii"),
    b"refinenet-content",
    b"content-sha256:",
    b"RefineNet (",
    b"{'dynamic': True}",
    b"return_soft_prediction",
    b"blur_strength",
)
"""What the exporter writes into each file beside the header; several, since one damage seldom hits them all."""
_SEAL = re.compile(_MARK + rb"([0-9a-f]{64})")


def close_seal(path: Path, others: Sequence[Path] = ()) -> None:
    """Put the hash into a file that was written with `OPEN_SEAL`.

    Args:
        path: The file; nobody reads it yet.
        others: The files that belong to it.
    """
    content = path.read_bytes()
    assert content.count(_MARK + _ZEROS) == 1
    found = _hash([content, *(other.read_bytes() for other in others)])
    path.write_bytes(content.replace(_MARK + _ZEROS, _MARK + found.encode("ascii")))


def is_sealed(contents: Sequence[bytes]) -> bool:
    """Whether the files carry a hash, and are as they were written.

    Args:
        contents: The sealed file first, then those that belong to it.

    Returns:
        False for files that this package's exporter did not write, which have no hash.

    Raises:
        ValueError: they are damaged: the hash is not their own, or it is damaged or missing beside other entries that
            only the exporter writes.
    """
    said: list[bytes] = _SEAL.findall(contents[0])
    if not said:
        found = [trace.decode("ascii") for trace in _TRACES if trace in contents[0]]
        if found:
            raise ValueError(f"it has entries of this package's exporter ({found[0]!r}) and no readable hash")
        return False
    emptied = contents[0].replace(_MARK + said[0], _MARK + _ZEROS)
    if len(said) != 1 or _hash([emptied, *contents[1:]]).encode("ascii") != said[0]:
        raise ValueError("the hash that it carries is not its own")
    return True


def _hash(contents: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
