"""Contact sheets of synthetic datasets, whose flat colours can be found in the sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.class_statistics import count_classes
from refinenet.datasets.contact_sheet import CANDIDATES, choose_images, draw_contact_sheet
from refinenet.io.drawing.colour_bar import draw_colour_bar, paint
from refinenet.io.drawing.legend import LegendEntry, draw_legend, fit_text, format_share, hatch
from refinenet.labels import LabelMap, LabelSet
from refinenet.outputs import OutputSpec

RGB = npt.NDArray[np.uint8]
VOID = 255
CLASSES = LabelSet(names=("sky", "road", "tram"), colours=((10, 120, 230), (128, 64, 128), (200, 0, 50)))
IMAGE = (40, 80, 120)
MIXED = tuple(tuple((a + b + 1) // 2 for a, b in zip(IMAGE, colour, strict=True)) for colour in CLASSES.colours)


def flat(height: int, width: int, colour: Sequence[int]) -> RGB:
    return np.full((height, width, 3), colour, np.uint8)


def dataset_of(
    labels: Callable[[int], LabelMap],
    count: int = 1,
    *,
    image: Callable[[int], RGB] | None = None,
    name: str = "image {}",
    label_set: LabelSet = CLASSES,
) -> Dataset:
    """Build a dataset of `count` samples; images are of one colour by default."""
    items = {name.format(k): k for k in range(count)}
    paint = image or (lambda k: flat(labels(k).shape[0], labels(k).shape[1], IMAGE))
    return Dataset(
        name="drawn",
        split="train",
        label_set=label_set,
        items=list(items),
        read_image=lambda item: paint(items[item]),
        read_labels=lambda item: labels(items[item]),
    )


def all_of(identifier: int, height: int = 30, width: int = 40) -> Callable[[int], LabelMap]:
    return lambda _: np.full((height, width), identifier, np.uint8)


def find(sheet: RGB, colour: Sequence[int]) -> tuple[int, int, int, int]:
    """Return first row, first column, height and width of the only rectangle of this colour."""
    places = np.argwhere((sheet == colour).all(axis=2))
    assert len(places), f"{colour} is nowhere"
    (top, left), (height, width) = places.min(axis=0), np.ptp(places, axis=0) + 1
    assert len(places) == height * width
    return int(top), int(left), int(height), int(width)


def has(sheet: RGB, colour: Sequence[int]) -> bool:
    return bool((sheet == colour).all(axis=2).any())


def test_an_image_stands_beside_its_overlay_in_half_of_the_class_s_colour() -> None:
    sheet = draw_contact_sheet(dataset_of(all_of(1)), cell=(60, 80), workers=0)
    image, overlay = find(sheet, IMAGE), find(sheet, MIXED[1])
    assert image[2:] == overlay[2:] == (60, 80)
    assert image[0] == overlay[0]
    assert 0 < overlay[1] - (image[1] + 80) < 10
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3


def test_labels_are_drawn_where_they_are() -> None:
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    sheet = draw_contact_sheet(dataset_of(lambda _: labels), cell=(64, 64), workers=0)
    top, left, height, width = find(sheet, MIXED[0])
    assert (height, width) == (32, 32)
    assert find(sheet, MIXED[1]) == (top, left + 32, 32, 32)
    assert find(sheet, MIXED[2]) == (top + 32, left, 32, 64)


@pytest.mark.parametrize(
    ("height", "width", "drawn"),
    [(10, 90, (9, 80)), (90, 10, (60, 7)), (1, 1, (60, 60)), (1, 500, (1, 80)), (1200, 1600, (60, 80))],
)
def test_every_proportion_is_kept_and_centred(height: int, width: int, drawn: tuple[int, int]) -> None:
    sheet = draw_contact_sheet(dataset_of(all_of(2, height, width)), cell=(60, 80), workers=0)
    full = find(draw_contact_sheet(dataset_of(all_of(2, 60, 80)), cell=(60, 80), workers=0), MIXED[2])
    found = find(sheet, MIXED[2])
    assert found[2:] == drawn
    assert [found[k] - full[k] for k in (0, 1)] == [(60 - drawn[0]) // 2, (80 - drawn[1]) // 2]
    assert find(sheet, IMAGE)[2:] == drawn


def test_thin_things_leave_a_trace_when_reduced() -> None:
    labels = np.zeros((600, 800), np.uint8)
    labels[:, 403] = 2
    sheet = draw_contact_sheet(dataset_of(lambda _: labels), cell=(60, 80), workers=0)
    top, left, *_ = find(sheet, IMAGE)
    overlay = sheet[top : top + 60, left + 82 : left + 162]
    assert (overlay[:, 40] != MIXED[0]).any(axis=1).all()
    assert (overlay[:, 39] == MIXED[0]).all()


def test_void_is_hatched_and_keeps_no_colour_of_a_class() -> None:
    labels = np.full((60, 80), VOID, np.uint8)
    labels[:30] = 0
    sheet = draw_contact_sheet(dataset_of(lambda _: labels), cell=(60, 80), workers=0)
    top, left, *_ = find(sheet, IMAGE)
    overlay = sheet[top : top + 60, left + 82 : left + 162]
    assert (overlay[:30] == MIXED[0]).all()
    lines = (overlay[30:] == 255).all(axis=2)
    dark = (overlay[30:] == (20, 40, 60)).all(axis=2)
    assert (lines ^ dark).all()
    assert 0.2 < lines.mean() < 0.5
    for strip in (lines, lines.T):
        assert strip.any(axis=0).all()


def test_hatching_leaves_the_picture_itself_alone() -> None:
    picture = flat(8, 8, IMAGE)
    where = np.eye(8, dtype=bool)
    drawn = hatch(picture, where)
    assert (picture == IMAGE).all()
    assert (drawn[~where] == IMAGE).all()
    assert not (drawn[where] == IMAGE).all(axis=1).any()


def test_images_follow_each_other_in_rows() -> None:
    def colour(k: int) -> tuple[int, int, int]:
        return 50 * k + 5, 7, 9

    dataset = dataset_of(all_of(0), 5, image=lambda k: flat(30, 40, colour(k)))
    sheet = draw_contact_sheet(dataset, columns=2, cell=(60, 80), workers=0)
    places = [find(sheet, colour(k)) for k in range(5)]
    rows, columns = [place[0] for place in places], [place[1] for place in places]
    assert rows[0] == rows[1] < rows[2] == rows[3] < rows[4]
    assert columns[0] == columns[2] == columns[4] < columns[1] == columns[3]
    assert columns[1] - columns[0] > 160
    assert rows[2] - rows[0] > 60 + 30


def test_no_more_images_are_shown_than_asked_for_and_none_twice() -> None:
    read: list[int] = []

    def image(k: int) -> RGB:
        read.append(k)
        return flat(30, 40, IMAGE)

    dataset = dataset_of(all_of(0), 200, image=image)
    draw_contact_sheet(dataset, count=5, cell=(32, 32), workers=0)
    assert len(read) == 5
    read.clear()
    draw_contact_sheet(dataset, count=100, cell=(32, 32), workers=0)
    assert len(read) == len(set(read)) == 100


def test_asking_for_more_than_there_is_changes_nothing() -> None:
    dataset = dataset_of(all_of(0), 2)
    sheet = draw_contact_sheet(dataset, count=2, columns=2, workers=0)
    np.testing.assert_array_equal(draw_contact_sheet(dataset, count=50, columns=9, workers=0), sheet)


def test_few_label_maps_are_read_of_a_large_dataset() -> None:
    read: list[int] = []

    def labels(k: int) -> LabelMap:
        read.append(k)
        return np.zeros((3, 3), np.uint8)

    draw_contact_sheet(dataset_of(labels, 5000), count=4, cell=(32, 32), workers=0)
    looked = sorted(set(read))
    assert len(looked) == CANDIDATES
    assert (looked[0], looked[-1]) == (0, 4999)
    assert max(np.diff(looked)) <= 5000 / (CANDIDATES - 1) + 1


def test_a_class_in_one_image_of_thousands_is_shown_where_the_counts_are_known() -> None:
    dataset = dataset_of(lambda k: np.full((3, 3), 2 if k == 1234 else 0, np.uint8), 3000)
    assert not has(draw_contact_sheet(dataset, count=3, cell=(32, 32), workers=0), MIXED[2])
    counts = count_classes(dataset, workers=0, progress=False)
    sheet = draw_contact_sheet(dataset, count=3, cell=(32, 32), counts=counts, workers=0)
    assert has(sheet, MIXED[2])
    assert has(sheet, CLASSES.colours[2])  # in the legend, too


def test_the_same_sheet_is_drawn_again() -> None:
    generator = np.random.default_rng(0)
    maps = generator.integers(0, 3, (30, 20, 20), dtype=np.uint8)
    dataset = dataset_of(lambda k: maps[k], 30)
    sheet = draw_contact_sheet(dataset, count=4, cell=(40, 40), workers=0)
    np.testing.assert_array_equal(draw_contact_sheet(dataset, count=4, cell=(40, 40), workers=0), sheet)


def test_images_with_the_most_unseen_classes_are_chosen_first() -> None:
    pixels = np.array([[9, 0, 0, 0], [9, 9, 0, 0], [9, 9, 9, 0], [9, 0, 0, 9], [9, 0, 0, 0]])
    assert choose_images([0, 10, 20, 30, 40], pixels, 1) == [20]
    assert choose_images([0, 10, 20, 30, 40], pixels, 2) == [20, 30]


def test_then_those_farthest_from_the_chosen_ones() -> None:
    pixels = np.array([[9], [9], [9], [9], [9]])
    indices = [0, 10, 50, 90, 100]
    assert choose_images(indices, pixels, 2) == [0, 100]
    assert choose_images(indices, pixels, 3) == [0, 50, 100]
    assert choose_images(indices, pixels, 4) == [0, 10, 50, 100]
    assert choose_images(indices, pixels, 9) == indices


def test_a_few_pixels_do_not_show_a_class() -> None:
    """1 of 100 pixels is less than a quarter of the most; 25 is not."""
    assert choose_images([0, 1, 2], np.array([[50, 1], [50, 100], [50, 0]]), 1) == [1]
    assert choose_images([0, 1, 2], np.array([[50, 25], [50, 100], [50, 0]]), 1) == [0]


def test_images_of_nothing_but_void_are_spread_evenly() -> None:
    assert choose_images([0, 1, 2, 3, 4], np.zeros((5, 3), np.int64), 3) == [0, 2, 4]
    sheet = draw_contact_sheet(dataset_of(all_of(VOID), 2), cell=(60, 80), workers=0)
    assert not any(has(sheet, colour) for colour in (*CLASSES.colours, *MIXED))


def test_the_legend_has_the_classes_that_occur_and_void_where_it_occurs() -> None:
    labels = np.array([[0, 2, 2, 2]], np.uint8)
    plain = draw_contact_sheet(dataset_of(lambda _: labels), cell=(60, 80), workers=0)
    bottom = find(plain, IMAGE)[0] + 60
    assert [has(plain[bottom:], colour) for colour in CLASSES.colours] == [True, False, True]
    with_void = draw_contact_sheet(
        dataset_of(lambda _: np.array([[0, 2, 2, VOID]], np.uint8)), cell=(60, 80), workers=0
    )

    def dark(sheet: RGB) -> int:
        return int((sheet[bottom:] == 64).all(axis=2).sum())

    assert dark(with_void) > dark(plain) + 100  # the dark half of the hatched box


def test_names_of_images_and_dataset_are_written() -> None:
    def ink(name: str) -> tuple[int, ...]:
        sheet = draw_contact_sheet(replace(dataset_of(all_of(0), name=name), name=name), cell=(60, 80), workers=0)
        top = find(sheet, IMAGE)[0]
        return tuple(int((part.sum(axis=2) < 200).sum()) for part in (sheet[:top], sheet[top + 60 : top + 84]))

    for long, short in zip(ink("a long name"), ink("a"), strict=True):
        assert long > short > 0


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "\udcff", "x" * 3000, "猫/ключ", "é", "\x00", "[bold]"])
def test_any_name_can_be_written(name: str) -> None:
    label_set = LabelSet(names=("n" * 200, "猫", "[/b]"), colours=CLASSES.colours)
    labels = np.array([[0, 1, 2]], np.uint8)
    sheet = draw_contact_sheet(dataset_of(lambda _: labels, name=name, label_set=label_set), workers=0)
    assert has(sheet, IMAGE)


def test_many_classes_get_a_legend_of_columns_that_do_not_overlap() -> None:
    colours = tuple((k, 255 - k, 77) for k in range(48))
    entries = [LegendEntry(colour=colour, name="class " * 30, share=1 / 48) for colour in colours]
    strip = draw_legend(entries, 1000)
    places = [find(strip, colour) for colour in colours]
    assert all(place[2:] == (15, 15) for place in places)
    lefts = sorted({place[1] for place in places})
    assert len(lefts) == 3
    assert len({(place[0], place[1]) for place in places}) == 48
    assert places[1][0] - places[0][0] >= 20
    assert places[1][1] == places[0][1]  # to be read downwards
    for left in lefts[1:]:
        assert (strip[:, left - 12 : left - 1] == 255).all()  # no text comes near the next column
    assert (strip[:, -5:] == 255).all()


def test_a_small_sheet_has_room_for_its_legend() -> None:
    sheet = draw_contact_sheet(dataset_of(all_of(0)), count=1, cell=(32, 32), workers=0)
    assert sheet.shape[1] >= 300
    assert (sheet[:, -5:] == 255).all()


def test_a_class_map_of_thousands_of_classes_has_a_bounded_legend() -> None:
    label_set = LabelSet.numbered(2000)
    dataset = dataset_of(lambda _: np.arange(2000, dtype=np.uint16).reshape(40, 50), label_set=label_set)
    assert draw_contact_sheet(dataset, workers=0).shape[0] < 9000


@given(st.text(max_size=60), st.integers(0, 300), st.booleans())
def test_texts_fit(text: str, width: int, keep_end: bool) -> None:
    font = ImageFont.load_default(15)
    fitted = fit_text(text, font, width, keep_end=keep_end)
    assert font.getlength(fitted) <= width
    assert fitted.isascii()


def test_long_texts_lose_their_end_or_their_beginning() -> None:
    font = ImageFont.load_default(15)
    assert fit_text("façade", font, 100) == "facade"
    shortened = fit_text("0123456789" * 20, font, 120)
    assert shortened.startswith("01234567")
    assert shortened.endswith("...")
    assert font.getlength(shortened) > 100
    assert fit_text("a/" * 50 + "frame_12", font, 120, keep_end=True).endswith("/frame_12")


def test_shares_are_written_in_per_cent() -> None:
    assert [format_share(share) for share in (0, 1e-9, 0.0006, 0.25, 1)] == [
        "0.0 %",
        "<0.1 %",
        "0.1 %",
        "25.0 %",
        "100.0 %",
    ]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (partial(draw_contact_sheet, count=0), "count and columns must be at least 1, not 0 and 4"),
        (partial(draw_contact_sheet, columns=-1), "not 12 and -1"),
        (partial(draw_contact_sheet, cell=(31, 400)), "at least 32 pixels high and wide, not 31 and 400"),
        (partial(draw_contact_sheet, cell=(400, 31)), "at least 32 pixels high and wide, not 400 and 31"),
        (
            partial(draw_contact_sheet, cell=(9000, 9000)),
            "1 images in cells of 9000x9000 make .* 100,000,000 are allowed",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[..., RGB], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(dataset_of(all_of(0)), workers=0)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="drawn has no images in its split 'train'"):
        draw_contact_sheet(dataset_of(all_of(0), 0), workers=0)


def test_image_and_mask_of_different_sizes_are_an_error_that_names_them() -> None:
    dataset = dataset_of(all_of(0), image=lambda _: flat(5, 6, IMAGE))
    with pytest.raises(ValueError, match="image 0: the image has 6x5 pixels"):
        draw_contact_sheet(dataset, workers=0)


HEIGHT = OutputSpec(name="soil", kind="regression", channels=("height",), units=("m",))
TARGETS = {
    "soil": (HEIGHT, lambda _: np.linspace(0, 10, 1200, dtype=np.float32).reshape(1, 30, 40)),
    "depth": (OutputSpec(name="depth", kind="depth"), lambda _: np.full((1, 30, 40), 7, np.float32)),
    "normals": (OutputSpec(name="normals", kind="normals"), lambda _: np.full((3, 30, 40), -(3**-0.5), np.float32)),
}


def with_values(dataset: Dataset, *names: str) -> Dataset:
    return replace(
        dataset,
        target_specs=tuple(TARGETS[name][0] for name in names),
        target_readers={name: TARGETS[name][1] for name in names},
    )


def test_values_are_drawn_beside_images_without_classes() -> None:
    dataset = with_values(dataset_of(all_of(0), 2), "soil", "normals").without_classes()
    sheet = draw_contact_sheet(dataset, count=2, columns=1, cell=(60, 80), workers=0)
    rows = np.flatnonzero((sheet == IMAGE).all(2).any(1))
    # The image, 2 pixels, and the heights from the lowest to the highest 2 % at twice their size.
    top, left = rows[0], np.flatnonzero((sheet[rows[0]] == IMAGE).all(1))[0]
    values = np.linspace(0, 10, 1200, dtype=np.float32).reshape(30, 40).repeat(2, 0).repeat(2, 1)
    low, high = np.percentile(values, (2, 98))
    np.testing.assert_array_equal(sheet[top : top + 60, left + 82 : left + 162], paint(values, low, high, "plasma"))
    normals = sheet[top : top + 60, left + 164 : left + 244]
    assert np.all(normals == round((1 - 3**-0.5) * 127.5))
    bar = draw_colour_bar(80, float(low), float(high), "height (m)", "plasma")
    np.testing.assert_array_equal(sheet[-len(bar) :, :80], bar)
    assert len(rows) == 120


def test_values_follow_overlays_and_share_their_width() -> None:
    plain = draw_contact_sheet(dataset_of(all_of(1), 8), cell=(60, 80), workers=0)
    both = draw_contact_sheet(with_values(dataset_of(all_of(1), 8), "soil", "depth"), cell=(60, 80), workers=0)
    assert abs(both.shape[1] - plain.shape[1]) < 80  # 2 x 4 pictures instead of 4 x 2, and fewer gaps
    assert (both == MIXED[1]).all(2).any()


def test_values_that_cannot_be_read_leave_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = with_values(dataset_of(all_of(1)), "soil")
    broken = replace(dataset, target_readers={"soil": lambda _: np.zeros((1, 2, 3), np.float32)})
    sheet = draw_contact_sheet(broken, cell=(60, 80), workers=0)
    np.testing.assert_array_equal(sheet, draw_contact_sheet(dataset_of(all_of(1)), cell=(60, 80), workers=0))
    assert "not drawn: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="They must be equal"):
        draw_contact_sheet(broken.without_classes(), workers=0)


def test_images_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="no classes to draw over its images, nor other ground truth"):
        draw_contact_sheet(dataset_of(all_of(0)).without_classes(), workers=0)
