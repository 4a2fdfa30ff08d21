"""Settings of the loss: what goes together and what does not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from refinenet.training.losses import LossConfig

ALONE: dict[str, Any] = {"cross_entropy_weight": 0, "dice_weight": 0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"label_smoothing": 1}, "label_smoothing must be a number from 0 to 0.999999, not 1"),
        ({"hard_pixels": 0}, "hard_pixels must be a number from 1e-06 to 1, not 0"),
        ({"focal_gamma": -1}, "focal_gamma .* not -1"),
        ({"dice_weight": math.nan}, "dice_weight .* not nan"),
        ({"lovasz_weight": True}, "lovasz_weight .* not True"),
        ({"class_weights": "rare"}, "class_weights must be one of log, median, none, not 'rare'"),
        ({"teacher": ""}, "teacher must be the path of a model file or None, not ''"),
        ({"teacher": "a", "teacher_temperature": 0}, "teacher_temperature .* not 0"),
        ({"deep_supervision": "yes", "hard_pixels": 2}, "hard_pixels .* not 2; deep_supervision .* not 'yes'"),
        (ALONE, "No loss is enabled"),
        ({**ALONE, "teacher_weight": 0}, "No loss is enabled"),
        (
            {"cross_entropy_weight": 0, "dice_weight": 1, "hard_pixels": 0.5},
            "hard_pixels=0.5 has no effect .* leave it at 1.0",
        ),
        (
            {"cross_entropy_weight": 0, "dice_weight": 1, "class_weights": "median"},
            "class_weights='median' has no effect",
        ),
        ({"teacher_temperature": 2}, "teacher_temperature=2 has no effect because no teacher is given"),
        ({"teacher": "a", "teacher_weight": 0}, "teacher has no effect because teacher_weight is 0"),
        ({"focal_gamma": 2, "label_smoothing": 0.1}, "focal_gamma and label_smoothing counteract each other"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LossConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hard_pixels": 1e-6, "class_weights": "median", "label_smoothing": 0.3},
        {"hard_pixels": 0.2, "focal_gamma": 2},
        {**ALONE, "lovasz_weight": 100},
        {**ALONE, "teacher": "a", "teacher_temperature": 4, "deep_supervision": 1},
        {"label_smoothing": 0.999999, "class_weights": "none", "dice_weight": 0.5},
    ],
)
def test_settings_that_go_together_are_taken(settings: dict[str, Any]) -> None:
    config = LossConfig(**settings)
    assert config.problems() == []
    assert {name: getattr(config, name) for name in settings} == settings
