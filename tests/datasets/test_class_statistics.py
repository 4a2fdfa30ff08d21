"""Class frequencies and class weights against values computed by hand."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.datasets.class_statistics import ClassCounts, count_classes, log_weights, median_frequency_weights
from refinenet.labels import LabelMap, LabelSet

CAMVID = Path(os.environ.get("REFINENET_CAMVID") or Path(__file__).parents[2] / "data" / "camvid")
VOID = 255
CAMVID_PIXELS = (10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967)
CAMVID_IMAGES = (366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201)
CAMVID_WEIGHTS = [0.2793, 0.2017, 4.7865, 0.149, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]


def refuse(item: str) -> npt.NDArray[np.uint8]:
    raise AssertionError(f"The image {item} was read.")


def look_up(stored: Mapping[str, LabelMap], item: str) -> LabelMap:
    return stored[item]


def dataset_of(*maps: list[list[int]] | LabelMap, classes: int = 4) -> Dataset:
    """A dataset of label maps whose images must not be read."""
    label_set = LabelSet.numbered(classes)
    stored: dict[str, LabelMap] = {f"map {k}": label_set.cast(np.asarray(rows)) for k, rows in enumerate(maps)}
    return Dataset(
        name="drawn",
        split="train",
        label_set=label_set,
        items=list(stored),
        read_image=refuse,
        read_labels=partial(look_up, stored),
    )


def counts_of(pixels: tuple[int, ...], images_with: tuple[int, ...], pixels_with: tuple[int, ...]) -> ClassCounts:
    return ClassCounts(
        images=max(images_with),
        pixels=pixels,
        images_with=images_with,
        pixels_with=pixels_with,
        clearest=(None,) * len(pixels),
        void=0,
        sizes={},
    )


THREE = dataset_of([[0, 0, 1], [0, VOID, 1]], [[1, 1, 1], [1, 1, 1]], [[VOID, 2]])


def test_three_label_maps_by_hand() -> None:
    counts = count_classes(THREE, workers=0, progress=False)
    assert counts.images == 3
    assert counts.pixels == (3, 8, 1, 0)
    assert counts.images_with == (1, 2, 1, 0)
    assert counts.pixels_with == (6, 12, 2, 0)
    assert counts.clearest == (0, 1, 2, None)
    assert counts.void == 2
    assert list(counts.sizes.items()) == [((2, 3), 2), ((1, 2), 1)]
    assert counts.shares == (3 / 12, 8 / 12, 1 / 12, 0)
    assert counts.void_share == 2 / 14


def test_only_the_samples_asked_for_count() -> None:
    counts = count_classes(THREE, indices=[2, 0], workers=0, progress=False)
    assert (counts.images, counts.pixels, counts.void) == (2, (3, 2, 1, 0), 2)
    assert counts.clearest == (0, 0, 2, None)
    assert counts.sizes == {(2, 3): 1, (1, 2): 1}


def test_of_equal_images_the_first_is_the_clearest() -> None:
    assert count_classes(dataset_of([[1]], [[0]], [[0]], [[1]]), workers=0).clearest == (1, 0, None, None)


def test_the_more_frequent_and_then_the_smaller_sizes_come_first() -> None:
    sizes = [(2, 1), (1, 3), (1, 2), (1, 3)]
    dataset = dataset_of(*(np.zeros(size, np.uint8) for size in sizes))
    assert list(count_classes(dataset, workers=0).sizes) == [(1, 3), (1, 2), (2, 1)]


def test_nothing_at_all_counts_as_nothing() -> None:
    counts = count_classes(THREE, indices=[], workers=0)
    assert (counts.images, counts.pixels, counts.void, counts.sizes) == (0, (0, 0, 0, 0), 0, {})
    assert counts.shares == (0, 0, 0, 0)
    assert counts.void_share == 0
    assert median_frequency_weights(counts) == log_weights(counts.pixels) == [1, 1, 1, 1]


def test_nothing_but_void_has_a_share_of_one() -> None:
    counts = count_classes(dataset_of([[VOID, VOID]]), workers=0)
    assert (counts.shares, counts.void_share) == ((0, 0, 0, 0), 1)


def test_processes_count_the_same() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.integers(0, 4, generator.integers(1, 9, 2), dtype=np.uint8) for _ in range(40)]
    dataset = dataset_of(*maps)
    alone = count_classes(dataset, workers=0)
    assert count_classes(dataset, workers=2) == alone
    assert alone.pixels == tuple(sum(int((labels == k).sum()) for labels in maps) for k in range(4))
    assert alone.images_with == tuple(sum(k in labels for labels in maps) for k in range(4))
    assert alone.pixels_with == tuple(sum(labels.size for labels in maps if k in labels) for k in range(4))


def test_maps_of_more_than_255_classes_and_more_than_a_million_pixels_are_counted_whole() -> None:
    labels = np.full((1100, 1000), 299, np.uint16)
    labels[0, 0], labels[-1, -1], labels[-1, :7] = 255, 65_535, 0
    counts = count_classes(dataset_of(labels, classes=300), workers=0)
    assert {k: count for k, count in enumerate(counts.pixels) if count} == {0: 7, 255: 1, 299: 1_100_000 - 9}
    assert counts.void == 1


def test_an_id_that_is_no_class_is_an_error_that_names_the_mask() -> None:
    with pytest.raises(ValueError, match="map 1: the mask has the id 4 at row 0, column 1"):
        count_classes(dataset_of([[0]], [[3, 4]]), workers=0)


def test_log_weights_by_hand() -> None:
    raw = [1 / math.log(1.02 + share) for share in (0.9, 0.1, 0.0)]
    weights = log_weights([900, 100, 0])
    assert weights == pytest.approx([3 * value / sum(raw) for value in raw], rel=1e-12)
    assert sum(weights) / 3 == pytest.approx(1)


def test_log_weights_without_a_pixel_are_equal() -> None:
    assert log_weights([0, 0, 0, 0]) == [1, 1, 1, 1]


def test_log_weights_of_many_pixels() -> None:
    assert log_weights([10**15, 10**15]) == [1, 1]


def test_median_frequency_weights_by_hand() -> None:
    """Frequencies 3/6, 8/12 and 1/2 with median 1/2; a class that never occurs does not change it."""
    counts = count_classes(THREE, workers=0)
    assert median_frequency_weights(counts) == pytest.approx([1, 0.75, 1, 1], rel=1e-12)


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    """Frequencies 0.1, 0.2, 0.4 and 0.8, so the median is 0.3."""
    counts = counts_of((1, 2, 4, 8), (1, 1, 1, 1), (10, 10, 10, 10))
    assert median_frequency_weights(counts) == pytest.approx([3, 1.5, 0.75, 0.375], rel=1e-12)


def test_classes_that_never_occur_do_not_spoil_the_median_and_weigh_most() -> None:
    few = counts_of((1, 0, 5, 0, 0, 0), (1, 0, 1, 0, 0, 0), (10, 0, 10, 0, 0, 0))
    assert median_frequency_weights(few) == pytest.approx([3, 3, 0.6, 3, 3, 3], rel=1e-12)


def test_camvid_s_weights_follow_from_its_counts() -> None:
    """The published training masks of 480x360 pixels: their counts, and weights computed independently."""
    counts = counts_of(CAMVID_PIXELS, CAMVID_IMAGES, tuple(images * 480 * 360 for images in CAMVID_IMAGES))
    assert [round(weight, 4) for weight in median_frequency_weights(counts)] == CAMVID_WEIGHTS


@pytest.mark.skipif(not (CAMVID / "train").is_dir(), reason="CamVid is not here: name it in REFINENET_CAMVID")
def test_camvid_s_masks_have_these_counts() -> None:
    counts = count_classes(open_dataset("camvid", CAMVID)("train"), workers=2)
    assert (counts.pixels, counts.images_with, counts.void) == (CAMVID_PIXELS, CAMVID_IMAGES, 2_503_995)
    assert counts.sizes == {(360, 480): 367}
    assert [round(weight, 4) for weight in median_frequency_weights(counts)] == CAMVID_WEIGHTS


def test_statistics_do_without_pytorch() -> None:
    code = "import sys, refinenet.datasets.info; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
