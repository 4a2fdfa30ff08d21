"""Trainings on the command line that are stopped, at moments that a file chooses which nobody can open for a while."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from held_files import catches, copies, held, is_there, wait_until
from small_runs import command, different, resume, state, train, write_pictures

from refinenet.training.records.checkpoints import Checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are held by a lease")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(pictures, folder)
    return folder


@contextmanager
def waiting(
    pictures: Path, file: str, output: Path, **settings: Any
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A training that waits for an image, which it gets when the context ends; what it says is put into the list."""
    said: list[str] = []
    with held(pictures / "images" / file) as somebody_waits:
        words = command(pictures, output, **settings)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: somebody_waits() or process.poll() is not None, "no image is read")
            assert process.poll() is None
            yield process, said
        except BaseException:
            process.kill()
            raise
    try:
        said.append(process.communicate(timeout=30)[1])
    finally:
        process.kill()


def assert_goes_on(output: Path, whole: Path) -> None:
    """Taken up, a run ends bit for bit where one ends that was never stopped."""
    resumed = resume(output)
    assert (resumed.is_over, resumed.epochs) == (True, 2)
    assert different(state(output), state(whole)) == []


def test_a_second_interruption_ends_the_process_at_once(pictures: Path, whole: Path, tmp_path: Path) -> None:
    with waiting(pictures, "train/3.png", tmp_path) as (process, said):
        os.kill(process.pid, signal.SIGINT)
        wait_until(lambda: not catches(process.pid, signal.SIGINT), "the first one is not noticed", 20)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
    assert "Stopping after this step, whose state is kept. Ctrl-C again ends at once." in said[0]
    assert "Traceback" not in said[0]
    assert_goes_on(tmp_path, whole)


def test_a_training_that_is_ended_while_it_measures_goes_on(pictures: Path, whole: Path, tmp_path: Path) -> None:
    with waiting(pictures, "val/1.png", tmp_path) as (process, said):
        os.kill(process.pid, signal.SIGTERM)
        started = time.monotonic()
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - started < 30
    assert f"The run in {tmp_path} goes on from step" in said[0]
    assert not (tmp_path / "log.csv").exists()
    checkpoint = Checkpoints(tmp_path / "checkpoints").load_newest()
    assert checkpoint is not None
    position = json.loads(checkpoint.files["position.json"])
    assert (position["epoch"], position["step"]) == (0, 2)
    assert_goes_on(tmp_path, whole)


def test_a_loading_process_that_is_killed_ends_the_training_by_name(
    pictures: Path, whole: Path, tmp_path: Path
) -> None:
    with waiting(pictures, "train/3.png", tmp_path, workers=2) as (process, said):
        workers = copies(process.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        assert process.wait(30) == 1
        wait_until(lambda: not any(map(is_there, workers)), "a loading process is left", 20)
    assert f"Error: The loading process {workers[1]} was ended by SIGKILL. Where nobody did that," in said[0]
    assert f"The run in {tmp_path} goes on from step" in said[0]
    assert "Traceback" not in said[0]
    assert_goes_on(tmp_path, whole)


FIRST, SECOND, THIRD = ({"epoch": 1, "miou": 0.125}, {"epoch": 2, "miou": 0.375}, {"epoch": 3, "miou": 0.25})


@pytest.mark.parametrize(("epoch", "meanwhile", "at_the_end"), [(1, {}, SECOND), (2, FIRST, THIRD)])
def test_a_full_disk_at_the_best_epoch_does_not_end_the_training(
    epoch: int, meanwhile: dict[str, float], at_the_end: dict[str, float], tmp_path: Path
) -> None:
    script = Path(__file__).parents[1] / "faults" / "full_disk_training.py"
    enter = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*enter, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("no disk may be made here")
    process = subprocess.run(
        [*enter, sys.executable, script, tmp_path, str(epoch)], capture_output=True, text=True, timeout=200, check=True
    )
    assert process.stderr.count("Warning: the best model") == 1
    assert re.search(
        "Warning: the best model could not be written: .*No space left on device. Training goes on, and tries again.",
        process.stderr,
    )
    assert process.stderr.count("Now the best model could be written again.") == 1
    told = json.loads(process.stdout)
    assert told["kept while the disk is full"] == meanwhile
    assert told["kept at the end"] == at_the_end
    assert told["best mIoU"] == at_the_end["miou"]
