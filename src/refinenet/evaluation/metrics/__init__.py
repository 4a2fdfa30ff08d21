"""Figures of merit: what is counted, and by which rule a figure comes of it."""

from refinenet.evaluation.metrics.accumulator import (
    CONFIDENT,
    RULES,
    Calibration,
    ClassFigures,
    Figures,
    ImageFigures,
    Tally,
    make_figures,
)
from refinenet.evaluation.metrics.calibration import ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.evaluation.metrics.confusion import RULE, ConfusionMatrix, Scores
from refinenet.evaluation.metrics.significance import PAIRED_RULE, Difference, Differences, Interval, compare_counts

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
