"""Parts of the server that need no process of their own: token and hosts, queue, faults, slow readers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import pytest
import torch
from dense_network import new_network
from picture_bytes import file_bytes
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.output_kinds import OUTPUT_KINDS, OutputKind

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")
import uvicorn
from fastapi import FastAPI

from refinenet.deployment.server.app import create_app
from refinenet.deployment.server.http.connections import BoundedProtocol
from refinenet.deployment.server.http.refusals import Refusal
from refinenet.deployment.server.runner import serve
from refinenet.deployment.server.settings import ServerSettings
from refinenet.deployment.server.work import WorkQueue


@pytest.fixture(scope="module")
def network() -> RefineNet:
    return RefineNet(encoder="test_resnet", num_classes=3, device="cpu", seed=4)


def ask(app: FastAPI, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, Any]:
    """Send a request through ASGI; return the status and the parsed body. The path may have parameters."""
    status, _, content = send(app, path, method, body, **headers)
    return status, json.loads(content)


def send(app: FastAPI, path: str, method: str, body: bytes, **headers: str) -> tuple[int, str, bytes]:
    """Send a request through ASGI; return the status, the media type and the body."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def take(message: Any) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    named = {"host": "127.0.0.1", **headers}
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"},
        **{"method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": ""},
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
    }
    try:
        asyncio.run(app(scope, receive, take))
    except ValueError:
        assert sent, "a fault is raised for the log after it is answered"
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return int(sent[0]["status"]), dict(sent[0]["headers"])[b"content-type"].decode(), content


def test_a_token_is_asked_for_everywhere_but_health_and_the_page(network: RefineNet) -> None:
    app = create_app(network, ServerSettings(token="secret"))
    for path in ("/model", "/metrics", "/docs", "/openapi.json", "/v2", "/nothing"):
        for sent in ("", "Bearer wrong", "secret", "Bearer é"):
            status, body = ask(app, path, authorization=sent)
            assert (status, set(body)) == (401, {"error", "request_id"})
    assert ask(app, "/model", authorization="Bearer secret")[0] == 200
    assert ask(app, "/healthz")[0] == 200
    assert "secret" not in repr(app.state.service.settings)
    assert ask(create_app(network), "/model")[0] == 200  # another application knows nothing of it


def test_allowed_hosts(network: RefineNet) -> None:
    hosts = ("127.0.0.1:8000", "localhost", "[::1]:80", "one.example", "two.example", "")
    expected = {
        ServerSettings(): [200, 200, 200, 403, 403, 403],
        ServerSettings(allowed_hosts=("one.example",)): [200, 200, 200, 200, 403, 403],
        ServerSettings(host="0.0.0.0"): [200] * 6,
        ServerSettings(host="0.0.0.0", allowed_hosts=("one.example",)): [200, 200, 200, 200, 403, 403],
    }
    for settings, statuses in expected.items():
        app = create_app(network, settings)
        assert [ask(app, "/healthz", host=host)[0] for host in hosts] == statuses


def test_allowed_hosts_ignore_capitals_and_have_no_port(network: RefineNet) -> None:
    app = create_app(network, ServerSettings(host="0.0.0.0", allowed_hosts=("One.Example", "::2")))
    assert [ask(app, "/healthz", host=host)[0] for host in ("one.example:80", "ONE.example", "[::2]:80")] == [200] * 3
    for wrong in ("one.example:443", "http://one.example", "[::2]", ""):
        with pytest.raises(ValueError, match=r"allowed_hosts must be .* without scheme, port or brackets"):
            ServerSettings(allowed_hosts=(wrong,))


def test_malformed_hosts_and_origins_are_refused(network: RefineNet) -> None:
    app = create_app(network, ServerSettings(token="secret"))
    for host in ("[", "[::1", "a[b]"):
        status, body = ask(app, "/healthz", host=host)
        assert (status, host in body["error"]) == (400, True)
    for origin in ("http://[", "null", "127.0.0.1", "http://127.0.0.1.evil"):
        assert ask(app, "/healthz", origin=origin)[0] == 403
    assert ask(app, "/healthz", origin="http://127.0.0.1")[0] == 200


