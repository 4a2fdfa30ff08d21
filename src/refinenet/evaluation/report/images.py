"""One image of the report: its pictures in the page and as a file, with words on what is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from refinenet.evaluation.metrics import CONFIDENT, ImageFigures
from refinenet.evaluation.report.confusions import mixups
from refinenet.evaluation.report.markup import Markup, element
from refinenet.evaluation.report.selection import Choice
from refinenet.evaluation.report.spots import Spot, find_spot
from refinenet.evaluation.report.views import (
    VIEWS,
    Look,
    Pixels,
    draw_frame,
    draw_strip,
    draw_views,
    drawing_uri,
    enlarge,
    photo_uri,
)
from refinenet.evaluation.results import percent
from refinenet.io.images import write
from refinenet.labels import LabelMap, LabelSet
from refinenet.legend import format_share

PICTURES = "pictures"
"""The folder of the files, in the report's."""
_LONGEST_NAME = 80
_LEAST_NAMED = 0.002
"""Share of an entry's pixels that a class has in truth or prediction to be in the entry's legend."""
_ALT = {
    "image": "The image {}",
    "truth": "Truth of {}, in the colours of the classes",
    "prediction": "Prediction for {}, in the colours of the classes",
    "mistakes": "Mistakes in {}: wrong pixels orange, confidently wrong ones purple, void striped",
}


def draw_entry(
    choice: Choice, name: str, figures: ImageFigures, look: Look, label_set: LabelSet, folder: Path
) -> Markup:
    """Write the pictures of an image as files, and make its part of the page.

    Args:
        choice: What it is shown for.
        name: Of the image.
        figures: Of the image.
        look: The image with its truth and the answer.
        label_set: What ids mean.
        folder: The report's; files go to its `PICTURES`.

    Raises:
        OSError: a file cannot be written.
    """
    stem = f"{choice.group}-{choice.rank:02d}-{file_name(name)}"
    title = f"{choice.group} {choice.rank}: {name}"
    spot = find_spot(look.confidently_wrong(label_set)) if choice.group == "mistakes" else None
    if spot is None:
        write(folder / PICTURES / f"{stem}.png", draw_strip(title, draw_views(look, label_set)))
        shown, whole = look.shrink(), None
    else:
        framed = replace(look, image=_frame(look.image, spot))
        part = framed.crop(spot.shown_rows, spot.shown_columns)
        details = [enlarge(view) for view in draw_views(part, label_set)]
        write(folder / PICTURES / f"{stem}.png", draw_strip(title, draw_views(framed, label_set)))
        write(folder / PICTURES / f"{stem}-detail.png", draw_strip(f"{title}, detail", details))
        shown, whole = part.shrink(), framed.shrink().image
    told = [*_tell(choice, figures, label_set), *_tell_mistakes(look, spot, label_set)]
    address = f"{PICTURES}/{stem}.png"
    return element(
        "article",
        element("h4", f"{choice.rank}. ", element("span", name, class_="name")),
        *(element("p", sentence) for sentence in told),
        _draw_tiles(name, draw_views(shown, label_set), whole),
        _draw_legend(shown, label_set),
        element("p", "Full size: ", element("a", address, href=address), class_="file"),
        class_="entry",
        id=f"{choice.group}-{choice.rank}",
    )


def file_name(name: str) -> str:
    """What is left of a name that every file system takes, its suffix aside: ASCII letters, digits, ".", "-", "_"."""
    stem = re.sub(r"\.(png|jpe?g|webp|bmp|tiff?|gif)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[-_LONGEST_NAME:].strip("._")


def draw_class_list(classes: Sequence[int], label_set: LabelSet) -> Markup:
    """Colours and names of classes, and how void is drawn."""
    entries = [element("li", draw_swatch(label_set, k), element("span", label_set.names[k])) for k in classes]
    void = element("li", element("span", class_="swatch void"), element("span", "no class (void)"))
    return element("ul", *entries, void, class_="legend")


def draw_swatch(label_set: LabelSet, k: int) -> Markup:
    """A box in the colour of a class."""
    red, green, blue = label_set.colours[k]
    return element("span", class_="swatch", style=f"background:rgb({red} {green} {blue})")


def _frame(image: Pixels, spot: Spot) -> Pixels:
    rows, columns = spot.rows, spot.columns
    return draw_frame(image, rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)


def _tell(choice: Choice, figures: ImageFigures, label_set: LabelSet) -> Iterator[str]:
    if choice.group == "class":
        ious = []
        for k in choice.classes:
            hits, truth, prediction = (int(count) for count in figures.regions[:, k])
            ious.append(f"{label_set.names[k]} has an IoU of {percent(hits / (truth + prediction - hits))} %")
        yield f"{', '.join(ious)}: nowhere lower than here."
    elif choice.group == "mistakes":
        share = format_share(figures.confident_mistakes or 0)
        yield f"{share} of its pixels are wrong with a confidence of {CONFIDENT:g} or more."
    else:
        yield f"mIoU {percent(figures.miou)} %, {percent(figures.pixel_accuracy)} % of its pixels right."


def _tell_mistakes(look: Look, spot: Spot | None, label_set: LabelSet) -> Iterator[str]:
    names = label_set.names
    if spot is None:
        found = mixups(look.truth, look.prediction, label_set, 3)
        parts = [f"{names[one.truth]} called {names[one.prediction]} ({format_share(one.share)})" for one in found]
        if parts:
            yield f"Most pixels are lost to: {', '.join(parts)}."
        return
    part = look.crop(spot.rows, spot.columns)
    sure = part.confidently_wrong(label_set)
    if part.confidence is None or not sure.any():  # a second answer may differ from the first in the last digits
        return
    (first,) = mixups(part.truth[sure], part.prediction[sure], label_set, 1)
    meant = sure & (part.truth == first.truth) & (part.prediction == first.prediction)
    sureness = percent(float(part.confidence[meant].mean()))
    yield (
        f"In the framed spot (from {spot.columns.start}, {spot.rows.start} to {spot.columns.stop}, {spot.rows.stop}; "
        f"pixels from the left and the top) the label says {names[first.truth]} and the model "
        f"{names[first.prediction]}, on {first.pixels:,} pixels with a mean confidence of {sureness} %. "
        "Which of the two is right?"
    )


def _draw_tiles(name: str, views: Sequence[Pixels], whole: Pixels | None) -> Markup:
    addresses = [photo_uri(views[0]), *map(drawing_uri, views[1:])]
    height, width = views[0].shape[:2]
    tiles = [
        _draw_tile(view, address, _ALT[view].format(name), width, height, view)
        for view, address in zip(VIEWS, addresses, strict=True)
    ]
    if whole is not None:
        alt = f"The whole image {name}, the spot framed"
        tiles.append(_draw_tile("where it is", photo_uri(whole), alt, whole.shape[1], whole.shape[0], None))
    return element("div", *tiles, class_="tiles")


def _draw_tile(caption: str, address: str, alt: str, width: int, height: int, view: str | None) -> Markup:
    picture = element("img", src=address, alt=alt, width=width, height=height, decoding="async", data_view=view)
    return element("figure", picture, element("figcaption", caption), class_="tile")


def _draw_legend(look: Look, label_set: LabelSet) -> Markup:
    def shares(labels: LabelMap) -> np.ndarray:
        return np.bincount(labels.ravel(), minlength=label_set.ignore_index + 1)[: len(label_set)] / labels.size

    present = np.maximum(shares(look.truth), shares(look.prediction)) >= _LEAST_NAMED
    return draw_class_list(np.flatnonzero(present).tolist(), label_set)
