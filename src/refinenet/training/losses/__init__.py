"""Losses of training: `cross_entropy`, `overlap` (Dice, Lovasz), `distillation`, and those of other outputs.

Start reading at `objective.Objective`, the weighted sum of the losses of classes; `dense_objective` adds those of
other outputs, which are rows of `targets.TARGET_LOSSES`.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.training.losses.config import ClassWeights, LossConfig
    from refinenet.training.losses.objective import Objective
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = ["ClassWeights", "LossConfig", "Objective"]
