"""Models for cross-validation: one for each fold, trained only on the images of the other folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from refinenet.datasets import Dataset, spread
from refinenet.export import open_described
from refinenet.io.console import print_note
from refinenet.labelling.errors.fold_settings import choose_fold_settings
from refinenet.labelling.labelled_images import LabelledImages, splits_of
from refinenet.models import ModelSpec, Network
from refinenet.training import RunFolder, TrainArguments, prepare_runs, take_fingerprint

VALIDATION = 16
"""Number of images of a fold on which its training is monitored; they do not select the epoch."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A part of the images."""

    number: int
    """From 1."""
    images: tuple[int, ...]
    """Indices of the images that its model checks."""
    others: tuple[int, ...]
    """Indices of the images that its model is trained on."""


def deal_folds(images: LabelledImages, count: int, group: str | None = None, *, show: bool = True) -> list[Fold]:
    """Divide images into folds of about equal size; related images (`LabelledImages.groups`) stay together.

    Fewer groups than folds, such as a single video, are cut into stretches in the order of their names.

    Args:
        images: The images.
        count: Number of folds.
        group: Regular expression whose first group is common to related images.
        show: Whether to note that groups are cut.

    Raises:
        ValueError: There are fewer than two folds or images for each, or the expression is not valid.
    """
    total = len(images.names)
    if count < 2 or total < 2 * count:
        raise ValueError(f"{total} images cannot be split into {count} folds: use 2 or more folds of 2 or more images.")
    groups = images.groups(group)
    if len(groups) < count:
        print_note(
            f"Judging by their names, the images form fewer groups ({len(groups)}) than the {count} folds, so the "
            "groups are cut into consecutive parts. Errors shared by similar neighbouring frames are not found.",
            enabled=show,
        )
        order = [index for members in groups for index in members]
        bounds = [round(total * k / count) for k in range(count + 1)]
        groups = [order[low:high] for low, high in pairwise(bounds)]
    parts: list[list[int]] = [[] for _ in range(count)]
    for members in sorted(groups, key=len, reverse=True):
        min(parts, key=len).extend(members)
    everything = set(range(total))
    return [
        Fold(number=number, images=tuple(sorted(part)), others=tuple(sorted(everything.difference(part))))
        for number, part in enumerate(parts, start=1)
    ]


def train_fold(
    images: LabelledImages,
    fold: Fold,
    folder: Path,
    *,
    network: Mapping[str, Any],
    device: str | torch.device | None,
    settings: Mapping[str, Any],
    progress: bool,
) -> Path:
    """Train the model of a fold, or the rest of it, unless its run is finished.

    Args:
        images: All images.
        fold: The fold.
        folder: Folder of its run.
        network: Fields of `ModelSpec`, what training starts from.
        device: As for `models.choose_device`.
        settings: Fields of `TrainConfig`.
        progress: Whether to show progress.

    Returns:
        The model after the last epoch; no image of the fold has influenced its choice.

    Raises:
        ValueError: A setting is not valid, an image or a mask cannot be used, or the folder holds a model that was
            trained on other images.
    """
    run = RunFolder(folder)
    if run.is_started:
        _refuse_others(run, images.take(fold.others))
    if _is_done(run):
        return run.last_model
    print_note(
        f"Fold {fold.number}: training on {len(fold.others)} images, to check the {len(fold.images)} others.",
        enabled=progress,
    )
    watched = [fold.images[k] for k in spread(len(fold.images), VALIDATION)]
    splits = splits_of(images, fold.others, watched)
    spec = ModelSpec(**network)
    described = open_described(spec, "pytorch", device)
    opened, card = described.model, described.card
    assert isinstance(opened, Network)
    if run.is_started:
        arguments = TrainArguments(dataset=splits, resume=folder, progress=progress)
    else:
        chosen = choose_fold_settings(settings)
        arguments = TrainArguments(
            dataset=splits, output=folder, settings=chosen, check=False, progress=progress, origin=spec.origin
        )
    with torch.random.fork_rng(range(torch.cuda.device_count()) if opened.mean.is_cuda else ()):
        for each in prepare_runs(opened, card, arguments):
            each.run()
    return run.last_model


def _refuse_others(run: RunFolder, others: Dataset) -> None:
    """Make sure that a run was trained on the images that do not belong to its fold now.

    Raises:
        ValueError: It was trained on others, so that it may have seen what it is to judge.
    """
    recorded = run.read_description()["fingerprints"]["train"]
    now = take_fingerprint(others)
    if (recorded["names"], recorded["image_sizes"]) != (now.names, now.image_sizes):
        raise ValueError(
            f"The images outside the fold of the model in {run.path} are not those that it was trained on, so it may "
            "have seen images that it is to judge. Choose another folder (--output), or delete this one."
        )


def _is_done(run: RunFolder) -> bool:
    try:
        return run.is_started and run.is_finished and run.last_model.exists()
    except ValueError:  # its files are damaged: it is trained again
        return False
