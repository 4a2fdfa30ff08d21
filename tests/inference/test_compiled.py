"""PyTorch with a compiler gives the answer of PyTorch without, on drawn streets of several sizes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from model_parts import SMALL_DECODER
from torch._dynamo.utils import counters
from torch.nn import functional

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: apt-get install g++")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=4, device="cpu", seed=1)
    return network.save(tmp_path_factory.mktemp("model") / "small.safetensors")


@needs_compiler
def test_labels_are_those_of_pytorch(model: Path) -> None:
    compiled = RefineNet(model=model, device="cpu", backend="compiled")
    eager = RefineNet(model=model, device="cpu", backend="pytorch")
    for seed, (height, width) in enumerate([(96, 128), (75, 131)]):
        image = draw_street(seed, height, width)[0]
        found, expected = compiled.segment(image), eager.segment(image)
        assert (found.labels == expected.labels).mean() >= 0.999
        with torch.no_grad():
            images = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
            logits = eager.network(images)
        resized = functional.interpolate(torch.from_numpy(found.scores.values)[None], (height, width), mode="bilinear")
        assert float((resized - logits).abs().max() / (logits.max() - logits.min())) <= 1e-3
    check_threads(compiled)


def check_threads(compiled: RefineNet) -> None:
    """Check that concurrent calls give the labels of sequential ones and compile nothing anew."""
    images = [draw_street(seed, height, width)[0] for seed, (height, width) in enumerate([(96, 128), (75, 131)])]
    alone = [compiled.segment(image).labels for image in images]
    before = counters["stats"]["unique_graphs"]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: compiled.segment(images[call % 2]).labels, range(400)))
    assert all((labels == alone[call % 2]).all() for call, labels in enumerate(found))
    assert counters["stats"]["unique_graphs"] == before > 0


def test_without_a_compiler_it_is_said_what_to_do(model: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.npy"
    np.save(image, draw_street(0, 64, 64)[0])
    code = (
        "import numpy as np; from refinenet import RefineNet;"
        f"RefineNet(model={str(model)!r}, device='cpu', backend='compiled').segment(np.load({str(image)!r}))"
    )
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "CXX": str(tmp_path / "no_compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = run.stderr[run.stderr.rindex("BackendError: ") :]
    assert "cannot compile the network here" in last
    assert "backend='pytorch' needs none" in last
