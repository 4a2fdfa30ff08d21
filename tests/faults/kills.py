"""Processes that save checkpoints without a pause, each killed (SIGKILL) at a random moment and begun again."""

from __future__ import annotations

import io
import multiprocessing
import random
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor
from trials import Tally, leftovers, torn

from refinenet.training.records.checkpoints import Checkpoint, Checkpoints
from refinenet.training.records.folder import RunFolder

FLOATS = 400_000
"""Of each of two tensors: 3.2 MB to save."""
SAVES = 4
"""How many a process has time for, at most and about."""


@dataclass
class _Run:
    """A run in one folder and what is known of it from outside."""

    folder: Path
    acknowledged: int = 0
    """The newest step of which a process has said that it is saved; 0 where there is none."""
    stops: list[int] = field(default_factory=list)
    """The step that was the newest after each kill."""


def _tensors(step: int) -> dict[str, Tensor]:
    """What a training might hold at a step."""
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(FLOATS, generator=generator) for name in ("weights", "momentum")}


def _contents(step: int) -> dict[str, bytes]:
    files = {}
    for name, tensor in _tensors(step).items():
        stream = io.BytesIO()
        torch.save({name: tensor, "step": step}, stream)
        files[f"{name}.pt"] = stream.getvalue()
    return files


def _is_whole(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds the tensors of its step, bit by bit, and nothing else."""
    expected = _tensors(checkpoint.step)
    found = {name: torch.load(io.BytesIO(file), weights_only=True) for name, file in checkpoint.files.items()}
    return found.keys() == {f"{name}.pt" for name in expected} and all(
        torch.equal(found[f"{name}.pt"][name], tensor) and found[f"{name}.pt"]["step"] == checkpoint.step
        for name, tensor in expected.items()
    )


def save_until_killed(folder: str, keep: int, answers: Connection) -> None:
    """Take up the run in a folder and save one step after the other; the main function of a process.

    Sends the step it goes on from, what was put aside and what is left over; then the number of each step saved.
    """
    run = RunFolder(Path(folder))
    checkpoints = Checkpoints(run.checkpoints.folder, keep)
    with run.lock():
        newest = checkpoints.load_newest()
        step = newest.step if newest else 0
        answers.send((step, newest.quarantined if newest else (), leftovers(run.path)))
        while True:
            step += 1
            checkpoints.save(step, _contents(step))
            answers.send(step)


def kill(kills: int, seed: int, folder: Path) -> Tally:
    """Begin, kill and take up runs; each run is killed ten times, then a new one is begun."""
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "refinenet.training.records.folder"])
    tally = Tally(f"kill -9 at random moments, seed {seed}")
    longest = SAVES * _seconds_to_save(folder / "timed")
    saved = seen = 0
    for number in range(kills):
        if number % 10 == 0:
            run = _Run(folder / f"killed-{number}")
        reader, writer = context.Pipe(duplex=False)
        keep = 1 + 2 * (number % 2)
        process = context.Process(target=save_until_killed, args=(str(run.folder), keep, writer))
        process.start()
        writer.close()
        if chance.random() < 0.9:  # the others are killed while they begin
            reader.poll(60)
        time.sleep(chance.uniform(0, longest))
        process.kill()
        process.join()
        saved += _listen(run, reader, tally)
        seen += bool(leftovers(run.folder))
        _look_at(run, tally)
    tally.remarks = f"{saved} checkpoints acknowledged, {seen} kills left temporary files, which the next start swept"
    return tally


def _seconds_to_save(folder: Path) -> float:
    started = time.monotonic()
    for step in (1, 2):
        Checkpoints(folder).save(step, _contents(step))
    return (time.monotonic() - started) / 2


def _listen(run: _Run, reader: Connection, tally: Tally) -> int:
    """Take in what a killed process has said; returns how many checkpoints it acknowledged."""
    answers = []
    with reader:
        try:
            while True:
                answers.append(reader.recv())
        except (EOFError, OSError):  # the last answer may be cut off
            pass
    if not answers:
        return 0
    start, set_aside, left = answers[0]
    if start != (run.stops[-1] if run.stops else 0):
        tally.silent.append(f"{run.folder} went on from step {start}, not from {run.stops[-1]}")
    if set_aside or left:
        tally.other.append(f"{run.folder} after a kill: {set_aside}, left over {left}")
    run.acknowledged = max(run.acknowledged, *answers[1:], 0)
    return len(answers) - 1


def _look_at(run: _Run, tally: Tally) -> None:
    """Load the newest checkpoint as the next start would."""
    tally.trials += 1
    try:
        checkpoint = Checkpoints(run.folder / "checkpoints").load_newest()
    except (ValueError, OSError) as error:
        tally.lost.append(f"{run.folder}: {error}")
        return
    tally.lost += [f"{run.folder}: torn: {name}" for name in torn(run.folder / "checkpoints")]
    step = checkpoint.step if checkpoint else 0
    run.stops.append(step)
    if step < run.acknowledged:
        tally.lost.append(f"{run.folder}: step {run.acknowledged} was acknowledged, {step} is the newest")
    if checkpoint and not _is_whole(checkpoint):
        tally.lost.append(f"{run.folder}: step {step} is not what was saved")
    if checkpoint and checkpoint.quarantined:
        tally.other.append(f"{run.folder}: a kill alone made it say {checkpoint.quarantined}")
