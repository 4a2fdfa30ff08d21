"""Curves of a run, drawn from its log."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refinenet.io.files import write_atomically
from refinenet.training.loggers import Row, read_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASS_IOU = "val_iou/"
"""Prefix of the columns with the IoU of a class; the name of the class follows."""
MOST_CLASSES = 60
"""Largest number of classes that are drawn: of more, the worst ones."""

SHARES = {"_r2": "R2", "_delta_1": "within a quarter (delta 1)", "_within_11_25": "within 11.25 degrees"}
"""Ends of the columns with metrics of outputs besides classes that are 1 at best, and what they mean."""

_WIDTH, _BELOW, _DPI = 10, 0.6, 120
"""Width and height below the last panel in inches, and dots per inch."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#000000")
"""Blue, vermilion, green, orange, sky blue, purple, yellow and black, distinct for colour-blind people.

Source: Okabe and Ito, Color Universal Design, 2008."""


def draw_curves(rows: Sequence[Row], path: Path) -> Path:
    """Draw the curves of a run: loss, mIoU with its best epoch, metrics of outputs, learning rates, IoU of each class.

    Args:
        rows: Rows of log.csv: "epoch" and, if present, "loss", "val_miou", "learning_rate", "encoder_learning_rate",
            `CLASS_IOU` columns, and those of outputs that end as `SHARES`. Metrics that were not measured in an epoch
            are empty.
        path: The `.png` to write, whole or not at all.

    Returns:
        The path written.

    Raises:
        ValueError: There is no row with an epoch.
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    if not _points(rows, "epoch")[0]:
        raise ValueError("There are no curves to draw: no row has an epoch.")
    classes = _class_names(rows)
    wanted = [
        (2.7, _draw_loss, True),
        (2.7, _draw_miou, bool(_points(rows, "val_miou")[0])),
        (2.7, _draw_shares, bool(_share_names(rows))),
        (2.0, _draw_rates, bool(_points(rows, "learning_rate")[0])),
        (0.6 + 0.2 * min(len(classes), MOST_CLASSES), _draw_classes, bool(classes)),
    ]
    parts = [(height, draw) for height, draw, is_there in wanted if is_there]
    heights = [height for height, _ in parts]
    figure = Figure(figsize=(_WIDTH, sum(heights) + _BELOW), dpi=_DPI)
    panels = _add_panels(figure, heights, max((len(_label(name)) for name in classes), default=0))
    for panel, (_, draw) in zip(panels, parts, strict=True):
        draw(panel, rows)
    _finish(panels[-1], rows)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return write_atomically(path, content.getvalue())


def _add_panels(figure: Figure, heights: Sequence[float], letters: int) -> list[Axes]:
    """Place panels of these heights (inches, with their titles) above each other, with room for names at the left.

    Matplotlib's own layouts measure and draw each text several times, which takes longer than the epoch of a small run.
    """
    width, height = figure.get_size_inches()
    left, right, title = max(0.7, 0.2 + 0.08 * letters), 0.5, 0.5
    panels: list[Axes] = []
    for bottom, each in zip(itertools.accumulate(heights), heights, strict=True):
        place = (left / width, 1 - bottom / height, 1 - (left + right) / width, (each - title) / height)
        panels.append(figure.add_axes(place, sharex=panels[0] if panels else None))
    for panel in panels[:-1]:
        panel.tick_params(axis="x", labelbottom=False)
    return panels


def _points(rows: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    """Return the epochs in which a metric was measured, and its values."""
    pairs = [(read_number(row.get("epoch")), read_number(row.get(name))) for row in rows]
    points = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _class_names(rows: Sequence[Row]) -> list[str]:
    """Return the columns with the IoU of a class, if it was measured at all."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name.startswith(CLASS_IOU)]
    return [name for name in names if _points(rows, name)[0]]


