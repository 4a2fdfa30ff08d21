"""Training: a run from its settings to its model.

Start reading with `stages` (the runs that a call to `train` starts), `run.TrainRun` (one run) and `engine.trainer`
(the training loop). `start.resume_run` resumes a stopped run from the newest checkpoint that `records.checkpoints`
finds. Targets are the ground truth of outputs besides classes: depth, normals and other quantities.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.training.config import TrainConfig
    from refinenet.training.pretraining.config import PretrainConfig
    from refinenet.training.pretraining.run import pretrain_encoder
    from refinenet.training.records.fingerprint import find_changes, take_fingerprint
    from refinenet.training.records.folder import RunFolder
    from refinenet.training.records.recipes import merge, read_recipe, recipe_descriptions, recipe_settings
    from refinenet.training.records.run_record import RunRecord
    from refinenet.training.run import TrainResult, TrainRun
    from refinenet.training.stages import prepare_runs
    from refinenet.training.start import TrainArguments
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "PretrainConfig",
    "RunFolder",
    "RunRecord",
    "TrainArguments",
    "TrainConfig",
    "TrainResult",
    "TrainRun",
    "find_changes",
    "merge",
    "prepare_runs",
    "pretrain_encoder",
    "read_recipe",
    "recipe_descriptions",
    "recipe_settings",
    "take_fingerprint",
]
