"""Trainings on the command line, stopped while they wait for a file that the test holds."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import warm_start
from conftest import CommandLine
from held_files import catches, copies, held, is_there, wait_until
from small_runs import command, different, resume, state, train, write_pictures

from refinenet.training.records.checkpoints import Checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are held by a lease")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


SETTINGS: dict[str, Any] = {"accumulation": 2, "warm_up": 0.4}
FIRST_STEP, SECOND_STEP = "train/3.png", "train/6.png"
"""Images that these steps of a run read, by the order of their seed."""
LIMIT = 200
"""Seconds that a busy machine may take for what takes one or two."""


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(pictures, folder, **SETTINGS)
    return folder


@contextmanager
def waiting(
    pictures: Path, file: str, output: Path, **settings: Any
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A training that waits for an image, which it gets when the context ends; what it says is put into the list.

    What is sent to it meanwhile arrives in the middle of the run, however busy the machine is.
    """
    said: list[str] = []
    with held(pictures / "images" / file) as somebody_waits:
        words = command(pictures, output, **SETTINGS, **settings)
        process = warm_start.Process(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: somebody_waits() or process.poll() is not None, "no image is read", LIMIT)
            assert process.poll() is None
            yield process, said
        except BaseException:
            process.kill()
            raise
    try:
        said.append(process.communicate(timeout=LIMIT)[1])
    finally:
        process.kill()


def assert_goes_on(output: Path, whole: Path) -> None:
    """A run that is resumed ends bit for bit like one that was never stopped."""
    resumed = resume(output)
    assert (resumed.is_over, resumed.epochs) == (True, 2)
    assert different(state(output), state(whole)) == []
    assert (output / "best.safetensors").exists()
    logs = [(folder / "log.csv").read_text().splitlines() for folder in (output, whole)]
    assert [line.split(",")[:5] for line in logs[0]] == [line.split(",")[:5] for line in logs[1]]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_process_that_is_ended_keeps_its_run(
    number: int, code: int, pictures: Path, whole: Path, tmp_path: Path
) -> None:
    """For real: kill, Ctrl-C and kill -9, in the middle of the training."""
    with waiting(pictures, SECOND_STEP, tmp_path, checkpoint_minutes=0.0001) as (process, said):
        os.kill(process.pid, number)
    assert process.returncode == code
    assert (f"The run in {tmp_path} continues from step 2 with --resume" in said[0]) == (number != signal.SIGKILL)
    assert "Traceback" not in said[0]
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == (1 if number == signal.SIGKILL else 2)
    assert_goes_on(tmp_path, whole)


def test_a_process_that_is_ended_on_a_full_disk_says_how_far_it_goes_back(
    pictures: Path, whole: Path, run_refinenet: CommandLine, tmp_path: Path
) -> None:
    """From one step on, no file may become larger than 0 bytes."""
    with waiting(pictures, SECOND_STEP, tmp_path, checkpoint_minutes=0.0001) as (process, said):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        os.kill(process.pid, signal.SIGTERM)
    assert process.returncode == 143
    assert f"The last state could not be saved. The run in {tmp_path} continues from step 1 with --resume" in said[0]
    resumed = run_refinenet("train", "--resume", tmp_path, timeout=LIMIT)
    assert resumed.returncode == 0, resumed.stderr
    assert_goes_on(tmp_path, whole)


def test_a_second_training_in_the_same_folder_is_refused(pictures: Path, tmp_path: Path) -> None:
    with waiting(pictures, FIRST_STEP, tmp_path) as (process, _):
        with pytest.raises(ValueError, match=f"{tmp_path} is being trained"):
            resume(tmp_path)
        process.kill()


def test_a_second_interruption_ends_the_process_at_once(pictures: Path, whole: Path, tmp_path: Path) -> None:
    with waiting(pictures, FIRST_STEP, tmp_path) as (process, said):
        os.kill(process.pid, signal.SIGINT)
        wait_until(lambda: not catches(process.pid, signal.SIGINT), "the first one is not noticed", LIMIT)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(LIMIT) == -signal.SIGINT
    assert "Stopping after this step and saving the run. Ctrl-C again ends at once." in said[0]
    assert "Traceback" not in said[0]
    assert_goes_on(tmp_path, whole)


def test_a_training_that_is_ended_while_it_measures_goes_on(pictures: Path, whole: Path, tmp_path: Path) -> None:
    with waiting(pictures, "val/1.png", tmp_path) as (process, said):
        os.kill(process.pid, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"The run in {tmp_path} continues from step" in said[0]
    assert not (tmp_path / "log.csv").exists()
    checkpoint = Checkpoints(tmp_path / "checkpoints").load_newest()
    assert checkpoint is not None
    position = json.loads(checkpoint.files["position.json"])
    assert (position["epoch"], position["step"]) == (0, 2)
    assert_goes_on(tmp_path, whole)


def test_a_loading_process_that_is_killed_ends_the_training_by_name(
    pictures: Path, whole: Path, tmp_path: Path
) -> None:
    with waiting(pictures, FIRST_STEP, tmp_path, workers=2) as (process, said):
        workers = copies(process.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        assert process.wait(LIMIT) == 1
        wait_until(lambda: not any(map(is_there, workers)), "a loading process is left", LIMIT)
    assert f"Error: The loading process {workers[1]} was ended by SIGKILL. Unless you did that," in said[0]
    assert f"The run in {tmp_path} continues from step" in said[0]
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
    command = [sys.executable, script, tmp_path, str(epoch)]
    process = warm_start.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert process.stderr.count("Warning: the best model") == 1
    assert re.search(
        "Warning: the best model could not be written: .*No space left on device. Training continues and will retry.",
        process.stderr,
    )
    assert process.stderr.count("Writing the best model succeeded again.") == 1
    told = json.loads(process.stdout)
    assert told["kept while the disk is full"] == meanwhile
    assert told["kept at the end"] == at_the_end
    assert told["best mIoU"] == at_the_end["miou"]
