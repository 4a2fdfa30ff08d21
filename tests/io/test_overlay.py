"""Class colours over an image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from refinenet.io.drawing.legend import draw_legend
from refinenet.io.drawing.overlay import OverlayStyle, draw_overlay, find_outlines
from refinenet.labels import LabelSet

CLASSES = LabelSet(names=("background", "road", "tram"), colours=((0, 0, 0), (128, 64, 128), (200, 0, 50)))
GENERATOR = np.random.default_rng(4)
IMAGE = GENERATOR.integers(0, 256, (30, 120, 3), dtype=np.uint8)
LABELS = GENERATOR.choice(np.array([0, 1, 2, 255], np.uint8), (5, 20)).repeat(6, 0).repeat(6, 1)
AREAS = {name: float(np.mean(label == LABELS)) for label, name in enumerate(CLASSES.names)}


@pytest.mark.parametrize("opacity", [0.0, 0.3, 1.0])
def test_colours_are_mixed_and_black_classes_and_void_leave_the_image(opacity: float) -> None:
    picture = draw_overlay(IMAGE, LABELS, CLASSES, AREAS, OverlayStyle(opacity=opacity))
    for row, column in np.ndindex(LABELS.shape):
        pixel, label = IMAGE[row, column], LABELS[row, column]
        mixed = (1 - opacity) * pixel + opacity * np.array(CLASSES.colours[label]) if label in (1, 2) else pixel
        assert np.abs(picture[row, column] - mixed).max() <= 0.5001


def test_only_chosen_classes_are_drawn_even_black_ones() -> None:
    shown = draw_overlay(IMAGE, LABELS, CLASSES, AREAS, OverlayStyle(opacity=1, show=("background", "tram")))
    hidden = draw_overlay(IMAGE, LABELS, CLASSES, AREAS, OverlayStyle(opacity=1, hide=("road",)))
    assert (shown[LABELS == 0] == 0).all()
    assert (shown[LABELS == 2] == CLASSES.colours[2]).all()
    assert (shown[LABELS == 1] == IMAGE[LABELS == 1]).all()
    assert (hidden[LABELS == 2] == CLASSES.colours[2]).all()
    assert (hidden[LABELS != 2] == IMAGE[LABELS != 2]).all()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_outlines_are_the_pixels_near_another_label(width: int) -> None:
    distances = [ndimage.distance_transform_cdt(label == LABELS, "taxicab") for label in (0, 1, 2, 255)]
    np.testing.assert_array_equal(find_outlines(LABELS, width), sum(distances) <= width)
    picture = draw_overlay(IMAGE, LABELS, CLASSES, AREAS, OverlayStyle(opacity=0, outline=width))
    coloured = (sum(distances) <= width) & np.isin(LABELS, (1, 2))
    assert (picture[coloured] == np.array(CLASSES.colours)[LABELS[coloured]]).all()
    assert (picture[~coloured] == IMAGE[~coloured]).all()


def test_one_label_has_no_outline() -> None:
    assert not find_outlines(np.ones((4, 5), np.uint8), 3).any()


def test_the_legend_lists_what_is_drawn() -> None:
    areas = {"background": 0.5, "road": 0.5, "tram": 0.0}

    def heights(*, lists_absent: bool = False) -> list[int]:
        style = OverlayStyle(legend=True, lists_absent=lists_absent)
        return [draw_overlay(IMAGE, LABELS, CLASSES, each, style).shape[0] for each in (areas, AREAS)]

    rows = [draw_legend([], 120).shape[0], *heights()]
    assert rows[0] + 30 == rows[1] < rows[2]  # black background is not drawn, so road alone, then road and tram
    assert heights(lists_absent=True) == [rows[2], rows[2]]


def test_above_its_legend_the_picture_is_the_one_without() -> None:
    """The legend is added below and covers nothing: the rows of the image are where they were."""
    plain, with_legend = (
        draw_overlay(IMAGE, LABELS, CLASSES, AREAS, OverlayStyle(legend=legend)) for legend in (False, True)
    )
    assert plain.shape == IMAGE.shape
    np.testing.assert_array_equal(with_legend[: len(IMAGE)], plain)


def test_unknown_and_contradictory_names_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no class 'car' to show or hide\..* Its classes are background, road, tram"):
        OverlayStyle(show=("road", "car")).find_shown(CLASSES)
    with pytest.raises(ValueError, match="road cannot be shown and hidden"):
        OverlayStyle(show=("road",), hide=("road",)).find_shown(CLASSES)
    with pytest.raises(ValueError, match="opacity must be a number from 0 to 1, not 50"):
        OverlayStyle(opacity=50)
