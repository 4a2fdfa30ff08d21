"""Evaluation report: one self-contained page, and its pictures as files."""

from refinenet.evaluation.report.targets import draw_target_strip
from refinenet.evaluation.report.writer import check_folder, write_report

__all__ = ["check_folder", "draw_target_strip", "write_report"]
