"""The pictures of an image beside its truth and an answer, and where the two differ.

Shape letters: H height, W width.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.evaluation.metrics import CONFIDENT
from refinenet.io.images import encode
from refinenet.labels import Colour, LabelMap, LabelSet
from refinenet.legend import FONT_SIZE, MARGIN, fit_text, hatch

WRONG: Colour = (230, 97, 1)
CONFIDENTLY_WRONG: Colour = (78, 20, 140)
"""Orange and dark purple: the colour-blind tell them apart, from each other and from light grey."""
VIEWS = ("image", "truth", "prediction", "mistakes")
WIDEST, HIGHEST = 640, 900
"""Pixels of pictures in the page."""

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_CAPTION = 24
_NARROWEST_STRIP = 480
_QUALITY = 80


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """An image with its truth and an answer, all of one size."""

    image: Pixels
    """`(H, W, 3)` uint8 RGB."""
    truth: LabelMap
    """`(H, W)` ids, or the ignore index."""
    prediction: LabelMap
    confidence: npt.NDArray[np.float32] | None
    """`(H, W)` in [0, 1], where it is known."""

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        return self.truth.shape[0], self.truth.shape[1]

    def shrink(self) -> Look:
        """As small as the page shows it: label maps by nearest neighbours, the image by means."""
        height, width = self.size
        scale = min(1.0, WIDEST / width, HIGHEST / height)
        new_height, new_width = max(1, round(scale * height)), max(1, round(scale * width))
        rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(np.intp)
        columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(np.intp)
        image = np.asarray(Image.fromarray(self.image).resize((new_width, new_height), Image.Resampling.BOX))
        return self._pick(image, np.ix_(rows, columns))

    def crop(self, rows: slice, columns: slice) -> Look:
        """A part of it."""
        return self._pick(self.image[rows, columns], (rows, columns))

    def wrong(self, label_set: LabelSet) -> Mask:
        """`(H, W)`: pixels with a truth whose prediction is another, or none."""
        wrong: Mask = (self.truth != label_set.ignore_index) & (self.truth != self.prediction)
        return wrong

    def confidently_wrong(self, label_set: LabelSet) -> Mask:
        """`(H, W)`: pixels whose predicted class is wrong with a confidence of `CONFIDENT` or more."""
        if self.confidence is None:
            return np.zeros(self.size, bool)
        said = self.prediction != label_set.ignore_index
        wrong: Mask = self.wrong(label_set) & said & (self.confidence >= CONFIDENT)
        return wrong

    def _pick(self, image: Pixels, places: Any) -> Look:
        return Look(
            image=image,
            truth=self.truth[places],
            prediction=self.prediction[places],
            confidence=None if self.confidence is None else self.confidence[places],
        )


def draw_views(look: Look, label_set: LabelSet) -> tuple[Pixels, ...]:
    """The image, truth and prediction in the classes' colours with void hatched, and the mistakes on a pale image.

    Returns:
        Four pictures `(H, W, 3)` uint8 RGB, in the order of `VIEWS`.
    """
    void = look.truth == label_set.ignore_index
    truth = hatch(label_set.colourise(look.truth), void)
    prediction = hatch(label_set.colourise(look.prediction), look.prediction == label_set.ignore_index)
    luminance = (look.image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    pale = (140 + luminance // 16 * 6).astype(np.uint8)
    mistakes = np.repeat(pale[..., np.newaxis], 3, axis=2)
    mistakes[look.wrong(label_set)] = WRONG
    mistakes[look.confidently_wrong(label_set)] = CONFIDENTLY_WRONG
    return look.image, truth, prediction, hatch(mistakes, void)


def draw_frame(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A copy of an image with a frame, white between black, around a part of it."""
    picture = Image.fromarray(image)
    thick = max(1, round(max(image.shape[:2]) / 240))
    draw = ImageDraw.Draw(picture)
    for reach, colour in ((2 * thick, "black"), (thick, "white")):
        corners = (left - reach, top - reach, left + width - 1 + reach, top + height - 1 + reach)
        draw.rectangle(corners, outline=colour, width=thick)
    return np.asarray(picture)


def draw_strip(title: str, pictures: Sequence[Pixels], names: Sequence[str] = VIEWS) -> Pixels:
    """Pictures of one size beside each other, each below its name, all below a title.

    Args:
        title: A line.
        pictures: `(H, W, 3)` uint8 RGB each.
        names: Of the pictures.

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
    """A small picture made larger by a whole number, so that it is about `least` pixels high."""
    times = max(1, round(least / picture.shape[0]))
    return picture.repeat(times, 0).repeat(times, 1)


def photo_uri(image: Pixels) -> str:
    """A photograph as a `data:` address, JPEG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=_QUALITY)
    return _address("image/jpeg", content.getvalue())


def drawing_uri(picture: Pixels) -> str:
    """A picture of few colours as a `data:` address, PNG, with a palette where there are at most 256 of them."""
    codes = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, places = np.unique(codes, return_inverse=True)
    if len(found) > 256:
        return _address("image/png", encode(picture, ".png"))
    palette = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in found]
    return _address("image/png", encode(places.reshape(codes.shape).astype(np.uint8), ".png", palette=palette))


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
