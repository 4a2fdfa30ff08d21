"""One image of the report: its pictures on the page and in files, and sentences about its mistakes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.evaluation.metrics import CONFIDENT, ImageMetrics
from refinenet.evaluation.report.plots import image_confusions
from refinenet.evaluation.report.selection import Choice, Group, Spot, find_spot
from refinenet.evaluation.results import percent
from refinenet.io.drawing.legend import FONT_SIZE, MARGIN, fit_text, format_share, hatch
from refinenet.io.images.codec import encode, write
from refinenet.labels import Colour, LabelMap, LabelSet

WRONG: Colour = (230, 97, 1)
CONFIDENTLY_WRONG: Colour = (78, 20, 140)
"""Orange and dark purple: colour-blind readers can tell them from each other and from light grey."""
VIEWS = ("image", "truth", "prediction", "mistakes")
WIDEST, HIGHEST = 640, 900
"""Largest width and height of pictures on the page, in pixels."""

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_CAPTION = 24
_NARROWEST_STRIP = 480
_QUALITY = 80


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageView:
    """An image with its ground truth and prediction, all of one size."""

    image: Pixels
    """`(H, W, 3)` uint8 RGB."""
    truth: LabelMap
    """`(H, W)` ids, or the ignore index."""
    prediction: LabelMap
    confidence: npt.NDArray[np.float32] | None
    """`(H, W)` in [0, 1], if known."""

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        return self.truth.shape[0], self.truth.shape[1]

    def shrink(self) -> ImageView:
        """Return it in the size of the page: label maps by nearest neighbour, the image by area means."""
        height, width = self.size
        scale = min(1.0, WIDEST / width, HIGHEST / height)
        new_height, new_width = max(1, round(scale * height)), max(1, round(scale * width))
        rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(np.intp)
        columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(np.intp)
        image = np.asarray(Image.fromarray(self.image).resize((new_width, new_height), Image.Resampling.BOX))
        return self._index(image, np.ix_(rows, columns))

    def crop(self, rows: slice, columns: slice) -> ImageView:
        """Return a part of it."""
        return self._index(self.image[rows, columns], (rows, columns))

    def wrong(self, label_set: LabelSet) -> Mask:
        """Return `(H, W)`: labelled pixels whose prediction is another class or none."""
        wrong: Mask = (self.truth != label_set.ignore_index) & (self.truth != self.prediction)
        return wrong

    def confidently_wrong(self, label_set: LabelSet) -> Mask:
        """Return `(H, W)`: pixels whose predicted class is wrong with a confidence of `CONFIDENT` or more."""
        if self.confidence is None:
            return np.zeros(self.size, bool)
        predicted = self.prediction != label_set.ignore_index
        wrong: Mask = self.wrong(label_set) & predicted & (self.confidence >= CONFIDENT)
        return wrong

    def _index(self, image: Pixels, where: Any) -> ImageView:
        return ImageView(
            image=image,
            truth=self.truth[where],
            prediction=self.prediction[where],
            confidence=None if self.confidence is None else self.confidence[where],
        )


def draw_views(view: ImageView, label_set: LabelSet) -> tuple[Pixels, ...]:
    """Draw the image, truth and prediction in the classes' colours with void hatched, and mistakes on a pale image.

    Returns:
        Four pictures `(H, W, 3)` uint8 RGB, in the order of `VIEWS`.
    """
    void = view.truth == label_set.ignore_index
    truth = hatch(label_set.colourise(view.truth), void)
    prediction = hatch(label_set.colourise(view.prediction), view.prediction == label_set.ignore_index)
    # Rec. 601 luma, lightened to 140 to 230 in 16 steps: few colours, which PNG stores with a palette.
    luminance = (view.image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    pale = (140 + luminance // 16 * 6).astype(np.uint8)
    mistakes = np.repeat(pale[..., np.newaxis], 3, axis=2)
    mistakes[view.wrong(label_set)] = WRONG
    mistakes[view.confidently_wrong(label_set)] = CONFIDENTLY_WRONG
    return view.image, truth, prediction, hatch(mistakes, void)


def draw_frame(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """Return a copy of an image with a frame around a part of it: white with a black edge, visible on any image."""
    picture = Image.fromarray(image)
    thick = max(1, round(max(image.shape[:2]) / 240))
    draw = ImageDraw.Draw(picture)
    for reach, colour in ((2 * thick, "black"), (thick, "white")):
        corners = (left - reach, top - reach, left + width - 1 + reach, top + height - 1 + reach)
        draw.rectangle(corners, outline=colour, width=thick)
    return np.asarray(picture)


def draw_strip(title: str, pictures: Sequence[Pixels], names: Sequence[str] = VIEWS) -> Pixels:
    """Draw pictures of one size side by side, each below its name, all below a title.

    Args:
        title: One line of text.
        pictures: `(H, W, 3)` uint8 RGB each.
        names: Names of the pictures.

    Returns:
        `(H', W', 3)` uint8 RGB on white; picture k begins `2 * 24 + MARGIN` pixels below the top and
        `MARGIN + k * (W + MARGIN)` from the left.
    """
    height, width = pictures[0].shape[:2]
    step, top = width + MARGIN, 2 * _CAPTION + MARGIN
    across = max(_NARROWEST_STRIP, MARGIN + len(pictures) * step)
    strip = Image.new("RGB", (across, top + height + MARGIN), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    draw.text((MARGIN, MARGIN + _CAPTION // 2), fit_text(title, font, across - 2 * MARGIN), "black", font, anchor="lm")
    for k, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left = MARGIN + k * step
        draw.text((left, top - _CAPTION // 2), fit_text(name, font, width), (90, 90, 90), font, anchor="lm")
        strip.paste(Image.fromarray(picture), (left, top))
    return np.asarray(strip)


def enlarge(picture: Pixels, least: int = 320) -> Pixels:
    """Enlarge a small picture by a whole number, to about `least` pixels in height."""
    times = max(1, round(least / picture.shape[0]))
    return picture.repeat(times, 0).repeat(times, 1)


def photo_uri(image: Pixels) -> str:
    """Return a photograph as a `data:` URI, JPEG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=_QUALITY)
    return _data_uri("image/jpeg", content.getvalue())


