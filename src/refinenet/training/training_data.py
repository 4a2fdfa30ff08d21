"""What to train on, and how: checked, and described so that it is found again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinenet.datasets import doctor
from refinenet.datasets.catalog import PUBLISHED, DatasetSource, TrainingSource, as_sources, find_root, is_drawn, is_own
from refinenet.io.console import print_note
from refinenet.training.config import TrainConfig

A_FUNCTION = "a function of the caller's"
"""How a dataset is noted that no file can keep."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train on, and how.

    Raises:
        ValueError: a setting is unknown or out of its range, or the root is no path.
    """

    dataset: TrainingSource
    """See `datasets.open_training_datasets`."""
    root: str | os.PathLike[str] | None = None
    """Where the (first) dataset lies, if it is known by name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""

    def __post_init__(self) -> None:
        if not isinstance(self.root, str | os.PathLike | None):
            raise ValueError(f"root is a folder, not {self.root!r}.")
        TrainConfig.from_dict(self.settings)


def ask_the_doctor(training: Training, *, progress: bool) -> None:
    """Refuse data that training would fail on, or learn something wrong from; say what else is to be known of them."""
    for number, source in enumerate(as_sources(training.dataset)):
        if callable(source) or is_drawn(os.fspath(source)):
            continue
        root = Path(training.root) if training.root is not None and number == 0 else None
        report = doctor.check(os.fspath(source), root=root, quick=True, workers=0, progress=progress)
        if report.stops_training:
            raise ValueError(report.text())
        for finding in report.findings:
            print_note(f"Warning: {finding.told()}", enabled=progress)


def describe_source(training: Training) -> dict[str, Any]:
    """What is noted of a training's data, "dataset" and "root", to find them again from any working directory."""
    dataset, root = training.dataset, training.root
    first = as_sources(dataset)[0]
    name = first if callable(first) else os.fspath(first)
    if name in PUBLISHED:
        root = find_root(str(name), root).resolve()
    described = [_describe(part) for part in as_sources(dataset)]
    is_one = isinstance(dataset, str | os.PathLike) or callable(dataset)
    return {"dataset": described[0] if is_one else described, "root": None if root is None else str(root)}


def _describe(source: DatasetSource) -> str:
    if callable(source):
        return A_FUNCTION
    name = os.fspath(source)
    return str(Path(name).resolve()) if name not in PUBLISHED and is_own(name) else name
