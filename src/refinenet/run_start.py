"""Beginning a training run, or taking up one that was stopped."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from refinenet import doctor
from refinenet.batch_norm import refuse_single_values, refuse_unlearned_statistics
from refinenet.class_matching import check_same_classes, take_classes
from refinenet.dataset_fingerprint import Fingerprint, describe_looks, find_changes
from refinenet.datasets import (
    PUBLISHED,
    Dataset,
    DatasetSource,
    TrainingSource,
    as_sources,
    find_root,
    is_drawn,
    is_own,
    open_training_datasets,
)
from refinenet.distributed import Engine, launch
from refinenet.labels import LabelSet
from refinenet.loader import batch_size
from refinenet.metric_loggers import check_installed
from refinenet.model_file import ModelCard
from refinenet.model_source import open_model
from refinenet.network import Architecture, Network
from refinenet.optimisation import choose_precision
from refinenet.position import Beginning
from refinenet.recipe import Recipe, write_recipe
from refinenet.run_folder import RunFolder
from refinenet.run_record import describe_run
from refinenet.terminal import print_note
from refinenet.train import TrainRun
from refinenet.train_config import TrainConfig
from refinenet.tuning import fill_in

A_FUNCTION = "a function of the caller's"


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


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is begun or taken up.

    Raises:
        ValueError: `stop_after` is no number of steps.
    """

    classes_fixed: bool = False
    """Whether the user asked for the number of classes that the network has."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `RefineNet` that made the network."""
    check: bool = True
    """Whether the doctor looks at the data first, quickly."""
    stop_after: int | None = None
    """Steps after which to stop, for now."""
    progress: bool = True
    """Whether to show progress."""

    def __post_init__(self) -> None:
        if self.stop_after is not None and (type(self.stop_after) is not int or self.stop_after < 1):
            raise ValueError(f"stop_after is a whole number of steps from 1 up, not {self.stop_after!r}.")


def begin_run(
    network: Network, card: ModelCard, training: Training, folder: RunFolder | None, options: RunOptions
) -> TrainRun:
    """Prepare a run in a new folder, where everything that it starts from is kept.

    Args:
        network: What to train; it is changed unless it needs another classifier.
        card: What is said of it.
        training: What to train on.
        folder: Where the results go; by default a new folder below `runs/`.
        options: How to go about it.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: the folder or the number of classes is not allowed, the doctor finds what stops training, or batch
            norm cannot do what is wanted of it.
    """
    config = TrainConfig.from_dict(training.settings)
    check_installed(config.loggers)
    device = network.mean.device
    engine = launch(device, choose_precision(config.precision, device), config.strategy)
    show = options.progress and engine.processes.is_first
    if options.check and engine.processes.is_first:
        ask_the_doctor(training, progress=show)
    train_set, val_set = open_training_datasets(training.dataset, training.root)
    folder = folder or RunFolder(Path(engine.processes.tell(str(next_folder(train_set.name)))))
    folder.refuse_begun()
    teacher = _open_teacher(config, train_set, device)
    torch.manual_seed(config.seed)
    started_from = {"weights_sha256": card.weights_sha256, **card.recipe} if card.weights_sha256 else "a new network"
    network, card = take_classes(network, card, train_set, fixed=options.classes_fixed, progress=show)
    refuse_unlearned_statistics(network, config)
    config = fill_in(network, config, train_set, engine, progress=show)
    _refuse_single_values(network, config, train_set, engine)
    card = replace(card, recipe={"started_from": started_from})
    datasets = {"train": train_set, "val": val_set}
    beginning = _describe_beginning(network, card, training, config, folder, datasets, options)
    advice = f" A stopped run goes on with --resume {folder.to_resume}."
    can_resume = A_FUNCTION not in beginning.description["source"]["dataset"]
    print_note(f"Results go to {folder.path}.{advice if can_resume else ''}", enabled=show)
    engine.processes.wait()  # nobody makes the folder before all have seen that it is free
    torch.manual_seed(config.seed + engine.processes.rank)  # each process drops out values of its own
    return TrainRun(
        network,
        card,
        train_set,
        val_set,
        config,
        folder,
        engine=engine,
        beginning=beginning,
        teacher=teacher,
        stop_after=options.stop_after,
        progress=options.progress,
    )


