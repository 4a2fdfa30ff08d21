"""The network in processes of its own: results are the same, and one that dies or hangs fails alone and is replaced."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from child_trouble import InterruptedByTestError, no_new_files, no_new_threads, raised_after
from doubling_backend import DoublingBackend
from picture_bytes import file_bytes
from PIL import Image
from serve_process import ServeProcess

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.server.model_processes import ModelEndedError, ModelProcesses
from refinenet.io.arrays import Array

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds child processes by /proc")

PICTURES = [file_bytes(Image.fromarray(draw_street(seed, 40, 56)[0]), "PNG") for seed in range(4)]


@pytest.fixture(scope="module")
def network() -> RefineNet:
    return RefineNet(encoder="test_resnet", num_classes=5, device="cpu", seed=4, backend="pytorch")


@pytest.fixture(scope="module")
def server(network: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("processes")
    network.save(folder / "tiny.safetensors")
    words = ("--model", folder / "tiny.safetensors", "--backend", "pytorch")
    server = ServeProcess(
        *words, folder=folder, model_processes=2, workers=2, model_seconds=150, request_seconds=200, decode_seconds=100
    )
    yield server
    assert server.stop() == 0, server.error_text()
    assert server.error_text() == ""


def model_processes(server: ServeProcess) -> list[int]:
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in server.children()}
    return [pid for pid, line in lines.items() if b"model_processes" in line]


def wait_for(server: ServeProcess, text: bytes) -> None:
    end = time.monotonic() + 600
    while text not in server.ask("GET", "/metrics").body:
        assert time.monotonic() < end, server.ask("GET", "/metrics").body
        time.sleep(0.02)


def check_all(server: ServeProcess, network: RefineNet) -> None:
    """Ask more often than there are processes, so that each of them answers."""
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(server.segment, PICTURES))
    assert [answer.status for answer in answers] == [200] * 4
    expected = [network.segment(content).encode(".png") for content in PICTURES]
    assert [answer.body for answer in answers] == expected


def test_labels_are_those_of_python(server: ServeProcess, network: RefineNet) -> None:
    assert len(model_processes(server)) == 2
    check_all(server, network)
    assert len({int(each) for content in PICTURES for each in np.unique(network.segment(content).labels)}) > 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_fails_its_image_alone(
    server: ServeProcess, network: RefineNet, number: signal.Signals
) -> None:
    wait_for(server, b"refinenet_model_processes 2.0")
    before = model_processes(server)
    for process in before:  # so that both have an image when one of them dies
        os.kill(process, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(server.segment, content) for content in PICTURES[:2]]
        wait_for(server, b"refinenet_queue_length 2")
        time.sleep(0.3)
        os.kill(before[0], number)
        if number == signal.SIGSEGV:
            os.kill(before[0], signal.SIGCONT)  # before that only SIGKILL has an effect
        os.kill(before[1], signal.SIGCONT)
        found = sorted((each.result() for each in answers), key=lambda answer: answer.status)
    assert [answer.status for answer in found] == [200, 503]
    assert found[0].body in [network.segment(content).encode(".png") for content in PICTURES[:2]]
    assert set(found[1].json) == {"error", "request_id"}
    assert "another one takes its place" in found[1].json["error"]
    assert int(found[1].headers["retry-after"]) >= 1
    assert server.ask("GET", "/v2/health/ready").status == 200
    wait_for(server, b"refinenet_model_processes 2.0")
    assert before[0] not in model_processes(server)
    check_all(server, network)


def test_without_any_process_it_is_not_ready_until_one_has_started(server: ServeProcess, network: RefineNet) -> None:
    wait_for(server, b"refinenet_model_processes 2.0")
    killed = model_processes(server)
    before = re.search(rb"^refinenet_model_restarts_total (\S+)", server.ask("GET", "/metrics").body, re.M)
    assert before
    for process in killed:
        os.kill(process, signal.SIGKILL)
    with ThreadPoolExecutor(2) as threads:
        statuses = [answer.status for answer in threads.map(server.segment, PICTURES[:2])]
    assert statuses == [503, 503]
    answer = server.ask("GET", "/v2/health/ready")
    assert answer.status == 503, "started again sooner than a process can"
    assert server.segment(PICTURES[0]).status == 503
    assert server.ask("GET", "/healthz").status == 200
    end = time.monotonic() + 600
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    wait_for(server, b"refinenet_model_processes 2.0")
    assert b"refinenet_model_restarts_total %.1f" % (float(before[1]) + 2) in server.ask("GET", "/metrics").body
    check_all(server, network)


def test_a_process_that_hangs_is_replaced() -> None:
    """Without a server, as each of its images has a short time, which a busy machine needs longer for."""
    restarts = list[int]()
    pool = ModelProcesses(DoublingBackend(), 1, seconds=2, observe_restart=lambda: restarts.append(1))
    pool.start()
    images = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    try:
        (process,) = pool.identifiers
        os.kill(process, signal.SIGSTOP)
        with pytest.raises(ModelEndedError, match="took longer than 2 s") as hanging:
            pool(images)
        assert hanging.value.is_timeout
        assert not pool.is_ready
        assert restarts == [1]
        end = time.monotonic() + 600
        while not pool.is_ready:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert pool.identifiers != [process]
        assert (_run_in_the_end(pool, images) == 2 * images).all()
    finally:
        pool.close()


def test_errors_of_the_backend_do_not_end_its_process() -> None:
    pool = ModelProcesses(DoublingBackend(), 1, seconds=60)
    pool.start()
    try:
        (process,) = pool.identifiers
        with pytest.raises(ValueError, match="too wide"):
            pool(np.zeros((1, 3, 8, 200), np.float32))
        assert (pool(np.ones((1, 3, 5, 7), np.float32)) == 2).all()
        assert pool.identifiers == [process]
    finally:
        pool.close()
    with pytest.raises(ModelEndedError):
        pool(np.ones((1, 3, 5, 7), np.float32))


@pytest.fixture
def restarts() -> list[int]:
    return []


@pytest.fixture
def doubling(restarts: list[int]) -> Iterator[ModelProcesses]:
    """One process, which is quick."""
    pool = ModelProcesses(DoublingBackend(), 1, seconds=60, observe_restart=lambda: restarts.append(1))
    pool.start()
    yield pool
    pool.close()


def _wait_until_ready(pool: ModelProcesses) -> None:
    end = time.monotonic() + 60
    while not pool.is_ready:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_process_whose_image_is_interrupted_is_replaced(doubling: ModelProcesses, restarts: list[int]) -> None:
    (process,) = doubling.identifiers
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(InterruptedByTestError), raised_after(0.3):
        doubling(np.ones((1, 3, 5, 7), np.float32))
    assert not Path(f"/proc/{process}").exists()
    assert process not in doubling.identifiers
    assert restarts == [1]
    assert (doubling(np.full((1, 3, 5, 7), 4, np.float32)) == 8).all()
    assert doubling.is_ready


def test_without_further_threads_processes_are_replaced_later(doubling: ModelProcesses, restarts: list[int]) -> None:
    (process,) = doubling.identifiers
    with no_new_threads():
        with pytest.raises(RuntimeError, match="can't start new thread"):
            doubling(np.ones((1, 3, 5, 7), np.float32))
        time.sleep(0.5)  # the first attempt, at once, fails as well
        assert not doubling.is_ready
    assert restarts == [1]
    _wait_until_ready(doubling)
    assert process not in doubling.identifiers
    assert (doubling(np.full((1, 3, 5, 7), 4, np.float32)) == 8).all()


def test_a_process_that_cannot_be_started_again_is_started_later(doubling: ModelProcesses) -> None:
    (process,) = doubling.identifiers
    os.kill(process, signal.SIGKILL)
    with no_new_files():
        with pytest.raises(ModelEndedError, match="has ended; another one takes its place"):
            doubling(np.ones((1, 3, 5, 7), np.float32))
        time.sleep(0.5)  # the first attempt, at once, fails
        assert not doubling.is_ready
    _wait_until_ready(doubling)
    assert (doubling(np.full((1, 3, 5, 7), 4, np.float32)) == 8).all()


@pytest.mark.parametrize("trouble", [no_new_files, no_new_threads])
def test_processes_that_cannot_be_started_are_an_error_of_the_start(
    trouble: Callable[[], AbstractContextManager[None]],
) -> None:
    pool = ModelProcesses(DoublingBackend(), 2, seconds=60)
    with pytest.raises(ValueError, match=r"cannot be loaded in a process of its own\. Is there enough"), trouble():
        pool.start()
    assert not pool.is_ready


def _run_in_the_end(pool: ModelProcesses, images: Array) -> Array:
    for _ in range(20):
        try:
            return pool(images)
        except ModelEndedError:  # the machine was busy for two seconds
            time.sleep(5)
    return pool(images)
