"""What a zip, tar or tar.gz archive holds, entry by entry, read with distrust: only plain files and folders."""

from __future__ import annotations

import errno
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