def drawing_uri(picture: Pixels) -> str:
    """Return a picture of few colours as a `data:` URI: PNG, with a palette if there are at most 256 colours."""
    # One number for each colour, 0xRRGGBB, so that colours can be sorted and compared at once.
    codes = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, indices = np.unique(codes, return_inverse=True)
    if len(colours) > 256:
        return _data_uri("image/png", encode(picture, ".png"))
    palette = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in colours]
    return _data_uri("image/png", encode(indices.reshape(codes.shape).astype(np.uint8), ".png", palette=palette))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


PICTURES = "pictures"
"""Subfolder of the report for its picture files."""
_LONGEST_NAME = 80
_LEAST_NAMED = 0.002
"""Share of an entry's pixels, in truth or prediction, from which on a class is in its legend."""
_ALT = {
    "image": "The image {}",
    "truth": "Ground truth of {}, in the colours of the classes",
    "prediction": "Prediction for {}, in the colours of the classes",
    "mistakes": "Mistakes in {}: wrong pixels orange, confidently wrong ones purple, void striped",
}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of an entry."""

    caption: str
    uri: str
    """`data:` URI of the picture."""
    alt: str
    width: int
    height: int
    view: str | None
    """One of `VIEWS`, which the page's slider compares; None for other pictures."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image as the page shows it."""

    group: Group
    rank: int
    """Position in the group, from 1."""
    name: str
    sentences: tuple[str, ...]
    """Reasons for showing the image, and its errors."""
    tiles: tuple[Tile, ...]
    classes: tuple[int, ...]
    """Ids in the legend."""
    file: str
    """Path of the full-size picture, relative to the page."""


def make_entry(
    choice: Choice, name: str, metrics: ImageMetrics, view: ImageView, label_set: LabelSet, folder: Path
) -> Entry:
    """Write the full-size pictures of an image and return its entry for the page.

    Args:
        choice: Why the image is shown.
        name: Name of the image.
        metrics: Metrics of the image.
        view: The image with its ground truth and prediction.
        label_set: Names and colours of the classes.
        folder: Folder of the report; files go to its subfolder `PICTURES`.

    Raises:
        OSError: a file cannot be written.
    """
    stem = f"{choice.group}-{choice.rank:02d}-{file_name(name)}"
    title = f"{choice.group} {choice.rank}: {name}"
    spot = find_spot(view.confidently_wrong(label_set)) if choice.group == "mistakes" else None
    if spot is None:
        write(folder / PICTURES / f"{stem}.png", draw_strip(title, draw_views(view, label_set)))
        shown, whole = view.shrink(), None
    else:
        framed = replace(view, image=_frame(view.image, spot))
        part = framed.crop(spot.shown_rows, spot.shown_columns)
        details = [enlarge(picture) for picture in draw_views(part, label_set)]
        write(folder / PICTURES / f"{stem}.png", draw_strip(title, draw_views(framed, label_set)))
        write(folder / PICTURES / f"{stem}-detail.png", draw_strip(f"{title}, detail", details))
        shown, whole = part.shrink(), framed.shrink().image
    return Entry(
        group=choice.group,
        rank=choice.rank,
        name=name,
        sentences=(*_reasons(choice, metrics, label_set), *_describe_mistakes(view, spot, label_set)),
        tiles=tuple(_make_tiles(name, draw_views(shown, label_set), whole)),
        classes=_classes_in(shown, label_set),
        file=f"{PICTURES}/{stem}.png",
    )


