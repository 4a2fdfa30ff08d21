"""What the training loop asks of those who give it batches, and of those who measure and keep what it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from refinenet.training.loading.loader import Part


class Batches(Protocol):
    """Gives a process its share of the training batches, as `Loader` does."""

    batch_size: int
    """Images of a step over all training processes."""
    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """The parts of each step of an epoch, from a step on; both are counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How good a network was found to be."""

    score: float
    """What the best epoch is chosen by: the higher, the better; in [0, 1]."""
    columns: Mapping[str, float | None]
    """Figures by the columns of the log that they go to; None where there was nothing to measure."""
    facts: Mapping[str, Any]
    """What a model's file says of it, JSON-ready."""


class Keeper(Protocol):
    """What differs between trainings: how a network is measured, and what is kept and shown of it.

    Where the disk is full or fails while something is kept, that is said and training goes on.
    """

    goal: str
    """What the score of a measurement is called."""
    columns: tuple[str, ...]
    """Of the log, in order: what is measured, and of "epoch", "loss", "learning_rate", "encoder_learning_rate",
    "images_per_second" and "seconds" as many as are of interest."""
    told: tuple[str, ...]
    """Those that are said on the terminal."""

    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Measure the network, all processes together.

        Args:
            after_each: To be called after each image or batch, on all processes equally often; it may end the work by
                an exception.

        Raises:
            NotFiniteError: the network's answer is no finite numbers.
        """

    def keep_best(self, epoch: int, measurement: Measurement) -> bool:
        """Keep the network as the best model so far; returns whether that is done. Only the first process is asked."""

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Keep the network as the last model, and show what else there is to show. Only the first process is asked."""
