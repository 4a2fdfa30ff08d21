"""A run from its settings to its model.

Begin with `stages` (which runs a call means), `run.TrainRun` (one run) and `engine.trainer` (the loop, written out).
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.training.config import TrainConfig
    from refinenet.training.pretraining import pretrain_encoder
    from refinenet.training.records.recipes import merge, read_recipe, recipe_descriptions
    from refinenet.training.run import TrainResult, TrainRun
    from refinenet.training.stages import TrainArguments, prepare_runs
    from refinenet.training.start import RunOptions
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "RunOptions",
    "TrainArguments",
    "TrainConfig",
    "TrainResult",
    "TrainRun",
    "merge",
    "prepare_runs",
    "pretrain_encoder",
    "read_recipe",
    "recipe_descriptions",
]
