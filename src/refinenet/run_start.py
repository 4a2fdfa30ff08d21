"""Beginning a training run, or taking up one that was stopped."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from refinenet import doctor
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


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is begun."""

    classes_fixed: bool
    """Whether the user asked for the number of classes that the network has."""
    check: bool
    """Whether the doctor looks at the data first, quickly."""
    progress: bool
    """Whether to show progress."""


def begin_run(
    network: Network,
    card: ModelCard,
    dataset: DatasetSource | Sequence[DatasetSource],
    root: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    options: RunOptions,
) -> TrainRun:
    """Prepare a run in a new folder, where everything that it starts from is kept.

    Args:
        network: What to train; it is changed unless it needs another classifier.
        card: What is said of it.
        dataset: See `datasets.open_training_datasets`.
        root: Where the first dataset lies.
        output: The folder; by default a new one below `runs/`.
        settings: Fields of `TrainConfig`.
        options: How to go about it.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: a setting, the folder or the number of classes is not allowed, or the doctor finds what stops
            training.
    """
    config = TrainConfig.from_dict(settings)
    if options.check:
        ask_the_doctor(dataset, root, progress=options.progress)
    train_set, val_set = open_training_datasets(dataset, root)
    folder = new_folder(output, train_set.name)
    torch.manual_seed(config.seed)
    started_from = {"weights_sha256": card.weights_sha256, **card.recipe} if card.weights_sha256 else "a new network"
    network, card = take_classes(network, card, train_set, fixed=options.classes_fixed, progress=options.progress)
    described = describe_source(dataset)
    advice = "" if A_FUNCTION in described else f" A stopped run goes on with --resume {folder.path}."
    print_note(f"Results go to {folder.path}.{advice}", enabled=options.progress)
    card = replace(card, recipe={"started_from": started_from})
    run = TrainRun(network, card, train_set, val_set, config, folder, progress=options.progress)
    run.begin({"dataset": described, "root": absolute(root)})
    return run


def ask_the_doctor(
    dataset: DatasetSource | Sequence[DatasetSource], root: str | os.PathLike[str] | None, *, progress: bool
) -> None:
    """Refuse data that training would fail on, or learn something wrong from; say what else is to be known of them."""
    sources = [dataset] if isinstance(dataset, str | os.PathLike) or callable(dataset) else dataset
    for number, source in enumerate(sources):
        if callable(source) or os.fspath(source).partition(":")[0] == "streets":
            continue
        where = Path(root) if root is not None and number == 0 else None
        report = doctor.check(os.fspath(source), root=where, quick=True, workers=0, progress=progress)
        if report.stops_training:
            raise ValueError(report.text())
        for finding in report.findings:
            print_note(f"Warning: {finding.meaning} ({', '.join(finding.examples)})", enabled=progress)


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
    print_note(f"Going on in {path} after epoch {run.epoch} of {config.epochs}.", enabled=progress and run.epoch > 0)
    return run


def new_folder(output: str | os.PathLike[str] | None, name: str) -> RunFolder:
    """The folder of a new run: the one asked for, which must not hold a run yet, or the next free one below runs/."""
    if output is None:
        numbered = (Path("runs") / f"{folder_name(name)}-{number}" for number in itertools.count(1))
        return RunFolder(next(folder for folder in numbered if not folder.exists()))
    folder = RunFolder(Path(output))
    if folder.is_begun:
        raise ValueError(f"{output} already holds a run. Go on with it by --resume {output}, or name another folder.")
    return folder


def folder_name(text: str) -> str:
    """A text as the name of a folder, with nothing in it that a shell or file system takes for something else."""
    return re.sub(r"[^\w-]+", "-", text)


def absolute(root: str | os.PathLike[str] | None) -> str | None:
    """A root as a run notes it, to be found from any working directory."""
    return None if root is None else str(Path(root).resolve())


def describe_source(dataset: DatasetSource | Sequence[DatasetSource]) -> str | list[str]:
    """What a run notes of its dataset to find it again."""
    if isinstance(dataset, str | os.PathLike):
        name = os.fspath(dataset)
        return str(Path(name).resolve()) if Path(name).exists() else name
    return A_FUNCTION if callable(dataset) else [str(describe_source(part)) for part in dataset]
