"""Settings of the trainings of a search by folds; nothing here needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refinenet.training import TrainConfig


def check_fold_settings(settings: Mapping[str, Any]) -> None:
    """Check the settings of the training runs before hours are spent on them.

    Args:
        settings: Fields of `TrainConfig`.

    Raises:
        ValueError: A setting is unknown, or a value is not allowed.
    """
    TrainConfig.from_dict(settings)


def choose_fold_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the training of a fold: it is measured once, at its end, unless they say otherwise.

    Args:
        settings: Fields of `TrainConfig`, which `check_fold_settings` allows.
    """
    return {"validate_every": settings.get("epochs", TrainConfig.epochs), **settings}
