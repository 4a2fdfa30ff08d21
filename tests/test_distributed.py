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


def test_two_processes_reach_the_weights_and_figures_of_one(tmp_path: Path) -> None:
    """23 images do not divide evenly; 20 steps in halves; the same global batches."""
    run([sys.executable, *TRAIN, "--output", str(tmp_path / "one")])
    run(torchrun(*TRAIN, "--output", str(tmp_path / "two")))
    for kind in ("weights", "average"):
        one, two = (load_file(last_checkpoint(tmp_path / name) / f"{kind}.safetensors") for name in ("one", "two"))
        assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("one", "two")]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]

    model = str(tmp_path / "two" / "last.safetensors")
    measure = ["-m", "refinenet", "eval", "--model", model, "--dataset", "streets:23:96x96"]
    run([sys.executable, *measure, "--output", str(tmp_path / "one.json")])
    run(torchrun(*measure, "--output", str(tmp_path / "two.json")))
    figures = [json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json")]
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "class_iou", "images"):
        assert figures[0][name] == figures[1][name], name
    last = float(logs[1][-1]["val_miou"])
    assert abs(figures[0]["miou"] - last) < 1e-4


def test_two_processes_go_on_bit_for_bit(tmp_path: Path) -> None:
    run(torchrun(*TRAIN, "--output", str(tmp_path / "whole")))
    run(torchrun(*TRAIN, "--stop-after", "7", "--output", str(tmp_path / "cut")))
    run(torchrun(*TRAIN[:3], "--resume", str(tmp_path / "cut")))
    whole, cut = (load_file(last_checkpoint(tmp_path / name) / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


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
