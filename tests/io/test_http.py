"""Single exchanges with servers that misbehave: a real server, real sockets, short pauses."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile_server import (
    Behaviour,
    HostileServer,
    answer,
    chunked,
    drip,
    endless,
    hang,
    hostile_server,
    in_seconds,
    raw,
    redirect,
    serve,
    status,
)
from served_file import CONTENT, MD5, QUICK, SHA256, names

from refinenet.io.download.download import Patience, fetch


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_for(code: int, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", status(code), status(code), serve(CONTENT))
    begin = time.monotonic()
    fetch(url, tmp_path / "file", patience=Patience(attempts=3, timeout=1, pause=0.05))
    assert time.monotonic() - begin >= 0.05 + 0.1
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str, server: HostileServer, tmp_path: Path) -> None:
    value = "1" if form == "seconds" else in_seconds(2)
    url = server.plan("/file", status(503, value), serve(CONTENT))
    begin = time.monotonic()
    fetch(url, tmp_path / "file", patience=QUICK)
    assert 0.9 <= time.monotonic() - begin < 4


@pytest.mark.parametrize("value", ["999999999", in_seconds(86_400), "121"], ids=["ages", "a day on", "too long"])
def test_who_asks_for_a_long_wait_is_given_up_at_once(value: str, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", status(503, value))
    with pytest.raises(OSError, match=r"HTTP 503 Service Unavailable and asks to wait [\d,]+ s. Run again later"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "value",
    ["soon", "-5", "1e9", "", "Fri, 99 Foo 2020", in_seconds(-100)],
    ids=["word", "negative", "exponent", "empty", "no date", "past"],
)
def test_a_senseless_retry_after_is_no_reason_to_wait(value: str, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", status(503, value), serve(CONTENT))
    begin = time.monotonic()
    fetch(url, tmp_path / "file", patience=QUICK)
    assert time.monotonic() - begin < 0.9


@pytest.mark.parametrize(
    ("code", "advice"), [(401, "login"), (403, "browser"), (404, "owner's page"), (410, "removed"), (451, "mirror")]
)
def test_a_refusal_ends_at_once_and_says_what_to_do(
    code: int, advice: str, server: HostileServer, tmp_path: Path
) -> None:
    url = server.plan("/file", status(code))
    with pytest.raises(OSError, match=rf"{url}: the server responded with HTTP {code} .*{advice}"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(code: int, server: HostileServer, tmp_path: Path) -> None:
    server.plan("/a/far%20file", serve(CONTENT))
    url = server.plan("/a/file", redirect("next", code))
    server.plan("/a/next", redirect("/a/far file", code))
    assert fetch(url, tmp_path / "file", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("ftp://127.0.0.1/file", "not an http:// or https:// address"),
        ("file:///etc/passwd", "not an http:// or https:// address"),
        ("FILE:/etc/passwd", "not an http:// or https:// address"),
        ("data:text/plain,hello", "not an http:// or https:// address"),
        ("http:///file", "in a circle"),
        ("http://[::1/file", "not an http:// or https:// address"),
        ("", "not an http:// or https:// address"),
        ("/file", "in a circle"),
        ("/other", "in a circle"),
    ],
)
def test_redirects_elsewhere_are_refused(location: str, problem: str, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", redirect(location))
    server.plan("/other", redirect(url))
    with pytest.raises(OSError, match=rf"redirects .*{problem}.*or use a mirror"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert names(tmp_path) == []


def test_endless_redirects_end(server: HostileServer, tmp_path: Path) -> None:
    for number in range(50):
        server.plan(f"/{number}", redirect(f"/{number + 1}"))
    with pytest.raises(OSError, match="too many times"):
        fetch(f"{server.address}/0", tmp_path / "file", patience=QUICK)
    assert len(server.requests) == 11


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "/etc/passwd", "http://", "", "data:,x"])
def test_only_web_addresses_are_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="http:// and https:// addresses"):
        fetch(url, tmp_path / "file")


@pytest.mark.parametrize("url", ["http://127.0.0.1/a b", "http://127.0.0.1/a\r\nX: y", "http://127.0.0.1:99x/"])
def test_damaged_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"address|[Pp]ort"):
        fetch(url, tmp_path / "file", patience=QUICK)


def test_https_is_verified_and_never_left(server: HostileServer, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    made = subprocess.run([*command.split(), "-keyout", key, "-out", certificate], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl is not there to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.plan("/file", serve(CONTENT))
    server.plan("/down", redirect(f"http://127.0.0.1:{server.server_port}/file"))
    address = f"https://127.0.0.1:{server.server_port}"
    with pytest.raises(OSError, match="has no valid certificate"):
        fetch(f"{address}/file", tmp_path / "file", patience=QUICK)
    code = (
        "import sys\nfrom pathlib import Path\nfrom refinenet.io.download.download import fetch\n"
        "try:\n    fetch(sys.argv[1], Path(sys.argv[2]))\nexcept OSError as error:\n    sys.exit(str(error))\n"
    )
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    for path, message in (("/file", ""), ("/down", "from https to the unprotected")):
        target = tmp_path / path.strip("/")
        process = subprocess.run(
            [sys.executable, "-c", code, address + path, target],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert message in process.stderr
        assert target.exists() == (not message)


@pytest.mark.parametrize(
    "behave",
    [hang(CONTENT, 1), hang(CONTENT, 0), drip(CONTENT), drip(CONTENT, at_once=200_000)],
    ids=["one", "none", "drip", "late drip"],
)
def test_a_server_that_falls_silent_is_left(behave: Behaviour, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", behave, serve(CONTENT))
    begin = time.monotonic()
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert 0.4 <= time.monotonic() - begin < 3


def test_a_server_that_never_answers_is_left(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", lambda handler: time.sleep(1.5), serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


def test_a_slow_server_is_borne(server: HostileServer, tmp_path: Path) -> None:
    """A fifth of a second of silence again and again, for longer than the time-out, but enough each time."""

    url = server.plan("/file", drip(CONTENT, size=60_000, pause=0.2))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with hostile_server() as server:
        url = server.address + "/file"
    with pytest.raises(OSError, match=rf"{url} could not be downloaded: .*does not respond .*refused.*Run again later"):
        fetch(url, tmp_path / "file", patience=QUICK)


def test_a_length_that_is_too_long_is_an_error_until_it_is_mended(server: HostileServer, tmp_path: Path) -> None:
    lie = answer(CONTENT, Content_Length=str(len(CONTENT) + 7), ETag='"one"')
    url = server.plan("/file", lie, serve(CONTENT), lie)
    with pytest.raises(OSError, match=r"ended after 307,200 of 307,207 bytes"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert not (tmp_path / "file").exists()
    server.plan("/file", serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1000, 250_000])
def test_a_length_that_is_too_short_is_found_by_the_hash(length: int, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", answer(CONTENT, Content_Length=str(length)))
    with pytest.raises(ValueError, match="not the expected file"):
        fetch(url, tmp_path / "file", patience=QUICK, sha256=SHA256)
    assert (tmp_path / "file.wrong").read_bytes() == CONTENT[:length]


@pytest.mark.parametrize("length", ["-1", "many", "1e6", "0x10", "1, 2", "9" * 30])
def test_a_senseless_length_is_not_believed(length: str, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", answer(CONTENT, Content_Length=length), serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


def test_an_unknown_length_needs_a_hash(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", answer(CONTENT, Content_Length=None))
    with pytest.raises(OSError, match="does not state the length"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert fetch(url, tmp_path / "file", patience=QUICK, md5=MD5).read_bytes() == CONTENT


def test_chunks_end_clearly(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", chunked(CONTENT, whole=False), chunked(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\0",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "zeros", "status", "headers", "line", "chunk"],
)
def test_what_is_no_http_is_tried_again(data: bytes, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", raw(data), serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


def test_an_encoding_that_was_not_asked_for_is_refused(server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", answer(CONTENT, Content_Encoding="gzip"))
    with pytest.raises(OSError, match="encoded as 'gzip'"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert names(tmp_path) == []


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (OK[:-2], b" "),
        (OK + b"X: ", b"a"),
        (OK, b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKS, b"0"),
        (CHUNKS + b"5;", b"a"),
        (CHUNKS + b"5\r\nabcde\r\n0\r\n", b"X: y\r\n"),
        (OK + b"Content-Length: 300000\r\n\r\n", b"a"),
    ],
    ids=["status", "header", "headers", "continue", "chunk size", "chunk extension", "trailer", "body"],
)
def test_a_server_that_drips_is_left_in_every_phase(
    start: bytes, again: bytes, server: HostileServer, tmp_path: Path
) -> None:
    """Each byte comes within the time-out of a socket; without a deadline the second behaviour is never asked for."""
    url = server.plan("/file", endless(start, again), serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_body_without_an_announced_length_is_bounded(server: HostileServer, tmp_path: Path) -> None:
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    for start, again in ((CHUNKS, chunk), (OK + b"\r\n", b"a" * 65_536)):
        url = server.plan("/file", endless(start, again, pause=0.001, seconds=60))
        with pytest.raises(OSError, match=r"sent more than 1,000,000 bytes"):
            fetch(url, tmp_path / "file", patience=Patience(max_unannounced=1_000_000), sha256=SHA256)
        assert not (tmp_path / "file.part").exists()


@pytest.mark.parametrize("name", ["Content-Encoding", "Transfer-Encoding"])
@pytest.mark.parametrize("value", ["gzip", "GZIP, identity", "br", "gzip, chunked", "deflate"])
def test_encodings_are_refused_wherever_they_stand(
    name: str, value: str, server: HostileServer, tmp_path: Path
) -> None:
    url = server.plan("/file", raw(OK + f"{name}: {value}\r\nContent-Length: 5\r\n\r\nabcde".encode()))
    with pytest.raises(OSError, match="encoded as"):
        fetch(url, tmp_path / "file", patience=QUICK)
    assert names(tmp_path) == []


@pytest.mark.parametrize("value", ["Fri, 31 Dec 99999999999999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 +2359"])
def test_a_date_of_no_calendar_is_no_reason_to_wait(value: str, server: HostileServer, tmp_path: Path) -> None:
    url = server.plan("/file", status(503, value), serve(CONTENT))
    assert fetch(url, tmp_path / "file", patience=QUICK).read_bytes() == CONTENT


def test_an_address_with_a_login_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="login") as caught:
        fetch("http://me:secret@127.0.0.1/file", tmp_path / "file", patience=QUICK)
    assert "secret" not in str(caught.value)
