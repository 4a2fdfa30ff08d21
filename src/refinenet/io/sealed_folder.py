"""Folders with checksums: `meta.json` records size and SHA-256 of each file, and its own SHA-256."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refinenet.io.files import flush_folder, write_new

FORMAT = 1
META = "meta.json"

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}
"""Errors of reading a file that is missing, not a file, or on a defective part of the disk."""


def check_names(names: Mapping[str, bytes]) -> None:
    """Check the names of files for a folder with checksums.

    Raises:
        ValueError: A name is a path, `meta.json`, or has other characters than letters, digits and "_.-".
    """
    wrong = [repr(name) for name in names if not _FILE_NAME.fullmatch(name) or name == META]
    if wrong:
        raise ValueError(f"Files of a checkpoint have plain names other than {META}, not {', '.join(wrong)}.")


def write_checksummed(folder: Path, step: int, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, flush it to the disk (fsync), and read it back.

    Raises:
        OSError: It exists already, cannot be written, or does not read back as written; it may be left incomplete.
    """
    folder.mkdir()
    for name, content in files.items():
        write_new(folder / name, content)
    recorded = {name: {"size": len(content), "sha256": _digest(content)} for name, content in files.items()}
    # After the files that it describes: a folder with a valid meta.json is complete.
    write_new(folder / META, _signed({"format": FORMAT, "step": step, "files": recorded}))
    flush_folder(folder)
    try:
        for _ in _checked_files(folder, _read_metadata(folder)[1]):
            pass
    except ValueError as error:
        raise OSError(errno.EIO, f"the written files cannot be read back: {error}") from error


def read_checksummed(folder: Path) -> tuple[int, dict[str, bytes]]:
    """Return the step and the files of a folder with checksums.

    Raises:
        ValueError: It is damaged; the message says which file and how.
        OSError: It cannot be read for another reason than damage, such as missing permissions.
    """
    step, recorded = _read_metadata(folder)
    return step, dict(_checked_files(folder, recorded))


def read_step(folder: Path) -> int:
    """Return the step of a folder with checksums from its `meta.json` alone; other files are not checked.

    Raises:
        ValueError: `meta.json` is missing or damaged.
        OSError: It cannot be read for another reason than damage.
    """
    return _read_metadata(folder)[0]


@contextmanager
def damage_described() -> Iterator[None]:
    """Turn the errors of missing files and defective parts of the disk into ValueErrors."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        raise ValueError(f"{Path(error.filename or '').name}: {error.strerror}") from error


def _checked_files(folder: Path, recorded: Mapping[str, tuple[int, str]]) -> Iterator[tuple[str, bytes]]:
    for name, (size, digest) in recorded.items():
        with damage_described():
            actual = (folder / name).stat().st_size
            content = (folder / name).read_bytes() if actual == size else b""
        if actual != size:
            raise ValueError(f"{name} has {actual} bytes instead of {size}")
        if _digest(content) != digest:
            raise ValueError(f"the SHA-256 of {name} differs")
        yield name, content


def _read_metadata(folder: Path) -> tuple[int, dict[str, tuple[int, str]]]:
    """Return the step, and size and SHA-256 of each file."""
    with damage_described():
        content = (folder / META).read_bytes()
    try:
        metadata = json.loads(content)
        del metadata["sha256"]
        if content != _signed(metadata):
            raise ValueError("its own SHA-256 differs")
        if metadata["format"] != FORMAT:
            raise ValueError(f"it has format {metadata['format']}, known is {FORMAT}")
        check_names(metadata["files"])
        return int(metadata["step"]), {
            name: (recorded["size"], recorded["sha256"]) for name, recorded in metadata["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{META} is damaged: {error}") from error


def _signed(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as JSON with its own SHA-256, so that every changed bit is detected."""
    # Sorted keys and a fixed layout make the bytes unique, so a file can be compared with what it should be.
    digest = _digest(json.dumps(metadata, sort_keys=True).encode())
    return (json.dumps({**metadata, "sha256": digest}, indent=2, sort_keys=True) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
