"""A hash of an exported file inside the file: it detects damage in transit, but does not prove the origin.

It is stored in the metadata as `refinenet-content-sha256:` and 64 hexadecimal digits. It is the SHA-256 of the file
with zeros in place of these digits, followed by the files that belong to it (OpenVINO's weights). The digits have a
fixed width, so that the file keeps its length and every offset when they are filled in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

SEAL_KEY = "refinenet_seal"
"""The entry of the metadata."""
_MARK, _ZEROS = b"refinenet-content-sha256:", b"0" * 64
OPEN_SEAL = (_MARK + _ZEROS).decode("ascii")
"""Value of the entry before the hash is known."""
EXPORTER_ENTRIES = frozenset(
    ("task", "names", "stride", "channels", "batch", "imgsz", "args", "description", "author", "version", "license",
     "palette", "model_type", "labels", "reverse_input_channels", "scale_values", "return_soft_prediction",
     "blur_strength")
)  # fmt: skip
"""Names of the metadata entries that the exporter writes in addition to the header and the hash."""
ENOUGH_ENTRIES = 3
"""That show that a file comes from the exporter: one or two other programs write, too, and one damage leaves more."""
_SEAL = re.compile(_MARK + rb"([0-9a-f]{64})")


def close_seal(path: Path, others: Sequence[Path] = ()) -> None:
    """Put the hash into a file that was written with `OPEN_SEAL`.

    Args:
        path: The file, in a place where nobody reads it yet.
        others: The files that belong to it.
    """
    content = path.read_bytes()
    assert content.count(_MARK + _ZEROS) == 1
    digest = hash_files([content, *(other.read_bytes() for other in others)])
    path.write_bytes(content.replace(_MARK + _ZEROS, _MARK + digest.encode("ascii")))


def known_entries(names: Iterable[str]) -> list[str]:
    """Return those of the names of metadata entries that the exporter writes, sorted."""
    return sorted({SEAL_KEY, *EXPORTER_ENTRIES}.intersection(names))


def is_sealed(contents: Sequence[bytes], entries: Collection[str]) -> bool:
    """Return whether the files carry a hash and are as they were written.

    A missing hash is damage, too, where other metadata show that the exporter wrote the file: otherwise a damaged hash
    would make all other damage invisible.

    Args:
        contents: The file with the hash first, then those that belong to it.
        entries: Names of its metadata entries.

    Returns:
        False for files of other exporters, which have no hash.

    Raises:
        ValueError: The files are damaged: the hash is wrong, or unreadable or missing in a file of the exporter.
    """
    stated: list[bytes] = _SEAL.findall(contents[0])
    if not stated:
        ours = sorted(EXPORTER_ENTRIES.intersection(entries))
        if SEAL_KEY in entries or len(ours) >= ENOUGH_ENTRIES:
            raise ValueError(f"it has entries of this package's exporter ({', '.join(ours)}) and no readable hash")
        return False
    zeroed = contents[0].replace(_MARK + stated[0], _MARK + _ZEROS)
    if len(stated) != 1 or hash_files([zeroed, *contents[1:]]).encode("ascii") != stated[0]:
        raise ValueError("its content does not have the hash that it states")
    return True


def hash_files(contents: Iterable[bytes]) -> str:
    """Return the hexadecimal SHA-256 of files one after the other."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
