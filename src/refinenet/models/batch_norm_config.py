"""Setting of batch norm; `batch_norm` applies it. Nothing here needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from refinenet.settings import Settings

BatchNormMode = Literal["train", "frozen_statistics", "frozen", "synchronised"]


@dataclass(frozen=True, kw_only=True)
class BatchNormConfig(Settings):
    """Behaviour of batch norm in training.

    Raises:
        ValueError: A value that is not allowed.
    """

    batch_norm: BatchNormMode = "train"
    """Statistics that batch norms use. "train": those of the batch, in each process its own. "frozen_statistics": the
    running statistics that the network came with, while factors and offsets are trained, as in the papers with their
    small batches. "frozen": factors and offsets are not trained, either. "synchronised": statistics of the batches of
    all processes together."""
