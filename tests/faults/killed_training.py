"""Real trainings, killed (SIGKILL) at random moments and resumed until they end: as if nothing had happened."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from resume_exactly import SETTINGS, STEPS, STEPS_PER_EPOCH, begin, count_different
from trials import Tally

from refinenet.training.records.checkpoints import Checkpoints

EVERY_STEP = "checkpoint_minutes=0.00001"


def kill_training(kills: int, seed: int, folder: Path) -> Tally:
    """Begin runs, kill and resume each until it ends, and compare it with one that was never killed."""
    chance = random.Random(seed)
    tally = Tally(f"kill -9 of a training that saves after each step, seed {seed}")
    started = time.monotonic()
    begin(folder / "whole", 0, 1, "--set", EVERY_STEP)
    longest, number = 0.8 * (time.monotonic() - started), 0
    while tally.trials < kills:
        run, number = folder / f"killed-{number}", number + 1
        while tally.trials < kills and not _start_and_kill(run, number % 2 * 2, chance.uniform(0, longest), tally):
            pass
        process = _start(run, 0)
        told = process.communicate()[1].decode(errors="replace")
        if process.returncode:
            tally.lost.append(f"{run}: {told}")
            continue
        different, total = count_different(run, folder / "whole")
        tally.remarks += f"{different} of {total} tensors differ; "
        if different:
            tally.lost.append(f"{run}: {different} of {total} tensors are not those of the run that was never killed")
    return tally


def _start_and_kill(run: Path, workers: int, seconds: float, tally: Tally) -> bool:
    """Whether the run was over before it could be killed."""
    before = max(Checkpoints(run / "checkpoints").steps(), default=-1)
    process = _start(run, workers)
    try:
        told = process.communicate(timeout=seconds)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        told = process.communicate()[1].decode(errors="replace")
    else:
        if process.returncode:
            tally.lost.append(f"{run}: {told}")
        return True
    tally.trials += 1
    if "broken" in told or "missing" in told:
        tally.other.append(f"{run}: a false alarm: {told}")
    found = Checkpoints(run / "checkpoints").load_newest()
    after = found.step if found else -1
    if after < before:
        tally.lost.append(f"{run}: step {before} was there, {after} is the newest")
    if (start := _start_told(told)) not in (None, before):
        tally.silent.append(f"{run}: step {before} was there, and it went on from {start}")
    return False


def _start_told(told: str) -> int | None:
    """The step that a training says it goes on from, if it came so far."""
    match = re.search(
        r"Resuming the run in \S+ from step (\d+), in epoch (\d+)|The run in \S+ is already finished", told
    )
    if not match:
        return None
    return STEPS if match[1] is None else int(match[1]) + STEPS_PER_EPOCH * (int(match[2]) - 1)


def _start(run: Path, workers: int) -> subprocess.Popen[bytes]:
    data = ["--dataset", f"streets:{8 * STEPS_PER_EPOCH}:96x64", "--encoder", "test_resnet", "--no-check"]
    settings = [f"{key}={value}" for key, value in SETTINGS.items()] + [f"workers={workers}", EVERY_STEP]
    new = [*data, "--output", str(run), *(word for setting in settings for word in ("--set", setting))]
    command = [sys.executable, "-m", "refinenet", "train", *(["--resume", str(run)] if _is_begun(run) else new)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def _is_begun(run: Path) -> bool:
    return (run / "run.json").exists()
