"""Train state: the progress of a run, saved with its checkpoints and restored from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from refinenet.io.console import print_note
from refinenet.models.files.tensor_files import CORRUPT_FILE_ERRORS
from refinenet.training.engine.learner import Learner
from refinenet.training.records.folder import IS_FINISHED, STATE, RunFolder


@dataclass(kw_only=True)
class TrainState:
    """How far a run has come; saved with each checkpoint."""

    epoch: int = 0
    """Number of whole epochs trained and measured."""
    step: int = 0
    """Steps done in the current epoch."""
    loss: float = 0.0
    """Sum of the finite losses of these steps."""
    bad_losses: int = 0
    """How many of their losses were not finite."""
    bad_steps: int = 0
    """Number of consecutive steps, up to now, whose loss was not finite."""
    seconds: float = 0.0
    """Duration of these steps."""
    best_score: float | None = None
    """Score of the best model that is saved, if any."""
    best_epoch: int = 0
    """Epoch of the best model, counted from 1; 0 if there is none."""
    is_finished: bool = False
    """Whether nothing is left to do."""

    @property
    def mean_loss(self) -> float:
        """Mean of the finite losses of the current epoch."""
        return self.loss / max(1, self.step - self.bad_losses)

    def to_json(self) -> bytes:
        """Return the content of the checkpoint's file, in which `is_finished` has its older name, "is_over"."""
        values = asdict(self)
        values[IS_FINISHED] = values.pop("is_finished")
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, content: bytes) -> TrainState:
        """Read what `to_json` returned.

        Raises:
            ValueError, KeyError, TypeError: The content is not that of a state.
        """
        values = json.loads(content)
        return cls(is_finished=values.pop(IS_FINISHED), **values)


def state_files(learner: Learner[Any], state: TrainState) -> dict[str, bytes]:
    """Return the files of a checkpoint; to be called on all processes at once, for the first one to write."""
    return {**learner.state(), STATE: state.to_json()}


def start_state(
    folder: RunFolder, learner: Learner[Any], description: Mapping[str, Any], recipe: str | None = None, *, show: bool
) -> TrainState:
    """Write the first checkpoint and the description of a new run.

    Args:
        folder: Folder of the run.
        learner: Network and optimiser at their start.
        description: Content of run.json: what it takes to start the run again, JSON-ready.
        recipe: Text of a recipe file with the same settings, if there is one.
        show: Whether to say where the results go.

    Raises:
        ValueError: The folder holds a run already.
        OSError: The run cannot be written.
    """
    state = TrainState()
    files = state_files(learner, state)
    if learner.processes.is_first:
        folder.refuse_started()  # another run may have started here since this was first checked
        if recipe is not None:
            folder.write("recipe.toml", recipe.encode())
        # run.json makes the folder a run, so it comes last: whatever has it can be resumed.
        folder.checkpoints.save(0, files)
        folder.write_description(description)
        advice = f" If the run is stopped, resume it with --resume {folder.to_resume}." if folder.can_resume else ""
        print_note(f"Results go to {folder.path}.{advice}", enabled=show)
    learner.processes.wait()
    return state


def restore_state(folder: RunFolder, learner: Learner[Any], *, advice: str = "", show: bool) -> TrainState:
    """Restore a run from the newest good checkpoint in its folder.

    Args:
        folder: Folder of the run.
        learner: Network and optimiser, which get the values of the checkpoint.
        advice: What to do if the run is already finished.
        show: Whether to say where the run continues.

    Raises:
        ValueError: The folder holds no run that can be resumed, or another run.
        OSError: A checkpoint cannot be read.
    """
    processes = learner.processes
    # The first process quarantines broken checkpoints; the others wait for that, and so find the same one.
    checkpoint = folder.newest_checkpoint() if processes.is_first else None
    processes.wait()
    checkpoint = checkpoint or folder.newest_checkpoint()
    for message in checkpoint.quarantined:
        print_note(f"Warning: {message}", enabled=processes.is_first)
    try:
        learner.load_state(checkpoint.files)
        state = TrainState.from_json(checkpoint.files[STATE])
    except (RuntimeError, KeyError, ValueError, TypeError, *CORRUPT_FILE_ERRORS) as error:
        raise ValueError(f"{checkpoint.folder} belongs to another run: {error}") from error
    note = f"Resuming the run in {folder.path} from step {checkpoint.step}, in epoch {state.epoch + 1}."
    if state.is_finished:
        note = f"The run in {folder.path} is already finished. {advice}".rstrip()
    print_note(note, enabled=show)
    return state
