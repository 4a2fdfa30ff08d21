"""The folder of a run on disk: its description, log, checkpoints and models."""

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
from refinenet.io.processes.locks import sole_owner
from refinenet.training.records.checkpoints import Checkpoint, Checkpoints

STATE = "position.json"
"""File of a checkpoint that holds how far the run has come."""
STAGES = "stages.json"
"""File in the folder of a training in stages, above the folders of its runs."""
IS_FINISHED = "is_over"
"""Key in that file for whether the run is finished."""
_CHECKPOINT = "a checkpoint"
"""Name of checkpoints in messages about writes that failed."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file in it is replaced as a whole, so that a killed run leaves none half-written."""

    path: Path
    part_of: Path | None = None
    """Folder of the training in stages that the run belongs to."""
    best_name: str = "best.safetensors"
    """File name of the best model."""
    can_resume: bool = True
    """Whether the folder holds enough to resume after a stop; a dataset that is a function cannot be saved."""
    _failing: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """Names of what could not be written at the last attempt, and was reported."""

    @property
    def to_resume(self) -> Path:
        """Folder to pass to --resume after a stop."""
        return self.part_of or self.path

    @property
    def best_model(self) -> Path:
        """Model of the epoch with the best score."""
        return self.path / self.best_name

    @property
    def last_model(self) -> Path:
        """Model after the last epoch."""
        return self.path / "last.safetensors"

    @property
    def model(self) -> Path:
        """The best model, or the last one if no best one was measured, or saved, yet."""
        return self.best_model if self.best_model.exists() else self.last_model

    @property
    def checkpoints(self) -> Checkpoints:
        """Checkpoints from which the run resumes."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def is_started(self) -> bool:
        """Whether a run was started here, even if only its checkpoints are left: no other may start among them."""
        return (self.path / "run.json").exists() or any(self.checkpoints.steps())

    def refuse_started(self) -> None:
        """Make sure that no run was started here.

        Raises:
            ValueError: One was, or the path is that of a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file, but a run needs a folder. Pass another --output.")
        if self.is_started or (self.path / STAGES).exists():
            raise ValueError(
                f"{self.path} already holds a run. Continue it with --resume {self.path}, or choose another folder."
            )

    def refuse_missing(self) -> None:
        """Make sure that the folder holds a run, in stages or not.

        Raises:
            FileNotFoundError: It does not.
            ValueError: The description of the run is damaged.
        """
        if not (self.path / STAGES).exists():
            self.read_description()

    @property
    def is_finished(self) -> bool:
        """Whether the run in the folder has nothing left to do.

        Raises:
            ValueError: The folder's files are damaged.
        """
        files = self.newest_checkpoint().files
        return STATE in files and bool(json.loads(files[STATE])[IS_FINISHED])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in the folder while the context lasts and the process lives.

        Incomplete files of a killed process are removed first. Of the processes of one run, one holds the lock.

        Raises:
            ValueError: Another process trains here; it is named.
            OSError: The folder cannot be made or written.
        """
        refuse_address("output", self.path, "Train into a local folder and copy it from there.")
        self.path.mkdir(parents=True, exist_ok=True)
        with sole_owner(self.path / ".lock", f"The run in {self.path} is being trained"):
            for folder in (self.path, *filter(Path.is_dir, self.path.iterdir())):
                sweep_leftovers(folder)
            self.checkpoints.sweep()
            yield

    def newest_checkpoint(self) -> Checkpoint:
        """Return the newest good checkpoint of the run; the caller reports its `quarantined` messages.

        Raises:
            ValueError: There is none, none is good, or an earlier version of this package made the run.
            OSError: A checkpoint cannot be read.
        """
        checkpoint = self.checkpoints.load_newest()
        if checkpoint is not None:
            return checkpoint
        if (self.path / "checkpoint.pt").exists():
            raise ValueError(
                f"The run in {self.path} was made by an earlier version, whose checkpoint.pt this version cannot "
                f"resume. Start a new run from its model, {self.best_model}."
            )
        raise ValueError(f"{self.checkpoints.folder} holds no checkpoint: the run cannot be resumed.")

    def write_description(self, description: Mapping[str, Any]) -> None:
        """Write run.json: what it takes to start the run again, JSON-ready."""
        self.write("run.json", (json.dumps(description, indent=2) + "\n").encode())

    def read_description(self) -> dict[str, Any]:
        """Read what `write_description` wrote.

        Raises:
            FileNotFoundError: No run was started here.
            ValueError: The file is damaged.
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
        """Write a file, such as "curves.png" or "samples/epoch-3.png", whole or not at all, and return its path.

        Raises:
            OSError: It cannot be written.
        """
        return write_atomically(self.path / name, content)

    def attempt(self, what: str, write: Callable[[], object], *, is_last: bool = False) -> bool:
        """Write a non-essential file: a full or failing disk is reported, and training continues.

        A failure is reported once, not at each attempt, and so is the first success after it.

        Args:
            what: Name of what is written, for messages: "the log", "a checkpoint".
            write: Writes it.
            is_last: Whether nothing of the kind is written afterwards.

        Returns:
            Whether it was written.
        """
        try:
            write()
        except OSError as error:
            if what not in self._failing:
                reason = error.strerror or error
                outlook = "" if is_last else " Training continues and will retry."
                print_note(f"Warning: {what} could not be written: {reason}.{outlook}")
            self._failing.add(what)
            return False
        if what in self._failing:
            print_note(f"Writing {what} succeeded again.")
        self._failing.discard(what)
        return True

    def save_checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Save a checkpoint (`Checkpoints.save`); a full or failing disk is reported, and training continues."""
        self.attempt(_CHECKPOINT, lambda: self.checkpoints.save(step, files))

    @property
    def is_behind(self) -> bool:
        """Whether the last checkpoint could not be saved."""
        return _CHECKPOINT in self._failing

    @property
    def resume_hint(self) -> str:
        """How to resume a run that was stopped, as the end of a message."""
        if not self.can_resume:
            model = f"its model is {self.model}" if self.model.exists() else "it has not finished an epoch"
            return f"cannot be resumed, because its dataset is a function; {model}."
        return f"Continue with --resume {self.to_resume}."

    @property
    def stop_message(self) -> str:
        """Message on a run that was stopped: which step was saved, and how to resume.

        Raises:
            OSError: The folder cannot be read.
        """
        if not self.can_resume:
            return f"The run in {self.path} {self.resume_hint}"
        step = max(self.checkpoints.steps(), default=0)
        failure = "The last state could not be saved. " if self.is_behind else ""
        return f"{failure}The run in {self.path} continues from step {step} with --resume {self.to_resume}."

    def log(self, row: Mapping[str, str], epoch: int) -> None:
        """Write the row of an epoch, counted from 1, to log.csv; rows of this and later epochs are dropped first.

        Columns that the log does not have yet are added.

        Raises:
            OSError: It cannot be written.
        """
        earlier = [each for each in self.read_log() if _is_before(each.get("epoch"), epoch)]
        new = {"epoch": str(epoch), **row}
        columns = list(dict.fromkeys([*(earlier[0] if earlier else []), *new]))
        content = io.StringIO()
        writer = csv.DictWriter(content, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*earlier, new])
        self.write("log.csv", content.getvalue().encode())

    def read_log(self) -> list[dict[str, str]]:
        """Return the rows of log.csv in the order of epochs; an empty list if there is no log."""
        path = self.path / "log.csv"
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        return list(csv.DictReader(io.StringIO(text)))


def _is_before(epoch: str | None, limit: int) -> bool:
    return epoch is not None and epoch.isdecimal() and int(epoch) < limit


def next_folder(name: str) -> Path:
    """Return the next free folder below runs/, named after `name` and numbered."""
    numbered = (Path("runs") / f"{folder_name(name)}-{number}" for number in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def folder_name(text: str) -> str:
    """Return a text as a folder name, without characters that are special to a shell or file system."""
    return re.sub(r"[^\w-]+", "-", text)
