"""Unpacking of untrusted zip and tar archives: either plain files and folders below the target, or nothing.

An archive is unpacked into a hidden folder inside the target; its files move to their places only after all of it has
been read and found valid. Permissions, owners and times in the archive are ignored. `extractall` is not used because
Python's own filters for it have been bypassed more than once (such as CVE-2025-4517).
"""

from __future__ import annotations

import errno
import filecmp
import gzip
import io
import json
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from refinenet.io.files import write_atomically

MAX_PART = 255
MAX_NAME = 1024
"""Maximum UTF-8 bytes of a whole name; of each part of it, `MAX_PART`."""
RESERVED = ".unpack"
"""Prefix of the names of our own markers and temporary folders."""


class Names:
    """Names found so far in an archive."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}

    def place(self, name: str, *, is_folder: bool) -> PurePosixPath:
        """Return the path for a name, relative to the target.

        Args:
            name: Name as in the archive.
            is_folder: Whether it is the name of a folder.

        Raises:
            ValueError: The name leads outside, is unusual, or occurred before, perhaps in another spelling.
        """
        parts = _parts(name)
        if not parts and not is_folder:
            raise ValueError(f"a file has the name {_short(name)}, which is not valid")
        for depth in range(1, len(parts) + 1):
            self._register("/".join(parts[:depth]), is_folder or depth < len(parts))
        return PurePosixPath(*parts)

    def _register(self, place: str, is_folder: bool) -> None:
        key = _fold(place)
        known, was_folder = self._seen.get(key, (place, True))
        if known != place:
            raise ValueError(
                f"the names {_short(known)} and {_short(place)} differ only in case or Unicode form, and are the "
                "same on some systems"
            )
        if key in self._seen and not (is_folder and was_folder):
            raise ValueError(f"the name {_short(place)} occurs twice")
        self._seen[key] = (place, is_folder)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    problem = None
    if not name.isprintable():
        problem = "has characters that cannot be printed, or is not UTF-8"
    elif "\\" in name or ":" in name:
        problem = "has a backslash or a colon"
    elif name.startswith("/"):
        problem = "is absolute"
    elif ".." in parts:
        problem = "leads upwards"
    elif any(part.endswith((".", " ")) for part in parts):
        problem = "has a part that ends in a dot or a space"
    elif len(name.encode()) > MAX_NAME or any(len(part.encode()) > MAX_PART for part in parts):
        problem = f"is too long (at most {MAX_PART} bytes for each part, {MAX_NAME} in all)"
    elif parts and parts[0].lower().startswith(RESERVED):
        problem = "is reserved"
    if problem:
        raise ValueError(f"the name {_short(name)} {problem}")
    return parts


def _fold(place: str) -> str:
    return unicodedata.normalize("NFC", place.casefold())


def _short(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]}...")


MAX_ENTRIES = 1_000_000
LARGEST_READ = 1 << 22
"""Maximum bytes that Python's tar reader may read at once: far above any valid header."""

Progress = Callable[[int, int], None]
"""Called with the amount done, and the total."""

_ZIP, _GZIP = (b"PK\3\4", b"PK\5\6"), b"\x1f\x8b"
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)
"""Errors of Python's archive readers on damaged archives."""
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """File or folder in an archive."""

    name: str
    """Name as in the archive, unchecked."""
    content: IO[bytes] | None
    """Content, to be read before the next entry; None for a folder."""


@contextmanager
def open_archive(archive: Path, allowed: int, progress: Progress) -> Iterator[Iterator[Entry]]:
    """Open the entries of an archive, whose format is recognised by its content.

    Args:
        archive: A zip, tar or tar.gz file.
        allowed: Maximum bytes of all unpacked files.
        progress: Called with the amount done, and the total.

    Raises:
        ValueError: It is not such an archive, damaged, or holds something else than plain files and folders. A
            ValueError raised inside the context is raised again with the name of the archive.
    """
    try:
        with archive.open("rb") as stream:
            yield _entries(stream, allowed, progress, archive.stat().st_size)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # an error of the disk; EINVAL is a damaged archive with an offset before its own beginning
        raise ValueError(
            f"{archive} was not unpacked: {str(error).rstrip('.') or type(error).__name__}. Nothing was kept. "
            "Download the archive again, from its owner or a mirror."
        ) from error


