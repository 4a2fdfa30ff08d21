"""Atomic writing of files: every file that the package writes goes through here."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_STEM = 50
"""Characters of a file name that its temporary file keeps: at most 200 bytes, of the 255 that a name may have."""
_ADDRESS = re.compile(
    r"(?:(?=[^/]*://)([a-z][a-z0-9+.-]+)|"
    r"(https?|ftps?|sftp|s3a?|gs|gcs|azure|az|abfss?|wasbs?|hf|hdfs|file|data|wandb|mlflow|ssh|smb|webdavs?)):",
    re.IGNORECASE,
)
"""Scheme of an address. With a single slash after it, as `Path` leaves it, only well-known schemes match."""
_CANNOT_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM}
"""Errors of file systems that cannot flush a folder, or do not let it be opened."""


_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of invisible characters with an effect: control and format characters (some reverse the writing
direction), surrogates (how Python represents bytes that are not text), and line ends."""


def quote_controls(text: object, *, keep_lines: bool = False) -> str:
    r"""Escape characters that control a terminal or a log, as `\x1b`, `\u202e`, `\udcff`.

    Args:
        text: Text, or a path or other value, which is converted to text.
        keep_lines: Whether to keep line breaks, as in a message of several lines.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(_quote_control(character, keep_lines) for character in plain)


def _quote_control(character: str, keep_lines: bool) -> str:
    if unicodedata.category(character) not in _CONTROLS or (keep_lines and character == "\n"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def refuse_address(what: str, value: object, advice: str) -> None:
    """Refuse an address such as `https://...`, `s3://...` or `data:...` where a file or folder is needed.

    Args:
        what: Beginning of the message, such as "An image".
        value: Value that a user passed; accepted if it is not a text or path, or if such a file exists.
        advice: What to do instead.

    Raises:
        ValueError: It is an address.
    """
    if not isinstance(value, str | os.PathLike):
        return
    text = os.fspath(value)
    match = _ADDRESS.match(text) if isinstance(text, str) else None
    if match is None or os.path.lexists(text):
        return
    # `Path` collapses two slashes into one.
    address = text if text[match.end() :].startswith("//") else f"{match[0]}/{text[match.end() :]}"
    scheme = (match[1] or match[2]).lower()
    if scheme == "data":
        shown = f"{text[:24]}..." if len(text) > 27 else text
        raise ValueError(f"{what} must be a file, not the data address {shown!r}. {advice}")
    if not text[match.end() :].startswith("/"):
        return
    if scheme == "file":
        advice = f"Pass the path itself: {urlsplit(address).path or '/'}."
    raise ValueError(f"{what} must be a local file or folder, not the address {address}. {advice}")


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file completely or not at all, even after a crash or on a full disk.

    Missing folders are created. The bytes go to a temporary file beside the target, are flushed to the disk (fsync)
    and then renamed over it; the folder is flushed last. A symbolic link is followed, so that the file it points to
    is replaced and the link stays.

    Returns:
        The path written.

    Raises:
        ValueError: `path` is a pipe or a device, which must not be replaced by a file.
        OSError: `path` is a folder, its folder cannot be created or written, or the disk is full; nothing is left.
    """
    target = Path(path)
    with replacing(target) as temporary, _naming(target):
        write_new(temporary, content)
    return target


@contextmanager
def stream_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a seekable stream to write a file as `write_atomically` does, for content that is too large for memory.

    The file replaces `path` at the end of the `with` block, unless the block raises.

    Raises:
        ValueError: As `write_atomically`.
        OSError: As `write_atomically`.
    """
    target = Path(path)
    with replacing(target) as temporary:
        with _naming(target):
            stream = io.BufferedWriter(_NamedFile(temporary, target))
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())


class _NamedFile(io.FileIO):
    """Temporary file whose errors name the file that it will become."""

    def __init__(self, temporary: Path, target: Path) -> None:
        super().__init__(temporary, "xb")
        self._target = target

    def write(self, content: Any, /) -> int:
        with _naming(self._target):
            return super().write(content) or 0


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path` that replaces `path` at the end, unless the context raises.

    It is flushed to the disk first. After an error it is removed, and `path` is unchanged. Missing folders are created;
    a symbolic link is followed.

    Raises:
        ValueError: `path` is a pipe or a device, which must not be replaced by a file.
        OSError: `path` is a folder, its folder cannot be created or written, or no file was written.
    """
    target = Path(path)
    _refuse_no_file(target)
    place = _follow(target)
    with _naming(target):
        make_folders(place.parent)
    with scratch_file(place) as temporary:
        yield temporary
        # Content first, then the name: a rename that reaches the disk before the content would leave an empty file.
        with _naming(target):
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            temporary.replace(place)
    flush_folder(place.parent)


def _follow(target: Path) -> Path:
    """Return the file that a path leads to through any links; it need not exist yet."""
    place = Path(os.path.realpath(target))
    if place.is_symlink():
        raise OSError(errno.ELOOP, f"Cannot write {target}: it is a circular link. Choose another file.")
    return place


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, f"Cannot write {target}: {error.strerror}") from error


@contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path`, which is removed at the end; missing folders are created.

    Raises:
        OSError: Its folder cannot be created.
    """
    make_folders(path.parent)
    # In the same folder, because a rename is atomic only within a file system; random, for writers at the same time.
    temporary = path.with_name(f".{path.name[:_LONGEST_STEM]}.{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable(path: str | os.PathLike[str]) -> None:
    """Check before long work that its result can be written.

    Raises:
        ValueError: `path` is a pipe or a device.
        OSError: `path` is a folder, or it would lie in something that is not a folder or not writable.
    """
    target = Path(path)
    _refuse_no_file(target)
    nearest = next(parent for parent in _follow(target).parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise NotADirectoryError(f"Cannot write {target}: {nearest} is not a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"Cannot write {target}: the folder {nearest} is not writable.")


def refuse_blocked(target: Path) -> None:
    """Check that a file can be written to a place in a folder of results, and does not lead out of the folder.

    Raises:
        OSError: It is a link or a folder, or the system does not allow the name (too long, no permission).
    """
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise type(error)(error.errno, f"Cannot write {target}: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise FileExistsError(
            f"Cannot write {target}: it is a link to {_read_link(target)}, which would be overwritten instead. "
            "Remove the link."
        )
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"Cannot write {target}: it is a folder. Rename it, or choose another output.")


def _read_link(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return "another place"


_WRITE_HERE = "Write to a local folder, and copy it from there."


def _refuse_no_file(target: Path) -> None:
    refuse_address("An output", target, _WRITE_HERE)
    try:
        mode = target.stat().st_mode
    except OSError:  # missing, name too long, circular links, failing disk: writing will report what matters
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"Cannot write {target}: it is a folder. Choose a file in it.")
    if not stat.S_ISREG(mode):
        raise ValueError(f"Cannot write {target}: it is a pipe or a device. Choose a file.")


def write_new(path: Path, content: bytes) -> None:
    """Write a new file, and flush it to the disk (fsync).

    Raises:
        OSError: The file exists, or cannot be written; it may be left incomplete.
    """
    # O_BINARY: Windows would translate line ends otherwise.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create a folder and its missing parents, so that they survive a loss of power.

    Raises:
        OSError: One of them cannot be created.
    """
    missing = [ancestor for ancestor in (folder, *folder.parents) if not os.path.exists(ancestor)]
    if not missing and os.path.isdir(folder):
        return
    refuse_address("An output", folder, _WRITE_HERE)
    dangling = next((ancestor for ancestor in missing if os.path.islink(ancestor)), None)
    if dangling is not None:
        raise FileExistsError(
            errno.EEXIST, f"the folder {dangling} is a link to {_read_link(dangling)}, which cannot be reached"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # A new folder is an entry in its parent, so the parents are flushed.
    for made in missing:
        flush_folder(made.parent)


def flush_folder(folder: Path) -> None:
    """Flush to the disk which files were created, renamed and removed in a folder, if the file system can.

    Raises:
        OSError: The disk fails.
    """
    if os.name == "nt":  # Windows cannot open a folder to flush it, and keeps the order of renames itself
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


def sweep_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; no process may be writing to it.

    Raises:
        OSError: The folder cannot be read.
    """
    _sweep(folder, lambda _: True)


def sweep_leftovers_of(targets: Iterable[Path]) -> None:
    """Remove the temporary files that killed processes left of these files; others may be writing beside them.

    A folder that cannot be read is skipped: writing into it will report the error.
    """
    stems: dict[Path, set[str]] = {}
    for target in targets:
        stems.setdefault(target.parent, set()).add(target.name[:_LONGEST_STEM])
    for folder, names in stems.items():
        with suppress(OSError):
            _sweep(folder, names.__contains__)


def _sweep(folder: Path, is_ours: Callable[[str], bool]) -> None:
    for path in folder.iterdir() if os.path.isdir(folder) else ():
        temporary = _TEMPORARY.fullmatch(path.name)
        if temporary is not None and is_ours(temporary[1]) and path.is_file():
            path.unlink(missing_ok=True)


def refuse_to_replace(targets: Iterable[Path]) -> None:
    """Refuse to replace files at places that the user did not name.

    Raises:
        FileExistsError: One of them exists.
    """
    existing = next((target for target in targets if os.path.lexists(target)), None)
    if existing is not None:
        raise FileExistsError(
            f"{existing} already exists. Replace it with --overwrite (in Python overwrite=True), or choose another "
            "--output."
        )


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to the same file, which need not exist yet."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def refuse_same_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Refuse to overwrite an input with its result.

    Raises:
        ValueError: `target` is `source`, or a link to it.
    """
    if is_same_file(source, target):
        raise ValueError(f"The output {target} is the input itself: writing would destroy it. Choose another file.")
