"""What the trials of faults share: contents to save and to know again, and how the outcome is counted."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from refinenet.io.sealed_folder import read_checksummed
from refinenet.training.records.checkpoints import Checkpoint, Checkpoints


@dataclass
class Tally:
    """Trials of one kind of fault, and what went wrong in them."""

    fault: str
    trials: int = 0
    lost: list[str] = field(default_factory=list)
    """What was acknowledged as saved, or was there before, could not be loaded, or not bit by bit."""
    silent: list[str] = field(default_factory=list)
    """Training would have begun anew, or gone on from an older checkpoint, without a word."""
    other: list[str] = field(default_factory=list)
    """Another error than the promised one, false alarms, leftovers that nobody sweeps."""
    remarks: str = ""
    """What is worth knowing and no failure."""

    @property
    def failures(self) -> list[str]:
        return [f"{self.fault}: {text}" for text in (*self.lost, *self.silent, *self.other)]


def contents(step: int, size: int = 2000) -> dict[str, bytes]:
    """Files of a checkpoint: always the same at the same step, always other at another one."""
    generator = random.Random(step)
    return {name: generator.randbytes(size) for name in ("weights.pt", "momentum.pt")}


def is_whole(checkpoint: Checkpoint, size: int = 2000) -> bool:
    """Whether a checkpoint holds, bit by bit, what was saved at its step, and nothing else."""
    return checkpoint.files == contents(checkpoint.step, size)


def newest(folder: Path) -> Checkpoint:
    """The newest checkpoint, of which there has to be one.

    Raises:
        ValueError: there is none, or none is good.
    """
    checkpoint = Checkpoints(folder).load_newest()
    if checkpoint is None:
        raise ValueError("there is no checkpoint")
    return checkpoint


def torn(folder: Path) -> list[str]:
    """Names of what looks like a checkpoint in a folder and is none, or not whole."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"step-[\d.]+", path.name):
            try:
                read_checksummed(path)
            except ValueError as error:
                found.append(f"{path.name}: {error}")
    return found


def leftovers(folder: Path) -> list[str]:
    """Names of temporary files and folders in a folder and below."""
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name] if folder.is_dir() else []
