"""Bands as users name them."""

import pytest

from refinenet.io.images.bands import Band, choose_shown, find_colour, read_bands


def test_texts_are_read_and_written() -> None:
    bands = read_bands("red, green,blue,nir:0:4095,height:-5:60.5")
    assert [band.name for band in bands] == ["red", "green", "blue", "nir", "height"]
    assert [band.range for band in bands[3:]] == [(0.0, 4095.0), (-5.0, 60.5)]
    assert read_bands(",".join(band.to_text() for band in bands)) == bands
    assert read_bands([band.to_dict() for band in bands]) == bands
    assert [band.is_colour for band in bands] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ("", "name of a band"),
        ("red,red", "needs its own name"),
        ("Red", "letters a-z"),
        ("nir:5", "NAME:LOW:HIGH"),
        ("nir:a:b", "NAME:LOW:HIGH"),
        ("nir:9:3", "must ascend"),
        ("nir:0:inf", "two numbers"),
        ([], "1 to 32 bands"),
        ([f"b{k}" for k in range(33)], "1 to 32 bands"),
        ([{"name": "nir", "unit": "m"}], "may have a range"),
    ],
)
def test_bands_that_are_not_allowed(bands: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_bands(bands)  # type: ignore[arg-type]


def test_pictures_show_colour_or_the_first_bands() -> None:
    assert find_colour(read_bands("nir,blue,green,red")) == (3, 2, 1)
    assert find_colour((Band(name="grey"),)) == (0, 0, 0)
    assert find_colour(read_bands("red,green,nir")) is None
    assert choose_shown(read_bands("nir,swir")) == (0, 0, 0)
    assert choose_shown(read_bands("nir,swir,thermal,height")) == (0, 1, 2)
