"""Files that are never half-written: every file the package makes goes through here."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write `content` so that `path` holds, after a crash or a full disk too, all of it or what was there before.

    Missing folders are made. The bytes go to a temporary file beside the target, are flushed to the disk
    (fsync) and then renamed over it; the folder is flushed last. A symbolic link is followed, so that the file it
    points to is replaced and the link stays.

    Returns:
        The path written.

    Raises:
        ValueError: `path` is a pipe or a device, which must not be replaced by a file.
        OSError: `path` is a folder, its folder cannot be made or written, or the disk is full. Nothing is left behind.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"Cannot write {target}: it is a folder. Name a file in it.")
    if target.exists() and not target.is_file():
        raise ValueError(f"Cannot write {target}: it is a pipe or a device. Name a file.")
    try:
        _replace(target.resolve(), content)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot write {target}: {error.strerror}") from error
    return target


def _replace(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # 50 characters are at most 200 bytes, which leaves room for the rest in a file name's 255.
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder to flush it, and orders renames itself.
        return
    with suppress(OSError):  # some network file systems cannot, and the file itself is already safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refuse_same_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Refuse to write a result over what it is made from.

    Raises:
        ValueError: `target` is `source`, or a link to it.
    """
    if Path(source).exists() and Path(target).exists() and Path(source).samefile(target):
        raise ValueError(f"The output {target} is the input itself: writing would destroy it. Name another file.")
