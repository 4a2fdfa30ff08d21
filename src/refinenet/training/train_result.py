"""What is handed back of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run left."""

    folder: Path
    """Holds all that the run left; see `RunFolder`."""
    model: Path
    """The model of the epoch with the best validation mIoU."""
    best_miou: float | None
    """Validation mIoU of that model, in [0, 1]; None where none was measured before the run was stopped."""
    epochs: int
    """Epochs trained in all."""
    is_over: bool
    """Whether the run is over; False where `stop_after` stopped it before its end."""
