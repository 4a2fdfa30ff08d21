"""Beginning a training run, or taking up one that was stopped."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from refinenet.class_matching import take_classes
from refinenet.datasets import DatasetSource, open_training_datasets
from refinenet.labels import LabelSet
from refinenet.model_file import ModelCard
from refinenet.network import Architecture, Network
from refinenet.run_folder import RunFolder
from refinenet.terminal import print_note
from refinenet.train import TrainRun
from refinenet.train_config import TrainConfig

A_FUNCTION = "a function of the caller's"


def begin_run(
    network: Network,
    card: ModelCard,
    dataset: DatasetSource | Sequence[DatasetSource],
    root: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    *,
    classes_fixed: bool,
    progress: bool,
) -> TrainRun:
    """Prepare a run in a new folder, where everything that it starts from is kept.

    Args:
        network: What to train; it is changed unless it needs another classifier.
        card: What is said of it.
        dataset: See `datasets.open_training_datasets`.
        root: Where the first dataset lies.
        output: The folder; by default a new one below `runs/`.
        settings: Fields of `TrainConfig`.
        classes_fixed: Whether the user asked for the number of classes that the network has.
        progress: Whether to show progress.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: a setting, the folder or the number of classes is not allowed.
    """
    config = TrainConfig.from_dict(settings)
    train_set, val_set = open_training_datasets(dataset, root)
    folder = _new_folder(output, train_set.name)
    torch.manual_seed(config.seed)
    started_from = {"weights_sha256": card.weights_sha256, **card.recipe} if card.weights_sha256 else "a new network"
    network, card = take_classes(network, card, train_set, fixed=classes_fixed, progress=progress)
    described = _describe_source(dataset)
    advice = "" if A_FUNCTION in described else f" A stopped run goes on with --resume {folder.path}."
    print_note(f"Results go to {folder.path}.{advice}", enabled=progress)
    card = replace(card, recipe={"started_from": started_from})
    run = TrainRun(network, card, train_set, val_set, config, folder, progress=progress)
    run.begin({"dataset": described, "root": None if root is None else str(Path(root).resolve())})
    return run


def take_up_run(path: Path, device: torch.device, *, progress: bool) -> TrainRun:
    """Prepare to go on with a stopped run after its last whole epoch, as it was begun.

    Raises:
        FileNotFoundError: there is no run, or its data are gone.
        ValueError: what it keeps is damaged, or its dataset has changed since.
    """
    folder = RunFolder(path)
    description = folder.read_description()
    try:
        source, config = description["source"], TrainConfig.from_dict(description["config"])
        architecture = Architecture(**description["architecture"])
        label_set = LabelSet.from_dict(description["label_set"])
        licence, recipe, images = description["licence"], description["recipe"], description["train_images"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path / 'run.json'} is damaged: {error!r}") from error
    if A_FUNCTION in source["dataset"]:
        raise ValueError(f"The run in {path} was given its dataset as a function, which no file can keep.")
    train_set, val_set = open_training_datasets(source["dataset"], source["root"])
    if train_set.label_set.names != label_set.names or len(train_set) != images:
        raise ValueError(
            f"The dataset of the run in {path} has changed: it was begun with {images} images of the classes "
            f"{', '.join(label_set.names)}, and finds {len(train_set)} of {', '.join(train_set.label_set.names)}."
        )
    card = ModelCard(architecture=architecture, label_set=label_set, licence=licence, recipe=recipe)
    network = Network(architecture).to(device)
    run = TrainRun(network, card, train_set, val_set, config, folder, progress=progress)
    run.take_up()
    print_note(f"Going on in {path} after epoch {run.epoch} of {config.epochs}.", enabled=progress)
    return run


def _new_folder(output: str | os.PathLike[str] | None, name: str) -> RunFolder:
    """The folder of a new run: the one asked for, which must not hold a run yet, or the next free one below runs/."""
    if output is None:
        stem = re.sub(r"[^\w-]+", "-", name)
        numbered = (Path("runs") / f"{stem}-{number}" for number in itertools.count(1))
        return RunFolder(next(folder for folder in numbered if not folder.exists()))
    folder = RunFolder(Path(output))
    if folder.is_begun:
        raise ValueError(f"{output} already holds a run. Go on with it by --resume {output}, or name another folder.")
    return folder


def _describe_source(dataset: DatasetSource | Sequence[DatasetSource]) -> str | list[str]:
    """What a run notes of its dataset to find it again."""
    if isinstance(dataset, str | os.PathLike):
        name = os.fspath(dataset)
        return str(Path(name).resolve()) if Path(name).is_dir() else name
    return A_FUNCTION if callable(dataset) else [str(_describe_source(part)) for part in dataset]