def _entries(stream: IO[bytes], allowed: int, progress: Progress, size: int) -> Iterator[Entry]:
    start = stream.read(512)
    stream.seek(0)
    if start.startswith(_ZIP):
        yield from _zip_entries(stream, allowed, progress)
    elif start.startswith(_GZIP):
        with gzip.open(stream) as content:
            yield from _tar_entries(_Reader(content, allowed), lambda: progress(stream.tell(), size))
    elif _is_tar(start):
        yield from _tar_entries(_Reader(stream, allowed), lambda: progress(stream.tell(), size))
    else:
        is_page = start.lstrip().lower().startswith((b"<!doctype", b"<html"))
        raise ValueError(f"it is neither zip, tar nor tar.gz{', but a web page' if is_page else ''}")


def _is_tar(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _zip_entries(stream: IO[bytes], allowed: int, progress: Progress) -> Iterator[Entry]:
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        _check_count(len(entries))
        declared, done = sum(entry.file_size for entry in entries), 0
        if declared > allowed:
            raise ValueError(f"it declares {declared:,} bytes, more than the {allowed:,} allowed for its size: a bomb")
        for entry in entries:
            _check_zip_entry(entry)
            if entry.orig_filename.endswith("/"):
                yield Entry(name=entry.orig_filename, content=None)
                continue
            with archive.open(entry) as content:
                yield Entry(name=entry.orig_filename, content=content)
            done += entry.file_size
            progress(done, declared)


def _check_zip_entry(entry: zipfile.ZipInfo) -> None:
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    if entry.flag_bits & 0x1:
        raise ValueError(f"{name!r} is encrypted")
    if kind not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        what = "a symbolic link" if kind == stat.S_IFLNK else f"of the kind {kind:o}"
        raise ValueError(f"{name!r} is neither a plain file nor a folder, but {what}")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} is compressed in an unusual way (method {entry.compress_type})")


