"""Files that are never half-written: every file the package makes goes through here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write `content` so that `path` holds, after a crash or a full disk too, all of it or what was there before.

    Missing folders are made. The bytes go to a temporary file beside the target, are flushed to the disk
    (fsync) and then renamed over it; the folder is flushed last.

    Returns:
        The path written.

    Raises:
        OSError: `path` is a folder, or its folder cannot be made or written. Nothing is left behind.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"Cannot write {target}: it is a folder. Name a file in it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A symbolic link is followed, so that the file it points to is replaced and the link stays.
        target = target.resolve()
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot write {target}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)
    return Path(path)


def _umask() -> int:
    """The process's file mode mask, which `mkstemp` ignores."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder to flush it, and orders renames itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
