"""Memory of the server: what it says at the start holds, and many large uploads at once do not fill it."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from picture_bytes import file_bytes
from PIL import Image
from serve_process import ServeProcess

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SIDE = 512
LARGE = 1024, 1280
"""Height and width of an image that is segmented in windows."""
TOTAL_BYTES = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("memory")
    RefineNet(encoder="test_resnet", num_classes=12, device="cpu", seed=4).save(folder / "tiny.safetensors")
    limits: dict[str, float] = {
        "max_pixels": LARGE[0] * LARGE[1],
        "window_pixels": SIDE**2,
        "max_bytes": 500_000,
        "total_bytes": TOTAL_BYTES,
        "queue": 100,
        "request_seconds": 300,
        "decode_seconds": 100,
    }
    server = ServeProcess("--model", folder / "tiny.safetensors", folder=folder, **limits)
    yield server
    assert server.stop() == 0, server.error_text()


def status_bytes(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def family(server: ServeProcess) -> list[int]:
    return [server.process.pid, *server.children()]


@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), LARGE])
def test_the_largest_images_at_once_take_no_more_than_was_said(server: ServeProcess, height: int, width: int) -> None:
    found = re.search(r"up to ([\d.]+) GB of memory", server.lines[1])
    assert found
    said = float(found[1]) * 1e9
    content = file_bytes(Image.fromarray(draw_street(1, height, width)[0]), "JPEG")
    with ThreadPoolExecutor(4) as threads:
        query = "?kind=probabilities&kind=overlay&kind=confidence&kind=labels"
        answers = list(threads.map(lambda _: server.segment(content, query), range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    peak = sum(status_bytes(process, "VmHWM") for process in family(server))
    assert peak <= said + 0.05e9  # what is printed is rounded
    if (height, width) == LARGE:
        assert said / 4 < peak


def test_uploads_beyond_the_memory_for_bodies_get_503(server: ServeProcess) -> None:
    """Each is allowed by itself; all together are not, and take no memory either."""
    before, size = status_bytes(server.process.pid, "VmRSS"), 490_000
    head = f"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(40)]
    for connection in connections:
        connection.sendall(head.encode() + bytes(size - 1))  # never whole
    refused = 0
    connections[-1].settimeout(60)
    connections[-1].recv(1, socket.MSG_PEEK)  # the last one is refused, and by then all others are
    for connection in connections:
        connection.settimeout(0.5)
        try:
            answer = connection.recv(10_000)
            while not answer.endswith(b"}"):
                answer += connection.recv(10_000)
        except TimeoutError:
            continue
        assert answer.startswith(b"HTTP/1.1 503 "), answer
        assert b"retry-after: 2" in answer.lower()
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert "too many large images" in body["error"]
        refused += 1
    assert refused == 40 - TOTAL_BYTES // size
    assert status_bytes(server.process.pid, "VmRSS") - before < 40e6
    for connection in connections:
        connection.close()
    end = time.monotonic() + 30
    good = file_bytes(Image.fromarray(draw_street(1, 40, 40)[0]), "PNG")
    while server.segment(good).status != 200:  # what was held is free again
        assert time.monotonic() < end
