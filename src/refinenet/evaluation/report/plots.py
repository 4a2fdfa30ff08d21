"""The curves of a report: mIoU near outlines, what a confidence is worth, and accuracy against coverage."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refinenet.evaluation.metrics import Calibration, Figures
from refinenet.evaluation.report.markup import Markup
from refinenet.evaluation.results import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _GRID, _FIRST, _SECOND = "#20242b", "#d4d8de", "#0072b2", "#d55e00"
_ON_PAGE = {_INK: "currentColor", _GRID: "var(--line)", _FIRST: "var(--blue)", _SECOND: "var(--orange)"}
"""What the colours become in the page, which is light or dark."""
_SIZE, _DPI, _FONT = (4.2, 3.1), 160, 9
_TOLD_AT = (0.5, 0.9, 0.99)
"""Least confidences that the coverage curve names."""
_HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A drawing, for the page and as a file."""

    name: str
    """Of its file, without the suffix."""
    title: str
    told: str
    """What it shows, in words."""
    svg: Markup
    """In the page's colours, without a ground."""
    png: bytes


def draw_curves(figures: Figures) -> tuple[Curve, ...]:
    """The curves that there are figures for."""
    return tuple(_draw_curves(figures))


def _draw_curves(figures: Figures) -> Iterator[Curve]:
    bands = [(width, 100 * value) for width, value in figures.trimap_miou.items() if value is not None]
    if bands:
        yield _draw_bands(bands)
    calibration = figures.calibration
    if calibration is not None and calibration.error is not None:
        yield _draw_reliability(calibration)
        yield _draw_coverage(calibration)


def _draw_bands(bands: list[tuple[int, float]]) -> Curve:
    figure = _new_figure()
    panel = figure.subplots()
    widths = [width for width, _ in bands]
    panel.set_xscale("log", base=2)
    panel.plot(widths, [value for _, value in bands], "o-", color=_FIRST, markersize=4)
    panel.set_xticks(widths, [str(width) for width in widths])
    panel.minorticks_off()
    panel.set_xlabel("pixels from an outline, at most")
    panel.set_ylabel("mIoU in %")
    _dress(panel)
    (first, low), (last, high) = bands[0], bands[-1]
    told = f"mIoU is {low:.1f} % within {first} pixel of outlines, {high:.1f} % within {last}."
    return _finish(figure, "outlines", "mIoU near outlines", told)


def _draw_reliability(calibration: Calibration) -> Curve:
    figure = _new_figure()
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    bins = calibration.reliability
    points = [
        (100 * found.confidence, 100 * found.accuracy)
        for found in bins
        if found.confidence is not None and found.accuracy is not None
    ]
    upper.plot([0, 100], [0, 100], "--", color=_INK, linewidth=0.8)
    upper.plot(*zip(*points, strict=True), "o-", color=_FIRST, markersize=4)
    upper.set_ylabel("right, in %")
    total, width = sum(found.pixels for found in bins), 100 / len(bins)
    middles = [(k + 0.5) * width for k in range(len(bins))]
    lower.bar(middles, [100 * found.pixels / total for found in bins], 0.85 * width, color=_SECOND)
    lower.set_ylabel("% of pixels")
    lower.set_xlabel("confidence in %")
    lower.set_xlim(0, 100)
    for panel in (upper, lower):
        _dress(panel)
    told = (
        f"The calibration error is {percent(calibration.error)} %: by so much the confidence differs from the share "
        "that is right. Below the dashed line the model is too sure of itself, above it not sure enough."
    )
    return _finish(figure, "reliability", "What a confidence is worth", told)


def _draw_coverage(calibration: Calibration) -> Curve:
    figure = _new_figure()
    panel = figure.subplots()
    points = {
        found.threshold: (100 * found.coverage, 100 * found.accuracy)
        for found in calibration.coverage
        if found.coverage is not None and found.accuracy is not None
    }
    panel.plot(*zip(*points.values(), strict=True), "o-", color=_FIRST, markersize=4)
    named = [threshold for threshold in _TOLD_AT if threshold in points]
    for threshold in named:
        panel.annotate(
            f"{threshold:g}", points[threshold], (0, 6), textcoords="offset points", ha="center", color=_SECOND
        )
    panel.set_xlabel("pixels kept, in % (numbers: least confidence)")
    panel.set_ylabel("of these right, in %")
    panel.margins(y=0.12)
    _dress(panel)
    parts = [
        f"{points[threshold][1]:.1f} % of the {points[threshold][0]:.1f} % of pixels with a confidence of at least "
        f"{threshold:g}"
        for threshold in (0.0, *named)
        if threshold in points
    ]
    return _finish(figure, "coverage", "Accuracy against coverage", f"Right are {'; '.join(parts)}.")


def _new_figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")


def _dress(panel: Axes) -> None:
    panel.grid(visible=True, color=_GRID, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_INK)
    panel.tick_params(colors=_INK, labelsize=_FONT - 1)
    panel.set_facecolor("none")
    for label in (panel.xaxis.label, panel.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(_FONT)


def _finish(figure: Figure, name: str, title: str, told: str) -> Curve:
    import matplotlib

    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True)
    figure.suptitle(title, fontsize=_FONT + 2, color=_INK)
    figure.savefig(png, format="png", facecolor="white")
    drawn = _HEAD.sub("", svg.getvalue())
    for colour, on_page in _ON_PAGE.items():
        drawn = drawn.replace(colour, on_page)
    return Curve(name=name, title=title, told=told, svg=Markup(drawn), png=png.getvalue())
