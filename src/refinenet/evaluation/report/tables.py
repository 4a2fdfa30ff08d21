"""What a report says in figures: the summary, and the table of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from refinenet.evaluation.metrics import ClassFigures, Interval
from refinenet.evaluation.report.images import draw_swatch
from refinenet.evaluation.report.markup import Markup, element, join
from refinenet.evaluation.results import Evaluation, percent
from refinenet.labels import LabelSet

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


def _draw_row(k: int, found: ClassFigures, label_set: LabelSet) -> Markup:
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
