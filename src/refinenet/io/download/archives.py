"""Unpack zip and tar archives that strangers made: plain files and folders below the target, or nothing at all.

An archive is unpacked into a hidden folder inside the target; only when all of it has been read and found sound do its
files move to their places. Permissions, owners and times in the archive are not taken over. `extractall` is not used:
Python's own filters for it have been got round more than once (CVE-2025-4517, for one).
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from refinenet.io.download.archive_entries import Entry, Progress, open_archive
from refinenet.io.download.archive_names import Names
from refinenet.io.files import write_atomically

MAX_RATIO = 200
"""An archive may grow to this many times its size; those of images hardly grow at all."""
SMALL = 1 << 20
"""Bytes that any archive may grow to."""
BLOCK = 1 << 20


def unpack(archive: Path, target: Path, *, origin: str | None = None, progress: Progress | None = None) -> None:
    """Unpack a zip, tar or tar.gz archive, known by its content, into a folder.

    A second run finds that the archive has been unpacked and does nothing; after an interrupted one it begins again.
    Files that are there already with the same content stay.

    Args:
        archive: The archive.
        target: The folder; it is made where it is missing.
        origin: The address that it is known by: what another one's archive of the same name held does not count.
        progress: Told how far it is.

    Raises:
        ValueError: the archive is damaged, or holds something that does not belong there, such as a link, a name that
            leads outside, two names that are one on some systems, or far more bytes than its size lets expect. The
            entry is named, and nothing is left behind.
        FileExistsError: another file is in the place of one of the archive's; nothing was moved.
        OSError: the disk is full, or something cannot be read or written.
    """
    if is_unpacked(archive, target, origin=origin):
        return
    temporary = target / f".unpacking-{archive.name[:50]}"
    if temporary.is_dir():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        count = _extract(archive, temporary, progress or _say_nothing)
        if hasattr(os, "sync"):
            os.sync()  # The marker must not outlive, in a power failure, the files that it vouches for.
        _refuse_conflicts(archive, temporary, target)
        tops = sorted(path.name for path in temporary.iterdir())
        _merge(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    marker = {"origin": origin, "bytes": archive.stat().st_size, "files": count, "holds": tops}
    write_atomically(marker_of(archive, target), json.dumps(marker, indent=1).encode())


def marker_of(archive: Path, target: Path) -> Path:
    """The file that says that an archive has been unpacked into a folder; to unpack it again, delete this file."""
    return target / ".unpacked" / f"{archive.name}.json"


def is_unpacked(archive: Path, target: Path, *, origin: str | None = None) -> bool:
    """Whether this archive, which need not be there any more, was unpacked, and what it held is still in the folder."""
    try:
        marker = json.loads(marker_of(archive, target).read_text("utf-8"))
        is_here = all((target / name).exists() for name in marker["holds"])
        is_same = origin is None or marker.get("origin") in (None, origin)
        return is_here and is_same and (not archive.exists() or archive.stat().st_size == marker["bytes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def was_empty(archive: Path, target: Path) -> bool:
    """Whether an archive was unpacked into a folder and held no file."""
    try:
        return bool(json.loads(marker_of(archive, target).read_text("utf-8"))["files"] == 0)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def forget(archive: Path, target: Path) -> None:
    """Unpack the archive anew when it is next asked for; what it held stays.

    Raises:
        OSError: the marker cannot be removed.
    """
    marker_of(archive, target).unlink(missing_ok=True)


def is_interrupted(archive: Path, target: Path, *, origin: str | None = None) -> bool:
    """Whether the archive, or what was begun of unpacking it, is there, but its unpacking was not finished."""
    temporary = target / f".unpacking-{archive.name[:50]}"
    return (archive.exists() or temporary.exists()) and not is_unpacked(archive, target, origin=origin)


def _say_nothing(*_: object) -> None:
    """For callers who do not listen."""


def _extract(archive: Path, folder: Path, progress: Progress) -> int:
    """Unpack into an empty folder; the number of files."""
    allowed = max(archive.stat().st_size * MAX_RATIO, SMALL)
    free = shutil.disk_usage(folder).free
    names, spent, files = Names(), 0, 0
    with open_archive(archive, allowed, progress) as entries:
        for entry in entries:
            place = folder / names.place(entry.name, is_folder=entry.content is None)
            (place if entry.content is None else place.parent).mkdir(parents=True, exist_ok=True)
            for count in _write(place, entry):
                spent += count
                if spent > allowed:
                    raise ValueError(f"at {entry.name!r} it has grown to more than {allowed:,} bytes: a bomb")
                if spent > free:
                    raise OSError(errno.ENOSPC, f"{archive} does not fit into the {free:,} bytes of the disk")
            files += entry.content is not None
    return files


def _write(place: Path, entry: Entry) -> Iterator[int]:
    """Write a file, block by block; the number of bytes of each, before it is written."""
    if entry.content is None:
        return
    with place.open("xb") as stream:
        while block := entry.content.read(BLOCK):
            yield len(block)
            stream.write(block)


def _refuse_conflicts(archive: Path, source: Path, target: Path) -> None:
    conflicts = sorted(_conflicts(source, target))
    if conflicts:
        raise FileExistsError(
            f"{archive} was not unpacked: {len(conflicts)} other files or links stand in the way, such as "
            f"{conflicts[0]}. Move them away, or name another folder."
        )


def _conflicts(source: Path, target: Path) -> Iterator[Path]:
    for entry in source.iterdir():
        place = target / entry.name
        if place.is_symlink():
            yield place
        elif entry.is_dir() and place.is_dir():
            yield from _conflicts(entry, place)
        elif place.exists() and (entry.is_dir() or not place.is_file() or not filecmp.cmp(entry, place, shallow=False)):
            yield place


def _merge(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        place = target / entry.name
        if not place.exists():
            entry.rename(place)
        elif place.is_dir():
            _merge(entry, place)
