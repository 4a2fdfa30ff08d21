"""Plots of a report: mIoU near outlines, reliability, accuracy against coverage, and the confusion matrix."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import Calibration, Metrics
from refinenet.evaluation.results import percent
from refinenet.labels import LabelMap, LabelSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_INK, _GRID, _FIRST, _SECOND = "#20242b", "#d4d8de", "#0072b2", "#d55e00"
_ON_PAGE = {_INK: "currentColor", _GRID: "var(--line)", _FIRST: "var(--blue)", _SECOND: "var(--orange)"}
"""CSS colours that replace those of the plot, so that the page can be light or dark."""
_SIZE, _DPI, _FONT = (4.2, 3.1), 160, 9
_THRESHOLDS = (0.5, 0.9, 0.99)
"""Confidence thresholds marked on the coverage curve."""
_HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A plot, for the page and as a file."""

    name: str
    """Name of its file, without the suffix."""
    title: str
    description: str
    """What it shows, in words; also for screen readers."""
    svg: str
    """In the page's colours, on a transparent background."""
    png: bytes


def draw_curves(metrics: Metrics) -> tuple[Curve, ...]:
    """Draw the curves for which metrics are known."""
    return tuple(_draw_curves(metrics))


def _draw_curves(metrics: Metrics) -> Iterator[Curve]:
    bands = [(width, 100 * value) for width, value in metrics.trimap_miou.items() if value is not None]
    if bands:
        yield _draw_bands(bands)
    calibration = metrics.calibration
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
    panel.set_xlabel("distance from an outline, up to (pixels)")
    panel.set_ylabel("mIoU in %")
    _style(panel)
    (first, low), (last, high) = bands[0], bands[-1]
    description = f"mIoU is {low:.1f} % within {first} pixel of outlines, {high:.1f} % within {last}."
    return _finish(figure, "outlines", "mIoU near outlines", description)


def _draw_reliability(calibration: Calibration) -> Curve:
    figure = _new_figure()
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    bins = calibration.reliability
    points = [
        (100 * bin_.confidence, 100 * bin_.accuracy)
        for bin_ in bins
        if bin_.confidence is not None and bin_.accuracy is not None
    ]
    upper.plot([0, 100], [0, 100], "--", color=_INK, linewidth=0.8)
    upper.plot(*zip(*points, strict=True), "o-", color=_FIRST, markersize=4)
    upper.set_ylabel("correct, in %")
    total, width = sum(bin_.pixels for bin_ in bins), 100 / len(bins)
    middles = [(k + 0.5) * width for k in range(len(bins))]
    lower.bar(middles, [100 * bin_.pixels / total for bin_ in bins], 0.85 * width, color=_SECOND)
    lower.set_ylabel("% of pixels")
    lower.set_xlabel("confidence in %")
    lower.set_xlim(0, 100)
    for panel in (upper, lower):
        _style(panel)
    description = (
        f"The calibration error is {percent(calibration.error)} %, the mean difference between confidence and "
        "accuracy. Below the dashed line the model is overconfident, above it underconfident."
    )
    return _finish(figure, "reliability", "Reliability", description)


def _draw_coverage(calibration: Calibration) -> Curve:
    figure = _new_figure()
    panel = figure.subplots()
    points = {
        point.threshold: (100 * point.coverage, 100 * point.accuracy)
        for point in calibration.coverage
        if point.coverage is not None and point.accuracy is not None
    }
    panel.plot(*zip(*points.values(), strict=True), "o-", color=_FIRST, markersize=4)
    named = [threshold for threshold in _THRESHOLDS if threshold in points]
    for threshold in named:
        panel.annotate(
            f"{threshold:g}", points[threshold], (0, 6), textcoords="offset points", ha="center", color=_SECOND
        )
    panel.set_xlabel("coverage in % (numbers: confidence threshold)")
    panel.set_ylabel("accuracy in %")
    panel.margins(y=0.12)
    _style(panel)
    parts = [
        f"{points[threshold][1]:.1f} % on the {points[threshold][0]:.1f} % of pixels with a confidence of at least "
        f"{threshold:g}"
        for threshold in (0.0, *named)
        if threshold in points
    ]
    return _finish(figure, "coverage", "Accuracy against coverage", f"The accuracy is {'; '.join(parts)}.")


def _new_figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")


