"""Preparations spoilt by bad service, wrong archives or a kill, until a second run finishes the job."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_server import HostileServer, answer, hang, redirect, serve, status
from text_dataset import (
    LABEL_SET,
    PACE,
    SPLITS,
    TRAIN,
    VAL,
    as_tar,
    as_zip,
    check_all,
    owner_files,
    plan,
    published,
    run,
)

from refinenet.datasets.catalog import Download, prepared_folder
from refinenet.datasets.preparation import prepare
from refinenet.datasets.published.prepared_masks import open_prepared

BAD_SERVICE = {
    "404": (status(404), OSError, "HTTP 404 Not Found"),
    "500": (status(500), OSError, "HTTP 500 Internal Server Error"),
    "503": (status(503, "1"), OSError, "HTTP 503 Service Unavailable"),
    "dropped": (serve(TRAIN, cut=700), OSError, "ended after"),
    "reset": (serve(TRAIN, cut=700, reset=True), OSError, "could not be downloaded"),
    # Either the socket or the reader of its bytes reaches the same time limit first.
    "hangs": (hang(TRAIN, 1, seconds=3), OSError, "timed out|sent only 1 bytes in|the connection ended"),
    "length too long": (answer(TRAIN, Content_Length=str(len(TRAIN) + 9)), OSError, "ended after"),
    "length too short": (answer(TRAIN, Content_Length="900"), ValueError, "train.zip was not unpacked"),
    "to ftp": (redirect("ftp://127.0.0.1/x"), OSError, "is not an http"),
    "to a file": (redirect("file:///etc/passwd"), OSError, "is not an http"),
    "loop": (redirect("/train.zip"), OSError, "in a circle"),
    "web page": (answer(b"<html>Please log in</html>"), ValueError, "web page"),
    "escape": (serve(as_tar({"../evil": b"evil"})), ValueError, "'../evil' leads upwards"),
    "absolute": (serve(as_zip({"/tmp/refinenet-evil": b"evil"})), ValueError, "is absolute"),
    "link": (serve(as_tar({"data/train/x": b""}, door="/etc")), ValueError, "'door' is neither"),
    "bomb": (serve(as_tar({"data/train/zeros": bytes(9_000_000)})), ValueError, "a bomb"),
}


@pytest.mark.parametrize("kind", BAD_SERVICE)
def test_bad_service_is_said_does_no_harm_and_a_second_run_finishes(
    kind: str, server: HostileServer, tmp_path: Path
) -> None:
    behaviour, error, message = BAD_SERVICE[kind]
    root = tmp_path / "inner" / "texts"
    (tmp_path / "bystander").write_bytes(b"mine")
    server.plan("/train.zip", behaviour)
    server.plan("/val.tgz", status(404))
    with pytest.raises(error, match=message) as caught:
        run(server, root)
    assert "train.zip" in str(caught.value)
    assert "val.tgz" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bystander", "inner"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["texts"]
    aside = ("train.zip.part", "train.zip.part.json", "train.zip.refused", "train.zip.fetched.json")
    assert {path.name for path in root.iterdir()} <= set(aside)
    plan(server)
    assert run(server, root).problems == ()
    check_all(root)


def test_a_wrong_hash_is_said_and_a_second_run_finishes(server: HostileServer, tmp_path: Path) -> None:
    right = Download(url=f"{server.address}/train.zip", file="train.zip", unpack=True, md5="0" * 32)
    server.plan("/train.zip", serve(TRAIN))
    with pytest.raises(ValueError, match=f"expected {'0' * 32}"):
        prepare("texts", tmp_path, published=published(server.address, downloads=(right,)), progress=False)
    assert not (tmp_path / "data").exists()
    plan(server)
    run(server, tmp_path)
    check_all(tmp_path)


def test_an_archive_with_the_right_hash_is_not_fetched_again(server: HostileServer, tmp_path: Path) -> None:
    evil = as_tar({"../evil": b""})
    file = Download(
        url=server.plan("/train.zip", serve(evil)),
        file="train.zip",
        unpack=True,
        sha256=hashlib.sha256(evil).hexdigest(),
    )
    for _ in range(2):
        with pytest.raises(ValueError, match="leads upwards"):
            prepare("texts", tmp_path, published=published(server.address, downloads=(file,)), progress=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("keep_archives", [True, False])
@pytest.mark.parametrize("content", [as_zip({}), as_zip({"readme.txt": b"Moved elsewhere."})], ids=["empty", "wrong"])
def test_a_sound_archive_without_the_dataset_is_fetched_again(
    content: bytes, keep_archives: bool, server: HostileServer, tmp_path: Path
) -> None:
    for name in ("/train.zip", "/val.tgz"):
        server.plan(name, serve(content))
    with pytest.raises(ValueError, match=r"(?s)train\.zip .*next run downloads it again"):
        run(server, tmp_path, keep_archives=keep_archives)
    assert (tmp_path / "train.zip.refused").exists() == keep_archives
    plan(server)
    assert run(server, tmp_path).problems == ()
    check_all(tmp_path)


def test_an_empty_archive_beside_a_right_one_is_fetched_again_alone(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    server.plan("/val.tgz", serve(as_zip({})))
    assert "val.tgz is empty." in run(server, tmp_path).problems[0]
    plan(server)
    assert run(server, tmp_path).problems == ()
    check_all(tmp_path)
    assert [path for path, _ in server.requests] == ["/train.zip", "/val.tgz", "/val.tgz"]


PREPARE = """
import sys
from pathlib import Path
from text_dataset import prepare, published
address, root, workers = sys.argv[1:]
prepare("texts", Path(root), published=published(address), workers=int(workers))
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and not condition():
        time.sleep(0.005)


