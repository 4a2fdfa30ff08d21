"""The report page: one self-contained HTML file, rendered from the template `page.html`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from refinenet.evaluation.metrics import CONFIDENT, METRICS, RULES, Interval
from refinenet.evaluation.report.images import Entry, Pixels, drawing_uri
from refinenet.evaluation.report.plots import Curve, largest_confusions, row_shares
from refinenet.evaluation.report.selection import LEAST_SHARE, Group
from refinenet.evaluation.report.targets import TargetEntry
from refinenet.evaluation.results import Evaluation, percent
from refinenet.io.drawing.legend import format_share
from refinenet.io.html_pages import open_template, read_text

if TYPE_CHECKING:
    from jinja2 import Template

_PACKAGE = "refinenet.evaluation.report"
"""Package of the template, style and script."""

MOST_IN_TABLE = 32
"""Largest number of classes whose confusion matrix is a table; of more classes, it is a picture."""
_MOST_CONFUSIONS = 10
"""Confusions listed in words beside a table; twice as many beside a picture, which has no numbers."""
_MOST_LISTED = 40
"""Largest number of classes whose legend is unfolded."""
_COLUMNS = (
    "id", "class", "IoU %", "95 % of IoU", "precision %", "recall %", "Dice %", "boundary IoU %", "boundary F %",
    "pixels",
)  # fmt: skip
_GROUPS: Mapping[Group, tuple[str, str]] = {
    "worst": ("Worst images", "By mIoU over the classes that occur in the image's ground truth or prediction."),
    "best": ("Best images", "By the same mIoU, best first."),
    "class": (
        "Where each class is worst",
        "For each of the classes with the lowest IoU, the image in which its IoU is lowest, among images in which the "
        f"class covers at least {LEAST_SHARE:.1%} of the pixels.",
    ),
    "mistakes": (
        "Confident mistakes",
        f"The images with the largest share of pixels that are wrong with a confidence of {CONFIDENT:g} or more, each "
        "around the spot with most of them. Where a good model is confident and the label disagrees, the label is "
        "often wrong: look here first for mistakes in the dataset.",
    ),
}


@dataclass(frozen=True)
class _Section:
    """A group of images on the page."""

    name: Group
    title: str
    note: str
    if_empty: str
    """The sentence shown when the group has no image."""


@dataclass(frozen=True, kw_only=True)
class _Output:
    """An output besides classes on the page."""

    name: str
    tables: tuple[tuple[str, Sequence[str], Sequence[Sequence[str]]], ...]
    """Tables of its metrics: title, heads and rows."""
    rules: Mapping[str, str]
    """How each metric is computed."""
    measure: str
    """Metric by which its images are chosen."""
    entries: tuple[TargetEntry, ...]


@dataclass(frozen=True)
class _Picture:
    uri: str
    width: int


def render_page(
    evaluation: Evaluation,
    curves: Sequence[Curve],
    matrix: Pixels | None,
    entries: Sequence[Entry],
    target_entries: Sequence[TargetEntry] = (),
) -> str:
    """Render the whole page.

    Args:
        evaluation: The evaluation to report.
        curves: The curves drawn by `plots.draw_curves`.
        matrix: The confusion matrix as a picture if there are more than `MOST_IN_TABLE` classes, else None.
        entries: The images, in the order in which they appear.
        target_entries: The images of outputs besides classes, likewise.
    """
    from markupsafe import Markup

    metrics, label_set = evaluation.metrics, evaluation.label_set
    return _load_template().render(
        title=f"{evaluation.dataset} {evaluation.split}: {evaluation.images} images",
        style=Markup(read_text(_PACKAGE, "page.css")),
        script=Markup(read_text(_PACKAGE, "page.js")),
        names=label_set.names,
        colours=label_set.colours,
        metrics=metrics,
        cards=list(_headlines(evaluation)),
        facts=[*_more_metrics(evaluation), *_metadata(evaluation)],
        columns=_COLUMNS,
        confusions=largest_confusions(metrics, _MOST_CONFUSIONS if matrix is None else 2 * _MOST_CONFUSIONS),
        matrix=row_shares(metrics).tolist() if matrix is None else None,
        matrix_picture=None if matrix is None else _Picture(drawing_uri(matrix), matrix.shape[1]),
        curves=[{"title": curve.title, "description": curve.description, "svg": Markup(curve.svg)} for curve in curves],
        most_listed=_MOST_LISTED,
        confident=f"{CONFIDENT:g}",
        groups=[_Section(group, *texts, _if_empty(group, evaluation)) for group, texts in _GROUPS.items()],
        entries=entries,
        outputs=[_describe_output(name, evaluation, target_entries) for name in evaluation.targets],
        rules=RULES if label_set.names else {},
        data=evaluation.summary(),
    )


def _describe_output(name: str, evaluation: Evaluation, entries: Sequence[TargetEntry]) -> _Output:
    accumulator = evaluation.targets[name]
    measure = next(iter(accumulator.summary()))
    return _Output(
        name=name,
        tables=tuple(accumulator.tables()),
        rules=accumulator.rules,
        measure=measure,
        entries=tuple(entry for entry in entries if entry.choice.output == name),
    )


@cache
def _load_template() -> Template:
    filters: dict[str, Callable[..., object]] = {
        "percent": percent,
        "percent_sign": _percent,
        "interval": _interval,
        "share": format_share,
    }
    return open_template(_PACKAGE, "page.html", filters)


def _headlines(evaluation: Evaluation) -> Iterator[tuple[str, float | None, Interval | None]]:
    """The metrics with their 95 % intervals."""
    metrics = evaluation.metrics
    for metric in METRICS:
        if metric.has_interval and evaluation.label_set.names:
            yield metric.title, metrics.overall[metric.key], metrics.intervals[metric.key]


def _more_metrics(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    metrics, names = evaluation.metrics, evaluation.label_set.names
    others = [metric for metric in METRICS if not metric.has_interval and not metric.at and names]
    # First those that are printed, too; last those that are rarely shown.
    for metric in sorted(others, key=lambda metric: (metric.only_above_zero, metric.printed == "")):
        value = metrics.overall[metric.key]
        if value is None and metric.needs_confidence:
            yield metric.title, "not known: the predictions have no confidence"
        elif value or not metric.only_above_zero:
            yield metric.title, "-" if value is None else f"{percent(value)} {metric.unit}"
    if not names:
        return
    absent = [name for name, one in zip(names, metrics.classes, strict=True) if one.iou is None]
    yield "classes", f"{len(names)}, of which {evaluation.scores.classes_averaged} occur"
    if absent:
        yield "absent classes", f"{len(absent)}, not in any mean: {', '.join(absent)}"


def _metadata(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    images = max(evaluation.images, 1)
    parts = asdict(evaluation.parts)
    total = sum(parts.values()) or 1.0
    yield "dataset", f"{evaluation.dataset}, split {evaluation.split}: {evaluation.images} images"
    yield "protocol", evaluation.protocol
    if evaluation.official:
        yield "official protocol", evaluation.official
    yield "model (SHA-256)", evaluation.model_sha256 or "none: predictions read from files"
    yield "refinenet", evaluation.package_version
    shares = ", ".join(
        f"{name} {seconds / images:.3f} s per image ({seconds / total:.0%})" for name, seconds in parts.items()
    )
    yield "time", f"{evaluation.seconds:.1f} s; {shares}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{percent(value)} %"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _if_empty(group: Group, evaluation: Evaluation) -> str:
    if group == "mistakes" and evaluation.metrics.calibration is None:
        return "The confidence of these predictions is not known."
    if group == "mistakes":
        return f"No pixel is wrong with a confidence of {CONFIDENT:g} or more."
    return "There are no other images with an mIoU." if group == "best" else "No image has an mIoU."
