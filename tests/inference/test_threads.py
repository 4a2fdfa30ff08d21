"""One model predicts from several threads, copies, pickles and forked processes what it predicts alone."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_start
from translations import save_small

from refinenet import RefineNet
from refinenet.inference.backends import AUTO, BACKENDS
from refinenet.inference.backends.translation.translated import TRANSLATORS

RANDOM = np.random.default_rng(0)
IMAGES = [RANDOM.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 56), (64, 48), (33, 90)) * 2]


ELSEWHERE = {"compiled": "compiles for minutes: `test_compiled.check_threads`"}
"""Backends that are not tried here, and why."""


@pytest.fixture(scope="module", params=[*(name for name in BACKENDS if name not in ELSEWHERE), AUTO])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RefineNet:
    """A small network on each backend."""
    fast = "openvino" if request.param == AUTO else request.param
    engines = [engine for engine in TRANSLATORS if engine == fast]
    path = save_small(tmp_path_factory.mktemp("threads") / "small.safetensors", *engines)
    return RefineNet(model=path, device="cpu", backend=request.param)


def predict(model: RefineNet) -> list[bytes]:
    """Label maps of all images, one after the other."""
    return [model.segment(image).labels.tobytes() for image in IMAGES]


PREDICT = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    model, images = pickle.load(file)
for image in images:
    sys.stdout.buffer.write(model.segment(image).labels.tobytes())
"""


def test_threads_copies_and_pickles_predict_the_same(model: RefineNet, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:  # concurrent first calls, too
        found = list(pool.map(lambda k: model.segment(IMAGES[k % 6]).labels.tobytes(), range(240)))
    alone = predict(model)
    assert len(set(alone)) == len(alone)
    assert found == alone * 40
    unpickled = pickle.loads(pickle.dumps(model))  # noqa: S301  (written one call earlier)
    for other in (copy.deepcopy(model), unpickled):
        assert predict(other) == alone
        assert other.card == model.card
    (tmp_path / "pickle").write_bytes(pickle.dumps((model, IMAGES)))
    command = [sys.executable, "-c", PREDICT, str(tmp_path / "pickle")]
    elsewhere = warm_start.run(command, capture_output=True, check=True, timeout=200)
    assert elsewhere.stdout == b"".join(alone)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_predicts_the_same(model: RefineNet) -> None:
    alone = predict(model)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=lambda: theirs.send(predict(model)))
    child.start()
    try:
        assert ours.poll(120), "the forked process hangs"
        assert ours.recv() == alone
    finally:
        child.kill()  # not by SIGTERM, for which Ray's tests leave a handler that a blocked child never runs
        child.join()
    assert predict(model) == alone


_INHERITED: list[RefineNet] = []


def keep_model(model: RefineNet) -> None:
    _INHERITED[:] = [model]


def predict_in_pool(number: int) -> bytes:
    """The label map of an image by the model that a process of a pool was given."""
    return _INHERITED[0].segment(IMAGES[number]).labels.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_pools_of_processes_predict_the_same(model: RefineNet, start: str) -> None:
    """Forked processes inherit a model that has predicted from other threads, spawned ones unpickle it."""
    alone = predict(model)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(model.segment, IMAGES))
    with ProcessPoolExecutor(2, multiprocessing.get_context(start), keep_model, (model,)) as pool:
        try:
            found = list(pool.map(predict_in_pool, [*range(6)] * 4, timeout=400))
        except TimeoutError:
            for process in multiprocessing.active_children():  # the pool would wait for them for ever
                process.kill()
            raise
    assert found == alone * 4


FREED_ELSEWHERE = """
import os, signal, sys, threading
import numpy as np
from refinenet import RefineNet

models = [RefineNet(model=sys.argv[1], device="cpu", backend="openvino")]
models[0].segment(np.zeros((32, 32, 3), np.uint8))
thread = threading.Thread(target=models.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("received"))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_a_signal_does_no_harm_after_a_model_is_freed_in_another_thread(tmp_path: Path) -> None:
    """By these settings glibc returns freed memory to the system at once, so that its use is certain to crash."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TRIM_THRESHOLD_": "0"}
    model = save_small(tmp_path / "small.safetensors", "openvino")
    command = [sys.executable, "-c", FREED_ELSEWHERE, str(model)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "received\n"), run.stderr


FORK_AFTER_THREADS = """
import multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import torch
from refinenet import RefineNet

torch.set_num_threads(2)
model = RefineNet(size="small", num_classes=3, encoder_weights=None, device="cpu", backend="pytorch")
image = np.zeros((16, 16, 3), np.uint8)
for _ in range(20):
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(model.segment, [image] * 24))
    child = multiprocessing.get_context("fork").Process(target=model.segment, args=(image,))
    child.start()
    child.join(60)
    if child.exitcode != 0:
        child.kill()
        sys.exit(f"exit code {child.exitcode}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_fork_right_after_threads_have_ended_does_not_hang() -> None:
    """One fork in eight did, in the allocator of PyTorch's MKL, which threads lock while they end."""
    run = subprocess.run([sys.executable, "-c", FORK_AFTER_THREADS], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_asyncio_tasks_predict_what_one_call_predicts(model: RefineNet) -> None:
    async def predict_together() -> list[bytes]:
        found = await asyncio.gather(*(asyncio.to_thread(model.segment, image) for image in IMAGES * 4))
        return [each.labels.tobytes() for each in found]

    assert asyncio.run(predict_together()) == predict(model) * 4


def test_weights_that_change_during_predictions_are_seen_by_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    RefineNet(encoder="test_resnet", num_classes=4, device="cpu", seed=1).save(path)
    model = RefineNet(model=path, device="cpu", backend="pytorch")
    before = model.segment(IMAGES[0]).labels.tobytes()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(lambda: model.segment(IMAGES[0]).labels.tobytes()) for _ in range(40)]
        with torch.no_grad():
            for parameter in model.network.classifier.parameters():
                parameter.neg_()
        found += [pool.submit(lambda: model.segment(IMAGES[0]).labels.tobytes()) for _ in range(8)]
        answers = [future.result() for future in found]
    after = model.segment(IMAGES[0]).labels.tobytes()
    assert before != after
    assert answers[-1] == after