def test_large_tensors_of_real_numbers_must_be_binary() -> None:
    """As JSON, the normals of the largest image take more memory than what is printed at the start allows for it."""
    app = create_app(new_network("classes,normals"), ServerSettings(max_pixels=40 * 40))
    app.state.service.warm_up()

    def infer(side: int, **parameters: bool) -> int:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [side, side, 3], "data": [7] * (side * side * 3)}
        asked = {"inputs": [tensor], "outputs": [{"name": "normals", "parameters": parameters}, {"name": "labels"}]}
        status, _, content = send(app, "/v2/models/refinenet/infer", "POST", json.dumps(asked).encode())
        assert (status == 400) == (b"too many numbers for JSON, 4,800. Set its parameter binary_data" in content)
        return status

    assert [infer(20), infer(40), infer(40, binary_data=True)] == [200, 400, 200]


def test_before_it_is_warm_nothing_is_taken(network: RefineNet) -> None:
    app = create_app(network)
    for method, path in (("GET", "/v2/health/ready"), ("POST", "/segment"), ("GET", "/v2/models/refinenet/ready")):
        assert ask(app, path, method)[0] == 503
    app.state.service.warm_up()
    assert ask(app, "/v2/health/ready") == (200, {"ready": True})
    app.state.service.is_draining = True
    assert ask(app, "/v2/health/ready")[0] == 503
    assert ask(app, "/healthz")[0] == 200


def test_a_fault_is_answered_without_its_reason() -> None:
    broken = RefineNet(encoder="test_resnet", num_classes=3, device="cpu", seed=4)
    with torch.no_grad():
        for parameter in broken.network.parameters():
            parameter.fill_(float("nan"))
    app = create_app(broken)
    app.state.service.is_warm = True
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 3]}
    status, body = ask(app, "/v2/models/refinenet/infer", "POST", json.dumps({"inputs": [tensor]}).encode())
    assert (status, set(body)) == (500, {"error", "request_id"})
    assert "weights" not in body["error"]
    assert b'refinenet_requests_total{code="500"} 1.0' in app.state.service.metrics.render()


def test_values_that_a_file_cannot_hold_are_refused() -> None:
    app = create_app(RefineNet(encoder="test_resnet", outputs="depth", device="cpu", seed=4))
    app.state.service.is_warm = True
    image = file_bytes(Image.new("RGB", (24, 20)), "PNG")
    status, body = ask(app, "/segment?kind=depth&scale=1e9", "POST", image)
    assert (status, set(body)) == (422, {"error", "request_id"})
    assert "choose a smaller scale" in body["error"]


@pytest.fixture(scope="module")
def street_bytes() -> bytes:
    return file_bytes(Image.fromarray(draw_street(2, 40, 56)[0]), "PNG")


@pytest.fixture(scope="module")
def all_outputs() -> FastAPI:
    """A server of a network that has every kind of results."""
    outputs = "classes,depth~laplace:0.5:80,normals,soil=regression~laplace[height:m]"
    app = create_app(new_network(outputs))
    app.state.service.is_warm = True
    return app


BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG",),
    "application/json": (b"{",),
    "application/geo+json": (b"{",),
    "application/octet-stream": (b"PK", b"ply"),
}
"""First bytes of files by media type."""


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_every_kind_has_its_media_type(all_outputs: FastAPI, street_bytes: bytes, kind: str) -> None:
    assert kind in ask(all_outputs, "/model")[1]["kinds"]
    path = f"/segment?kind={kind}" + "&intrinsics=50,50,28,20" * (kind == "cloud")
    status, media, content = send(all_outputs, path, "POST", street_bytes)
    assert status == 200, content
    assert media == OUTPUT_KINDS[kind].media_type_of(OUTPUT_KINDS[kind].suffix)
    assert content.startswith(BEGINNINGS[media])
    named = ask(all_outputs, "/openapi.json")[1]["paths"]["/segment"]["post"]["responses"]["200"]["content"]
    assert media in {*named, "application/json"}


