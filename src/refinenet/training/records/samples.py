"""Pictures of sample predictions beside their images and ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.class_statistics import count_each
from refinenet.datasets.contact_sheet import choose_images
from refinenet.datasets.dataset import spread
from refinenet.evaluation.report.targets import draw_target_strip
from refinenet.inference.segmenter import Segmenter
from refinenet.io.drawing.legend import FONT_SIZE, MARGIN, LegendEntry, draw_legend, fit_text, format_share, hatch
from refinenet.io.images.band_images import as_picture
from refinenet.io.images.codec import write
from refinenet.labels import LabelMap, LabelSet

CANDIDATES = 64
"""Number of label maps, evenly spread over the dataset, from which samples are chosen."""
CELL = (240, 320)
"""Height and width in pixels of the cell of an image."""
MOST_LISTED = 40
"""Largest number of classes that the legend lists completely; of more, it lists those that occur."""

_CAPTION, _GAP = 24, MARGIN
_TITLES = ("image", "ground truth (striped: no class)", "prediction")
_FRAME, _GREY = (225, 225, 225), (110, 110, 110)
_WIDTH = 3 * CELL[1] + 4 * _GAP


def choose_samples(dataset: Dataset, count: int) -> list[int]:
    """Choose the images to show: always the same, with as many classes as possible, otherwise evenly spread.

    Args:
        dataset: Dataset to choose from.
        count: Largest number of images.

    Raises:
        ValueError: The dataset is empty, or a mask is damaged.
        OSError: A mask cannot be read.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.name} has no images in its split {dataset.split!r} to show samples of.")
    if not dataset.label_set.names:
        return spread(len(dataset), count)
    indices = spread(len(dataset), CANDIDATES)
    pixels = np.stack([counts.pixels for counts in count_each(dataset, indices, workers=0)])
    return choose_images(indices, pixels, count)


def draw_samples(dataset: Dataset, segmenter: Segmenter, chosen: Sequence[int], path: Path, title: str = "") -> Path:
    """Draw images beside their ground truth and prediction, in the colours of the classes, with a legend below.

    Args:
        dataset: Dataset of the images.
        segmenter: Segmenter that predicts.
        chosen: Indices of the images, such as those of `choose_samples`; at least one.
        path: The `.png` to write, whole or not at all.
        title: Line above the images, such as the epoch.

    Returns:
        The path written.

    Raises:
        ValueError: An image or mask is damaged, or the network's output is not finite.
        OSError: A file cannot be read or written.
    """
    label_set = dataset.label_set
    predicted = np.zeros(len(label_set), np.int64)
    labelled = np.zeros(len(label_set), np.int64)
    strips = [_draw_heading(title, dataset)]
    for index in chosen:
        sample = dataset[index]
        prediction = segmenter.predict(sample.image)
        picture = as_picture(sample.image, dataset.bands)
        strips.append(_draw_row(sample.name, picture, sample.labels, prediction, label_set))
        labelled += _count(sample.labels, label_set)
        predicted += _count(prediction, label_set)
    return write(path, np.concatenate([*strips, _draw_classes(label_set, labelled, predicted)]))


def draw_target_samples(
    dataset: Dataset, segmenter: Segmenter, chosen: Sequence[int], path: Path, title: str = ""
) -> Path:
    """Draw the other outputs of images beside their ground truth and errors; arguments and errors as `draw_samples`."""
    strips = []
    for index in chosen:
        sample = dataset[index]
        predicted, picture = segmenter.predict_outputs(sample.image), as_picture(sample.image, dataset.bands)
        for spec in dataset.chosen_specs:
            heading = f"{title}{sample.name}: {spec.name}"
            strips.append(draw_target_strip(heading, spec, picture, predicted[spec.name], sample.targets[spec.name]))
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=255) for strip in strips]
    return write(path, np.concatenate(padded))


def _count(labels: LabelMap, label_set: LabelSet) -> npt.NDArray[np.int64]:
    return np.bincount(labels.ravel(), minlength=label_set.ignore_index + 1)[: len(label_set)]


def _draw_heading(title: str, dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Draw the title and the names of the columns."""
    strip = Image.new("RGB", (_WIDTH, 2 * _CAPTION + 2 * _GAP), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    large = ImageFont.load_default(FONT_SIZE + 5)
    text = fit_text(f"{title} {dataset.name}, {dataset.split}".strip(), large, _WIDTH - 2 * _GAP)
    draw.text((_GAP, _GAP + _CAPTION // 2), text, fill="black", font=large, anchor="lm")
    for k, name in enumerate(_TITLES):
        position = _GAP + k * (CELL[1] + _GAP), strip.height - _CAPTION // 2
        draw.text(position, name, fill=_GREY, font=font, anchor="lm")
    return np.asarray(strip)


def _draw_row(
    name: str, image: npt.NDArray[np.uint8], truth: LabelMap, prediction: LabelMap, label_set: LabelSet
) -> npt.NDArray[np.uint8]:
    """Draw an image, its ground truth and prediction; below, its name and the share of correct pixels."""
    labelled = truth != label_set.ignore_index
    size = _fit(truth.shape[0], truth.shape[1])
    striped = hatch(np.full((size[1], size[0], 3), 128, np.uint8), np.ones((size[1], size[0]), bool))
    void = ~_resize(labelled.astype(np.uint8), size).astype(bool)[..., np.newaxis]
    pictures = (
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)),
        np.where(void, striped, _resize(label_set.colourise(truth), size)),
        _resize(label_set.colourise(prediction), size),
    )
    strip = Image.new("RGB", (_WIDTH, CELL[0] + _CAPTION + _GAP), "white")
    for k, picture in enumerate(pictures):
        left = _GAP + k * (CELL[1] + _GAP)
        strip.paste(_FRAME, (left, 0, left + CELL[1], CELL[0]))
        strip.paste(Image.fromarray(picture), (left + (CELL[1] - size[0]) // 2, (CELL[0] - size[1]) // 2))
    correct = int((truth == prediction)[labelled].sum()) / max(1, int(labelled.sum()))
    _write_caption(strip, name, f"{format_share(correct)} of the labelled pixels correct" if labelled.any() else "")
    return np.asarray(strip)


def _fit(height: int, width: int) -> tuple[int, int]:
    """Return the width and height of an image in its cell."""
    scale = min(CELL[0] / height, CELL[1] / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize by nearest neighbour, so that colours stay those of the classes."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))


def _write_caption(strip: Image.Image, name: str, text: str) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    draw, middle = ImageDraw.Draw(strip), CELL[0] + _CAPTION // 2
    room = 2 * CELL[1]
    draw.text((_GAP, middle), fit_text(name, font, room, keep_end=True), fill="black", font=font, anchor="lm")
    draw.text((_GAP + 2 * (CELL[1] + _GAP), middle), text, fill="black", font=font, anchor="lm")


def _draw_classes(
    label_set: LabelSet, labelled: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Draw the legend, with the share of each class in the ground truth."""
    total = max(1, int(labelled.sum()))
    is_listed = (labelled + predicted > 0) | (len(label_set) <= MOST_LISTED)
    entries = [
        LegendEntry(colour=label_set.colours[k], name=label_set.names[k], share=int(labelled[k]) / total)
        for k in np.flatnonzero(is_listed).tolist()
    ]
    return draw_legend(entries, _WIDTH)
