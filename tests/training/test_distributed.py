"""Two processes train and measure as one does."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm_start
from held_files import wait_until
from ranks import run_ranks, start_ranks
from safetensors.torch import load_file
from small_runs import write_pictures

from refinenet import RefineNet

SETTINGS = [
    *("--epochs", "2", "--batch-size", "4", "--set", "crop_size=[32,32]", "--set", "precision=float32"),
    *("--set", "batch_norm=frozen_statistics", "--set", "accumulation=2", "--set", "ema_decay=0.9", "--no-check"),
    *("--set", "optimiser=sgd", "--set", "learning_rate=0.0001", "--set", "gradient_clipping=1"),
    *("--set", "workers=0", "--set", "loggers=[]"),
]
STEPS = 10
REFINENET = [sys.executable, "-m", "refinenet"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command: list[str]) -> None:
    result = warm_start.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr


def last_checkpoint(folder: Path) -> Path:
    """That of the last step; it may have been saved twice, before and after the measurement."""
    return max((folder / "checkpoints").glob(f"step-{STEPS:06d}*"))


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A training of 10 steps: 23 images do not divide evenly into batches of 4, nor 5 between two processes."""
    folder = tmp_path_factory.mktemp("given")
    pictures = write_pictures(folder / "pictures", train=23, val=5)
    return [*REFINENET, "train", "--dataset", str(pictures), "--model", "camvid", *SETTINGS]


@pytest.fixture(scope="module")
def one(train: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    run([*train, "--output", str(folder)])
    return folder


def test_two_processes_reach_what_one_does_and_go_on_bit_for_bit(
    train: list[str], one: Path, camvid_model: RefineNet, tmp_path: Path
) -> None:
    """In halves of the same global batches."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_ranks([*train, "--output", str(whole)])
    run_ranks([*train, "--stop-after", "3", "--output", str(cut)])
    run_ranks([*REFINENET, "train", "--resume", str(cut)])
    for kind in ("weights", "average"):
        expected, reached, resumed = (
            load_file(last_checkpoint(folder) / f"{kind}.safetensors") for folder in (one, whole, cut)
        )
        assert expected.keys() == reached.keys() == resumed.keys()
        assert max(float((expected[name] - reached[name]).abs().max()) for name in expected) < 1e-6
        assert [name for name in reached if not torch.equal(reached[name], resumed[name])] == []
    logs = [list(csv.DictReader((folder / "log.csv").open())) for folder in (one, whole, cut)]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]] == [row["loss"] for row in logs[2]]
    begun, trained = camvid_model.network.state_dict(), load_file(last_checkpoint(one) / "weights.safetensors")
    kernels = [name for name in trained if name.startswith("encoder.") and trained[name].ndim == 4]
    assert max(float((trained[name] - begun[name]).abs().max()) for name in kernels) > 2e-5, "nothing was learned"


def test_two_processes_measure_as_one_to_the_last_digit(train: list[str], one: Path, tmp_path: Path) -> None:
    measure = [*REFINENET, "eval", "--model", str(one / "last.safetensors"), "--dataset", train[5]]
    run([*measure, "--output", str(tmp_path / "one.json")])
    run_ranks([*measure, "--output", str(tmp_path / "two.json")])
    figures = [json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json")]
    assert figures[0].keys() == figures[1].keys()
    for name in figures[0].keys() - {"seconds", "seconds_per_image"}:
        assert figures[0][name] == figures[1][name], name
    assert len(figures[0]["per_image"]) == 5
    assert figures[0]["images"] == 5
    last = list(csv.DictReader((one / "log.csv").open()))[-1]
    assert abs(figures[0]["miou"] - float(last["val_miou"])) < 1e-4


def test_a_process_that_loses_another_says_so_and_ends(train: list[str], tmp_path: Path) -> None:
    """Without torchrun, which would end it by a signal."""
    command = [*train, "--set", "checkpoint_minutes=0.0001", "--output", str(tmp_path)]
    first, second = start_ranks(command, stderr=subprocess.PIPE, text=True)
    with first, second:
        done = tmp_path / "checkpoints" / "step-000001"
        wait_until(lambda: done.exists() or first.poll() is not None, "no step is done", 300)
        second.kill()
        said = first.communicate(timeout=300)[1]
    assert first.returncode == 1
    assert "Error: Another process of this training run has exited" in said


def test_a_killed_process_ends_the_training_of_both_and_is_named(train: list[str], tmp_path: Path) -> None:
    """For real: kill -9 of one of two that torchrun started; nothing hangs, and the run can be resumed afterwards."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    training = warm_start.words_for_a_shell([*train, "--set", "checkpoint_minutes=0.0001", "--output", str(tmp_path)])
    command = [*torchrun, *training]
    with warm_start.Process(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        first = tmp_path / "checkpoints" / "step-000001"
        wait_until(lambda: first.exists() or process.poll() is not None, "no step is done", 300)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "SIGKILL" in said
    # The other process learns it from its own next sum, or from torchrun's signal, whichever comes first.
    assert "Error: Another process of this training run has exited" in said or "continues from step" in said
    assert f"pid: {children[1]}" in said or f"pid      : {children[1]}" in said
    run([*REFINENET, "train", "--resume", str(tmp_path)])
    assert last_checkpoint(tmp_path).exists()
