"""Archives in whole: unpacked once, and never over other files; bombs, lies, damage and kills."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_files import files_in, make, make_tar, refuses, tar_entry, tree, unpacks
from hypothesis import given, settings
from hypothesis import strategies as st

from refinenet.io.download.archives import is_unpacked, marker_of, unpack

GOOD = {"set/images/1.jpg": b"one" * 1000, "set/images/2.jpg": b"", "set/masks/1.png": os.urandom(3000), "list": b"1\n"}


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