def _describe_beginning(
    network: Network,
    card: ModelCard,
    training: Training,
    config: TrainConfig,
    folder: RunFolder,
    datasets: Mapping[str, Dataset],
    options: RunOptions,
) -> Beginning:
    source = describe_source(training)
    description = {
        "source": source,
        "fingerprints": describe_looks(datasets),
        "config": asdict(config),
        "architecture": network.architecture.to_dict(),
        "label_set": card.label_set.to_dict(),
        "licence": card.licence,
        "recipe": dict(card.recipe),
        **describe_run(),
    }
    recipe = Recipe(
        name=str(folder.path),
        description=f"The training in {folder.path.resolve()}.",
        dataset=None if A_FUNCTION in source["dataset"] else source["dataset"],
        root=source["root"],
        network=options.origin,
        train=asdict(config),
    )
    return Beginning(description=description, recipe=write_recipe(recipe))


def _refuse_single_values(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine) -> None:
    """See `batch_norm.refuse_single_values`."""
    processes = engine.processes.count
    together = 1 if config.batch_norm == "synchronised" else processes
    images = batch_size(train_set, config, processes) // (config.accumulation * together)
    refuse_single_values(network, config, images, config.crop_size)


def _open_teacher(config: TrainConfig, train_set: Dataset, device: torch.device) -> Network | None:
    """The network that gives soft targets, if one is asked for.

    Raises:
        ValueError: it is of other classes than the dataset.
        OSError: its file cannot be read.
    """
    if config.teacher is None:
        return None
    network, card = open_model(config.teacher)
    check_same_classes(card.label_set, train_set)
    return network.to(device).eval().requires_grad_(False)


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


def take_up_run(folder: RunFolder, device: torch.device, options: RunOptions) -> TrainRun:
    """Prepare to go on with a stopped run where it was, as it was begun.

    Raises:
        FileNotFoundError: there is no run, or its data are gone.
        ValueError: what it keeps is damaged, or its dataset has changed since.
    """
    description = folder.read_description()
    try:
        dataset, root = description["source"]["dataset"], description["source"]["root"]
        config = TrainConfig.from_dict(description["config"])
        architecture = Architecture(**description["architecture"])
        label_set = LabelSet.from_dict(description["label_set"])
        licence, recipe = description["licence"], description["recipe"]
        looks = {split: Fingerprint(**look) for split, look in description["fingerprints"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder.path / 'run.json'} is damaged: {error!r}") from error
    if A_FUNCTION in dataset:
        raise ValueError(f"The run in {folder.path} was given its dataset as a function, which no file can keep.")
    train_set, val_set = open_training_datasets(dataset, root)
    changes = find_changes(looks, {"train": train_set, "val": val_set})
    _refuse_changes(folder, changes, label_set, train_set.label_set)
    engine = launch(device, choose_precision(config.precision, device), config.strategy)
    if engine.processes.count != description.get("processes", 1):
        print_note(
            f"The run was begun with {description.get('processes', 1)} processes and goes on with "
            f"{engine.processes.count}: its batches stay the same, its last digits do not.",
            enabled=options.progress and engine.processes.is_first,
        )
    torch.manual_seed(config.seed + engine.processes.rank)
    return TrainRun(
        Network(architecture).to(device),
        ModelCard(architecture=architecture, label_set=label_set, licence=licence, recipe=recipe),
        train_set,
        val_set,
        config,
        folder,
        engine=engine,
        teacher=_open_teacher(config, train_set, device),
        stop_after=options.stop_after,
        progress=options.progress,
    )


def _refuse_changes(folder: RunFolder, changes: Sequence[str], began_with: LabelSet, found: LabelSet) -> None:
    """Refuse to go on with other data than a run was begun with.

    Raises:
        ValueError: there are changes, or the classes are others.
    """
    if found.names != began_with.names:
        changes = [f"its classes were {', '.join(began_with.names)} and are {', '.join(found.names)}", *changes]
    if changes:
        way = f" from its model: --model {folder.model}" if folder.model.exists() else ""
        raise ValueError(
            f"The dataset of the run in {folder.path} has changed since the run was begun: {'; '.join(changes)}. Put "
            f"back the data that it was begun with, or begin a new run{way}."
        )


def next_folder(name: str) -> Path:
    """The next free folder below runs/, named after `name` and numbered."""
    numbered = (Path("runs") / f"{folder_name(name)}-{number}" for number in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def folder_name(text: str) -> str:
    """A text as the name of a folder, with nothing in it that a shell or file system takes for something else."""
    return re.sub(r"[^\w-]+", "-", text)


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
