"""Hostile entries of archives: an error that names the entry, and never a byte outside the target."""

from __future__ import annotations

import os
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from archive_files import files_in, make, make_tar, make_zip, refuses, tar_entry, tree, unpacks
from hypothesis import given, settings
from hypothesis import strategies as st

from refinenet.io.download.archives import unpack

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
