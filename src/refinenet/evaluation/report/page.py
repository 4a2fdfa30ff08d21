"""The page: everything in one file, which asks for nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

from refinenet.evaluation.report.markup import Markup, data_block, element
from refinenet.evaluation.report.plots import Curve
from refinenet.evaluation.report.sections import draw_confusions, draw_curve_section, draw_images, draw_rules
from refinenet.evaluation.report.selection import Choice
from refinenet.evaluation.report.tables import draw_class_table, draw_summary
from refinenet.evaluation.report.views import Pixels
from refinenet.evaluation.results import Evaluation


def draw_page(
    evaluation: Evaluation, curves: Sequence[Curve], matrix: Pixels | None, entries: Mapping[Choice, Markup]
) -> str:
    """The whole page.

    Args:
        evaluation: What was found.
        curves: What `curves.draw_curves` drew of it.
        matrix: The confusion matrix as a picture, where there are many classes.
        entries: The images, in their order.
    """
    figures = evaluation.figures
    title = f"{evaluation.dataset} {evaluation.split}: {evaluation.images} images"
    return Template(_read("page.html")).substitute(
        title=element("span", title),
        window_title=element("title", f"{title} - RefineNet evaluation"),
        style=_read("page.css"),
        script=_read("page.js"),
        summary=draw_summary(evaluation),
        classes=draw_class_table(evaluation),
        confusions=draw_confusions(figures, evaluation.label_set, matrix),
        curves=draw_curve_section(curves, figures),
        images=draw_images(evaluation, entries),
        rules=draw_rules(),
        figures=data_block(evaluation.summary(), "figures"),
    )


def _read(name: str) -> str:
    return (files("refinenet.evaluation.report") / name).read_text(encoding="utf-8")