def test_a_kind_of_a_new_suffix_is_a_row(
    all_outputs: FastAPI, street_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = OutputKind(
        of="depth",
        suffix=".csv",
        media_type="text/csv",
        contents={".csv": lambda prediction, _: b"%.3f" % prediction.depth.min()},
    )
    monkeypatch.setitem(OUTPUT_KINDS, "nearest", row)
    status, media, content = send(all_outputs, "/segment?kind=nearest", "POST", street_bytes)
    assert (status, media.partition(";")[0]) == (200, "text/csv")
    assert float(content) >= 0.5
    assert ask(all_outputs, "/segment?kind=nearest&suffix=.npz", "POST", street_bytes)[0] == 422


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="port must be a whole number from 0 to 65535"):
        ServerSettings(port=70_000)
    with pytest.raises(ValueError, match="name must be 1 to 100 letters"):
        ServerSettings(name="a/b")
    with pytest.raises(ValueError, match="Did you mean port"):
        ServerSettings.from_dict({"ports": 7})


def test_a_port_in_use_is_reported(network: RefineNet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Cannot listen at 127.0.0.1, port {port}"):
            serve(network, ServerSettings(port=port))


def test_refused_clients_are_not_asked_to_return_together() -> None:
    """With a second for each request, as assumed before the first, one place is promised for each second."""
    release = threading.Event()
    queue = WorkQueue(workers=1, waiting=0, observe=lambda _: None)

    async def check() -> list[int]:
        running = asyncio.create_task(queue.run(lambda: release.wait(30), 60))
        await asyncio.sleep(0)
        seconds = []
        for _ in range(100):
            with pytest.raises(Refusal) as refused:
                queue.refuse_if_full()
            seconds.append(int(refused.value.headers["Retry-After"]))
        release.set()
        await running
        return seconds

    found = asyncio.run(check())
    assert found[:20] == pytest.approx(range(1, 21), abs=1)
    assert found[59:] == pytest.approx([60] * 41, abs=1), "nobody is sent away for more than a minute"
    queue.close()


def test_the_queue_refuses_what_waits_or_runs_too_long() -> None:
    release, began, waited = threading.Event(), threading.Event(), list[float]()
    queue = WorkQueue(workers=1, waiting=1, observe=waited.append)

    def block() -> int:
        began.set()
        release.wait(30)
        return 7

    async def check() -> None:
        first = asyncio.create_task(queue.run(block, 0.5))
        await asyncio.to_thread(began.wait, 30)
        second = asyncio.create_task(queue.run(lambda: 8, 0.05))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="busy: 2 requests") as third:
            await queue.run(lambda: 9, 30)
        assert third.value.status == 503
        assert int(third.value.headers["Retry-After"]) >= 1
        with pytest.raises(Refusal, match="for its turn") as refused:
            await second
        assert refused.value.status == 503
        with pytest.raises(Refusal, match="took longer than") as refused:
            await first
        assert refused.value.status == 504
        assert queue.pending == 1  # its thread still computes
        release.set()
        assert await queue.run(lambda: 10, 30) == 10

    asyncio.run(check())
    assert queue.pending == 0
    assert len(waited) == 2  # what was refused never began
    queue.close()


def _run_uvicorn(app: Any, settings: ServerSettings) -> tuple[uvicorn.Server, int]:
    protocol: Any = partial(BoundedProtocol, limits=settings)
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, port=0))
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    return server, listener.getsockname()[1]


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_slow_readers_are_cut() -> None:
    size = 1 << 26

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    server, port = _run_uvicorn(app, ServerSettings(write_seconds=0.3, connections=2))
    with socket.create_connection(("127.0.0.1", port), 10) as slow:
        slow.sendall(REQUEST)
        _wait(lambda: len(server.server_state.connections) == 1)
        _wait(lambda: not server.server_state.connections)
    server.should_exit = True


def test_the_body_of_a_response_does_not_wait_for_the_client_to_acknowledge_the_head() -> None:
    server, port = _run_uvicorn(None, ServerSettings())
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        _wait(lambda: len(server.server_state.connections) == 1)
        (connection,) = server.server_state.connections
        served = connection.transport.get_extra_info("socket")
        assert served.getpeername() == client.getsockname()
        assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    server.should_exit = True


