"""How far a run has come: kept in its checkpoints, and found there again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from refinenet.io.console import print_note
from refinenet.models.tensor_files import CORRUPT_FILE_ERRORS
from refinenet.training.engine.learner import Learner
from refinenet.training.records.folder import POSITION, RunFolder


@dataclass(kw_only=True)
class TrainState:
    """How far a run has come; a checkpoint keeps it."""

    epoch: int = 0
    """Whole epochs trained and measured."""
    step: int = 0
    """Steps done in the current epoch."""
    loss: float = 0.0
    """Sum of the losses of these steps, as far as they were finite."""
    bad_losses: int = 0
    """How many of them were not."""
    bad_steps: int = 0
    """Steps in a row, up to now, whose loss was not finite."""
    seconds: float = 0.0
    """What these steps took."""
    best_score: float | None = None
    """Of the best model that is kept, if any."""
    best_epoch: int = 0
    """The epoch, counted from 1, that it is of; 0 where there is none."""
    is_over: bool = False
    """Whether nothing is left to do."""

    @property
    def mean_loss(self) -> float:
        """Of the steps of the current epoch whose loss was finite."""
        return self.loss / max(1, self.step - self.bad_losses)


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What is kept of how a run is begun."""

    description: Mapping[str, Any]
    """All that it takes to begin it again, JSON-ready."""
    recipe: str | None = None
    """The same for people: the text of a recipe file, if there is one."""


def state_files(learner: Learner, position: TrainState) -> dict[str, bytes]:
    """The files of a checkpoint; to be asked for on all processes at once, of use to the first one, which writes."""
    return {**learner.state(), POSITION: json.dumps(asdict(position)).encode()}


def restore_state(folder: RunFolder, learner: Learner, beginning: Beginning | None, *, show: bool) -> TrainState:
    """Where to begin: at the start of a new run, or where the folder's newest good checkpoint is.

    Args:
        folder: The run's.
        learner: What is in training; it is brought to where the checkpoint was.
        beginning: What is kept of a new run; without one, the run that the folder keeps is taken up.
        show: Whether to say where it goes on.

    Raises:
        ValueError: the folder holds a run already, or none that can be taken up, or another one than this.
        OSError: a checkpoint cannot be read, or a new run cannot be written.
    """
    if beginning is not None:
        return _begin(folder, learner, beginning, show=show)
    processes = learner.processes
    # The first process puts broken checkpoints aside; the others then find the same one as it.
    checkpoint = folder.newest_checkpoint() if processes.is_first else None
    processes.wait()
    checkpoint = checkpoint or folder.newest_checkpoint()
    for message in checkpoint.set_aside:
        print_note(f"Warning: {message}", enabled=processes.is_first)
    try:
        learner.load_state(checkpoint.files)
        position = TrainState(**json.loads(checkpoint.files[POSITION]))
    except (RuntimeError, KeyError, ValueError, TypeError, *CORRUPT_FILE_ERRORS) as error:
        raise ValueError(f"{checkpoint.folder} is of another run: {error}") from error
    where = f"step {checkpoint.step}, of epoch {position.epoch + 1}" if not position.is_over else "its end"
    print_note(f"Going on in {folder.path} from {where}.", enabled=show)
    return position


def _begin(folder: RunFolder, learner: Learner, beginning: Beginning, *, show: bool) -> TrainState:
    position = TrainState()
    files = state_files(learner, position)
    if learner.processes.is_first:
        folder.refuse_begun()  # another one may have begun since this was looked at first
        if beginning.recipe is not None:
            folder.write("recipe.toml", beginning.recipe.encode())
        folder.checkpoints.save(0, files)
        folder.begin(beginning.description)
        advice = f" A stopped run goes on with --resume {folder.to_resume}." if folder.can_resume else ""
        print_note(f"Results go to {folder.path}.{advice}", enabled=show)
    learner.processes.wait()
    return position
