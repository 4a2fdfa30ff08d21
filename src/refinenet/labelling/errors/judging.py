"""Check of label maps by models that never saw their images; an interrupted pass continues where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refinenet.datasets import Dataset
from refinenet.deployment import SharedModel
from refinenet.evaluation import as_read_by
from refinenet.export import open_described
from refinenet.io.console import progress_bar
from refinenet.io.images.codec import write
from refinenet.labelling.errors.suspects import Suspect, find_suspects
from refinenet.labelling.image_journal import ImageJournal
from refinenet.labelling.labelled_images import LabelledImages
from refinenet.models import ModelSpec, check_same_classes, choose_device

REGIONS = "regions"
"""Folder of the maps of suspects."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Models that judge the same images."""

    models: tuple[Path, ...]
    """Their files; the mean of their probabilities counts."""
    images: tuple[int, ...]
    """Indices of the images; none of the models was trained on any of them."""


def open_judge(path: Path, device: str | torch.device | None = None) -> SharedModel:
    """Open a model file for predictions, with the fastest backend.

    Raises:
        ValueError: The file is no model.
        OSError: It cannot be read.
    """
    opened = open_described(ModelSpec(model=path), "auto", choose_device(device))
    return SharedModel(
        opened.model,
        opened.card,
        backend=opened.backend,
        precision="float32",
        or_pytorch=True,
        channel_order="rgb",
        load_network=opened.load_network,
    )


def judge_all(
    images: LabelledImages,
    judges: Sequence[Judge],
    journal: ImageJournal,
    folder: Path,
    *,
    device: str | torch.device | None,
    progress: bool,
) -> dict[int, list[Suspect]]:
    """Find the suspects of all images that have a judge.

    Args:
        images: The images.
        judges: Who judges which of them.
        journal: Records the images that are finished.
        folder: Folder for the maps of suspects, `REGIONS/SPLIT/NAME.png`: 0, or the number of the suspect.
        device: As for `models.choose_device`.
        progress: Whether to show progress.

    Returns:
        Suspects by the index of the image.

    Raises:
        ValueError: An image or a label map cannot be used, or a model has other classes than the dataset.
    """
    found: dict[int, list[Suspect]] = {}
    with progress_bar(progress) as bar:
        task = bar.add_task(
            "Judging labels", total=sum(len(judge.images) for judge in judges), status="", unit="images"
        )
        for judge in judges:
            opened: list[tuple[SharedModel, Dataset]] = []
            for index in judge.images:
                name, state = images.names[index], _state(images.all, images.all.items[index])
                entry = journal.find(name, state)
                if entry is None:
                    opened = opened or [_open_for(images.all, path, device) for path in judge.models]
                    suspects = _judge(index, opened, folder / REGIONS / f"{name}.png")
                    entry = {**state, "suspects": [asdict(suspect) for suspect in suspects]}
                    journal.add(name, entry)
                found[index] = [_read(each) for each in entry["suspects"]]
                bar.advance(task)
    return found


def _open_for(dataset: Dataset, path: Path, device: str | torch.device | None) -> tuple[SharedModel, Dataset]:
    model = open_judge(path, device)
    read = as_read_by(model.card, dataset)
    check_same_classes(model.label_set, read)
    return model, read


def _judge(index: int, models: Sequence[tuple[SharedModel, Dataset]], target: Path) -> list[Suspect]:
    shares = []
    for model, dataset in models:
        sample = dataset[index]
        shares.append(model.segment(sample.image).probabilities.astype(np.float32))
    suspects, regions = find_suspects(sample.labels, np.mean(shares, axis=0), models[0][1].label_set)
    if suspects:
        write(target, regions.astype(np.uint8))
    return suspects


def _read(values: Mapping[str, Any]) -> Suspect:
    left, top, right, bottom = values["box"]
    return Suspect(**{**values, "box": (left, top, right, bottom)})


def _state(dataset: Dataset, item: str) -> dict[str, int]:
    """Return what changes when the files of an image do: the sums of their sizes and times."""
    files = [file for file in (dataset.image_file(item), dataset.label_file(item)) if file is not None]
    facts = [file.stat() for file in files if file.is_file()]
    return {"bytes": sum(each.st_size for each in facts), "mtime_ns": sum(each.st_mtime_ns for each in facts)}