def _tar_entries(reader: _Reader, report: Callable[[], None]) -> Iterator[Entry]:
    count = 0
    with tarfile.open(fileobj=reader, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (member := archive.next()) is not None:
            vars(archive)["members"].clear()  # it would keep all of them in memory
            count += 1
            _check_count(count)
            _check_tar_member(member)
            if member.isdir():
                yield Entry(name=member.name, content=None)
            elif (content := archive.extractfile(member)) is not None:
                with closing(content):
                    yield Entry(name=member.name, content=content)
            report()
        # The reader takes a damaged header, or the end of a truncated file, for the end of the archive. A valid archive
        # ends with blocks of zeros.
        if not reader.last or reader.last.strip(b"\0"):
            raise ValueError(f"it is damaged or truncated after {count:,} entries")
        while reader.read(1 << 20):  # the checksum of gzip comes at the very end
            pass


def _check_tar_member(member: tarfile.TarInfo) -> None:
    if member.issparse():
        raise ValueError(f"{member.name!r} is neither a plain file nor a folder, but a sparse file")
    if member.size < 0 or not (member.isreg() or member.isdir()):
        what = _KINDS.get(member.type, f"of the kind {member.type!r} and {member.size} bytes")
        raise ValueError(f"{member.name!r} is neither a plain file nor a folder, but {what}")


def _check_count(count: int) -> None:
    if count > MAX_ENTRIES:
        raise ValueError(f"it has more than {MAX_ENTRIES:,} entries")


class _Reader(io.RawIOBase):
    """Stream for the tar reader: forward only, in small pieces, and limited in size."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, allowed: int) -> None:
        super().__init__()
        self._stream, self._allowed, self._position = stream, allowed, 0
        self.last = b""
        """Bytes of the last read."""

    def read(self, size: int = -1, /) -> bytes:
        """Read the next `size` bytes."""
        if not 0 <= size <= LARGEST_READ:
            raise ValueError(f"a header at byte {self._position:,} claims to have {size:,} bytes")
        self.last = self._stream.read(size)
        self._position += len(self.last)
        if self._position > self._allowed:
            raise ValueError(f"it has grown to more than {self._allowed:,} bytes, far too many for its size: a bomb")
        return self.last

    def tell(self) -> int:
        """Return the number of bytes read."""
        return self._position

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Move forward to an offset from the start."""
        if whence:
            raise ValueError("only offsets from the start are supported")
        if position < self._position:
            raise ValueError(f"it leads back from byte {self._position:,} to {position:,}")
        while self._position < position and self.read(min(position - self._position, LARGEST_READ)):
            pass
        return self._position


MAX_RATIO = 200
"""Maximum ratio of unpacked to packed size; archives of images hardly grow at all."""
SMALL = 1 << 20
"""Unpacked bytes that every archive may have."""
BLOCK = 1 << 20


def unpack(archive: Path, target: Path, *, origin: str | None = None, progress: Progress | None = None) -> None:
    """Unpack a zip, tar or tar.gz archive, recognised by its content, into a folder.

    A second call finds that the archive has been unpacked and does nothing; after an interruption it starts again.
    Existing files with the same content stay.

    Args:
        archive: The archive.
        target: The folder, which is created if missing.
        origin: Address of the archive; an archive of the same name from another address is unpacked again.
        progress: Called with the amount done, and the total.

    Raises:
        ValueError: The archive is damaged, or holds something that is not allowed, such as a link, a name that leads
            outside, two names that are the same on some systems, or far more bytes than its size suggests. The entry
            is named, and nothing is left behind.
        FileExistsError: Another file is in the place of one of the archive; nothing was moved.
        OSError: The disk is full, or something cannot be read or written.
    """
    if is_unpacked(archive, target, origin=origin):
        return
    temporary = target / f".unpacking-{archive.name[:50]}"
    if temporary.is_dir():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        count = _extract(archive, temporary, progress or _ignore)
        if hasattr(os, "sync"):
            os.sync()  # before the marker: after a loss of power it must not vouch for files that were lost
        _refuse_conflicts(archive, temporary, target)
        tops = sorted(path.name for path in temporary.iterdir())
        _merge(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    marker = {"origin": origin, "bytes": archive.stat().st_size, "files": count, "holds": tops}
    write_atomically(marker_of(archive, target), json.dumps(marker, indent=1).encode())


def marker_of(archive: Path, target: Path) -> Path:
    """Return the file that marks an archive as unpacked into a folder; delete it to unpack the archive again."""
    return target / ".unpacked" / f"{archive.name}.json"


def is_unpacked(archive: Path, target: Path, *, origin: str | None = None) -> bool:
    """Whether this archive, which may be deleted by now, was unpacked, and its content is still in the folder."""
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
    """Remove the marker of an archive, so that it is unpacked again next time; its files stay.

    Raises:
        OSError: The marker cannot be removed.
    """
    marker_of(archive, target).unlink(missing_ok=True)


def is_interrupted(archive: Path, target: Path, *, origin: str | None = None) -> bool:
    """Whether unpacking of the archive was started or is possible, but has not been finished."""
    temporary = target / f".unpacking-{archive.name[:50]}"
    return (archive.exists() or temporary.exists()) and not is_unpacked(archive, target, origin=origin)


def _ignore(*_: object) -> None:
    """Ignore progress."""


def _extract(archive: Path, folder: Path, progress: Progress) -> int:
    """Unpack into an empty folder, and return the number of files."""
    allowed = max(archive.stat().st_size * MAX_RATIO, SMALL)
    free = shutil.disk_usage(folder).free
    names, written, files = Names(), 0, 0
    with open_archive(archive, allowed, progress) as entries:
        for entry in entries:
            place = folder / names.place(entry.name, is_folder=entry.content is None)
            (place if entry.content is None else place.parent).mkdir(parents=True, exist_ok=True)
            for count in _write(place, entry):
                written += count
                if written > allowed:
                    raise ValueError(f"at {entry.name!r} it has grown to more than {allowed:,} bytes: a bomb")
                if written > free:
                    raise OSError(errno.ENOSPC, f"{archive} does not fit into the {free:,} bytes of the disk")
            files += entry.content is not None
    return files


def _write(place: Path, entry: Entry) -> Iterator[int]:
    """Write a file block by block, and yield the size of each block before it is written."""
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
            f"{archive} was not unpacked: {len(conflicts)} other files or links are in the way, such as "
            f"{conflicts[0]}. Move them away, or choose another folder."
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
