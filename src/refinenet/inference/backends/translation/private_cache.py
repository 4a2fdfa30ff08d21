"""Cache of graphs on disk, shared by all processes of a user and writable by nobody else.

It holds translated networks (`translation_cache`) and exported files that were checked
(`export.loading.checked_files`). Nothing here needs PyTorch.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from refinenet.io.console import print_note
from refinenet.io.sealed_folder import read_checksummed, write_checksummed

LARGEST_CACHE = 4 * 2**30
"""Size limit in bytes for each engine; beyond it the oldest networks are removed."""
_KEY = re.compile(r"[0-9a-f]{32}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_reported: set[Path] = set()
"""Folders already reported as writable by other users; each is reported once per process."""


def cache_folder() -> Path:
    """Return the cache folder: `REFINENET_CACHE`, or `refinenet` in the user's cache folder."""
    named = os.environ.get("REFINENET_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refinenet"


def read_cached(folder: Path, otherwise: str) -> dict[str, bytes] | None:
    """Read the files of a folder; None if there is none or it cannot be trusted.

    Args:
        folder: The folder of an entry.
        otherwise: What happens if it cannot be used, for the note: "the network is translated again".
    """
    if not os.path.lexists(folder):
        return None
    try:
        _refuse_open_entry(folder)
    except ValueError as error:
        print_note(f"{folder} is not used ({error}); {otherwise}.")
    else:
        try:
            return read_checksummed(folder)[1]
        except ValueError as error:
            print_note(f"{folder} is damaged ({error}); {otherwise}.")
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # another process may remove it at the same time
    return None


def trusted_root() -> Path | None:
    """Return the cache folder, or else the one in the home folder, whichever only this user can write to; or None.

    Cached graphs run without another check, and anyone could compute their hashes, so the folder must be private.
    """
    configured, default = cache_folder(), Path.home() / ".cache" / "refinenet"
    for root in dict.fromkeys((configured, default)):
        reason = _why_open(root)
        if reason is None:
            return root
        if root not in _reported:
            _reported.add(root)
            print_note(
                f"Warning: translated networks in {root} are not used: {reason}. Set REFINENET_CACHE to a folder that "
                "only you can write to."
            )
    return None


def _why_open(folder: Path) -> str | None:
    """Describe how another user could change the content of a folder, which may not exist yet; None if nobody can."""
    if not hasattr(os, "getuid"):  # Windows separates the users' caches by other means
        return None
    absolute = folder.absolute()
    try:
        resolved = folder.resolve()
        for path in dict.fromkeys((*reversed(absolute.parents), absolute, *reversed(resolved.parents), resolved)):
            if os.path.lexists(path):
                reason = _why_writable(path, may_be_sticky=path != resolved)
                if reason is not None:
                    return reason
    except (OSError, RuntimeError) as error:
        return f"{folder} cannot be examined ({error})"
    return None


def _why_writable(path: Path, *, may_be_sticky: bool) -> str | None:
    """Describe how another user could replace a path: as its owner, or by its permissions; root is trusted."""
    trusted = (os.getuid(), 0)
    link, target = path.lstat(), path.stat()
    for owner in (link.st_uid, target.st_uid):
        if owner not in trusted:
            return f"{path} belongs to another user (id {owner})"
    if target.st_mode & _OTHERS_WRITE and not (may_be_sticky and target.st_mode & stat.S_ISVTX):
        return f"other users may write to {path} (mode {stat.S_IMODE(target.st_mode):o})"
    return None


def _refuse_open_entry(folder: Path) -> None:
    """Reject a cached network that another user can change although the cache folder is private."""
    if not hasattr(os, "getuid"):
        return
    try:
        for path in (folder.parent, folder, *sorted(folder.iterdir())):
            if path.is_symlink() and path != folder.parent:
                raise ValueError(f"{path.name} is a symbolic link")
            reason = _why_writable(path, may_be_sticky=False)
            if reason is not None:
                raise ValueError(reason)
    except OSError as error:
        raise ValueError(f"{folder.name}: {error.strerror}") from error


def write_cached(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files to the cache atomically; after a failure the network is translated again next time."""
    try:
        for parent in (*reversed(folder.parent.parents), folder.parent):
            parent.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            graph = Path(temporary) / "graph"
            write_checksummed(graph, 0, files)
            for file in graph.iterdir():
                file.chmod(_PRIVATE_FILE)
            graph.chmod(_PRIVATE_FOLDER)
            graph.rename(folder)
        _prune(folder)
    except OSError as error:
        if folder.is_dir():  # another process has written the same files meanwhile
            return
        print_note(f"Warning: the network cannot be cached in {folder}: {error}")


def _prune(newest: Path) -> None:
    """Remove the oldest networks of an engine until the cache is below its size limit."""
    # Folders that are being written have other names.
    folders = [path for path in newest.parent.iterdir() if _KEY.fullmatch(path.name) and path != newest]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    total = _size(newest)
    for folder in folders:
        total += _size(folder)
        if total > LARGEST_CACHE:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be reading or removing it


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
