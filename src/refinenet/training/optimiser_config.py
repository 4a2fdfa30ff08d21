"""Settings of the optimiser; `optimisation` builds it. Nothing here needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from refinenet.settings import Range, Settings

Optimiser = Literal["adamw", "sgd"]
TrainPrecision = Literal["auto", "float32", "bfloat16", "float16"]
LearningRate = Annotated[float, Range(1e-12, 100)]


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Settings):
    """Settings of the optimiser.

    Raises:
        ValueError: A value is out of its range, or settings do not go together; all problems are reported together.
    """

    optimiser: Optimiser = "adamw"
    """"adamw", or "sgd" with momentum as in the papers."""
    learning_rate: LearningRate | Literal["auto"] = 1e-3
    """Peak learning rate of the decoder and the classifier; "auto" finds one before the first epoch, in a test of
    rising rates (Smith, 2017)."""
    encoder_learning_rate: LearningRate | None = None
    """Peak learning rate of the encoder; by default that of the decoder."""
    weight_decay: Annotated[float, Range(0, 100)] = 1e-4
    """Weight decay of kernels; biases and batch norms have none."""
    momentum: Annotated[float, Range(0, below=1)] = 0.9
    """Momentum of "sgd"."""
    gradient_clipping: Annotated[float, Range(0, 1e9)] = 0.0
    """Largest norm of all gradients together; larger gradients are scaled down to it. 0 for no clipping."""
    ema_decay: Annotated[float, Range(0, below=1)] = 0.99
    """Decay per step of the exponential moving average of the weights that is measured and saved, such as 0.995; 0
    measures and saves the weights themselves."""
    precision: TrainPrecision = "auto"
    """Precision of the network's arithmetic; "auto" is bfloat16 where the device supports it, else float32. "float16"
    is for GPUs without bfloat16."""

    def _conflicts(self) -> list[str]:
        conflicts = []
        if self.optimiser == "adamw" and self.momentum != OptimiserConfig.momentum:
            conflicts.append('momentum is for optimiser="sgd"; with "adamw" leave it out')
        if self.learning_rate == "auto" and self.encoder_learning_rate is not None:
            conflicts.append(
                'encoder_learning_rate must be left out with learning_rate="auto", which finds one rate for both'
            )
        return [*conflicts, *super()._conflicts()]
