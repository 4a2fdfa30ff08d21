"""The sections of a report's page below its figures: confusions, curves, images, rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import CONFIDENT, RULES, Figures
from refinenet.evaluation.report.confusions import largest, row_shares
from refinenet.evaluation.report.images import draw_class_list
from refinenet.evaluation.report.markup import Markup, element, join
from refinenet.evaluation.report.plots import Curve
from refinenet.evaluation.report.selection import LEAST_SHARE, Choice, Group
from refinenet.evaluation.report.tables import scroll_box
from refinenet.evaluation.report.views import Pixels, drawing_uri
from refinenet.evaluation.results import Evaluation
from refinenet.labels import LabelSet
from refinenet.legend import format_share

MOST_IN_TABLE = 32
"""Classes that the confusion matrix is a table for; of more, a picture."""
_MOST_NAMED = {True: 20, False: 10}
"""Confusions put into words, where there are many classes and where not."""
_MOST_LISTED = 40
"""Classes whose legend is not folded."""

_GROUPS: Mapping[Group, tuple[str, str]] = {
    "worst": ("Worst images", "By mIoU over the classes that occur in the image's truth or prediction."),
    "best": ("Best images", "By the same figure."),
    "class": (
        "Where each class is worst",
        "For the classes with the lowest IoU, the image in which it is lowest, of those in which the class has at "
        f"least {LEAST_SHARE:.1%} of the pixels.",
    ),
    "mistakes": (
        "Confident mistakes",
        f"The images with the largest share of pixels that are wrong with a confidence of {CONFIDENT:g} or more, each "
        "around the spot with most of them. Where a good model is sure and the label disagrees, it is often the label "
        "that is wrong: look here first for mistakes in the dataset.",
    ),
}


def draw_confusions(figures: Figures, label_set: LabelSet, picture: Pixels | None) -> Markup:
    """The largest confusions in words, and the matrix.

    Args:
        figures: All of them.
        label_set: What classes are called.
        picture: The matrix as a picture, where there are too many classes for a table.
    """
    names = label_set.names
    told = [
        element(
            "li",
            element("strong", names[one.truth]),
            " is called ",
            element("strong", names[one.prediction]),
            f": {format_share(one.share)} of its pixels ({one.pixels:,})",
        )
        for one in largest(figures, _MOST_NAMED[picture is not None])
    ]
    note = "A row for each true class, a column for what it is called; in % of the row's pixels. "
    if picture is None:
        matrix = scroll_box(_draw_matrix(row_shares(figures), label_set), "Confusion matrix")
    else:
        note += "From id 0 at the top left; the stronger the colour, the larger the share. "
        alt = f"Confusion matrix of {len(names)} classes"
        matrix = element("img", src=drawing_uri(picture), alt=alt, class_="matrix", width=picture.shape[1])
    listed = element("ol", *told) if told else element("p", "Nothing is confused.")
    return join((listed, element("p", note + "Right ones are blue, wrong ones orange.", class_="note"), matrix))


def draw_curve_section(curves: Sequence[Curve], figures: Figures) -> Markup:
    """The curves beside each other, each with its words; a note on those that cannot be drawn."""
    drawn = [
        element(
            "figure",
            element("h3", curve.title),
            element("div", curve.svg, role="img", aria_label=curve.told),
            element("figcaption", curve.told),
            class_="curve",
        )
        for curve in curves
    ]
    notes = []
    if figures.calibration is None:
        notes.append("The confidence of these predictions is not known: there is no reliability and no coverage curve.")
    elif not curves:
        notes.append("No pixel has a truth: there is nothing to draw.")
    return join((*(element("p", note) for note in notes), element("div", *drawn, class_="curves")))


def draw_images(evaluation: Evaluation, entries: Mapping[Choice, Markup]) -> Markup:
    """All groups of images, with the legend of the classes."""
    label_set = evaluation.label_set
    listed = draw_class_list(range(len(label_set)), label_set)
    if len(label_set) > _MOST_LISTED:
        listed = element("details", element("summary", f"Colours of the {len(label_set)} classes"), listed)
    key = element(
        "ul",
        *(
            element("li", element("span", class_=f"swatch {name}"), element("span", text))
            for name, text in (
                ("right", "right: the image, pale"),
                ("wrong", "wrong, or without a class"),
                ("sure", f"wrong with a confidence of {CONFIDENT:g} or more"),
                ("void", "void: no truth"),
            )
        ),
        class_="legend",
    )
    parts = [element("h3", "Colours of the classes"), listed, element("h3", "Colours of mistakes"), key]
    for group, (title, note) in _GROUPS.items():
        shown = [entry for choice, entry in entries.items() if choice.group == group]
        parts.append(
            element(
                "section",
                element("h3", title),
                element("p", note, class_="note"),
                *(shown or [element("p", _tell_nothing(group, evaluation))]),
                id=group,
            )
        )
    return join(parts)


def draw_rules() -> Markup:
    """How each figure is counted."""
    told = [join((element("dt", name), element("dd", rule))) for name, rule in RULES.items()]
    return element("details", element("summary", "How each figure is counted"), element("dl", *told, class_="rules"))


def _tell_nothing(group: Group, evaluation: Evaluation) -> str:
    if group == "mistakes" and evaluation.figures.calibration is None:
        return "The confidence of these predictions is not known."
    if group == "mistakes":
        return f"No pixel is wrong with a confidence of {CONFIDENT:g} or more."
    return "There is no further image with a figure." if group == "best" else "There is no image with a figure."


def _draw_matrix(shares: npt.NDArray[np.float64], label_set: LabelSet) -> Markup:
    names = label_set.names
    heads = [element("th", element("span", name), scope="col") for name in names]
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(_draw_cell(name, names[column], float(share), row == column) for column, share in enumerate(line)),
        )
        for row, (name, line) in enumerate(zip(names, shares, strict=True))
    ]
    corner = element("td", "truth ↓ called →", class_="corner")
    return element("table", element("thead", element("tr", corner, *heads)), element("tbody", *rows), class_="matrix")


def _draw_cell(truth: str, prediction: str, share: float, is_right: bool) -> Markup:
    if share == 0:
        return element("td")
    shown = "<1" if share < 0.005 else f"{100 * share:.0f}"
    kind = ("right" if is_right else "wrong") + (" strong" if share >= 0.4 else "")
    title = f"{truth} called {prediction}: {100 * share:.2f} %"
    return element("td", shown, class_=kind, style=f"--heat:{share**0.5:.3f}", title=title)
