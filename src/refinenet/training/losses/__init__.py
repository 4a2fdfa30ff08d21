"""Losses of training.

Start reading with `objective.Objective`, the weighted sum of all of them.
"""

from refinenet.training.losses.config import ClassWeights, LossConfig
from refinenet.training.losses.objective import Objective, cross_entropy, dice

__all__ = [
    "ClassWeights",
    "LossConfig",
    "Objective",
    "cross_entropy",
    "dice",
]
