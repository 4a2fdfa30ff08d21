"""Label sets: rules, colours, and round trips through JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from refinenet.labels import MAX_CLASSES, LabelSet, voc_colours

TWO = LabelSet(names=("road", "car"), colours=((128, 64, 128), (64, 0, 128)))


def test_voc_colours_are_those_of_the_development_kit() -> None:
    # Background to person, as printed in PASCAL VOC's documentation, and three of the higher ids worked out by hand.
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    first += [(128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128)]
    first += [(64, 128, 128), (192, 128, 128)]
    colours = voc_colours(257)
    assert list(colours[:16]) == first
    assert (colours[64], colours[128], colours[255]) == ((32, 0, 0), (0, 32, 0), (224, 224, 192))
    assert colours[256] == (0, 0, 0)
    assert len(set(colours)) == 256


def test_all_problems_are_reported_together() -> None:
    colours: Any = ((0, 0, 0), (0, 0, 256), (1, 2), (-1, 0, 0))
    with pytest.raises(ValueError, match="cannot be used") as caught:
        LabelSet(names=("a", " ", "b\n", "x" * 201), colours=colours)
    message = str(caught.value)
    for part in ("name of class 1 is ' '", "name of class 2 is 'b\\n'", "name of class 3 is 'xxx"):
        assert part in message
    for part in ("colour of class 1 is (0, 0, 256)", "colour of class 2 is (1, 2)", "colour of class 3 is (-1, 0, 0)"):
        assert part in message
    assert "class 0" not in message


@pytest.mark.parametrize(
    ("names", "colours", "pattern"),
    [
        ((), (), "it has 0 classes"),
        (("a", "b", "a", "b"), ((0, 0, 0),) * 4, "'a' is used more than once; the name 'b' is used more than once"),
        (("a", "b"), ((0, 0, 0),), "2 names and 1 colours"),
        (("a",), ((0.5, 0, 0),), "not three whole numbers"),
        (("a",), ((True, 0, 0),), "not three whole numbers"),
        ((3,), ((0, 0, 0),), "name of class 0 is 3"),
    ],
)
def test_what_is_no_label_set_is_refused(names: Any, colours: Any, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        LabelSet(names=names, colours=colours)


def test_a_set_comes_back_from_json() -> None:
    values = json.loads(json.dumps(TWO.to_dict()))
    assert values == {"names": ["road", "car"], "colours": [[128, 64, 128], [64, 0, 128]], "ignore_index": 255}
    assert LabelSet.from_dict(values) == TWO


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"colour": 1}, "exactly the keys"),
        ({"names": None}, "exactly the keys"),
        ({"names": "road"}, "must be lists"),
        ({"colours": {"road": [0, 0, 0]}}, "must be lists"),
        ({"colours": [3, 4]}, "list of three numbers"),
        ({"colours": [[0, 0, 0], [0, 0, "1"]]}, "colour of class 1"),
        ({"ignore_index": 254}, "must be 255, not 254"),
    ],
)
def test_other_values_are_refused(change: dict[str, Any], pattern: str) -> None:
    values = TWO.to_dict() | change
    if values["names"] is None:
        del values["names"]
    with pytest.raises(ValueError, match=pattern):
        LabelSet.from_dict(values)


def test_what_is_no_mapping_is_refused() -> None:
    values: Any = ["names", "colours", "ignore_index"]
    with pytest.raises(ValueError, match="exactly the keys"):
        LabelSet.from_dict(values)


def test_label_maps_are_drawn_in_their_colours_and_void_in_black() -> None:
    drawn = TWO.colourise(np.array([[0, 1, 255]], np.uint8))
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[[128, 64, 128], [64, 0, 128], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("count", "dtype", "void"), [(1, np.uint8, 255), (255, np.uint8, 255), (256, np.uint16, 65_535)]
)
def test_more_than_255_classes_take_sixteen_bits(count: int, dtype: type, void: int) -> None:
    label_set = LabelSet.numbered(count)
    assert (label_set.dtype, label_set.ignore_index, len(label_set)) == (dtype, void, count)
    labels = label_set.cast(np.array([[0, count - 1, void]]))
    assert labels.dtype == dtype
    assert labels.tolist() == [[0, count - 1, void]]
    white = LabelSet(names=label_set.names, colours=((255, 255, 255),) * count)
    assert white.colourise(labels)[0, :, 0].tolist() == [255, 255, 0]
    assert LabelSet.from_dict(white.to_dict()) == white


def test_numbered_sets_are_known_as_such() -> None:
    numbered = LabelSet.numbered(3)
    assert numbered.names == ("class 0", "class 1", "class 2")
    assert numbered.colours == voc_colours(3)
    assert numbered.is_numbered()
    assert not TWO.is_numbered()
    for count in (0, MAX_CLASSES + 1):
        with pytest.raises(ValueError, match="1 to 65535 classes"):
            LabelSet.numbered(count)


def test_the_largest_set_is_checked_in_seconds() -> None:
    started = time.process_time()
    assert len(LabelSet.numbered(MAX_CLASSES)) == 65_535
    # Comparing each pair of names would take half a minute. CPU time, because other processes may be busy.
    assert time.process_time() - started < 5


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(ValueError, match="class 0") as caught:
        LabelSet(names=("x" * 100_000,), colours=((0, 0, 0),))
    assert len(str(caught.value)) < 300
