"""Downloads that are interrupted, resumed, shared and checked: a real server, real sockets, short pauses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_server import (
    HostileServer,
    answer,
    hang,
    serve,
    status,
)
from served_file import CONTENT, MD5, OTHER, QUICK, SHA256, names

from refinenet.io.download.download import Patience, fetch


def test_a_file_is_fetched_recorded_and_not_fetched_again(server: HostileServer, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    told: list[tuple[int, int | None]] = []
    url = server.plan("/file", serve(CONTENT))
    assert fetch(url, target, progress=lambda have, size: told.append((have, size))) == target
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [have for have, _ in told] == sorted({have for have, _ in told})
    assert names(target.parent) == ["file.bin", "file.bin.fetched.json"]
    record = json.loads((target.parent / "file.bin.fetched.json").read_text())
    assert record == {"url": url, "from": url, "bytes": len(CONTENT), "sha256": SHA256}
    fetch(url, target)
    fetch(url, target, sha256=SHA256.upper())
    fetch(url, target, md5=MD5)
    assert len(server.requests) == 1
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_an_empty_file_is_a_file(server: HostileServer, tmp_path: Path) -> None:
    assert fetch(server.plan("/empty", serve(b"")), tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("cut", [0, 1, 511, 65_536, len(CONTENT) - 1])
@pytest.mark.parametrize("reset", [False, True], ids=["orderly", "reset"])
def test_a_dropped_connection_is_taken_up_where_it_broke(
    cut: int, reset: bool, server: HostileServer, tmp_path: Path
) -> None:
    notes: list[str] = []
    url = server.plan("/file", serve(CONTENT, cut=cut, reset=reset), serve(CONTENT))
    fetch(url, tmp_path / "file", patience=QUICK, note=notes.append)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(notes) == 1
    assert "Trying again" in notes[0]
    asked = server.ranges()[1]
    if reset:  # What had come may be thrown away with the connection.
        assert asked is None or int(asked.removeprefix("bytes=").rstrip("-")) <= cut
    else:
        assert asked == (f"bytes={cut}-" if cut else None)


def test_many_drops_do_not_end_a_download_that_goes_on(server: HostileServer, tmp_path: Path) -> None:
    content = os.urandom(7 << 20)
    url = server.plan("/file", *[serve(content, cut=(1 << 20) + 5)] * 20)
    assert fetch(url, tmp_path / "file", patience=Patience(attempts=2, timeout=2, pause=0.01)).read_bytes() == content
    assert len(server.requests) == 7


def test_a_second_run_goes_on_where_the_first_gave_up(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", serve(CONTENT, cut=1000), status(500))
    with pytest.raises(OSError, match=r"HTTP 500 Internal Server Error.*file.part keeps the 1,000 bytes"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert names(tmp_path) == ["file.part", "file.part.json"]
    assert len(server.requests) == 3
    server.plan("/file", serve(CONTENT))
    fetch(url, tmp_path / "file", patience=QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == "bytes=1000-"
    assert server.requests[-1][1]["If-Range"] == '"one"'


@pytest.mark.parametrize(("sha256", "md5"), [(SHA256, None), (None, MD5)], ids=["sha256", "md5"])
def test_a_wrong_hash_is_put_aside_and_the_second_run_starts_anew(
    sha256: str | None, md5: str | None, server: HostileServer, tmp_path: Path
) -> None:
    url = server.plan("/file", serve(OTHER))
    with pytest.raises(ValueError, match="not the expected file") as caught:
        fetch(url, tmp_path / "file", patience=QUICK, sha256=sha256, md5=md5)
    came = hashlib.sha256(OTHER) if sha256 else hashlib.md5(OTHER)
    assert f"{came.hexdigest()}, expected {sha256 or md5}" in str(caught.value)
    assert names(tmp_path) == ["file.wrong"]
    server.plan("/file", serve(CONTENT))
    fetch(url, tmp_path / "file", patience=QUICK, sha256=sha256, md5=md5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges() == [None, None]


def test_sha256_counts_before_md5(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", serve(OTHER))
    with pytest.raises(ValueError, match="SHA256"):
        fetch(url, tmp_path / "file", sha256=SHA256, md5=hashlib.md5(OTHER).hexdigest())


def test_a_login_page_instead_of_the_file_is_called_one(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", answer(b"\n<!DOCTYPE html><title>Log in</title>"))
    with pytest.raises(ValueError, match="It is a web page"):
        fetch(url, tmp_path / "file", sha256=SHA256)


def test_another_version_while_resuming_starts_anew_and_says_so(server: HostileServer, tmp_path: Path) -> None:
    notes: list[str] = []
    url = server.plan("/file", serve(CONTENT, cut=5000), serve(OTHER, etag='"two"'))
    fetch(url, tmp_path / "file", patience=QUICK, note=notes.append)
    assert (tmp_path / "file").read_bytes() == OTHER
    assert "Starting again" in notes[1]
    assert server.requests[1][1]["If-Range"] == '"one"'


def test_a_date_serves_where_there_is_no_strong_tag(server: HostileServer, tmp_path: Path) -> None:
    date = "Mon, 05 Jan 2015 10:00:00 GMT"
    extent = f"bytes 900-{len(CONTENT) - 1}/{len(CONTENT)}"
    url = server.plan(
        "/file",
        answer(CONTENT, cut=900, ETag='W/"weak"', Last_Modified=date),
        answer(CONTENT[900:], ETag='W/"weak"', Last_Modified=date, Content_Range=extent, code=206),
    )
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert server.requests[1][1]["If-Range"] == date


def test_without_version_and_hash_nothing_is_pieced_together(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", serve(CONTENT, cut=5000, etag=None), serve(OTHER, etag=None))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == OTHER
    assert server.ranges() == [None, None]


def test_without_version_a_hash_allows_to_go_on(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", serve(CONTENT, cut=5000, etag=None), serve(CONTENT, etag=None))
    assert fetch(url, tmp_path / "file", patience=QUICK, sha256=SHA256).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=5000-"]


def test_a_part_from_elsewhere_or_of_unknown_version_is_not_continued(server: HostileServer, tmp_path: Path) -> None:
    for note in ('{"url": "http://elsewhere/", "validator": "\\"one\\"", "bytes": 307200}', "{damaged", "[]", ""):
        (tmp_path / "file.part").write_bytes(b"something else")
        (tmp_path / "file.part.json").write_text(note)
        assert fetch(server.plan("/file", serve(CONTENT)), tmp_path / "file").read_bytes() == CONTENT
        assert names(tmp_path) == ["file", "file.fetched.json"]
        (tmp_path / "file").unlink()
    assert server.ranges() == [None] * 4


def test_a_part_that_is_too_long_is_not_continued(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", serve(CONTENT))
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    record = {"url": url, "validator": '"one"', "bytes": len(CONTENT)}
    (tmp_path / "file.part.json").write_text(json.dumps(record))
    assert fetch(url, tmp_path / "file").read_bytes() == CONTENT


END = len(CONTENT) - 1


@pytest.mark.parametrize(
    "extent",
    [
        f"bytes 0-{END}/{END + 1}",
        f"bytes 4999-{END}/{END + 1}",
        f"bytes 5001-{END}/{END + 1}",
        f"bytes 5000-{END}/*",
        f"bytes 5000-{END + 1}/{END + 1}",
        f"bytes 5000-{END}/{END + 2}",
        "bytes 5000-4000/9000",
        "5000-",
        "octets",
        "",
    ],
)
def test_a_part_that_does_not_fit_is_not_used(extent: str, server: HostileServer, tmp_path: Path) -> None:
    numbers = [int(number) for number in re.findall(r"\d+", extent)[:2]] or [5000, END]
    body = OTHER[5000:].ljust(len(OTHER), b"x")[: numbers[-1] - numbers[0] + 1]
    bad = answer(body, code=206, ETag='"one"', Content_Range=extent)
    url = server.plan("/file", serve(CONTENT, cut=5000), bad, serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=5000-", None]


def test_a_part_of_another_length_than_announced_is_not_used(server: HostileServer, tmp_path: Path) -> None:
    bad = answer(OTHER[5000:-1], code=206, ETag='"one"', Content_Range=f"bytes 5000-{END}/{END + 1}")
    url = server.plan("/file", serve(CONTENT, cut=5000), bad, serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


def test_a_part_of_another_version_is_not_used(server: HostileServer, tmp_path: Path) -> None:
    bad = answer(OTHER[5000:], code=206, ETag='"two"', Content_Range=f"bytes 5000-{END}/{END + 1}")
    url = server.plan("/file", serve(CONTENT, cut=5000), bad, serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


def test_a_server_may_give_the_rest_in_several_pieces(server: HostileServer, tmp_path: Path) -> None:
    piece = answer(CONTENT[5000:9000], code=206, ETag='"one"', Content_Range=f"bytes 5000-8999/{END + 1}")
    url = server.plan("/file", serve(CONTENT, cut=5000), piece, serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert server.ranges()[-1] == "bytes=9000-"


def test_a_part_that_nobody_asked_for_is_not_used(server: HostileServer, tmp_path: Path) -> None:
    bad = answer(CONTENT[:10], code=206, ETag='"one"', Content_Range=f"bytes 0-9/{END + 1}")
    url = server.plan("/file", bad, serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert server.ranges() == [None, None]


def test_a_file_that_cannot_fit_is_not_begun(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", answer(CONTENT, Content_Length=str(10**17)))
    with pytest.raises(
        OSError, match=r"needs 100,000,000,000,000,000 more bytes, but the disk has [\d,]+. Free some space"
    ):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert not (tmp_path / "file.part").exists()


def test_a_file_that_is_wrong_already_is_put_aside(server: HostileServer, tmp_path: Path) -> None:
    notes: list[str] = []
    url = server.plan("/file", serve(CONTENT))
    (tmp_path / "file").write_bytes(OTHER)
    assert fetch(url, tmp_path / "file") == tmp_path / "file"
    assert not server.requests  # Somebody put it there, and nothing is known against it.
    fetch(url, tmp_path / "file", sha256=SHA256, note=notes.append)
    assert "file.wrong" in notes[0]
    assert (tmp_path / "file.wrong").read_bytes() == OTHER
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    fetch(url, tmp_path / "file", note=notes.append)
    assert "it has 307,199 bytes instead of 307,200" in notes[1]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_of_another_address_is_not_taken_for_this_one(server: HostileServer, tmp_path: Path) -> None:
    """Two owners call different files trainval.tar.gz, of one size, and no hash is known of either."""
    notes: list[str] = []
    one, other = server.plan("/one/file", serve(CONTENT)), server.plan("/other/file", serve(OTHER))
    fetch(one, tmp_path / "file")
    fetch(other, tmp_path / "file", note=notes.append)
    assert (tmp_path / "file").read_bytes() == OTHER
    assert (tmp_path / "file.wrong").read_bytes() == CONTENT
    assert f"it came from {one}" in notes[0]
    fetch(one, tmp_path / "file", sha256=hashlib.sha256(OTHER).hexdigest())
    assert len(server.requests) == 2  # The hash is right, whatever the address.


def test_a_file_from_a_mirror_is_known_by_its_owner_s_address(server: HostileServer, tmp_path: Path) -> None:
    owner, mirror = server.plan("/file", serve(OTHER)), server.plan("/inside/file", serve(CONTENT))
    for _ in range(2):
        fetch(owner, tmp_path / "file", mirror=mirror)
        fetch(owner, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/inside/file"]
    record = json.loads((tmp_path / "file.fetched.json").read_text())
    assert (record["url"], record["from"]) == (owner, mirror)


def test_a_part_from_a_mirror_is_not_continued_from_the_owner(server: HostileServer, tmp_path: Path) -> None:
    mirror = server.plan("/inside/file", serve(OTHER, cut=1000), status(500))
    owner = server.plan("/file", serve(CONTENT))
    with pytest.raises(OSError, match=rf"{mirror} could not be downloaded"):
        fetch(owner, tmp_path / "file", mirror=mirror, patience=QUICK)
    assert fetch(owner, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert server.ranges()[-1] is None


def test_a_folder_in_the_place_of_the_file_is_said(server: HostileServer, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="Move it away"):
        fetch(server.address, tmp_path)


FETCH = """
import sys
from pathlib import Path
from refinenet.io.download.download import fetch
print("ready", flush=True)
try:
    fetch(sys.argv[1], Path(sys.argv[2]))
