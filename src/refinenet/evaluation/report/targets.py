"""Images of outputs besides classes: ground truth, prediction and error, with colour bars in units.

A kind of outputs is a row of `TARGET_PICTURES`.

Shape letters: H height, W width, D channels of an output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.normals import find_angles
from refinenet.evaluation.report.images import (
    HIGHEST,
    PICTURES,
    WIDEST,
    Pixels,
    Tile,
    draw_strip,
    drawing_uri,
    file_name,
    photo_uri,
)
from refinenet.evaluation.results import Evaluation
from refinenet.inference.output_kinds import find_colours
from refinenet.io.drawing.colour_bar import draw_colour_bar, find_limits, paint, paint_vectors
from refinenet.io.images.codec import write
from refinenet.outputs import OutputSpec

MOST_WORST, MOST_BEST = 4, 2
"""Largest number of images of an output that are shown."""

Values = npt.NDArray[np.float32]
"""`(D, H, W)`: values of an output, NaN where there are none."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture beside the image, above the colour bar of its values."""

    title: str
    picture: Pixels
    """`(H, W, 3)` uint8 RGB."""
    bar: Callable[[int], Pixels] | None = None
    """Draws the colour bar in a width; None for pictures without one."""

    @property
    def whole(self) -> Pixels:
        """The picture with its bar."""
        return self.picture if self.bar is None else np.concatenate([self.picture, self.bar(self.picture.shape[1])])


@dataclass(frozen=True, kw_only=True)
class TargetChoice:
    """An image to show for an output, and why."""

    output: str
    index: int
    """Position in the dataset."""
    group: str
    """"worst" or "best"."""
    rank: int
    """Position in its group, from 1."""


@dataclass(frozen=True, kw_only=True)
class TargetEntry:
    """An image as the page shows it for an output."""

    choice: TargetChoice
    name: str
    sentence: str
    """Its errors."""
    tiles: tuple[Tile, ...]
    file: str
    """Path of the full-size picture, relative to the page."""


