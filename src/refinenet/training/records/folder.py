"""What a training run keeps on disk: how it was begun, a log, checkpoints to go on from, and the models."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinenet.io.console import print_note
from refinenet.io.files import refuse_address, sweep_leftovers, write_atomically
from refinenet.io.locks import sole_owner
from refinenet.training.records.checkpoints import Checkpoint, Checkpoints

POSITION = "position.json"
"""The file of a checkpoint that says how far the run has come, among other things by "is_over"."""
_STATE = "a checkpoint"
"""What is told of where its write fails."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file in it is replaced whole, so that a killed run leaves none half-written."""

    path: Path
    part_of: Path | None = None
    """The folder of the training in stages that the run is one of."""
    best_name: str = "best.safetensors"
    """What the file of the best model is called."""
    can_resume: bool = True
    """Whether what is kept is enough to go on after a stop; no file can keep a dataset that is a function."""
    _failing: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """What could not be written when it was last attempted, and was said."""

    @property
    def to_resume(self) -> Path:
        """The folder to name to go on after a stop."""
        return self.part_of or self.path

    @property
    def best_model(self) -> Path:
        """The model of the epoch that was the best when measured."""
        return self.path / self.best_name

    @property
    def last_model(self) -> Path:
        """The model as the last epoch left it."""
        return self.path / "last.safetensors"

    @property
    def model(self) -> Path:
        """The best model, or the last one where none was measured, or kept, yet."""
        return self.best_model if self.best_model.exists() else self.last_model

    @property
    def checkpoints(self) -> Checkpoints:
        """Where the run goes on from after a stop."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def is_begun(self) -> bool:
        """Whether a run was begun here, if only its checkpoints tell of it: no other may be begun among them."""
        return (self.path / "run.json").exists() or any(self.checkpoints.steps())

    def refuse_begun(self) -> None:
        """Make sure that no run was begun here.

        Raises:
            ValueError: one was.
        """
        if self.is_begun:
            raise ValueError(f"{self.path} already holds a run. Go on with it by --resume, or name another folder.")

    @property
    def is_over(self) -> bool:
        """Whether the run that was begun here has nothing left to do.

        Raises:
            ValueError: what the folder keeps is damaged.
        """
        files = self.newest_checkpoint().files
        return POSITION in files and bool(json.loads(files[POSITION])["is_over"])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in the folder, for as long as the context lasts or the process lives.

        What a killed process left half-written is removed first. Of the processes of one run, one holds it.

        Raises:
            ValueError: another process trains here; it is named.
            OSError: the folder cannot be made or written.
        """
        refuse_address("output", self.path, "Train into a folder here, and copy it from there.")
        self.path.mkdir(parents=True, exist_ok=True)
        with sole_owner(self.path / ".lock", f"The run in {self.path} is being trained"):
            for folder in (self.path, *filter(Path.is_dir, self.path.iterdir())):
                sweep_leftovers(folder)
            self.checkpoints.sweep()
            yield

    def newest_checkpoint(self) -> Checkpoint:
        """The newest good checkpoint of the run that was begun here; what it says in `set_aside` is to be told.

        Raises:
            ValueError: there is none, none is good, or an earlier version of this package made the run.
            OSError: a checkpoint cannot be read.
        """
        checkpoint = self.checkpoints.load_newest()
        if checkpoint is not None:
            return checkpoint
        if (self.path / "checkpoint.pt").exists():
            raise ValueError(
                f"The run in {self.path} is of an earlier version, whose checkpoint.pt this one cannot go on from. "
                f"Begin a new run from its model, {self.best_model}."
            )
        raise ValueError(f"{self.checkpoints.folder} holds no checkpoint: the run cannot be taken up.")

    def begin(self, description: Mapping[str, Any]) -> None:
        """Write down how the run is begun, JSON-ready, to begin it again."""
        self.write("run.json", (json.dumps(description, indent=2) + "\n").encode())

    def read_description(self) -> dict[str, Any]:
        """What `begin` wrote.

        Raises:
            FileNotFoundError: no run was begun here.
            ValueError: the file is damaged.
        """
        path = self.path / "run.json"
        if not path.exists():
            raise FileNotFoundError(f"{self.path} holds no training run: {path} is missing.")
        try:
            description = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not isinstance(description, dict):
            raise ValueError(f"{path} is damaged: it holds no JSON object.")
        return description

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, "curves.png" or "samples/epoch-3.png", whole or not at all; returns its path.

        Raises:
            OSError: it cannot be written.
        """
        return write_atomically(self.path / name, content)

    def attempt(self, what: str, write: Callable[[], object], *, is_last: bool = False) -> bool:
        """Write what training can do without: where the disk is full or fails, that is said, and no more.

        It is said once, not each time, until it works again, which is said too.

        Args:
            what: What is written, to tell of it: "the log", "a checkpoint".
            write: Writes it.
            is_last: Whether nothing of the kind is written after it.

        Returns:
            Whether it was written.
        """
        try:
            write()
        except OSError as error:
            if what not in self._failing:
                reason = error.strerror or error
                hope = "" if is_last else " Training goes on, and tries again."
                print_note(f"Warning: {what} could not be written: {reason}.{hope}")
            self._failing.add(what)
            return False
        if what in self._failing:
            print_note(f"Now {what} could be written again.")
        self._failing.discard(what)
        return True

    def keep_state(self, step: int, files: Mapping[str, bytes]) -> None:
        """Save a checkpoint (`Checkpoints.save`); where the disk is full or fails, that is said, and no more."""
        self.attempt(_STATE, lambda: self.checkpoints.save(step, files))

    @property
    def is_behind(self) -> bool:
        """Whether the last state that was to be kept could not be."""
        return _STATE in self._failing

    @property
    def way_on(self) -> str:
        """How a run goes on that ends before its time, in words."""
        if not self.can_resume:
            model = f"its model is {self.model}" if self.model.exists() else "no epoch of it has ended"
            return f"cannot be resumed, its dataset being a function; {model}."
        return f"Go on with --resume {self.to_resume}."

    @property
    def kept(self) -> str:
        """What is to be said of a run that ends before its time: what is kept of it, and how it goes on.

        Raises:
            OSError: the folder cannot be read.
        """
        if not self.can_resume:
            return f"The run in {self.path} {self.way_on}"
        step = max(self.checkpoints.steps(), default=0)
        told = "The last state could not be kept. " if self.is_behind else ""
        return f"{told}The run in {self.path} goes on from step {step} with --resume {self.to_resume}."

    def log(self, row: Mapping[str, str], epoch: int) -> None:
        """Write the row of an epoch, counted from 1, to log.csv; rows of this and later epochs are dropped first.

        A column that the log has not yet is added to it.

        Raises:
            OSError: it cannot be written.
        """
        earlier = [kept for kept in self.read_log() if _is_before(kept.get("epoch"), epoch)]
        new = {"epoch": str(epoch), **row}
        columns = list(dict.fromkeys([*(earlier[0] if earlier else []), *new]))
        content = io.StringIO()
        writer = csv.DictWriter(content, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*earlier, new])
        self.write("log.csv", content.getvalue().encode())

    def read_log(self) -> list[dict[str, str]]:
        """The rows of log.csv, the first epoch first; none where there is no log."""
        path = self.path / "log.csv"
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        return list(csv.DictReader(io.StringIO(text)))


def _is_before(epoch: str | None, limit: int) -> bool:
    return epoch is not None and epoch.isdecimal() and int(epoch) < limit


def next_folder(name: str) -> Path:
    """The next free folder below runs/, named after `name` and numbered."""
    numbered = (Path("runs") / f"{folder_name(name)}-{number}" for number in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def folder_name(text: str) -> str:
    """A text as the name of a folder, with nothing in it that a shell or file system takes for something else."""
    return re.sub(r"[^\w-]+", "-", text)
