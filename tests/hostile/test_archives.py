"""Hostile archives: an error that names the entry, and never a byte outside the target."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinenet.io.download.archives import is_unpacked, marker_of, unpack

GOOD = {"set/images/1.jpg": b"one" * 1000, "set/images/2.jpg": b"", "set/masks/1.png": os.urandom(3000), "list": b"1\n"}


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


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_known_by_content_and_unpacked_once(kind: str, tmp_path: Path) -> None:
    archive, target, told = make(kind, tmp_path / "archive.bin", GOOD), tmp_path / "new" / "target", list[int]()
    unpack(archive, target, progress=lambda done, size: told.append(100 * done // size))
    marker = files_in(target).pop(".unpacked/archive.bin.json")
    assert {**files_in(target), ".unpacked/archive.bin.json": b""} == {**GOOD, ".unpacked/archive.bin.json": b""}
    assert json.loads(marker)["files"] == 4
    assert told == sorted(told)
    assert 0 < told[-1] <= 100
    assert is_unpacked(archive, target)
    (target / "list").write_bytes(b"mine")
    unpack(archive, target)
    assert (target / "list").read_bytes() == b"mine"
    archive.unlink()
    assert is_unpacked(archive, target)
    (target / "list").unlink()
    assert not is_unpacked(archive, target)


def test_another_archive_of_the_same_name_is_not_taken_as_unpacked(tmp_path: Path) -> None:
    target = tmp_path / "target"
    unpack(make("zip", tmp_path / "a", {"one": b"1"}), target)
    unpack(make("zip", tmp_path / "a", {"one": b"1", "two": b"2"}), target)
    assert (target / "two").read_bytes() == b"2"


def test_an_archive_of_the_same_name_from_elsewhere_is_not_taken_as_unpacked(tmp_path: Path) -> None:
    """Also where the first one is gone, so that sizes cannot tell."""
    target, archive = tmp_path / "target", make("zip", tmp_path / "a", {"one": b"1"})
    unpack(archive, target, origin="https://one.example/a")
    archive.unlink()
    assert is_unpacked(archive, target)
    assert is_unpacked(archive, target, origin="https://one.example/a")
    assert not is_unpacked(archive, target, origin="https://two.example/a")
    make("zip", archive, {"two": b"2"})
    unpack(archive, target, origin="https://two.example/a")
    assert (target / "two").read_bytes() == b"2"
    unpack(make("zip", tmp_path / "b", {"three": b"3"}), target)
    assert is_unpacked(tmp_path / "b", target, origin="https://one.example/b")  # Nobody noted where it came from.


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"holds": 3}', b'{"holds": ["one"]}', b'{"bytes": 1}'])
def test_a_damaged_marker_is_none(damage: bytes, tmp_path: Path) -> None:
    archive = make("zip", tmp_path / "a", {"one": b"1"})
    unpack(archive, tmp_path)
    marker_of(archive, tmp_path).write_bytes(damage)
    assert not is_unpacked(archive, tmp_path)
    unpack(archive, tmp_path)
    assert is_unpacked(archive, tmp_path)


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    archive, target = make("tar", tmp_path / "a.tar", GOOD), tmp_path / "target"
    for name in ("set/images/1.jpg", "set/images/mine.jpg", "other"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(GOOD.get(name, b"mine"))
    inode = (target / "set/images/1.jpg").stat().st_ino
    unpack(archive, target)
    found = files_in(target)
    assert {name: found[name] for name in GOOD} == GOOD
    assert found["set/images/mine.jpg"] == found["other"] == b"mine"
    assert (target / "set/images/1.jpg").stat().st_ino == inode


@pytest.mark.parametrize("content", [b"another size", b"two" * 1000], ids=["size", "content"])
def test_other_files_are_never_replaced(content: bytes, tmp_path: Path) -> None:
    archive, target = make("tar", tmp_path / "a.tar", GOOD), tmp_path / "target"
    (target / "set/images").mkdir(parents=True)
    (target / "set/images/1.jpg").write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=r"1 other files or links .*such as .*images/1\.jpg. Move them away"):
        unpack(archive, target)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("what", ["file", "folder", "link", "dangling link"])
def test_what_stands_in_the_way_stays(what: str, tmp_path: Path) -> None:
    archive, target = make("zip", tmp_path / "a.zip", GOOD), tmp_path / "target"
    target.mkdir()
    (tmp_path / "elsewhere").mkdir()
    if what == "file":
        (target / "set").write_bytes(b"")
    elif what == "folder":
        (target / "list").mkdir()
    else:
        (target / "set").symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=r"are in the way"):
        unpack(archive, target)
    assert tree(tmp_path) == before


BAD_NAMES = {
    "../evil": "leads upwards",
    "a/../../evil": "leads upwards",
    "a/../evil": "leads upwards",
    "..": "leads upwards",
    "/tmp/refinenet-evil": "is absolute",
    "//evil": "is absolute",
    "C:/evil": "a backslash or a colon",
    "a/C:evil": "a backslash or a colon",
    "file:stream": "a backslash or a colon",
    "..\\evil": "a backslash or a colon",
    "a\nb": "cannot be printed",
    "a\x1b[31mb": "cannot be printed",
    "a\x7fb": "cannot be printed",
    "a\u202egpj.exe": "cannot be printed",
    "dot.": "ends in a dot or a space",
    "space ": "ends in a dot or a space",
    "folder ./file": "ends in a dot or a space",
    "...": "ends in a dot or a space",
    "n" * 256: "too long",
    "語" * 86: "too long",
    "n" * 5000: "too long",
    "n/" * 600 + "n": "too long",
    ".unpacked/a.json": "is reserved",
    ".Unpacking-x/a": "is reserved",
    "./.unpacked": "is reserved",
    ".": "which is not valid",
}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:20]))
def test_bad_names_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    refuses(make(kind, tmp_path / "a", {"good": b"good", name: b"evil"}), BAD_NAMES[name])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_bad_names_are_refused_in_every_form_of_tar(form: int, tmp_path: Path) -> None:
    refuses(make_tar(tmp_path / "a", [tar_entry("../" * 40 + "evil")], form=form), "leads upwards")


def test_names_with_nul_are_refused(tmp_path: Path) -> None:
    archive = make("zip", tmp_path / "a", {"good": b"", "evil#name": b"evil"})
    archive.write_bytes(archive.read_bytes().replace(b"evil#name", b"evil\0name"))
    refuses(archive, r"'evil\\x00name' has characters that cannot be printed")


def test_names_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    refuses(make_tar(tmp_path / "a", [tar_entry("a\udcffb")], form=tarfile.GNU_FORMAT), "not UTF-8")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/File", "a/file"), "'a/File' and 'a/file' differ only in case"),
        (("Folder/1", "folder/2"), "'Folder' and 'folder' differ only in case"),
        (("caf\u00e9", "cafe\u0301"), "differ only in case or Unicode form"),
        (("STRASSE", "straße"), "differ only in case"),
        (("a", "a/b"), "'a' occurs twice"),
        (("a/b", "a"), "'a' occurs twice"),
        (("a", "./a"), "'a' occurs twice"),
        (("a/b", "a//b"), "'a/b' occurs twice"),
    ],
)
def test_names_that_meet_are_refused(kind: str, names: tuple[str, str], message: str, tmp_path: Path) -> None:
    refuses(make(kind, tmp_path / "a", dict.fromkeys(names, b"x")), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_doubled_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zip").mkdir()
    refuses(make_zip(tmp_path / "zip" / "a", [("one", b"1"), ("one", b"2")]), "'one' occurs twice")
    refuses(make_tar(tmp_path / "a", [tar_entry("one"), tar_entry("one")]), "'one' occurs twice")


def test_names_that_are_good_though_unusual(tmp_path: Path) -> None:
    names = ["./a/b", ".hidden", "-rf", "..a", "a..b", " lead", "語" * 85, "n" * 255, "/".join(["n" * 99] * 9), "%2e"]
    names += ["ça", "quote'\"$`;", "~", "*", "CamVid/0016E5.png"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        target = tmp_path / str(form)
        folders = [tar_entry(name, b"", type=tarfile.DIRTYPE) for name in (".", "./a", "a", "empty/")]
        unpack(make_tar(tmp_path / "a.tar", [*folders, *map(tar_entry, names)], form=form), target)
        assert set(files_in(target)) == {str(Path(name)) for name in names} | {".unpacked/a.tar.json"}
        assert (target / "empty").is_dir()
    unpack(make_zip(tmp_path / "a.zip", [("a/", b""), *((name, b"x") for name in names)]), tmp_path / "zip")
    assert set(files_in(tmp_path / "zip")) == {str(Path(name)) for name in names} | {".unpacked/a.zip.json"}


KINDS = {
    "symbolic link": (tarfile.SYMTYPE, "a symbolic link"),
    "hard link": (tarfile.LNKTYPE, "a hard link"),
    "character device": (tarfile.CHRTYPE, "a device"),
    "block device": (tarfile.BLKTYPE, "a device"),
    "pipe": (tarfile.FIFOTYPE, "a pipe"),
    "sparse": (tarfile.GNUTYPE_SPARSE, "sparse file"),
    "unknown": (b"Z", "of the kind b'Z'"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_links_devices_and_pipes_are_refused(kind: str, packed: bool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    number, message = KINDS[kind]
    evil = tar_entry("evil", b"", type=number, linkname="../../secret")
    archive = make_tar(tmp_path / "a", [tar_entry("good"), evil], packed=packed)
    refuses(archive, f"'evil' is neither a plain file nor a folder, but .*{message}")


def test_a_file_through_a_link_is_refused(tmp_path: Path) -> None:
    link = tar_entry("door", b"", type=tarfile.SYMTYPE, linkname="../..")
    refuses(make_tar(tmp_path / "a", [link, tar_entry("door/evil")]), "'door' is neither")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_zips_hold_no_links_either(mode: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (mode | 0o777) << 16
    refuses(make_zip(tmp_path / "a", [("good", b""), (info, b"../../secret")]), "'evil' is neither a plain file")


def test_overrides_of_names_and_sizes_are_checked_too(tmp_path: Path) -> None:
    for number, headers in enumerate(({"path": "../evil"}, {"path": "/evil"}, {"path": "a\nb"}, {"size": "-512"})):
        (tmp_path / str(number)).mkdir()
        refuses(make_tar(tmp_path / str(number) / "a", [tar_entry("good", pax_headers=headers)]), "not unpacked")
    for number, headers in enumerate(({"size": str(1 << 60)}, {"GNU.sparse.map": "0,1"})):
        (tmp_path / f"x{number}").mkdir()
        refuses(make_tar(tmp_path / f"x{number}" / "a", [tar_entry("good", pax_headers=headers)]), "not unpacked")
    good = make_tar(
        tmp_path / "good.tar", [tar_entry("short", b"content", pax_headers={"path": "long/" * 30 + "name"})]
    )
    unpack(good, tmp_path / "target")
    assert (tmp_path / "target" / ("long/" * 30) / "name").read_bytes() == b"content"


def test_encrypted_and_oddly_compressed_entries_are_refused(tmp_path: Path) -> None:
    for folder, change, message in (("a", 0x1, "'one' is encrypted"), ("b", 0, "unusual way")):
        (tmp_path / folder).mkdir()
        archive = tmp_path / folder / "a.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED if change else zipfile.ZIP_BZIP2) as content:
            content.writestr("one", b"x")
        data = bytearray(archive.read_bytes())
        data[data.index(b"PK\1\2") + 8] |= change
        archive.write_bytes(data)
        refuses(archive, message)


def test_bombs_are_stopped_early(tmp_path: Path) -> None:
    zeros = bytes(60_000_000)
    for kind in ("zip", "tar.gz"):
        (tmp_path / kind).mkdir()
        archive = make(kind, tmp_path / kind / "a", {"zeros": zeros})
        assert len(zeros) > 900 * archive.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(zeros) // 2, limits[1]))  # writing more fails otherwise
        try:
            refuses(archive, "a bomb")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    archive = make("zip", tmp_path / "a", {"zeros": bytes(60_000_000)})
    data = archive.read_bytes()
    assert data.count((60_000_000).to_bytes(4, "little")) == 2
    archive.write_bytes(data.replace((60_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    refuses(archive, "CRC|not unpacked")


def test_headers_cannot_claim_the_memory(tmp_path: Path) -> None:
    """A long name or an extended header is read at once by Python's reader; here it may not be long."""
    for number, kind in enumerate((tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE)):
        (tmp_path / str(number)).mkdir()
        archive = make_tar(tmp_path / str(number) / "a", [tar_entry("x", bytes(8_000_000), type=kind)], packed=True)
        refuses(archive, "a header at byte 512 claims to have")


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 10 + b"\xfc\x00", b"\x80" + b"\xff" * 11])
@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"Z"])
def test_sizes_below_zero_and_beyond_all_bounds_are_refused(size: bytes, kind: bytes, tmp_path: Path) -> None:
    """CVE-2025-8194: a negative size sent Python's reader round in a circle."""
    header = bytearray(tarfile.TarInfo("name").tobuf())
    header[124:136], header[156:157] = size, kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a").write_bytes(header + bytes(10_240))
    refuses(tmp_path / "a", "not unpacked")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_that_are_cut_off_or_damaged_are_refused(kind: str, tmp_path: Path) -> None:
    content = make(kind, tmp_path / "whole", GOOD).read_bytes()
    content = content if kind != "tar" else content[: content.rindex(b"1\n") + 2]
    for number, length in enumerate([1, 100, 511, 512, 600, len(content) // 2, len(content) - 1]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a").write_bytes(content[:length])
        refuses(tmp_path / str(number) / "a", "was not unpacked")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither zip"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"Rar!\x1a\7", "neither"),
        (b"\x1f\x8bjunk", "ended before"),
    ],
)
def test_what_is_no_archive_is_said(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refuses(tmp_path / "a.zip", message)


def test_a_tar_that_is_cut_off_between_two_entries_is_refused(tmp_path: Path) -> None:
    content = make("tar", tmp_path / "a", {"one": b"1", "two": b"2"}).read_bytes()
    (tmp_path / "a").write_bytes(content[:1024])
    refuses(tmp_path / "a", "truncated after 1 entries")


def test_a_bomb_behind_the_end_is_stopped(tmp_path: Path) -> None:
    content = make("tar", tmp_path / "a", {"one": b"1"}).read_bytes()
    (tmp_path / "a").write_bytes(gzip.compress(content + bytes(60_000_000)))
    refuses(tmp_path / "a", "a bomb")


def test_a_zip_that_leads_before_its_beginning_is_refused(tmp_path: Path) -> None:
    content = bytearray(make("zip", tmp_path / "a", {"one": b"1"}).read_bytes())
    content[-6:-2] = (int.from_bytes(content[-6:-2], "little") + 20).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(content)
    refuses(tmp_path / "a", "Download the archive again")


def test_a_missing_archive_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.zip"):
        unpack(tmp_path / "missing.zip", tmp_path / "target")


def test_permissions_owners_and_times_are_not_taken_over(tmp_path: Path) -> None:
    entry = tar_entry("program", b"x", mode=0o6777, uid=12345, gid=12345, mtime=-5)
    folder = tar_entry("folder", b"", type=tarfile.DIRTYPE, mode=0)
    before = os.umask(0o022)
    try:
        unpack(make_tar(tmp_path / "a", [folder, entry, tar_entry("folder/x")]), tmp_path / "target")
    finally:
        os.umask(before)
    found = (tmp_path / "target" / "program").stat()
    assert stat.S_IMODE(found.st_mode) == 0o644
    assert found.st_uid == os.getuid()
    assert abs(found.st_mtime - time.time()) < 60
    assert stat.S_IMODE((tmp_path / "target" / "folder").stat().st_mode) == 0o755


def unpacks(archive: Path, target: Path) -> bool:
    try:
        unpack(archive, target)
    except ValueError as error:
        return "was not unpacked" not in str(error)
    return True


# Python cuts names at NUL when it writes a zip; such names have a test of their own.
NAME = st.text(alphabet=st.sampled_from("ab./\\:~ \né\u0301AB"), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(names=st.lists(NAME, max_size=5), kind=st.sampled_from(["zip", "tar"]))
def test_no_name_leads_outside(names: list[str], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    archive = make(kind, folder / "archive", dict.fromkeys(names, b"x"))
    before = tree(folder)
    is_good = unpacks(archive, folder / "one" / "target")
    found = files_in(folder / "one")
    assert bool(found) == is_good
    if is_good:
        is_file = (not (name.endswith("/") and kind == "zip") for name in names)
        assert len(found) == 1 + len({name for name, keep in zip(names, is_file, strict=True) if keep})
    after = {name: content for name, content in tree(folder).items() if name.split("/")[0] != "one"}
    assert after == before
    assert [path.name for path in (folder / "one").iterdir()] == ["target"]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["zip", "tar", "tar.gz"]))
def test_random_damage_is_an_error_or_harmless(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    archive = make(kind, folder / "archive", {"a/b": b"one" * 100, "long/" * 30 + "name": b"two", "c": b""})
    content = bytearray(archive.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    is_good = unpacks(archive, folder / "one" / "target")
    assert bool(files_in(folder / "one")) == is_good
    assert sorted(path.name for path in folder.iterdir()) == ["archive", "one"]
    assert [path.name for path in (folder / "one").iterdir()] == ["target"]


UNPACK = """
import sys
from pathlib import Path
from refinenet.io.download.archives import unpack
print("ready", flush=True)
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and not condition():
        time.sleep(0.002)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("number", [1, 500])
def test_a_killed_process_is_made_good_by_the_next_run(kind: str, number: int, tmp_path: Path) -> None:
    content = {f"folder {k // 100}/{k}": os.urandom(20_000) for k in range(700)}
    archive, target = make(kind, tmp_path / "a", content), tmp_path / "target"
    process = subprocess.Popen([sys.executable, "-c", UNPACK, str(archive), str(target)])
    wait_for(lambda: len(list(target.rglob("*"))) > number or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in target.iterdir()] == [".unpacking-a"]
    assert not is_unpacked(archive, target)
    unpack(archive, target)
    marker = files_in(target).pop(".unpacked/a.json")
    assert files_in(target) == {**content, ".unpacked/a.json": marker}
