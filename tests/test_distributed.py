"""Two processes train and measure as one does."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TRAIN = [
    *("-m", "refinenet", "train", "--dataset", "streets:23:96x96", "--model", "camvid", "--epochs", "4"),
    *("--batch-size", "4", "--set", "crop_size=[96,96]", "--set", "precision=float32", "--set", "loggers=[]"),
    *("--set", "batch_norm=frozen_statistics", "--set", "accumulation=2", "--set", "ema_decay=0.9", "--no-check"),
    *("--set", "optimiser=sgd", "--set", "learning_rate=0.0001", "--set", "gradient_clipping=1", "--set", "workers=0"),
]
STEPS = 20
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(*command: str, processes: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command]


def run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr


def last_checkpoint(folder: Path) -> Path:
    """That of the last step; it may have been kept twice, before and after it was measured."""
    return max((folder / "checkpoints").glob(f"step-{STEPS:06d}*"))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    run([sys.executable, *TRAIN, "--output", str(folder)])
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_reach_the_weights_and_figures_of_one(strategy: str, one: Path, tmp_path: Path) -> None:
    """23 images do not divide evenly; 20 steps in halves; the same global batches."""
    run(torchrun(*TRAIN, "--set", f"strategy={strategy}", "--output", str(tmp_path / "two")))
    for kind in ("weights", "average"):
        ours, theirs = (load_file(last_checkpoint(path) / f"{kind}.safetensors") for path in (one, tmp_path / "two"))
        assert ours.keys() == theirs.keys()
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-6
    logs = [list(csv.DictReader((path / "log.csv").open())) for path in (one, tmp_path / "two")]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]


def test_two_processes_measure_as_one_to_the_last_digit(tmp_path: Path) -> None:
    measure = ["-m", "refinenet", "eval", "--model", "camvid", "--dataset", "streets:23:96x96"]
    run([sys.executable, *measure, "--output", str(tmp_path / "one.json")])
    run(torchrun(*measure, "--output", str(tmp_path / "two.json")))
    figures = [json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json")]
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "class_iou", "images"):
        assert figures[0][name] == figures[1][name], name


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_go_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    adaptive = [word.replace("=sgd", "=adamw") for word in TRAIN] + ["--set", f"strategy={strategy}"]
    run(torchrun(*adaptive, "--output", str(tmp_path / "whole")))
    run(torchrun(*adaptive, "--stop-after", "7", "--output", str(tmp_path / "cut")))
    run(torchrun(*TRAIN[:3], "--resume", str(tmp_path / "cut")))
    for kind in ("weights", "average"):
        whole, cut = (load_file(last_checkpoint(tmp_path / name) / f"{kind}.safetensors") for name in ("whole", "cut"))
        assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []


def test_a_killed_process_ends_the_training_of_both_and_is_named(tmp_path: Path) -> None:
    """For real: kill -9 of one of two; nothing hangs, and the run goes on afterwards."""
    command = torchrun(*TRAIN, "--set", "checkpoint_minutes=0.0001", "--output", str(tmp_path))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        deadline = time.monotonic() + 200
        while not (tmp_path / "checkpoints" / "step-000001").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        said = process.communicate(timeout=90)[1]
    assert process.returncode == 1
    assert "SIGKILL" in said
    assert f"pid: {children[1]}" in said or f"pid      : {children[1]}" in said
    run([sys.executable, *TRAIN[:3], "--resume", str(tmp_path)])
    assert last_checkpoint(tmp_path).exists()