except OSError as error:
    sys.exit(str(error))
"""
LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""


def run(code: str, url: str, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, url, str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_is_said_and_the_part_kept(server: HostileServer, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    url = server.plan("/file", serve(CONTENT))
    _, message = run(LIMIT + FETCH, url, tmp_path / "file").communicate(timeout=60)
    assert "file.part: File too large. The downloaded part is kept: free some space and run again" in message
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:100_000]
    assert fetch(url, tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges()[-1] == "bytes=100000-"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped_leaves_what_has_come(
    number: signal.Signals, server: HostileServer, tmp_path: Path
) -> None:
    url = server.plan("/file", hang(CONTENT, 200_000), serve(CONTENT))
    process = run(FETCH, url, tmp_path / "file")
    part = tmp_path / "file.part"
    end = time.monotonic() + 30
    while time.monotonic() < end and not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=30)
    have = part.stat().st_size
    assert 0 < have <= 200_000
    assert fetch(url, tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={have}-"]
    assert names(tmp_path) == ["file", "file.fetched.json"]


def test_of_several_at_once_one_fetches_and_the_others_wait(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", serve(CONTENT, cut=100_000))
    server.plans["/file"].append(serve(CONTENT))
    notes: list[str] = []
    patience = Patience(attempts=3, timeout=5, pause=0.2)

    def work() -> None:
        assert fetch(url, tmp_path / "file", patience=patience, note=notes.append).read_bytes() == CONTENT

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()
    assert len(server.requests) == 2
    assert sum("another process is downloading it" in note for note in notes) == 3
    assert names(tmp_path) == ["file", "file.fetched.json"]