def kill_when(condition: Callable[[], bool], address: str, root: Path, workers: int) -> None:
    """Start a preparation, and kill all of its processes once the condition holds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]), PACE: "0.1"}
    command = [sys.executable, "-c", PREPARE, address, str(root), str(workers)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    wait_for(lambda: condition() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_is_killed_while_converting_is_made_good(
    workers: int, server: HostileServer, tmp_path: Path
) -> None:
    plan(server)
    masks = tmp_path / "prepared" / "texts-train" / "masks"
    kill_when(lambda: len(list(masks.rglob("*.png"))) >= 3, server.address, tmp_path, workers)
    written = {path: path.stat().st_mtime_ns for path in masks.rglob("*.png")}
    assert 3 <= len(written) < 8
    assert open_prepared(tmp_path, "texts", "train", LABEL_SET) is None
    run(server, tmp_path)
    check_all(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(server.requests) == 2


def test_a_process_that_is_killed_while_fetching_is_made_good(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    server.plan("/val.tgz", hang(VAL, len(VAL) // 2, seconds=2), serve(VAL))
    kill_when(lambda: (tmp_path / "val.tgz.part").exists(), server.address, tmp_path, 0)
    run(server, tmp_path)
    check_all(tmp_path)
    assert [path for path, _ in server.requests] == ["/train.zip", "/val.tgz", "/val.tgz"]


def test_a_half_moved_archive_is_finished_though_a_split_opens(server: HostileServer, tmp_path: Path) -> None:
    """Leave the folder like a process killed while moving unpacked files into existing folders."""
    plan(server)
    for split in SPLITS:
        for name, content in list(owner_files(split).items())[2:]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    (tmp_path / "train.zip").write_bytes(TRAIN)
    (tmp_path / ".unpacking-val.tgz").mkdir()
    run(server, tmp_path)
    check_all(tmp_path)


def test_old_leftovers_of_the_killed_are_removed(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    run(server, tmp_path)
    folder = prepared_folder(tmp_path, "texts", "train") / "masks"
    (folder.parent / "samples.tsv").unlink()
    for name, age in ((".a.png.1234.tmp", 7200), (".b.png.1234.tmp", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    run(server, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".b.png.1234.tmp", "data"]
