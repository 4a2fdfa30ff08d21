"""Archives made in memory, what lies in the folders that they are unpacked into, and their refusal."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from refinenet.io.download.archives import is_unpacked, unpack


def tar_entry(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def make_tar(
    path: Path,
    entries: Sequence[tuple[tarfile.TarInfo, bytes]],
    *,
    packed: bool = False,
    form: int = tarfile.PAX_FORMAT,
) -> Path:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz" if packed else "w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(stream.getvalue())
    return path


def make_zip(path: Path, files: Sequence[tuple[str | zipfile.ZipInfo, bytes]], packed: bool = True) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for info, content in files:
            archive.writestr(info, content)
    return path


def make(kind: str, path: Path, files: Mapping[str, bytes]) -> Path:
    if kind == "zip":
        return make_zip(path, list(files.items()))
    return make_tar(path, [tar_entry(*file) for file in files.items()], packed=kind == "tar.gz")


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: a file's content, or what else it is."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        content = path.read_bytes() if kind == stat.S_IFREG else oct(kind)
        found[str(path.relative_to(folder))] = content
    return found


def files_in(folder: Path) -> dict[str, bytes | str]:
    return {name: content for name, content in tree(folder).items() if isinstance(content, bytes)}


def refuses(archive: Path, message: str) -> None:
    """Unpacking is refused with this message, and leaves the parent folder as it was, but for an empty target."""
    target = archive.parent / "inner" / "target"
    target.mkdir(parents=True)
    before = tree(archive.parent)
    with pytest.raises(ValueError, match=message) as caught:
        unpack(archive, target)
    assert str(archive) in str(caught.value)
    assert "Nothing was kept" in str(caught.value)
    assert tree(archive.parent) == before
    assert not is_unpacked(archive, target)


def unpacks(archive: Path, target: Path) -> bool:
    try:
        unpack(archive, target)
    except ValueError as error:
        return "was not unpacked" not in str(error)
    return True