def choose_target_images(evaluation: Evaluation) -> tuple[TargetChoice, ...]:
    """Return the images with the largest and the smallest errors of each output, by the first metric of its log."""
    chosen: list[TargetChoice] = []
    for output, images in evaluation.image_targets.items():
        errors = {index: next(iter(metrics.values())) for index, metrics in enumerate(images)}
        known = {index: error for index, error in errors.items() if error is not None}
        order = sorted(known, key=lambda index: -known[index])
        worst = order[: max(1, min(MOST_WORST, len(order) * 2 // 3))]
        best = order[len(worst) :][: -MOST_BEST - 1 : -1]
        for group, indices in (("worst", worst), ("best", best)):
            chosen += [
                TargetChoice(output=output, index=index, group=group, rank=rank)
                for rank, index in enumerate(indices, start=1)
            ]
    return tuple(chosen)


def make_target_entry(
    choice: TargetChoice,
    name: str,
    spec: OutputSpec,
    image: Pixels,
    values: tuple[Values, Values],
    metrics: Mapping[str, float | None],
    units: Mapping[str, str],
    folder: Path,
) -> TargetEntry:
    """Write the full-size picture of an image for an output, and return its entry for the page.

    Args:
        choice: Why the image is shown.
        name: Name of the image.
        spec: Specification of the output.
        image: `(H, W, 3)` uint8 RGB.
        values: Prediction and ground truth, `(D, H, W)` each.
        metrics: Metrics of the image.
        units: Units of those that have one.
        folder: Folder of the report; the file goes to its subfolder `PICTURES`.

    Raises:
        OSError: the file cannot be written.
    """
    stem = f"{choice.output}-{choice.group}-{choice.rank:02d}-{file_name(name)}"
    title = f"{choice.output}, {choice.group} {choice.rank}: {name}"
    write(folder / PICTURES / f"{stem}.png", _draw_strip(title, draw_panels(spec, image, *values)))
    shown = draw_panels(spec, _shrink(image), *map(_shrink_values, values))
    found = ", ".join(
        f"{key} {value:.4g} {units.get(key, '')}".rstrip() for key, value in metrics.items() if value is not None
    )
    return TargetEntry(
        choice=choice,
        name=name,
        sentence=f"{found}.",
        tiles=tuple(_make_tiles(name, shown)),
        file=f"{PICTURES}/{stem}.png",
    )


def draw_target_strip(title: str, spec: OutputSpec, image: Pixels, predicted: Values, truth: Values) -> Pixels:
    """Draw the panels of an output side by side, in the size of the page, below a title.

    Args:
        title: One line of text.
        spec: Specification of the output.
        image: `(H, W, 3)` uint8 RGB.
        predicted: `(D, H, W)` values.
        truth: As `predicted`; NaN where unknown.

    Returns:
        `(H', W', 3)` uint8 RGB on white.
    """
    return _draw_strip(title, draw_panels(spec, _shrink(image), *map(_shrink_values, (predicted, truth))))


def _draw_strip(title: str, panels: Sequence[Panel]) -> Pixels:
    return draw_strip(title, _equally_high([panel.whole for panel in panels]), [panel.title for panel in panels])


def draw_panels(spec: OutputSpec, image: Pixels, predicted: Values, truth: Values) -> list[Panel]:
    """Draw the image, and the ground truth, the prediction and the error of each quantity of an output."""
    return [Panel(title="image", picture=image), *TARGET_PICTURES[spec.kind](spec, predicted, truth)]


def _draw_quantities(spec: OutputSpec, predicted: Values, truth: Values) -> Iterator[Panel]:
    colours = find_colours(spec.kind)
    for (quantity, unit), guess, true in zip(spec.quantities, predicted, truth, strict=True):
        # The truth decides the colours, so that a prediction that is all too large looks so.
        low, high = find_limits(true)
        bar = _bar(low, high, quantity, unit, colours)
        yield Panel(title=f"true {quantity}", picture=paint(true, low, high, colours), bar=bar)
        yield Panel(title=f"predicted {quantity}", picture=paint(guess, low, high, colours), bar=bar)
        yield _draw_error(np.abs(guess - true), f"error of {quantity}", unit)


def _draw_normals(spec: OutputSpec, predicted: Values, truth: Values) -> Iterator[Panel]:
    height, width = truth.shape[1:]
    flat = predicted.reshape(3, -1).astype(np.float64), truth.reshape(3, -1).astype(np.float64)
    known = np.isfinite(flat[0]).all(0) & np.isfinite(flat[1]).all(0)
    angles = np.full(height * width, np.nan, np.float32)
    angles[known] = find_angles(flat[0][:, known], flat[1][:, known])
    yield Panel(title=f"true {spec.name}", picture=paint_vectors(truth))
    yield Panel(title=f"predicted {spec.name}", picture=paint_vectors(predicted))
    yield _draw_error(angles.reshape(height, width), "angle between them", "degrees")


def _draw_error(errors: npt.NDArray[np.float32], title: str, unit: str) -> Panel:
    known = errors[np.isfinite(errors)]
    most = float(np.percentile(known, 98)) if known.size else 1.0
    most = most if most > 0 else 1.0
    picture = paint(errors, 0.0, most, "error")
    return Panel(title=title, picture=picture, bar=_bar(0.0, most, title, unit, "error"))


def _bar(low: float, high: float, title: str, unit: str, colours: str) -> Callable[[int], Pixels]:
    named = f"{title} ({unit})" if unit else title
    return partial(draw_colour_bar, low=low, high=high, title=named, colour_map=colours)


TARGET_PICTURES: Mapping[str, Callable[[OutputSpec, Values, Values], Iterator[Panel]]] = {
    "depth": _draw_quantities,
    "normals": _draw_normals,
    "regression": _draw_quantities,
}
"""Pictures of the ground truth, the prediction and the error by the kind of an output."""


def _shrink(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `(H, W, ...)` in the size of the page, by nearest neighbour."""
    height, width = values.shape[:2]
    scale = min(1.0, WIDEST / width, HIGHEST / height)
    rows, columns = (
        ((np.arange(max(1, round(scale * side))) + 0.5) / scale).astype(np.intp).clip(0, side - 1)
        for side in (height, width)
    )
    return values[np.ix_(rows, columns)]


def _shrink_values(values: Values) -> Values:
    return np.moveaxis(_shrink(np.moveaxis(values, 0, -1)), -1, 0)


def _equally_high(pictures: Sequence[Pixels]) -> list[Pixels]:
    """Fill pictures up with white at the bottom."""
    most = max(len(picture) for picture in pictures)
    return [np.pad(picture, ((0, most - len(picture)), (0, 0), (0, 0)), constant_values=255) for picture in pictures]


def _make_tiles(name: str, panels: Sequence[Panel]) -> Iterator[Tile]:
    for number, panel in enumerate(panels):
        picture = panel.whole
        uri = drawing_uri(picture) if number else photo_uri(picture)
        alt = f"{panel.title} of {name}" if number else f"The image {name}"
        height, width = picture.shape[:2]
        yield Tile(caption=panel.title, uri=uri, alt=alt, width=width, height=height, view=None)
