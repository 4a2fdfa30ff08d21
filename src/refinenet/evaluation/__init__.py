"""Evaluation of a model or of label maps on a dataset: metrics, report, comparison, submission.

Begin with `pipeline`, which runs all steps, and `evaluator`, the pass over the images. `results` writes and reads
results.json, and `report/` writes the HTML page.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.evaluation.calibration import FittedTemperature, fit_temperature
    from refinenet.evaluation.comparison import EvaluationComparison, compare
    from refinenet.evaluation.evaluator import PROTOCOL, accumulate_targets, evaluate, model_predictor, validate
    from refinenet.evaluation.metric_tables import By
    from refinenet.evaluation.metrics import ConfusionMatrix
    from refinenet.evaluation.pipeline import (
        as_read_by,
        check_masks,
        choose_protocol_for,
        evaluate_predictions,
        find_targets,
        fit_to_model,
        open_split,
        open_splits_of,
        run_evaluation,
    )
    from refinenet.evaluation.report.images import draw_frame, photo_uri
    from refinenet.evaluation.report.targets import draw_target_strip
    from refinenet.evaluation.results import Evaluation, percent
    from refinenet.evaluation.submission import Submission, plan_submission, write_submission
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "PROTOCOL",
    "By",
    "ConfusionMatrix",
    "Evaluation",
    "EvaluationComparison",
    "FittedTemperature",
    "Submission",
    "accumulate_targets",
    "as_read_by",
    "check_masks",
    "choose_protocol_for",
    "compare",
    "draw_frame",
    "draw_target_strip",
    "evaluate",
    "evaluate_predictions",
    "find_targets",
    "fit_temperature",
    "fit_to_model",
    "model_predictor",
    "open_split",
    "open_splits_of",
    "percent",
    "photo_uri",
    "plan_submission",
    "run_evaluation",
    "validate",
    "write_submission",
]