def test_idle_connections_give_way_and_busy_ones_do_not() -> None:
    release, started = threading.Event(), list[int]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append(1)
        await asyncio.to_thread(release.wait, 30)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    server, port = _run_uvicorn(app, ServerSettings(connections=2))
    idle = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(2)]
    _wait(lambda: len(server.server_state.connections) == 2)
    busy = []
    for closed in idle:  # the one that is idle for longest gives way
        busy.append(socket.create_connection(("127.0.0.1", port), 30))
        busy[-1].sendall(REQUEST)
        assert _is_closed(closed)
    _wait(lambda: len(started) == 2)
    third = socket.create_connection(("127.0.0.1", port), 30)
    third.sendall(REQUEST)
    assert third.recv(100).startswith(b"HTTP/1.1 503 ")
    release.set()
    assert [each.recv(100)[:13] for each in busy] == [b"HTTP/1.1 200 "] * 2
    for each in (*idle, *busy, third):
        each.close()
    server.should_exit = True


def test_a_slow_body_gives_way_before_a_client_that_has_just_connected() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("type") != "http.disconnect" and message["more_body"]:
            pass

    server, port = _run_uvicorn(app, ServerSettings(connections=2))
    for _ in range(20):  # a busy machine may take so long that the new client counts as silent
        slow = socket.create_connection(("127.0.0.1", port), 30)
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na")
        time.sleep(1.2)
        started = time.monotonic()
        new = socket.create_connection(("127.0.0.1", port), 30)
        third = socket.create_connection(("127.0.0.1", port), 30)
        was_cut = _is_closed(slow)
        is_in_time = time.monotonic() - started < 0.2
        new.setblocking(False)
        with pytest.raises(BlockingIOError) if is_in_time else nullcontext():
            new.recv(1)
        for each in (slow, new, third):
            each.close()
        _wait(lambda: not server.server_state.connections)
        if is_in_time:
            break
    assert is_in_time
    assert was_cut
    server.should_exit = True


def _count_unread(server: uvicorn.Server, client: socket.socket) -> int:
    """Bytes of a response that wait in the server, besides those in the buffers of the system."""
    # A copy, because the server's thread adds and removes connections meanwhile.
    transports = [each.transport for each in server.server_state.connections.copy()]
    own = [each for each in transports if each.get_extra_info("peername") == client.getsockname()]
    return sum(each.get_write_buffer_size() for each in own)


def _has_read(server: uvicorn.Server, client: socket.socket, left: int) -> bool:
    return _count_unread(server, client) < left


def _receive(connection: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(connection.recv(size))


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("readers", "max_pixels", "expected"),
    [
        (0, 12_500_000, [False, True, True]),
        (1, 12_500_000, [True, False, True]),
        (3, 12_500_000, [True, True, True]),
        (3, 1, [False, True, True]),  # so that responses that are read may not take more than others
    ],
)
def test_unread_responses_share_the_memory_of_bodies(readers: int, max_pixels: int, expected: list[bool]) -> None:
    """Of three of 40 MB, 80 MB may be held: of those that are not read, the one that waits for longest is given up."""
    size, started = 40_000_000, list[int]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append(1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    server, port = _run_uvicorn(app, ServerSettings(total_bytes=80_000_000, max_bytes=1000, max_pixels=max_pixels))
    slow = []
    for _ in range(3):
        slow.append(socket.create_connection(("127.0.0.1", port), 30))
        slow[-1].sendall(REQUEST)
        _wait(lambda: len(started) == len(slow))
        _wait(lambda: _count_unread(server, slow[-1]) > 0)
        if len(slow) <= readers:
            left = _count_unread(server, slow[-1]) - 2_000_000  # which is fast enough for half a minute
            _receive(slow[-1], 6_000_000)
            _wait(partial(_has_read, server, slow[-1], left))
        time.sleep(0.3)
    received = []
    for number, each in enumerate(slow):
        content = b"-" * 6_000_000 if number < readers else b""
        with suppress(ConnectionResetError):
            while part := each.recv(1 << 20):
                content += part
                if len(content) > size:
                    break
        received.append(len(content) > size)
        each.close()
    assert received == expected
    server.should_exit = True


def test_a_request_that_would_wait_too_long_is_refused_at_once() -> None:
    release = threading.Event()
    queue = WorkQueue(workers=1, waiting=100, observe=lambda _: None, seconds=1.5)  # 1 s each is assumed

    async def check() -> None:
        first = [asyncio.create_task(queue.run(lambda: release.wait(30), 30)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="busy: 2 requests") as refused:
            await queue.run(lambda: True, 30)
        assert int(refused.value.headers["Retry-After"]) >= 1
        release.set()
        await asyncio.gather(*first)

    asyncio.run(check())
    queue.close()
