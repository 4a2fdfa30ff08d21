"""Folders whose files are sealed: `meta.json` notes the size and SHA-256 of each, and its own."""

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
"""What reading meets where a file is missing, is something else, or lies on a broken part of the disk."""


def check_names(names: Mapping[str, bytes]) -> None:
    """Refuse what cannot be the name of a file in a sealed folder.

    Raises:
        ValueError: a name is a path, `meta.json`, or has other than letters, digits and "_.-".
    """
    wrong = [repr(name) for name in names if not _FILE_NAME.fullmatch(name) or name == META]
    if wrong:
        raise ValueError(f"Files of a checkpoint have plain names other than {META}, not {', '.join(wrong)}.")


def write_checksummed(folder: Path, step: int, files: Mapping[str, bytes]) -> None:
    """Make a folder of files, flush it to the disk (fsync), and read it back.

    Raises:
        OSError: it is there already, cannot be written, or does not read back as written; it may be there in part.
    """
    folder.mkdir()
    for name, content in files.items():
        write_new(folder / name, content)
    noted = {name: {"size": len(content), "sha256": _digest(content)} for name, content in files.items()}
    write_new(folder / META, _signed({"format": FORMAT, "step": step, "files": noted}))
    flush_folder(folder)
    try:
        for _ in _checked_files(folder, _read_seal(folder)[1]):
            pass
    except ValueError as error:
        raise OSError(errno.EIO, f"what was written does not read back: {error}") from error


def read_checksummed(folder: Path) -> tuple[int, dict[str, bytes]]:
    """The step and the files of a sealed folder.

    Raises:
        ValueError: it is damaged; says which file and how.
        OSError: it cannot be read for a reason that is no damage, such as missing rights.
    """
    step, noted = _read_seal(folder)
    return step, dict(_checked_files(folder, noted))


def read_step(folder: Path) -> int:
    """The step that a sealed folder tells; its files may be damaged nevertheless.

    Raises:
        ValueError: `meta.json` is missing or damaged.
        OSError: it cannot be read for a reason that is no damage.
    """
    return _read_seal(folder)[0]


@contextmanager
def damage_told() -> Iterator[None]:
    """Make ValueErrors of what reading raises where something is missing or lies on a broken part of the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        raise ValueError(f"{Path(error.filename or '').name}: {error.strerror}") from error


def _checked_files(folder: Path, noted: Mapping[str, tuple[int, str]]) -> Iterator[tuple[str, bytes]]:
    for name, (size, digest) in noted.items():
        with damage_told():
            found = (folder / name).stat().st_size
            content = (folder / name).read_bytes() if found == size else b""
        if found != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
        if _digest(content) != digest:
            raise ValueError(f"the SHA-256 of {name} differs")
        yield name, content


def _read_seal(folder: Path) -> tuple[int, dict[str, tuple[int, str]]]:
    """The step, and of each file the size and SHA-256."""
    with damage_told():
        content = (folder / META).read_bytes()
    try:
        facts = json.loads(content)
        del facts["sha256"]
        if content != _signed(facts):
            raise ValueError("its own SHA-256 differs")
        if facts["format"] != FORMAT:
            raise ValueError(f"it has format {facts['format']}, known is {FORMAT}")
        check_names(facts["files"])
        return int(facts["step"]), {name: (noted["size"], noted["sha256"]) for name, noted in facts["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{META} is damaged: {error}") from error


def _signed(facts: Mapping[str, Any]) -> bytes:
    """Facts as JSON with their own SHA-256, so that no bit of them can change unseen."""
    digest = _digest(json.dumps(facts, sort_keys=True).encode())
    return (json.dumps({**facts, "sha256": digest}, indent=2, sort_keys=True) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
