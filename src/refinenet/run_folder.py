"""What a training run keeps on disk: how it was begun, a log, the state to go on from, and the best model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from refinenet.files import write_atomically
from refinenet.tensors import CORRUPT_FILE_ERRORS


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file in it is replaced whole, so that a killed run leaves none half-written."""

    path: Path
    part_of: Path | None = None
    """The folder of the training in stages that the run is one of."""

    @property
    def to_resume(self) -> Path:
        """The folder to name to go on after a stop."""
        return self.part_of or self.path

    @property
    def best_model(self) -> Path:
        """The model of the epoch with the best validation mIoU."""
        return self.path / "best.safetensors"

    @property
    def is_begun(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").exists()

    @property
    def is_over(self) -> bool:
        """Whether the run that was begun here has trained its last epoch.

        Raises:
            ValueError: what the folder keeps is damaged.
        """
        epochs = self.read_description()["config"]["epochs"]
        return bool(self.load_state(torch.device("cpu"))["epoch"] == epochs)

    def begin(self, description: Mapping[str, Any]) -> None:
        """Write down how the run is begun, JSON-ready, to begin it again."""
        write_atomically(self.path / "run.json", (json.dumps(description, indent=2) + "\n").encode())

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

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep tensors and numbers, in any nesting of maps and lists, to go on from."""
        content = io.BytesIO()
        torch.save(dict(state), content)
        write_atomically(self.path / "checkpoint.pt", content.getvalue())

    def load_state(self, device: torch.device) -> dict[str, Any]:
        """What `save_state` kept, on `device`.

        Raises:
            ValueError: the file is missing or damaged.
        """
        path = self.path / "checkpoint.pt"
        if not path.exists():
            raise ValueError(f"{path} is missing: the run cannot be taken up.")
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        except CORRUPT_FILE_ERRORS as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def log(self, row: Mapping[str, str], epoch: int) -> None:
        """Write the row of an epoch, counted from 1, to log.csv; rows of this and later epochs are dropped first."""
        path = self.path / "log.csv"
        lines = path.read_text("utf-8").splitlines()[:epoch] if path.exists() else []
        lines = [*(lines or [",".join(row)]), ",".join(row.values())]
        write_atomically(path, ("\n".join(lines) + "\n").encode())
