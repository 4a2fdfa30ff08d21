"""Settings: values are checked against annotations; unknown names and settings without effect are rejected."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from refinenet.settings import Range, Rule, Settings, is_number, is_within


@dataclass(frozen=True, kw_only=True)
class BlurConfig(Settings):
    blur: Annotated[float, Range(0, 1)] = 0.0
    kernel: Literal["box", "gaussian"] = "box"

    def _conflicts(self) -> list[str]:
        found = super()._conflicts()
        return found if self.blur else [*found, *self._unused(("kernel",), "blur is 0")]


@dataclass(frozen=True, kw_only=True)
class CropConfig(Settings):
    size: tuple[Annotated[int, Range(1)], Annotated[int, Range(1)]] = (8, 8)
    flip: bool = True

    def _conflicts(self) -> list[str]:
        return [*super()._conflicts(), *(["flip needs a square crop"] if self.flip and len({*self.size}) > 1 else [])]


@dataclass(frozen=True, kw_only=True)
class ViewConfig(BlurConfig, CropConfig):
    _title = "view settings"

    rate: Annotated[float, Range(above=0)] | Literal["auto"] = "auto"
    decay: Annotated[float, Range(0, below=1)] = 0.5
    patience: Annotated[int, Range(1)] | None = None
    teacher: Annotated[str, Rule(bool, "the path of a model file")] | None = None
    steps: Annotated[tuple[float, ...], Rule(lambda steps: list(steps) == sorted(steps), "rising numbers")] = ()
    names: tuple[Literal["a", "b"], ...] = ()
    seed: Annotated[int, Range(high=9)] = 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blur": 2}, "blur must be a number from 0 to 1, not 2"),
        ({"blur": True}, "blur must be a number from 0 to 1, not True"),
        ({"blur": math.nan}, "blur must be a number from 0 to 1, not nan"),
        ({"kernel": "disc"}, "kernel must be one of box, gaussian, not 'disc'"),
        ({"kernel": np.zeros(2)}, "kernel must be one of box, gaussian, not array([0., 0.])"),
        ({"flip": 1}, "flip must be True or False, not 1"),
        ({"size": (8, 0)}, "size must be a tuple of 2 values, each a whole number of at least 1, not (8, 0)"),
        ({"size": (8, 8, 8)}, "size must be a tuple of 2 values, each a whole number of at least 1, not (8, 8, 8)"),
        ({"size": [8, 8]}, "size must be a tuple of 2 values, each a whole number of at least 1, not [8, 8]"),
        ({"rate": 0}, 'rate must be a number above 0 or "auto", not 0'),
        ({"rate": math.inf}, 'rate must be a number above 0 or "auto", not inf'),
        ({"rate": "fast"}, "rate must be a number above 0 or \"auto\", not 'fast'"),
        ({"decay": 1}, "decay must be a number of at least 0 and below 1, not 1"),
        ({"patience": 1.0}, "patience must be a whole number of at least 1 or None, not 1.0"),
        ({"patience": True}, "patience must be a whole number of at least 1 or None, not True"),
        ({"teacher": ""}, "teacher must be the path of a model file or None, not ''"),
        ({"teacher": 3}, "teacher must be the path of a model file or None, not 3"),
        ({"steps": (3, 2)}, "steps must be rising numbers, not (3, 2)"),
        ({"steps": ("3",)}, "steps must be rising numbers, not ('3',)"),
        ({"names": ("a", "c")}, "names must be a tuple of values, each one of a, b, not ('a', 'c')"),
        ({"seed": 10}, "seed must be a whole number of at most 9, not 10"),
    ],
)
def test_invalid_values_are_reported_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared whole
        ViewConfig(**values)
    assert str(caught.value) == message + "."


def test_all_invalid_values_are_reported_together_and_before_conflicts() -> None:
    with pytest.raises(ValueError, match=r"^flip must be .*; kernel must be [^;]*$"):
        ViewConfig(kernel="disc", flip="no", size=(1, 2))  # type: ignore[arg-type]


def test_conflicts_of_all_parts_are_reported_together() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared whole
        ViewConfig(kernel="gaussian", size=(1, 2))
    square, unused = "flip needs a square crop", "kernel='gaussian' has no effect because blur is 0: leave it at 'box'"
    assert str(caught.value) == f"{square}; {unused}."


def test_valid_values_are_kept_as_given() -> None:
    values = {
        "blur": 1,
        "kernel": "gaussian",
        "size": (1, 2),
        "flip": False,
        "rate": 1e-9,
        "decay": np.float64(0),
        "patience": 3,
        "teacher": "a.safetensors",
        "steps": (1, 2.5),
        "names": ("b", "a"),
    }
    config = ViewConfig(**values)  # type: ignore[arg-type]
    assert {name: getattr(config, name) for name in values} == values
    assert config.problems() == []


def test_settings_are_frozen_and_read_from_mappings_with_lists() -> None:
    config = ViewConfig.from_dict({"size": [4, 4], "steps": [1, 2], "rate": "auto"})
    assert config == ViewConfig(size=(4, 4), steps=(1, 2))
    with pytest.raises(FrozenInstanceError):
        config.blur = 1.0  # type: ignore[misc]


def test_unknown_names_are_rejected_with_the_nearest_known_one() -> None:
    with pytest.raises(
        ValueError, match=r"^Unknown view settings: blurr, x\. Did you mean blur\? Known settings are blur, "
    ):
        ViewConfig.from_dict({"x": 1, "blurr": 1})
    with pytest.raises(ValueError, match=r"^Unknown settings: x\. Known settings are flip, size\.$"):
        CropConfig.from_dict({"x": 1})


@pytest.mark.parametrize("value", [True, math.nan, math.inf, "1", None])
def test_only_finite_numbers_are_numbers(value: object) -> None:
    assert not is_number(value)
    assert not is_within(value, -math.inf, math.inf)
