"""A real server process on a free port: results equal those in Python, and nothing that is sent hurts it."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from picture_bytes import chunk, file_bytes
from PIL import Image
from serve_process import Answer, ServeProcess, multipart

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")

MAX_BYTES, MAX_PIXELS, QUEUE = 400_000, 60_000, 7
SIZES = [(40, 56), (33, 47), (64, 48), (7, 90)]


@pytest.fixture(scope="module")
def network() -> RefineNet:
    return RefineNet(encoder="test_resnet", num_classes=5, device="cpu", seed=4)


@pytest.fixture(scope="module")
def model_file(network: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny model.safetensors"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def servers(model_file: Path) -> Iterator[list[ServeProcess]]:
    """The server that runs, if any."""
    running: list[ServeProcess] = []
    yield running
    for server in running:
        assert server.stop() == 0, server.error_text()


@pytest.fixture
def server(servers: list[ServeProcess], model_file: Path) -> ServeProcess:
    """A server with one thread; started again after a test that has stopped it."""
    if not servers:
        words = ("--model", model_file, "--workers", "1", "--max-bytes", str(MAX_BYTES), "--drain-seconds", "60")
        limits = {"queue": QUEUE, "max_pixels": MAX_PIXELS, "header_seconds": 1, "body_seconds": 1.5}
        servers.append(ServeProcess(*words, folder=model_file.parent, **limits, request_seconds=100))
    return servers[0]


def picture(seed: int, size: tuple[int, int] = (40, 56)) -> bytes:
    return file_bytes(Image.fromarray(draw_street(seed, *size)[0]), "PNG")


def large_picture(seed: int) -> bytes:
    """An image of as many pixels as are read, which takes the network a while."""
    return file_bytes(Image.fromarray(draw_street(seed, 200, 300)[0]), "JPEG")


def read(content: bytes) -> npt.NDArray[Any]:
    return np.array(Image.open(io.BytesIO(content)))


def read_number(metrics: bytes, name: str) -> float:
    return next((float(line.split()[-1]) for line in metrics.decode().splitlines() if line.startswith(name)), 0.0)


def refused(answer: Answer, status: int, words: str = "") -> None:
    """An answer is JSON with a reason and an id, and reveals nothing else."""
    assert answer.status == status, answer.body
    assert set(answer.json) == {"error", "request_id"}
    assert words in answer.json["error"]
    assert answer.headers.get("x-request-id", answer.json["request_id"]) == answer.json["request_id"]
    assert b"Traceback" not in answer.body
    assert b"/tmp" not in answer.body
    assert b".py" not in answer.body


def test_it_says_where_it_listens_what_it_serves_and_its_limits(server: ServeProcess) -> None:
    assert server.lines[0].startswith("Serving tiny_model (classes; 5 classes) at http://127.0.0.1:")
    assert f"{MAX_PIXELS:,} pixels" in server.lines[1]
    assert f"{QUEUE} waiting" in server.lines[1]


def test_labels_from_eight_threads_are_those_of_python(server: ServeProcess, network: RefineNet) -> None:
    pictures = [picture(seed, SIZES[seed % len(SIZES)]) for seed in range(16)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(server.segment, pictures))
    expected = [network.segment(content).labels for content in pictures]
    assert [answer.status for answer in answers] == [200] * 16
    for answer, labels in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(read(answer.body), labels)
    assert len({int(each) for labels in expected for each in np.unique(labels)}) > 1


@pytest.mark.parametrize("kind", ["colour", "overlay", "confidence", "palette"])
def test_pictures_are_those_of_python(server: ServeProcess, network: RefineNet, kind: Any) -> None:
    content = picture(1)
    answer = server.segment(content, f"?kind={kind}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.body == network.segment(content).encode(".png", kind)


def test_the_form_the_accept_header_and_several_kinds(server: ServeProcess, network: RefineNet) -> None:
    content = picture(2)
    found = network.segment(content)
    body, headers = multipart(content, name="../../../etc/passwd")
    assert server.ask("POST", "/segment", body, headers).body == found.encode(".png")
    assert server.segment(content, Accept="image/jpeg").body == found.encode(".jpg")
    summary = server.segment(content, Accept="application/json").json
    assert (summary["width"], summary["height"]) == (56, 40)
    assert summary["areas"] == pytest.approx(dict(found.areas))
    both = server.segment(content, "?kind=labels&kind=coco").json
    assert base64.b64decode(both["files"]["labels"]["base64"]) == found.encode(".png")
    coco = json.loads(base64.b64decode(both["files"]["coco"]["base64"]))
    assert sum(each["area"] for each in coco["annotations"]) == found.labels.size
    unsure = server.segment(content, "?abstain_below=0.99")
    np.testing.assert_array_equal(read(unsure.body), network.segment(content, abstain_below=0.99).labels)


def test_a_turned_photo_is_upright(server: ServeProcess, network: RefineNet) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = file_bytes(Image.fromarray(draw_street(3, 40, 56)[0]), "JPEG", exif=exif)
    labels = read(server.segment(content).body)
    assert labels.shape == (56, 40)
    np.testing.assert_array_equal(labels, network.segment(content).labels)


def test_the_model_describes_itself(server: ServeProcess, network: RefineNet) -> None:
    found = server.ask("GET", "/model").json
    assert [each["name"] for each in found["classes"]] == list(network.label_set.names)
    assert found["ignore_index"] == network.label_set.ignore_index
    assert found["kinds"][:2] == ["summary", "labels"]
    assert len(found["kinds"]) == len(set(found["kinds"]))
    assert found["limits"]["max_pixels"] == MAX_PIXELS
    assert "token" not in found["limits"]


def _header_alone(width: int, height: int) -> bytes:
    fields = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


GOOD = picture(5)
TRUNCATED = file_bytes(Image.fromarray(draw_street(5, 40, 56)[0]), "JPEG")[:-300]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "empty"),
        (TRUNCATED, 400, "damaged"),
        (GOOD[: len(GOOD) // 2], 400, "damaged"),
        (_header_alone(300, 201), 413, "300 x 201"),
        (_header_alone(60_000, 60_000), 413, "pixels"),
        (b"<html><script>alert(1)</script>", 415, "is not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "is not a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "is not a JPEG"),
        (b"PK\x03\x04" + bytes(100), 415, "is not a JPEG"),
        (b"\x93NUMPY" + bytes(100), 415, "is not a JPEG"),
        (b"/etc/passwd", 415, "is not a JPEG"),
        (b"http://127.0.0.1/secret.png", 415, "is not a JPEG"),
        (b"II*\0" + b"\xff" * 40, 415, "start is damaged"),
        (bytes(MAX_BYTES + 1), 413, "400,001 bytes"),
    ],
)
def test_what_is_no_image_is_refused(server: ServeProcess, content: bytes, status: int, words: str) -> None:
    refused(server.segment(content), status, words)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("?kind=depth", 422, "its outputs are classes"),
        ("?kind=nothing", 422, "kind must be one of"),
        ("?suffix=.jpg&kind=labels", 422, "as .png, not as '.jpg'"),
        ("?suffix=/../../x", 422, "as .png"),
        ("?abstain_below=2", 422, "abstain_below"),
        ("?abstain_below=nan", 422, "abstain_below"),
        ("?bands=1,two,3", 422, "bands must be numbers"),
        ("?value_range=1", 422, "value_range must be 2 numbers"),
        ("?scale=7", 422, "no effect"),
    ],
)
def test_foreign_parameters_are_refused(server: ServeProcess, query: str, status: int, words: str) -> None:
    refused(server.segment(GOOD, query), status, words)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "words"),
    [
        ("POST", "/segment", {"Content-Type": "application/json"}, 415, "'application/json'"),
        ("POST", "/segment", {"Content-Encoding": "gzip", "Content-Type": "image/png"}, 415, "Compressed"),
        ("POST", "/segment", {"Host": "evil.com"}, 403, "evil.com"),
        ("POST", "/segment", {"Host": "localhost.evil.com"}, 403, "evil.com"),
        ("POST", "/segment", {"Origin": "http://evil.com"}, 403, "evil.com"),
        ("POST", "/segment", {"Origin": "null"}, 403, "null"),
        ("POST", "/segment", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        ("DELETE", "/segment", {}, 405, "DELETE"),
        ("GET", "/static/%2e%2e/app.py", {}, 404, "nothing"),
        ("GET", "/static/app.py", {}, 404, "nothing"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, 404, "nothing"),
    ],
)
def test_foreign_requests_are_refused(
    server: ServeProcess, method: str, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    body = GOOD if method == "POST" else None
    answer = server.ask(method, path, body, {"Content-Type": "image/png", **headers} if body else headers)
    assert answer.status == status, answer.body
    assert words in answer.json["error"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        multipart(GOOD)[0][:-400],
        b"--frontier\r\nContent-Disposition: form-data; name=x\r\n\r\ntext\r\n--frontier--\r\n",
        b"\r\n" * 1000,
        multipart(GOOD)[0].replace(b"--frontier--\r\n", b"") + multipart(GOOD)[0],
    ],
    ids=["cut short", "no file", "line ends", "two files"],
)
def test_foreign_forms_are_refused(server: ServeProcess, body: bytes) -> None:
    refused(server.ask("POST", "/segment", body, multipart(b"")[1]), 400)


def test_a_large_body_in_chunks_is_refused(server: ServeProcess) -> None:
    parts = iter([bytes(50_000)] * (MAX_BYTES // 50_000 + 1))
    refused(server.ask("POST", "/segment", parts, {"Content-Type": "image/png"}), 413)


def test_what_is_no_http_is_refused(server: ServeProcess) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00 hello\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(sent)
            head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert set(json.loads(body)) == {"error", "request_id"}


def test_a_slow_body_gets_408_and_a_slow_head_is_cut(server: ServeProcess) -> None:
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), 10) as slow_head:
        slow_head.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\n")
        with socket.create_connection(("127.0.0.1", server.port), 10) as slow_body:
            head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n"
            slow_body.sendall(head)
            slow_body.sendall(b"begin")
            assert server.segment(GOOD).status == 200  # meanwhile others are served
            assert slow_body.recv(1000).startswith(b"HTTP/1.1 408 ")
        with suppress(ConnectionResetError):
            assert slow_head.recv(1) == b""
    assert 1 <= time.monotonic() - started < 10


def test_more_than_the_queue_holds_get_503_and_the_others_their_labels(
    server: ServeProcess, network: RefineNet
) -> None:
    content, count = large_picture(6), QUEUE + 13
    barrier = threading.Barrier(count)

    def ask(_: int) -> tuple[Answer, float]:
        barrier.wait()
        started = time.monotonic()
        return server.segment(content), time.monotonic() - started

    with ThreadPoolExecutor(count) as threads:
        found = list(threads.map(ask, range(count)))
    busy = [(answer, seconds) for answer, seconds in found if answer.status != 200]
    assert 1 <= len(busy) <= count - QUEUE - 1
    for answer, _ in busy:
        refused(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
    assert max(seconds for _, seconds in busy) < max(seconds for _, seconds in found)
    expected = network.segment(content).encode(".png")
    assert all(answer.body == expected for answer, _ in found if answer.status == 200)


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes by /proc")
def test_a_killed_decoder_fails_alone_and_is_replaced(server: ServeProcess, network: RefineNet) -> None:
    expected = network.segment(GOOD).encode(".png")
    assert server.segment(GOOD).body == expected
    before = read_number(server.ask("GET", "/metrics").body, "refinenet_decoder_restarts_total")
    (decoder,) = server.children()
    os.kill(decoder, signal.SIGSTOP)  # so that it decodes when it is killed
    with ThreadPoolExecutor(1) as threads:
        failing = threads.submit(server.segment, GOOD)
        while b"refinenet_queue_length 1" not in server.ask("GET", "/metrics").body:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(decoder, signal.SIGKILL)
        refused(failing.result(), 500, "ended the process that decoded it")
    assert server.segment(GOOD).body == expected
    assert read_number(server.ask("GET", "/metrics").body, "refinenet_decoder_restarts_total") == before + 1


def test_health_metrics_and_headers(server: ServeProcess) -> None:
    for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):
        assert server.ask("GET", path).status == 200
    before = server.ask("GET", "/metrics").body
    server.segment(GOOD)
    server.segment(b"no image")
    after = server.ask("GET", "/metrics").body

    counted = ('requests_total{code="200"}', 'requests_total{code="415"}', 'rejected_total{reason="format"}')
    growth = [read_number(after, f"refinenet_{name}") - read_number(before, f"refinenet_{name}") for name in counted]
    assert growth == [2, 1, 1]  # with the request for the metrics before
    assert read_number(after, "refinenet_queue_length") == 0
    page = server.ask("GET", "/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert server.ask("GET", "/healthz", headers={"X-Request-Id": "mine-7"}).headers["x-request-id"] == "mine-7"
    assert server.ask("GET", "/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


def test_the_schema_lists_the_routes(server: ServeProcess) -> None:
    schema = server.ask("GET", "/openapi.json").json
    assert {"/segment", "/model", "/metrics", "/v2/models/{name}/infer"} <= set(schema["paths"])
    docs = server.ask("GET", "/docs").body.decode()
    assert "POST /segment" in docs
    assert "http://" not in docs
    assert "https://" not in docs


def _infer(server: ServeProcess, request: dict[str, Any], binary: bytes = b"") -> Answer:
    head = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if binary else {}
    return server.ask("POST", "/v2/models/tiny_model/infer", head + binary, headers)


def test_a_tensor_is_segmented_as_the_array(server: ServeProcess, network: RefineNet) -> None:
    pixels = draw_street(7, 9, 12)[0]
    labels = network.segment(pixels).labels
    numbers = {"name": "image", "datatype": "UINT8", "shape": [1, 9, 12, 3], "data": pixels.tolist()}
    found = _infer(server, {"id": "seven", "inputs": [numbers]}).json
    assert (found["id"], found["model_name"]) == ("seven", "tiny_model")
    assert found["outputs"][0]["data"] == labels.ravel().tolist()
    size = {"binary_data_size": pixels.nbytes}
    packed = {"name": "image", "datatype": "UINT8", "shape": [9, 12, 3], "parameters": size}
    asked = [{"name": "labels", "parameters": {"binary_data": True}}]
    answer = _infer(server, {"inputs": [packed], "outputs": asked}, pixels.tobytes())
    length = int(answer.headers["inference-header-content-length"])
    assert answer.body[length:] == labels.tobytes()
    assert json.loads(answer.body[:length])["outputs"][0]["shape"] == [9, 12]


TENSOR = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        [],
        {"inputs": [TENSOR, TENSOR]},
        {"inputs": [TENSOR], "id": 7},
        {"inputs": [TENSOR], "parameters": [1]},
        {"inputs": [TENSOR], "outputs": [{"name": "depth"}]},
        {"inputs": [TENSOR], "outputs": [{"name": "labels"}] * 10_000},
        *(
            {"inputs": [{**TENSOR, **change}]}
            for change in (
                {"datatype": "BYTES"},
                {"datatype": None},
                {"shape": [1, 2, 3]},
                {"shape": [-1, 1, 3]},
                {"shape": [2**63, 2**63, 3]},
                {"shape": [True, 1, 3]},
                {"data": [1, 2, 256]},
                {"data": [1, 2, 0.5]},
                {"data": [1, [2], 3]},
                {"data": None},
                {"data": "abc"},
                {"data": [float("nan"), 1, 1]},
                {"parameters": {"binary_data_size": 3}},
                {"parameters": "none"},
            )
        ),
    ],
)
def test_foreign_tensors_are_refused(server: ServeProcess, request_: Any) -> None:
    answer = _infer(server, request_)
    assert answer.status in (400, 413), answer.body
    assert answer.json["error"]


def test_deep_or_lying_inference_requests_are_refused(server: ServeProcess) -> None:
    path = "/v2/models/tiny_model/infer"
    refused(server.ask("POST", path, b"[" * 100_000), 400, "JSON")
    refused(server.ask("POST", path, b"{}", {"Inference-Header-Content-Length": "99"}), 400, "at most")
    refused(server.ask("POST", "/v2/models/other/infer", b"{}"), 404, "tiny_model")


def test_tritons_client_gets_the_labels(server: ServeProcess, network: RefineNet) -> None:
    client_library = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    client = client_library.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny_model")
    pixels = draw_street(8, 40, 56)[0]
    tensor = client_library.InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    found = client.infer("tiny_model", [tensor]).as_numpy("labels")
    np.testing.assert_array_equal(found, network.segment(pixels).labels)
    described = client.get_model_metadata("tiny_model")
    assert described["outputs"][0] == {"name": "labels", "datatype": "UINT8", "shape": [-1, -1]}
    client.close()


def test_sigterm_finishes_what_runs_and_exits_with_0(
    servers: list[ServeProcess], server: ServeProcess, network: RefineNet
) -> None:
    content = large_picture(9)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(server.segment, content) for _ in range(4)]
        while b"refinenet_queue_length 4" not in server.ask("GET", "/metrics").body:
            assert not all(each.done() for each in waiting), "too fast to be interrupted"
        servers.clear()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        expected = network.segment(content).encode(".png")
        assert [each.result().body == expected for each in waiting] == [True] * 4
    assert server.error_text() == ""
    with pytest.raises(ConnectionError):
        server.ask("GET", "/healthz")
