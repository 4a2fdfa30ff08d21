"""Figures of merit: what is counted, and by which rule a figure comes of it."""

from refinenet.metrics.bootstrap import Interval
from refinenet.metrics.calibration import ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.metrics.confusion import RULE, ConfusionMatrix, Scores
from refinenet.metrics.figures import RULES, Calibration, ClassFigures, Figures, ImageFigures, make_figures
from refinenet.metrics.paired import PAIRED_RULE, Difference, Differences, compare_counts
from refinenet.metrics.tally import CONFIDENT, Tally

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
