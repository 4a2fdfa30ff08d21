"""How often the classes of a dataset occur, and the class weights that follow from it.

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
from refinenet.io.parallel import map_parallel

_BLOCK = 1 << 20
"""Pixels that are counted at a time: NumPy takes 8 bytes for each while it counts."""


class ImageCount(NamedTuple):
    """What one label map holds."""

    pixels: npt.NDArray[np.int64]
    """`(K,)` pixels by class."""
    void: int
    """Pixels without a class."""
    size: tuple[int, int]
    """Height and width."""


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """What the label maps of a dataset, or of a part of it, hold."""

    images: int
    """Images looked at."""
    pixels: tuple[int, ...]
    """Pixels by class."""
    images_with: tuple[int, ...]
    """Images in which the class occurs, by class."""
    pixels_with: tuple[int, ...]
    """All pixels, void among them, of the images in which the class occurs, by class."""
    clearest: tuple[int | None, ...]
    """Index of the (first) image in which the class has most pixels, by class; None where it never occurs."""
    void: int
    """Pixels without a class."""
    sizes: Mapping[tuple[int, int], int]
    """Number of images by (height, width), the most frequent first, then the smaller."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the labelled pixels by class, in [0, 1]; 0 everywhere where no pixel is labelled."""
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
        dataset: What to count in.
        indices: Which of its samples; by default all.
        workers: Processes; by default one for each core, and 0 counts in this process.
        progress: Whether to show a progress bar, where standard error is a terminal.

    Raises:
        ValueError: a mask is damaged or has an id that is no class; the file is named.
        OSError: a mask cannot be read.
        IndexError: there is no sample with such an index.
    """
    chosen = range(len(dataset)) if indices is None else indices
    classes = len(dataset.label_set)
    pixels, images_with, pixels_with, most = (np.zeros(classes, np.int64) for _ in range(4))
    clearest, void = np.zeros(classes, np.int64), 0
    sizes: Counter[tuple[int, int]] = Counter()
    with progress_bar(progress) as bar:
        task = bar.add_task(f"Counting {dataset.split}", total=len(chosen), status="")
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
    """Count in one label map after the other, in the order of `indices`.

    Raises:
        ValueError, OSError, IndexError: as `count_classes`.
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
    """Class weights 1 / log(1.02 + p) for the frequency p of each class, scaled to a mean of 1.

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
    """Class weights m / p, where p is a class's frequency and m the median of the frequencies of all classes.

    The frequency of a class is its pixels divided by all pixels, void among them, of the images in which it occurs.
    Classes that were not found have no frequency: they do not count for the median, and get the largest weight of the
    others, being rarer than the rarest; 1 where there are no others.

    Source: Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels, 2015, section 4.3.2; so
    Badrinarayanan et al., SegNet, 2017.
    """
    pairs = zip(counts.pixels, counts.pixels_with, strict=True)
    frequencies = [count / total if count else None for count, total in pairs]
    found = [frequency for frequency in frequencies if frequency is not None]
    middle = median(found) if found else 1.0
    largest = middle / min(found) if found else 1.0
    return [largest if frequency is None else middle / frequency for frequency in frequencies]
