"""Evaluation report: one self-contained page, and its pictures as files."""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.evaluation.report.targets import draw_target_strip
    from refinenet.evaluation.report.writer import check_folder, write_report
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = ["check_folder", "draw_target_strip", "write_report"]