def _style(panel: Axes) -> None:
    panel.grid(visible=True, color=_GRID, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_INK)
    panel.tick_params(colors=_INK, labelsize=_FONT - 1)
    panel.set_facecolor("none")
    for label in (panel.xaxis.label, panel.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(_FONT)


def _finish(figure: Figure, name: str, title: str, description: str) -> Curve:
    import matplotlib

    svg, png = io.StringIO(), io.BytesIO()
    # Text stays text in the SVG, so the page can select it and use its own font; the salt makes ids repeatable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True)
    figure.suptitle(title, fontsize=_FONT + 2, color=_INK)
    figure.savefig(png, format="png", facecolor="white")
    drawn = _HEAD.sub("", svg.getvalue())
    for colour, on_page in _ON_PAGE.items():
        drawn = drawn.replace(colour, on_page)
    return Curve(name=name, title=title, description=description, svg=drawn, png=png.getvalue())


RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion, distinguishable for colour-blind readers. Source: Okabe and Ito, Color Universal Design, 2008."""
LEAST_SHARE = 1e-4
"""Share of all labelled pixels from which on a class's confusions are listed: in a few pixels, any share is chance."""
_SIDE = 720
"""Approximate side of the matrix picture, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Pixels of one class that are predicted as another."""

    truth: int
    prediction: int
    pixels: int
    share: float
    """Share of the true class's labelled pixels, in [0, 1]; from `image_confusions`, of all labelled pixels given."""


def row_shares(metrics: Metrics) -> npt.NDArray[np.float64]:
    """Return `(K, K)` shares of each true class's pixels by predicted class; rows of absent classes are 0."""
    totals = np.array([one.pixels for one in metrics.classes], np.int64)
    shares: npt.NDArray[np.float64] = metrics.confusion / np.maximum(totals, 1)[:, np.newaxis]
    return shares


def largest_confusions(metrics: Metrics, count: int) -> list[Confusion]:
    """Return the confusions with the largest share of a class, largest first; very rare classes are left out."""
    shares = row_shares(metrics)
    np.fill_diagonal(shares, 0)
    totals = np.array([one.pixels for one in metrics.classes], np.int64)
    shares[totals < LEAST_SHARE * totals.sum()] = 0
    return _ordered(metrics.confusion, shares, count)


def image_confusions(truth: LabelMap, prediction: LabelMap, label_set: LabelSet, count: int) -> list[Confusion]:
    """Return the confusions with most pixels in one image, or in some of its pixels; abstentions are left out.

    Args:
        truth: Ids of any shape.
        prediction: Ids of the same shape.
        label_set: Classes of the ids.
        count: Largest number of confusions.
    """
    labelled = truth != label_set.ignore_index
    wrong = labelled & (truth != prediction) & (prediction != label_set.ignore_index)
    pairs = np.stack([truth[wrong], prediction[wrong]]).astype(np.int64)
    codes, counts = np.unique(pairs[0] * len(label_set) + pairs[1], return_counts=True)
    total = max(1, int(labelled.sum()))
    return [
        Confusion(
            truth=int(codes[k]) // len(label_set),
            prediction=int(codes[k]) % len(label_set),
            pixels=int(counts[k]),
            share=int(counts[k]) / total,
        )
        for k in np.argsort(-counts, kind="stable")[:count]
    ]


def draw_matrix(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Draw the matrix: correct pixels in blue, wrong ones in vermilion, opacity by the square root of the share.

    The square root keeps small confusions visible beside the large shares of the diagonal.

    Args:
        shares: `(K, K)` in [0, 1]; with very many classes, several cells share a pixel, which shows the largest.

    Returns:
        `(S, S, 3)` uint8 RGB, on white.
    """
    count = len(shares)
    is_right = np.eye(count, dtype=bool)
    right, wrong = (_pool(np.where(where, shares, 0)) for where in (is_right, ~is_right))
    scale = max(1, _SIDE // len(right))
    strength = np.sqrt(np.clip(np.stack([right, wrong]), 0, 1)).repeat(scale, 1).repeat(scale, 2)[..., np.newaxis]
    colours = np.where(strength[0] >= strength[1], np.array(RIGHT), np.array(WRONG))
    painted: npt.NDArray[np.uint8] = np.rint(255 + strength.max(0) * (colours - 255.0)).astype(np.uint8)
    return painted


def _ordered(pixels: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], count: int) -> list[Confusion]:
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, shares.shape), strict=True)
    return [
        Confusion(truth=int(row), prediction=int(column), pixels=int(pixels[row, column]), share=float(share))
        for row, column in places
        if (share := shares[row, column]) > 0
    ]


def _pool(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the largest value of each block, with blocks large enough that at most `_SIDE` of them fill a row."""
    block = -(-len(shares) // _SIDE)
    padding = -len(shares) % block
    padded = np.pad(shares, (0, padding))
    side = len(padded) // block
    pooled: npt.NDArray[np.float64] = padded.reshape(side, block, side, block).max((1, 3))
    return pooled
