"""The page for reviewing suspects: one self-contained HTML file, rendered from the template `suspects.html`.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refinenet.evaluation import draw_frame, photo_uri
from refinenet.io.drawing.legend import hatch
from refinenet.io.drawing.overlay import blend
from refinenet.io.html_pages import open_template, read_text
from refinenet.io.images.sample_values import Pixels
from refinenet.labelling.errors.suspects import Suspect
from refinenet.labels import Colour, LabelMap, LabelSet

if TYPE_CHECKING:
    from jinja2 import Template

_PACKAGE = "refinenet.labelling.errors"
"""Package of the template, style and script."""
AROUND = 1.0
"""Width of the surroundings that are shown on each side of a suspect, in sides of its box."""
LEAST_SIDE = 64
"""Minimum side of the part that is shown, in pixels of the image."""
TILE = 300
"""Longer side of a picture on the page, in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SuspectView:
    """An image with its labels and the proposed labels, all of one size."""

    image: Pixels
    """`(H, W, 3)` uint8 RGB."""
    labels: LabelMap
    """`(H, W)` ids."""
    proposal: LabelMap
    """`(H, W)` ids: the labels with the model's class in the suspects."""
    regions: npt.NDArray[Any]
    """`(H, W)`: number of the suspect, 0 outside."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture of an entry."""

    caption: str
    uri: str
    """`data:` URI."""
    alt: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A suspect as the page shows it."""

    row: Mapping[str, Any]
    """Its row of the table."""
    tiles: tuple[Tile, ...]
    colours: tuple[Colour, Colour]
    """Of the labelled and of the predicted class."""


def draw_entry(view: SuspectView, suspect: Suspect, row: Mapping[str, Any], label_set: LabelSet) -> Entry:
    """Draw a suspect with its surroundings: the image, its labels over it, and the proposal over it.

    Args:
        view: The image.
        suspect: The suspect.
        row: Its row of the table.
        label_set: Names and colours of the classes.
    """
    part = _surroundings(suspect.box, view.labels.shape)
    left, top, right, bottom = suspect.box
    framed = draw_frame(view.image, top, left, bottom - top, right - left)[part]
    outline = _outline(view.regions == suspect.number)[part]
    tiles = [Tile(caption="image", uri=photo_uri(_fit(framed)), alt=f"The image {row['image']}", **_size(framed))]
    for caption, ids in (("label", view.labels), ("proposal", view.proposal)):
        picture = _fit(_overlay(view.image[part], ids[part], outline, label_set))
        alt = f"The {caption} of {row['image']} over the image"
        tiles.append(Tile(caption=caption, uri=photo_uri(picture), alt=alt, **_size(framed)))
    if part != (slice(0, view.labels.shape[0]), slice(0, view.labels.shape[1])):
        whole = draw_frame(view.image, top, left, bottom - top, right - left)
        tiles.append(Tile(caption="whole image", uri=photo_uri(_fit(whole)), alt="The whole image", **_size(whole)))
    colours = [label_set.colours[k] if k < len(label_set) else (0, 0, 0) for k in (suspect.label, suspect.prediction)]
    return Entry(row=row, tiles=tuple(tiles), colours=(colours[0], colours[1]))


def render_page(dataset: str, folder: Path | None, entries: Sequence[Entry], total: int, judged: int) -> str:
    """Render the page.

    Args:
        dataset: Name of the dataset.
        folder: Folder of the search, from which accepted proposals can be taken; None if they cannot.
        entries: The suspects, in order.
        total: Number of all suspects.
        judged: Number of images that were judged.
    """
    from markupsafe import Markup

    return _load_template().render(
        dataset=dataset,
        folder=folder,
        entries=entries,
        total=total,
        judged=judged,
        style=Markup(read_text(_PACKAGE, "suspects.css")),
        script=Markup(read_text(_PACKAGE, "suspects.js")),
    )


@cache
def _load_template() -> Template:
    return open_template(_PACKAGE, "suspects.html")


def _surroundings(box: tuple[int, int, int, int], size: tuple[int, ...]) -> tuple[slice, slice]:
    left, top, right, bottom = box
    return _around(top, bottom, size[0]), _around(left, right, size[1])


def _around(first: int, end: int, limit: int) -> slice:
    """Return a longer range around a range, moved to lie within the image."""
    length = min(limit, max(LEAST_SIDE, round((1 + 2 * AROUND) * (end - first))))
    start = min(max(0, (first + end - length) // 2), limit - length)
    return slice(start, start + length)


def _overlay(image: Pixels, ids: LabelMap, outline: npt.NDArray[np.bool_], label_set: LabelSet) -> Pixels:
    """Draw the classes over an image, with void hatched and the outline of the suspect in white."""
    drawn = np.where((ids == label_set.ignore_index)[..., None], hatch(image, np.ones(ids.shape, bool)),
                     blend(image, label_set.colourise(ids)))  # fmt: skip
    drawn[outline] = 255
    return drawn


def _outline(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels around a region."""
    wide = inside.copy()
    wide[1:] |= inside[:-1]
    wide[:-1] |= inside[1:]
    wide[:, 1:] |= inside[:, :-1]
    wide[:, :-1] |= inside[:, 1:]
    outline: npt.NDArray[np.bool_] = wide & ~inside
    return outline


def _size(picture: Pixels) -> dict[str, int]:
    height, width = picture.shape[:2]
    scale = TILE / max(height, width)
    return {"width": max(1, round(scale * width)), "height": max(1, round(scale * height))}


def _fit(picture: Pixels) -> Pixels:
    """Reduce a picture to the size of a tile; smaller ones are enlarged by the browser."""
    from PIL import Image

    size = _size(picture)
    if max(picture.shape[:2]) <= TILE:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size["width"], size["height"]), Image.Resampling.BOX))
