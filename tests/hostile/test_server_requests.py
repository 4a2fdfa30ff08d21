"""Hostile HTTP to a real server: each request is refused in words or its connection closed, and the next one served.

Slow and torn connections, bodies, forms, tensors, request lines, foreign hosts, and generated requests.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import file_bytes
from PIL import Image
from raw_http import HEADERS, RawAnswer, exchange, head, read_answer
from serve_process import ServeProcess

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")

MAX_BYTES = 300_000
GOOD = file_bytes(Image.fromarray(draw_street(5, 24, 32)[0]), "PNG")
NOISE = file_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 300, 3), dtype=np.uint8)), "JPEG")
LARGE = "?kind=probabilities&kind=overlay&kind=confidence&kind=colour"
"""What is asked of `NOISE`: more than a megabyte."""
POST = "POST /segment HTTP/1.1"
HEADER_SECONDS, BODY_SECONDS = 2.0, 3.0
SPARE_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("attacked")
    RefineNet(encoder="test_resnet", num_classes=5, device="cpu", seed=4).save(folder / "tiny.safetensors")
    limits = {"max_bytes": MAX_BYTES, "max_pixels": 100_000, "connections": 60, "keep_alive_seconds": 30}
    times = {"header_seconds": HEADER_SECONDS, "body_seconds": BODY_SECONDS, "write_seconds": 5, "decode_seconds": 100}
    server = ServeProcess("--model", folder / "tiny.safetensors", folder=folder, **limits, **times, request_seconds=200)
    # The largest image of these tests, as many at once as they send: each thread and each decoding process grows once.
    with ThreadPoolExecutor(6) as clients:
        list(clients.map(lambda _: server.segment(NOISE, LARGE), range(12)))
    yield server
    assert _end_among_slow_clients(server) == 0, server.error_text()
    assert server.error_text() == "", "nothing that a client sends is a fault"


def _end_among_slow_clients(server: ServeProcess) -> int:
    """Ask the server to stop while clients are slow, and return its exit code."""
    address = ("127.0.0.1", server.port)
    parts = (b"", POST.encode() + b"\r\nHost: ", head(POST, {**HEADERS, "Content-Length": 1000}) + b"a")
    slow = [(part, socket.create_connection(address, 60)) for part in parts for _ in range(5)]
    for part, connection in slow:
        connection.sendall(part)
    server.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code = server.wait()
    assert time.monotonic() - started < 25  # 15 s on a machine of its own
    for _, connection in slow:
        connection.close()
    return code


@pytest.fixture(autouse=True)
def unharmed(server: ServeProcess) -> Iterator[None]:
    """After each attack the server answers as before, and has not grown."""
    before, size = server.segment(GOOD).body, memory(server)
    yield
    assert server.segment(GOOD).body == before
    assert memory(server) < size + SPARE_BYTES


def memory(server: ServeProcess) -> int:
    if sys.platform != "linux":
        return 0
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def check(answer: RawAnswer, statuses: set[int]) -> None:
    """An answer is a refusal in JSON that reveals nothing; 0 stands for a closed connection."""
    assert answer.status in statuses, (answer.status, answer.body[:300])
    if answer.status:
        assert set(answer.json) == {"error", "request_id"}
        assert not re.search(rb"Traceback|/tmp|/home|/root|site-packages|\.py\b|uvicorn|starlette|h11", answer.body)
        for name in ("content-security-policy", "x-content-type-options: nosniff", "x-request-id"):
            assert name in answer.head


# What is slow, idle or torn off.


def test_slow_heads_bodies_and_idle_connections_end_while_others_are_served(server: ServeProcess) -> None:
    started = time.monotonic()
    address = ("127.0.0.1", server.port)
    kinds = {
        "idle": b"",
        "head": POST.encode() + b"\r\nHost: 127.0.0.1\r\nX-Slow: ",
        "body": head(POST, {**HEADERS, "Content-Length": 1000}),
    }
    slow = [(kind, socket.create_connection(address, 60)) for kind in kinds for _ in range(10)]
    for kind, connection in slow:
        connection.sendall(kinds[kind])
    while time.monotonic() < started + HEADER_SECONDS / 2:
        for kind, connection in slow:
            if kind != "idle":
                connection.sendall(b"a")
        assert server.segment(GOOD).status == 200
        time.sleep(0.2)
    ends = {kind: read_answer(connection).status for kind, connection in slow}
    assert ends == {"idle": 0, "head": 0, "body": 408}
    assert time.monotonic() - started < 60
    for _, connection in slow:
        connection.close()


def test_more_idle_connections_than_are_allowed_keep_nobody_out(server: ServeProcess) -> None:
    """The one that has sent nothing for longest gives way: 60 are allowed."""
    idle = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(150)]
    statuses = [server.segment(GOOD).status for _ in range(5)]
    assert statuses == [200] * 5
    for connection in idle:
        connection.close()


def test_half_closed_and_torn_off_connections(server: ServeProcess) -> None:
    request = head(POST, {**HEADERS, "Content-Length": len(GOOD)}) + GOOD
    assert exchange(server.port, request, half_closes=True).status in (0, 200)
    for part in (request[:30], request[:-20], request):
        with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by RST
            connection.sendall(part)


def test_clients_that_do_not_read_are_cut(server: ServeProcess) -> None:
    """Answers of a megabyte each, of which the first bytes are taken at most."""
    request = head(f"POST /segment{LARGE} HTTP/1.1", {**HEADERS, "Content-Length": len(NOISE)}) + NOISE
    slow = []
    for _ in range(6):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request)
        slow.append(connection)
    for connection in slow:
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert server.segment(GOOD).status == 200
    time.sleep(6)  # longer than write_seconds
    for connection in slow:
        received = 0
        try:
            while part := connection.recv(1 << 20):
                received += len(part)
        except ConnectionResetError:
            received = -1
        assert received < 1_000_000, "the connection was cut before the end of the answer"
        connection.close()


# Bodies that lie about their size.


@pytest.mark.parametrize(
    ("headers", "body", "statuses"),
    [
        ({"Content-Length": MAX_BYTES + 1}, b"", {413}),
        ({"Content-Length": 2**64}, b"", {413, 400}),
        ({"Content-Length": "9" * 30}, b"", {413, 400}),
        ({"Content-Length": "-5"}, b"", {400}),
        ({"Content-Length": "5, 6"}, b"hello", {400}),
        ({"Content-Length": "0x10"}, b"hello", {400}),
        ({"Content-Length": ""}, b"", {400}),
        ({"Content-Length": 50, "Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n0\r\n\r\n", {400, 415}),
        ({"Transfer-Encoding": "gzip"}, b"hello", {400, 0}),
        ({"Transfer-Encoding": "chunked, chunked"}, b"0\r\n\r\n", {400, 0}),
        ({"Transfer-Encoding": "chunked"}, b"zz\r\nhello\r\n", {400}),
        ({"Transfer-Encoding": "chunked"}, b"-1\r\nhello\r\n", {400}),
        ({"Transfer-Encoding": "chunked"}, b"fffffffffffffffff\r\nhello\r\n", {400, 413, 408}),
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhelloworld\r\n", {400}),
        ({"Transfer-Encoding": "chunked"}, b"0\r\n\r\n", {400}),
        ({"Content-Encoding": "gzip", "Content-Length": 5}, b"hello", {415}),
        ({"Content-Encoding": "br", "Content-Length": 5}, b"hello", {415}),
        ({"Content-Length": 0}, b"", {400}),
    ],
)
def test_lies_about_the_body(server: ServeProcess, headers: dict[str, object], body: bytes, statuses: set[int]) -> None:
    check(exchange(server.port, head(POST, {**HEADERS, **headers}) + body), statuses)


def test_two_different_lengths_are_refused(server: ServeProcess) -> None:
    pairs = [*HEADERS.items(), ("Content-Length", 5), ("Content-Length", 6)]
    check(exchange(server.port, head(POST, pairs) + b"hello!"), {400})


def test_a_body_that_ends_early_is_no_image(server: ServeProcess) -> None:
    answer = exchange(server.port, head(POST, {**HEADERS, "Content-Length": 5000}), GOOD, half_closes=True)
    check(answer, {0, 400, 408})


def test_many_tiny_chunks_are_counted(server: ServeProcess) -> None:
    """A hundred thousand of one byte are as many bytes as they are; more than allowed are refused."""
    chunked = head(POST, {**HEADERS, "Transfer-Encoding": "chunked"})
    few = b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"
    assert exchange(server.port, chunked, few).body == server.segment(GOOD).body
    parts = [b"1\r\na\r\n" * 10_000] * (MAX_BYTES // 10_000 + 1)
    check(exchange(server.port, chunked, *parts), {413, 408})


def test_large_chunks_and_trailers_are_bounded(server: ServeProcess) -> None:
    chunked = head(POST, {**HEADERS, "Transfer-Encoding": "chunked"})
    parts = [b"10000\r\n" + bytes(65536) + b"\r\n"] * (MAX_BYTES // 65536 + 2)
    check(exchange(server.port, chunked, *parts), {413})
    trailers = [b"X-Trailer: " + b"a" * 1000 + b"\r\n"] * 2000
    check(exchange(server.port, chunked, b"1\r\na\r\n0\r\n", *trailers), {400, 0})


def test_a_client_that_waits_for_a_continue_gets_it_or_its_refusal(server: ServeProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(head(POST, {**HEADERS, "Content-Length": len(GOOD), "Expect": "100-continue"}))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(GOOD)
        assert read_answer(connection).status == 200
    check(exchange(server.port, head(POST, {**HEADERS, "Content-Length": 10**9, "Expect": "100-continue"})), {413})


# Forms.


def form(*parts: bytes, boundary: str = "frontier", end: bytes = b"--frontier--\r\n") -> tuple[bytes, str]:
    return b"".join(
        b"--frontier\r\n" + part + b"\r\n" for part in parts
    ) + end, f"multipart/form-data; boundary={boundary}"


def part(disposition: str, content: bytes = GOOD, *more: bytes) -> bytes:
    lines = [b"Content-Disposition: " + disposition.encode("latin-1"), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


FILE = 'form-data; name="file"; filename="a.png"'
FORMS: list[tuple[str, tuple[bytes, str], set[int]]] = [
    ("path as name", form(part('form-data; name="file"; filename="../../etc/passwd"')), {200}),
    ("NUL in name", form(part('form-data; name="file"; filename="a\0b.png"')), {200, 400}),
    ("name not UTF-8", form(part('form-data; name="file"; filename="\xff\xfe.png"')), {200, 400}),
    ("RFC 5987", form(part("form-data; name=\"file\"; filename*=UTF-8''%2e%2e%2fx.png")), {200, 400}),
    ("wrong type", form(part(FILE, GOOD, b"Content-Type: text/html")), {200}),
    ("odd charset", form(part(FILE, GOOD, b"Content-Type: image/png; charset=bogus")), {200}),
    ("transfer encoding", form(part(FILE, GOOD, b"Content-Transfer-Encoding: base64")), {200, 400}),
    ("nested", form(part(FILE, b"--a\r\n\r\n--a--", b"Content-Type: multipart/mixed; boundary=a")), {400, 415}),
    ("no name", form(part('form-data; filename="a.png"')), {400, 200}),
    ("no disposition", form(b"Content-Type: image/png\r\n\r\n" + GOOD), {400}),
    ("no headers", form(GOOD), {400}),
    ("no parts", form(), {400}),
    ("no end", form(part(FILE), end=b""), {200, 400}),
    ("two files", form(part(FILE), part(FILE)), {400}),
    ("a field, no file", form(part('form-data; name="file"', b"text")), {400}),
    ("1001 parts", form(*[part(f'form-data; name="f{k}"', b"x") for k in range(1001)]), {400}),
    ("a field of 200 KB", form(part('form-data; name="text"', bytes(200_000)), part(FILE)), {400}),
    ("line ends before", (b"\r\n" * 100_000, "multipart/form-data; boundary=frontier"), {400}),
    ("another boundary", form(part(FILE), boundary="other"), {400}),
    ("no boundary", (form(part(FILE))[0], "multipart/form-data"), {400}),
    ("empty boundary", form(part(FILE), boundary=""), {400}),
    ("long boundary", form(part(FILE), boundary="x" * 300), {400}),
    ("odd boundary", form(part(FILE), boundary='"\\"'), {400}),
    ("header of 100 KB", form(b"X: " + b"a" * 100_000 + b"\r\n" + part(FILE)), {400, 200}),
]


@pytest.mark.parametrize(("content", "statuses"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_forms(server: ServeProcess, content: tuple[bytes, str], statuses: set[int]) -> None:
    body, media = content
    answer = exchange(server.port, head(POST, {**HEADERS, "Content-Type": media, "Content-Length": len(body)}) + body)
    if answer.status == 200:
        assert answer.body == server.segment(GOOD).body
    check(
        answer if answer.status != 200 else RawAnswer(0, "", b""), statuses | {0} if answer.status == 200 else statuses
    )
    assert answer.status in statuses


# Tensors; see also test_server.py.


INFER = "POST /v2/models/tiny/infer HTTP/1.1"
DEEP = b"[" * 100_000
TENSOR = '"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 3]}]'


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b'{"inputs": ' + DEEP, {400}),
        (b"{" * 50_000, {400}),
        (f"{{{TENSOR.replace('3]}', 'NaN]}')}}}".encode(), {400}),
        (f"{{{TENSOR.replace('3]}', '1e999]}')}}}".encode(), {400}),
        (f"{{{TENSOR.replace('[1, 1, 3]', '[1, 1, 9223372036854775807]')}}}".encode(), {400}),
        (f"{{{TENSOR.replace('UINT8', 'BYTES')}}}".encode(), {400}),
        (
            b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [300, 300, 3], "data": [' + b"1," * 90_000,
            {400},
        ),
        (f'{{"id": 5, {TENSOR}}}'.encode(), {400}),
        (f'{{"id": [], {TENSOR}}}'.encode(), {400}),
        (b"\xff\xfe", {400}),
        (b"\x00" * 1000, {400}),
        (b'"text"', {400}),
        (b"", {400}),
    ],
)
def test_hostile_tensors(server: ServeProcess, body: bytes, statuses: set[int]) -> None:
    headers = {"Host": "127.0.0.1", "Content-Length": len(body)}
    check(exchange(server.port, head(INFER, headers) + body), statuses)


def test_an_id_cannot_write_headers_and_the_last_of_equal_names_counts(server: ServeProcess) -> None:
    body = f'{{"id": "a\\r\\nX-Injected: 1", "id": "b\\r\\nSet-Cookie: c", {TENSOR}}}'.encode()
    answer = exchange(server.port, head(INFER, {"Host": "127.0.0.1", "Content-Length": len(body)}) + body)
    assert answer.status == 200
    assert answer.json["id"] == "b\r\nSet-Cookie: c"
    assert "cookie" not in answer.head
    assert "injected" not in answer.head


# Request lines and headers.


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"GET /\r\n\r\n", {400}),
        (b"GET / HTTP/0.9\r\n\r\n", {400, 403}),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", {400, 403}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 403}),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\0b\r\n\r\n", {400}),
        (b"GET /\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Name: 1\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n", {400}),
        (b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400, 404}),
        (b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: 1\r\n" * 5000 + b"\r\n", {400, 404}),
        (b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", {400, 404}),
        (b"GET http://evil.com/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404, 400}),
        (b"GET //evil.com/%2e%2e/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"GET /static/../settings HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"GET /static/%2e%2e%2fsettings HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"GET /static/..%5csettings HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"GET /static/page.css%00.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"CONNECT evil.com:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400, 404, 405}),
        (b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {405}),
        (b"BREW /segment HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {405}),
        (b"PUT /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", {405}),
        (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400, 404, 405}),
    ],
)
def test_request_lines_and_headers(server: ServeProcess, sent: bytes, statuses: set[int]) -> None:
    check(exchange(server.port, sent), statuses | {0} if len(sent) > 60_000 else statuses)


def test_a_folded_header_is_no_second_request(server: ServeProcess) -> None:
    sent = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\r\n GET /secret HTTP/1.1\r\n\r\n"
    assert exchange(server.port, sent).status in (200, 400)


# Pages of other sites, and names that lead here.


HOSTS = [
    "evil.com",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "evil.com:80",
    "[::ffff:1.2.3.4]",
    "2130706433",
    "x@evil.com",
]
ORIGINS = ["http://evil.com", "null", "http://localhost.evil.com", "https://127.0.0.1", "http://127.0.0.1:1", "file://"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_other_sites_and_rebound_names_are_refused(server: ServeProcess, method: str) -> None:
    for line in (f"{method} /segment HTTP/1.1", f"{method} / HTTP/1.1"):
        for name in HOSTS:
            check(exchange(server.port, head(line, {"Host": name, "Content-Length": 0})), {403})
        for origin in ORIGINS:
            headers = {"Host": f"127.0.0.1:{server.port}", "Origin": origin, "Cookie": "session=1", "Content-Length": 0}
            answer = exchange(server.port, head(line, headers))
            check(answer, {403})
            assert "access-control" not in answer.head


def test_a_preflight_request_allows_nothing(server: ServeProcess) -> None:
    headers = {
        "Host": f"127.0.0.1:{server.port}",
        "Origin": f"http://127.0.0.1:{server.port}",
        "Access-Control-Request-Method": "POST",
    }
    answer = exchange(server.port, head("OPTIONS /segment HTTP/1.1", headers))
    check(answer, {405})
    assert "access-control" not in answer.head


# What the schema promises.


def test_the_schema_is_kept_by_generated_requests(server: ServeProcess) -> None:
    """All checks of schemathesis but one: bytes that fit the schema need not be an image."""
    pytest.importorskip("schemathesis", reason="pip install schemathesis")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--max-examples", "10"]
    found = subprocess.run([*command, *options, "--request-timeout", "100"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_schema_lists_what_is_answered(server: ServeProcess) -> None:
    schema = json.loads(server.ask("GET", "/openapi.json").body)
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert {"400", "413", "503"} <= set(operation["responses"]), path