def file_name(name: str) -> str:
    """Return a name that is valid on every file system: ASCII letters, digits, ".", "-", "_", without a suffix."""
    stem = re.sub(r"\.(png|jpe?g|webp|bmp|tiff?|gif)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[-_LONGEST_NAME:].strip("._")


def _frame(image: Pixels, spot: Spot) -> Pixels:
    rows, columns = spot.rows, spot.columns
    return draw_frame(image, rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)


def _reasons(choice: Choice, metrics: ImageMetrics, label_set: LabelSet) -> Iterator[str]:
    if choice.group == "class":
        ious = []
        for k in choice.classes:
            hits, truth, prediction = (int(count) for count in metrics.regions[:, k])
            ious.append(f"{label_set.names[k]} {percent(hits / (truth + prediction - hits))} %")
        yield f"The lowest IoU of all images: {', '.join(ious)}."
    elif choice.group == "mistakes":
        share = format_share(metrics.confident_mistakes or 0)
        yield f"{share} of its pixels are wrong with a confidence of {CONFIDENT:g} or more."
    else:
        yield f"mIoU {percent(metrics.miou)} %, {percent(metrics.pixel_accuracy)} % of its pixels correct."


def _describe_mistakes(view: ImageView, spot: Spot | None, label_set: LabelSet) -> Iterator[str]:
    names = label_set.names
    if spot is None:
        confusions = image_confusions(view.truth, view.prediction, label_set, 3)
        parts = [
            f"{names[one.truth]} predicted as {names[one.prediction]} ({format_share(one.share)})" for one in confusions
        ]
        if parts:
            yield f"Most frequent confusions: {', '.join(parts)}."
        return
    part = view.crop(spot.rows, spot.columns)
    sure = part.confidently_wrong(label_set)
    if part.confidence is None or not sure.any():  # a second run may differ from the first in the last digits
        return
    (first,) = image_confusions(part.truth[sure], part.prediction[sure], label_set, 1)
    meant = sure & (part.truth == first.truth) & (part.prediction == first.prediction)
    mean_confidence = percent(float(part.confidence[meant].mean()))
    yield (
        f"In the framed spot (from {spot.columns.start}, {spot.rows.start} to {spot.columns.stop}, {spot.rows.stop}; "
        f"pixels from the left and the top) the label says {names[first.truth]} and the model "
        f"{names[first.prediction]}, on {first.pixels:,} pixels with a mean confidence of {mean_confidence} %. "
        "Which of the two is correct?"
    )


def _make_tiles(name: str, views: Sequence[Pixels], whole: Pixels | None) -> Iterator[Tile]:
    uris = [photo_uri(views[0]), *map(drawing_uri, views[1:])]
    height, width = views[0].shape[:2]
    for view, uri in zip(VIEWS, uris, strict=True):
        yield Tile(caption=view, uri=uri, alt=_ALT[view].format(name), width=width, height=height, view=view)
    if whole is not None:
        alt = f"The whole image {name} with the spot framed"
        height, width = whole.shape[:2]
        yield Tile(caption="location", uri=photo_uri(whole), alt=alt, width=width, height=height, view=None)


def _classes_in(view: ImageView, label_set: LabelSet) -> tuple[int, ...]:
    """The ids that cover enough of the ground truth or the prediction to be in the legend."""

    def shares(labels: LabelMap) -> np.ndarray:
        return np.bincount(labels.ravel(), minlength=label_set.ignore_index + 1)[: len(label_set)] / labels.size

    present = np.maximum(shares(view.truth), shares(view.prediction)) >= _LEAST_NAMED
    return tuple(np.flatnonzero(present).tolist())
