"""Class frequencies of a dataset, and the class weights derived from them.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset
from refinenet.io.console import progress_bar
from refinenet.io.processes.parallel import map_parallel

_BLOCK = 1 << 20
"""Pixels counted at a time: `np.bincount` converts them to 8 bytes each."""


class ImageCount(NamedTuple):
    """The class counts of one label map."""

    pixels: npt.NDArray[np.int64]
    """`(K,)` pixels per class."""
    void: int
    """Pixels without a class."""
    size: tuple[int, int]
    """Height and width."""


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """The class counts of the label maps of a dataset, or of a part of it."""

    images: int
    """Number of images counted."""
    pixels: tuple[int, ...]
    """Pixels per class."""
    images_with: tuple[int, ...]
    """Number of images with the class, per class."""
    pixels_with: tuple[int, ...]
    """All pixels, including void, of the images with the class, per class."""
    clearest: tuple[int | None, ...]
    """Index of the first image with the most pixels of the class, per class; None if the class never occurs."""
    void: int
    """Pixels without a class."""
    sizes: Mapping[tuple[int, int], int]
    """Number of images by (height, width), the most frequent first, then the smaller."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the labelled pixels per class, in [0, 1]; all 0 if no pixel is labelled."""
        total = max(1, sum(self.pixels))
        return tuple(count / total for count in self.pixels)

    @property
    def void_share(self) -> float:
        """Share of void in all pixels, in [0, 1]."""
        return self.void / max(1, self.void + sum(self.pixels))


def count_classes(
    dataset: Dataset, *, indices: Sequence[int] | None = None, workers: int | None = None, progress: bool = True
) -> ClassCounts:
    """Count the pixels of each class. Only label maps are read, no images.

    Args:
        dataset: The dataset.
        indices: The samples to count; by default all.
        workers: Number of processes; by default one per core, 0 for this process.
        progress: Whether to show a progress bar if standard error is a terminal.

    Raises:
        ValueError: A mask, which the message names, is damaged or has an id without a class.
        OSError: A mask cannot be read.
        IndexError: There is no sample with such an index.
    """
    chosen = range(len(dataset)) if indices is None else indices
    classes = len(dataset.label_set)
    pixels, images_with, pixels_with, most = (np.zeros(classes, np.int64) for _ in range(4))
    clearest, void = np.zeros(classes, np.int64), 0
    sizes: Counter[tuple[int, int]] = Counter()
    with progress_bar(progress) as bar:
        task = bar.add_task(f"Counting {dataset.split}", total=len(chosen), status="", unit="images")
        for index, found in zip(chosen, count_each(dataset, chosen, workers=workers), strict=True):
            occurs, is_most = found.pixels > 0, found.pixels > most
            pixels += found.pixels
            images_with += occurs
            pixels_with[occurs] += math.prod(found.size)
            clearest[is_most], most[is_most] = index, found.pixels[is_most]
            void += found.void
            sizes[found.size] += 1
            bar.advance(task)
    return ClassCounts(
        images=len(chosen),
        pixels=tuple(pixels.tolist()),
        images_with=tuple(images_with.tolist()),
        pixels_with=tuple(pixels_with.tolist()),
        clearest=tuple(index if found else None for index, found in zip(clearest.tolist(), most.tolist(), strict=True)),
        void=void,
        sizes=dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
    )


def count_each(dataset: Dataset, indices: Sequence[int], *, workers: int | None = None) -> Iterator[ImageCount]:
    """Count each label map in the order of `indices`.

    Raises:
        ValueError, OSError, IndexError: See `count_classes`.
    """
    return map_parallel(partial(_count_image, dataset), indices, workers=workers)


def _count_image(dataset: Dataset, index: int) -> ImageCount:
    labels = dataset.labels(index)
    ids, classes, ignored = labels.ravel(), len(dataset.label_set), dataset.label_set.ignore_index
    counts = np.zeros(ignored + 1, np.int64)
    for start in range(0, ids.size, _BLOCK):
        counts += np.bincount(ids[start : start + _BLOCK], minlength=ignored + 1)
    return ImageCount(counts[:classes].copy(), int(counts[ignored]), (labels.shape[0], labels.shape[1]))


def log_weights(class_pixels: Sequence[int]) -> list[float]:
    """Return class weights 1 / log(1.02 + p) for the frequency p of each class, scaled to a mean of 1.

    A class that never occurs gets the largest weight. Source: Paszke et al., ENet, 2016, which bounds them to 1 to 50
    before scaling.

    Args:
        class_pixels: Number of pixels of each class.
    """
    total = max(1, sum(class_pixels))
    weights = [1 / math.log(1.02 + count / total) for count in class_pixels]
    mean = math.fsum(weights) / len(weights)
    return [weight / mean for weight in weights]


def median_frequency_weights(counts: ClassCounts) -> list[float]:
    """Return class weights m / p for the frequency p of each class and the median m of all frequencies.

    The frequency of a class is its pixels divided by all pixels, including void, of the images in which it occurs.
    Classes that never occur have no frequency: they are left out of the median and get the largest weight of the
    others, since they are rarer than the rarest, or 1 if there are no others.

    Source: Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels, 2015, section 4.3.2; also
    Badrinarayanan et al., SegNet, 2017.
    """
    pairs = zip(counts.pixels, counts.pixels_with, strict=True)
    frequencies = [count / total if count else None for count, total in pairs]
    found = [frequency for frequency in frequencies if frequency is not None]
    middle = median(found) if found else 1.0
    largest = middle / min(found) if found else 1.0
    return [largest if frequency is None else middle / frequency for frequency in frequencies]
