"""The page: everything in one file, which asks for nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from string import Template

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import CONFIDENT, RULES, ClassMetrics, Interval, Metrics
from refinenet.evaluation.report.images import Pixels, draw_class_list, draw_swatch, drawing_uri
from refinenet.evaluation.report.markup import Markup, data_block, element, join
from refinenet.evaluation.report.plots import Curve, largest, row_shares
from refinenet.evaluation.report.selection import LEAST_SHARE, Choice, Group
from refinenet.evaluation.results import Evaluation, percent
from refinenet.labels import LabelSet
from refinenet.legend import format_share

_COLUMNS = (
    "id", "class", "IoU %", "95 % of IoU", "precision %", "recall %", "Dice %", "boundary IoU %", "boundary F %",
    "pixels",
)  # fmt: skip


def draw_summary(evaluation: Evaluation) -> Markup:
    """What was measured, how good it is, and where the time went."""
    figures, scores = evaluation.figures, evaluation.scores
    intervals = figures.intervals
    headlines = (
        ("mIoU", scores.miou, intervals["miou"]),
        ("pixel accuracy", scores.pixel_accuracy, intervals["pixel_accuracy"]),
        ("mean accuracy", scores.mean_accuracy, intervals["mean_accuracy"]),
        ("boundary mIoU", figures.boundary_miou, intervals["boundary_miou"]),
    )
    cards = [_draw_card(*headline) for headline in headlines]
    facts = [
        join((element("dt", name), element("dd", value)))
        for name, value in (*_tell_figures(evaluation), *_tell_facts(evaluation))
    ]
    return join((element("div", *cards, class_="cards"), element("dl", *facts, class_="facts")))


def draw_class_table(evaluation: Evaluation) -> Markup:
    """A row for each class; scripts sort it by what the cells have as `data-value`."""
    heads = [
        element("th", element("button", name, type="button"), scope="col", aria_sort="ascending" if k == 0 else None)
        for k, name in enumerate(_COLUMNS)
    ]
    rows = [_draw_row(k, found, evaluation.label_set) for k, found in enumerate(evaluation.figures.classes)]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), id="class-table")
    return scroll_box(table, "Figures of each class")


def scroll_box(inside: Markup, name: str) -> Markup:
    """A box that what is too wide can be moved in, by keyboard, too."""
    return element("div", inside, class_="scroll", tabindex=0, role="region", aria_label=name)


def _draw_card(name: str, value: float | None, interval: Interval | None) -> Markup:
    return element(
        "div",
        element("span", name, class_="what"),
        element("strong", "-" if value is None else f"{percent(value)} %"),
        element("span", f"95 %: {_range(interval)}", class_="range"),
        class_="card",
    )


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _tell_figures(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    figures, names = evaluation.figures, evaluation.label_set.names
    yield "boundary F-score", _percent(figures.boundary_f)
    error = figures.calibration.error if figures.calibration else None
    yield "calibration error", "not known: there is no confidence" if error is None else _percent(error)
    yield "frequency-weighted IoU", _percent(figures.frequency_weighted_iou)
    yield "mean Dice", _percent(figures.mean_dice)
    if figures.abstained:
        yield "without a predicted class", f"{_percent(figures.abstained)} of the pixels"
    absent = [name for name, found in zip(names, figures.classes, strict=True) if found.iou is None]
    yield "classes", f"{len(names)}, of which {evaluation.scores.classes_averaged} occur"
    if absent:
        yield "absent classes", f"{len(absent)}, in no mean: {', '.join(absent)}"


def _tell_facts(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    images = max(evaluation.images, 1)
    parts = asdict(evaluation.parts)
    total = sum(parts.values()) or 1.0
    yield "dataset", f"{evaluation.dataset}, split {evaluation.split}: {evaluation.images} images"
    yield "protocol", evaluation.protocol
    if evaluation.official:
        yield "the owners measure", evaluation.official
    yield "model (SHA-256)", evaluation.model_sha256 or "none: predictions came from files"
    yield "refinenet", evaluation.package_version
    shares = ", ".join(
        f"{name} {seconds / images:.3f} s an image ({seconds / total:.0%})" for name, seconds in parts.items()
    )
    yield "time", f"{evaluation.seconds:.1f} s; {shares}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{percent(value)} %"


def _draw_row(k: int, found: ClassMetrics, label_set: LabelSet) -> Markup:
    low = None if found.iou_interval is None else found.iou_interval[0]
    name = element("th", draw_swatch(label_set, k), element("span", label_set.names[k]), scope="row", class_="class")
    return element(
        "tr",
        element("td", str(k), data_value=k),
        name,
        element("td", percent(found.iou), data_value=found.iou, class_="bar", style=f"--share:{found.iou or 0:.4f}"),
        element("td", _range(found.iou_interval), data_value=low),
        *(
            element("td", percent(value), data_value=value)
            for value in (found.precision, found.recall, found.dice, found.boundary_iou, found.boundary_f)
        ),
        element("td", "-" if found.iou is None else f"{found.pixels:,}", data_value=found.iou and found.pixels),
    )


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


def draw_confusions(figures: Metrics, label_set: LabelSet, picture: Pixels | None) -> Markup:
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


def draw_curve_section(curves: Sequence[Curve], figures: Metrics) -> Markup:
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
