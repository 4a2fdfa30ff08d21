"""Unpack zip and tar archives that strangers made: plain files and folders below the target, or nothing at all.

An archive is unpacked into a hidden folder inside the target; only when all of it has been read and found sound do its
files move to their places. Permissions, owners and times in the archive are not taken over. `extractall` is not used:
Python's own filters for it have been got round more than once (CVE-2025-4517, for one).
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
"""Bytes in UTF-8: of each part of a name, and of the whole."""
RESERVED = ".unpack"
"""How the names of our own markers and temporary folders begin."""


class Names:
    """The names met so far in one archive."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}

    def place(self, name: str, *, is_folder: bool) -> PurePosixPath:
        """The place that a name means, relative to the folder.

        Args:
            name: As the archive has it.
            is_folder: Whether it is a folder's.

        Raises:
            ValueError: the name leads outside, is unusual, or was met before, if only in another spelling.
        """
        parts = _parts(name)
        if not parts and not is_folder:
            raise ValueError(f"a file has the name {_short(name)}, which is none")
        for depth in range(1, len(parts) + 1):
            self._register("/".join(parts[:depth]), is_folder or depth < len(parts))
        return PurePosixPath(*parts)

    def _register(self, place: str, is_folder: bool) -> None:
        key = _fold(place)
        known, was_folder = self._seen.get(key, (place, True))
        if known != place:
            raise ValueError(
                f"the names {_short(known)} and {_short(place)} differ only in case or in how letters are encoded, and "
                "are one on some systems"
            )
        if key in self._seen and not (is_folder and was_folder):
            raise ValueError(f"the name {_short(place)} stands there twice")
        self._seen[key] = (place, is_folder)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    problem = None
    if not name.isprintable():
        problem = "has characters that cannot be printed, or is no UTF-8"
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
"""Bytes that Python's tar reader may take into memory at once: far above any sound header."""

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

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
"""What Python's readers of archives raise at damaged ones."""
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or a folder in an archive."""

    name: str
    """As the archive has it, unchecked."""
    content: IO[bytes] | None
    """To be read before the next entry is asked for; None for a folder."""


@contextmanager
def open_archive(archive: Path, allowed: int, progress: Progress) -> Iterator[Iterator[Entry]]:
    """The entries of an archive, known by its content.

    Args:
        archive: A zip, tar or tar.gz file.
        allowed: Bytes that it may grow to.
        progress: Told how far it is.

    Raises:
        ValueError: it is no such archive, damaged, or holds something else than plain files and folders; also whatever
            ValueError is raised inside the context, with the archive named.
    """
    try:
        with archive.open("rb") as stream:
            yield _entries(stream, allowed, progress, archive.stat().st_size)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # The disk's trouble; EINVAL is a damaged archive that leads before its own beginning.
        raise ValueError(
            f"{archive} was not unpacked: {str(error).rstrip('.') or type(error).__name__}. Nothing of it was kept. "
            "Get the archive again, from its owner or a mirror."
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
            vars(archive)["members"].clear()  # It would remember all of them.
            count += 1
            _check_count(count)
            _check_tar_member(member)
            if member.isdir():
                yield Entry(name=member.name, content=None)
            elif (content := archive.extractfile(member)) is not None:
                with closing(content):
                    yield Entry(name=member.name, content=content)
            report()
        # The reader takes a damaged header for the end, as it does the end of a file that was cut off.
        if not reader.last or reader.last.strip(b"\0"):
            raise ValueError(f"it is damaged or cut off after {count:,} entries")
        while reader.read(1 << 20):  # gzip's checksum comes at the very end.
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
    """What the tar reader reads from: forwards only, a little at a time, and not without end."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, allowed: int) -> None:
        super().__init__()
        self._stream, self._allowed, self._position = stream, allowed, 0
        self.last = b""
        """The bytes last read."""

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes."""
        if not 0 <= size <= LARGEST_READ:
            raise ValueError(f"a header at byte {self._position:,} claims to have {size:,} bytes")
        self.last = self._stream.read(size)
        self._position += len(self.last)
        if self._position > self._allowed:
            raise ValueError(f"it has grown to more than {self._allowed:,} bytes, far too many for its size: a bomb")
        return self.last

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._position

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Go forward to a place counted from the start."""
        if whence:
            raise ValueError("only places counted from the start are known")
        if position < self._position:
            raise ValueError(f"it leads back from byte {self._position:,} to {position:,}")
        while self._position < position and self.read(min(position - self._position, LARGEST_READ)):
            pass
        return self._position


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
