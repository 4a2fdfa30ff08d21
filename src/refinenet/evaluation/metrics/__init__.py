"""Figures of merit: what is counted, and by which rule a figure comes of it."""

from refinenet.evaluation.metrics.accumulator import CONFIDENT, Tally
from refinenet.evaluation.metrics.calibration import ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.evaluation.metrics.confusion import RULE, ConfusionMatrix, Scores
from refinenet.evaluation.metrics.figures import RULES, Calibration, ClassFigures, Figures, ImageFigures, make_figures
from refinenet.evaluation.metrics.paired import PAIRED_RULE, Difference, Differences, compare_counts
from refinenet.evaluation.metrics.significance import Interval

__all__ = [
    "CONFIDENT",
    "PAIRED_RULE",
    "RULE",
    "RULES",
    "Calibration",
    "ClassFigures",
    "ConfidenceCounts",
    "ConfusionMatrix",
    "Coverage",
    "Difference",
    "Differences",
    "Figures",
    "ImageFigures",
    "Interval",
    "ReliabilityBin",
    "Scores",
    "Tally",
    "compare_counts",
    "make_figures",
]
