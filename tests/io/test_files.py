"""Atomic writing of files, also on a full disk and when the process is killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refinenet.io.files import write_atomically

WRITE_FOR_EVER = """
import sys
from refinenet.io.files import write_atomically
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomically(sys.argv[1], letter * 3_000_000)
"""

WRITE_TOO_MUCH = """
import resource, signal, sys
from refinenet.io.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_atomically(sys.argv[1], b"new" * 10_000)
except OSError as error:
    print(error)
"""


def test_content_is_written_and_replaced_and_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.bin"
    assert write_atomically(target, b"one") == target
    assert write_atomically(str(target), b"") == target
    assert target.read_bytes() == b""
    write_atomically(target, bytes(range(256)))
    assert target.read_bytes() == bytes(range(256))
    assert list(target.parent.iterdir()) == [target]


def test_a_bare_name_is_written_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_atomically("bare.txt", b"x") == Path("bare.txt")
    assert (tmp_path / "bare.txt").read_bytes() == b"x"


def test_the_process_s_file_mode_mask_is_honoured(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link, dangling = tmp_path / "far" / "target", tmp_path / "link", tmp_path / "dangling"
    target.write_bytes(b"old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "missing" / "file")
    write_atomically(link, b"new")
    write_atomically(dangling, b"made")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert (tmp_path / "missing" / "file").read_bytes() == b"made"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["dangling", "far", "file", "link", "missing", "target"]


def test_an_open_reader_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old content")
    with target.open("rb") as reader:
        write_atomically(target, b"new")
        assert reader.read() == b"old content"


@pytest.mark.parametrize("name", ["x" * 255, "語" * 85, "é" * 127], ids=["one byte", "three bytes", "two bytes"])
def test_the_longest_names_can_be_written(name: str, tmp_path: Path) -> None:
    write_atomically(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folders_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write_atomically(tmp_path, b"x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="pipe or a device"):
        write_atomically(pipe, b"x")
    assert pipe.is_fifo()


def test_a_file_in_the_way_of_a_folder_is_an_error_that_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OSError, match=r"Cannot write .*file.inner: (Not a directory|File exists)"):
        write_atomically(tmp_path / "file" / "inner", b"x")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="the folder that nobody can write to is Linux's /proc")
def test_a_folder_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(OSError, match=r"Cannot write /proc/self/refinenet-test"):
        write_atomically("/proc/self/refinenet-test", b"x")


def run(program: str, target: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, text=True)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails in its middle."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    output, _ = run(WRITE_TOO_MUCH, target).communicate(timeout=60)
    assert output.endswith(f"Cannot write {target}: File too large\n")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_killed_process_never_leaves_a_torn_file(tmp_path: Path) -> None:
    """Nor does anybody who reads while it writes ever see one."""
    target = tmp_path / "file"
    whole = (b"a" * 3_000_000, b"b" * 3_000_000)
    write_atomically(target, whole[0])
    for delay in (0.02, 0.05, 0.08, 0.11, 0.14):
        process = run(WRITE_FOR_EVER, target)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + delay
        reads = []
        while time.monotonic() < end:
            reads.append(target.read_bytes() in whole)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert all(reads)
        assert target.read_bytes() in whole
    # Leftovers of the killed are hidden, and a later write is not bothered by them.
    assert write_atomically(target, b"end").read_bytes() == b"end"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["file"]