def _worst(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Return the `MOST_CLASSES` classes with the lowest last IoU, in their order."""
    last = {name: _points(rows, name)[1][-1] for name in names}
    shown = set(sorted(names, key=lambda name: last[name])[:MOST_CLASSES])
    return [name for name in names if name in shown]


def _draw_loss(panel: Axes, rows: Sequence[Row]) -> None:
    _draw_line(panel, *_points(rows, "loss"), _COLOURS[0])
    _set_title(panel, "Training loss, mean over the epoch")


def _draw_miou(panel: Axes, rows: Sequence[Row]) -> None:
    epochs, values = _points(rows, "val_miou")
    best = int(np.argmax(values))
    _draw_line(panel, epochs, [100 * value for value in values], _COLOURS[2])
    panel.plot([epochs[best]], [100 * values[best]], "o", color=_COLOURS[1], markersize=7, clip_on=False, zorder=3)
    _set_title(panel, f"Validation mIoU in %: best {100 * values[best]:.2f} (epoch {epochs[best]:g})")


def _share_names(rows: Sequence[Row]) -> list[str]:
    """Return the columns of outputs besides classes whose metrics are 1 at best, if they were measured at all."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [name for name in names if name.endswith(tuple(SHARES)) and _points(rows, name)[0]][: len(_COLOURS)]


def _draw_shares(panel: Axes, rows: Sequence[Row]) -> None:
    names = _share_names(rows)
    for colour, name in zip(_COLOURS[: len(names)], names, strict=True):
        end = next(end for end in SHARES if name.endswith(end))
        epochs, values = _points(rows, name)
        quantity = name.removeprefix("val_").removesuffix(end).replace("$", r"\$")
        _draw_line(panel, epochs, [100 * value for value in values], colour, f"{quantity}: {SHARES[end]}")
    panel.set_ylim(bottom=max(-100, panel.get_ylim()[0]))
    _set_title(panel, "Validation of the other outputs in %: best 100")
    panel.legend(frameon=False, loc="lower right", fontsize=8)


def _draw_rates(panel: Axes, rows: Sequence[Row]) -> None:
    decoder, encoder = _points(rows, "learning_rate"), _points(rows, "encoder_learning_rate")
    is_one = decoder == encoder  # one line would hide the other
    _draw_line(panel, *decoder, _COLOURS[0], "both encoder and decoder" if is_one else "decoder")
    if not is_one:
        _draw_line(panel, *encoder, _COLOURS[1], "encoder")
    _set_title(panel, "Learning rate at the end of the epoch", y=1.1)  # the power of ten stands below
    panel.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    panel.set_ylim(bottom=0)
    if encoder[0]:
        panel.legend(frameon=False, loc="upper right")


def _draw_line(panel: Axes, epochs: list[float], values: list[float], colour: str, label: str = "") -> None:
    if values:
        marker = "." if len(values) < 40 else ""
        panel.plot(epochs, values, color=colour, linewidth=1.6, marker=marker, label=label)
    panel.grid(visible=True, color="#e5e5e5", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_classes(panel: Axes, rows: Sequence[Row]) -> None:
    """Draw a heat map: a row for each class, its IoU as colour, and as a number at the end."""
    all_names = _class_names(rows)
    names = _worst(rows, all_names)
    measured = sorted({epoch for name in names for epoch in _points(rows, name)[0]})
    table = np.full((len(names), len(measured)), np.nan)
    for k, name in enumerate(names):
        for epoch, value in zip(*_points(rows, name), strict=True):
            table[k, measured.index(epoch)] = 100 * value
    middles = [(early + late) / 2 for early, late in itertools.pairwise(measured)]
    edges = [measured[0] - 0.5, *middles, measured[-1] + 0.5]
    panel.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, table, cmap="viridis", vmin=0, vmax=100)
    labels = [_label(name).replace("$", r"\$") for name in names]  # a pair of dollars would enclose a formula
    panel.set_yticks(range(len(names)), labels, fontsize=8)
    panel.invert_yaxis()
    right = panel.secondary_yaxis("right")
    ends = [[value for value in line if not np.isnan(value)][-1] for line in table]
    right.set_yticks(range(len(names)), [f"{end:.1f}" for end in ends], fontsize=8)
    right.tick_params(length=0)
    shown = "each class" if len(names) == len(all_names) else f"the {len(names)} worst of {len(all_names)} classes"
    _set_title(panel, f"Validation IoU of {shown} in % (dark 0, bright 100; last value at the right)")


def _set_title(panel: Axes, text: str, y: float = 1.0) -> None:
    """Set a title at a height of its own, in panel heights; Matplotlib would draw each label once more to find one."""
    panel.set_title(text, loc="left", y=y)


def _label(column: str) -> str:
    """Return the class of a column, short enough to fit beside the map."""
    name = column.removeprefix(CLASS_IOU)
    return name if len(name) <= 24 else f"{name[:23]}…"


def _finish(panel: Axes, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = _points(rows, "epoch")[0]
    panel.set_xlim(epochs[0] - 0.5, max(epochs[-1], epochs[0] + 1) + 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    panel.set_xlabel("epoch")
