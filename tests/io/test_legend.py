"""Legend below a picture."""

from __future__ import annotations

import numpy as np

from refinenet.io.drawing.legend import add_legend
from refinenet.labels import LabelSet

CLASSES = LabelSet(names=("sky", "road", "tram"), colours=((10, 120, 230), (128, 64, 128), (200, 0, 50)))
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 300, 3), dtype=np.uint8)


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(axis=2).sum())


def test_the_picture_stays_and_a_white_strip_is_added() -> None:
    result = add_legend(PICTURE, CLASSES, {"sky": 0.5, "road": 0.5})
    assert result.dtype == np.uint8
    assert result.shape[1:] == (300, 3)
    np.testing.assert_array_equal(result[:40], PICTURE)
    strip = result[40:]
    assert count(strip, (255, 255, 255)) > 0.7 * strip.shape[0] * 300
    assert (strip[0] == 255).all()
    assert (strip[-1] == 255).all()


def test_only_classes_with_an_area_are_shown_in_their_order() -> None:
    strip = add_legend(PICTURE, CLASSES, {"tram": 0.25, "sky": 0.75, "road": 0.0})[40:]
    assert count(strip, (128, 64, 128)) == 0
    places = [np.argwhere((strip == colour).all(axis=2)) for colour in (CLASSES.colours[0], CLASSES.colours[2])]
    # Boxes of 16 by 16 pixels with an outline: at least 14 by 14 of the colour, and nothing of it elsewhere.
    for place in places:
        height, width = np.ptp(place, axis=0) + 1
        assert len(place) == height * width >= 14 * 14
    assert places[0][:, 1].max() < places[1][:, 1].min()


def test_names_and_areas_are_written() -> None:
    def black(areas: dict[str, float]) -> int:
        return int((add_legend(PICTURE, CLASSES, areas)[40:].sum(axis=2) < 200).sum())

    assert black({"sky": 0.5}) > black({}) + 50
    assert (add_legend(PICTURE, CLASSES, {"sky": 0.5}) != add_legend(PICTURE, CLASSES, {"sky": 0.6})).any()


def test_a_narrow_picture_gets_a_row_for_each_class() -> None:
    areas = {"sky": 0.4, "road": 0.3, "tram": 0.3}
    wide, narrow = add_legend(PICTURE, CLASSES, areas), add_legend(PICTURE[:, :90], CLASSES, areas)
    assert narrow.shape[0] > wide.shape[0]
    assert narrow.shape[1] == 90
    for colour in CLASSES.colours:
        assert count(narrow[40:], colour) >= 14 * 14


def test_no_class_and_one_pixel_are_no_problem() -> None:
    assert (add_legend(PICTURE, CLASSES, {})[40:] == 255).all()
    assert add_legend(PICTURE[:1, :1], CLASSES, {"sky": 1.0}).shape[1:] == (1, 3)
