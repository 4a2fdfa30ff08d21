"""Beginning a training run, or taking up one that was stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from refinenet.datasets import doctor
from refinenet.datasets.catalog import (
    PUBLISHED,
    Dataset,
    DatasetSource,
    TrainingSource,
    as_sources,
    find_root,
    is_drawn,
    is_own,
    open_training_datasets,
    with_value_range,
)
from refinenet.distributed import Engine, launch
from refinenet.environment import describe_run
from refinenet.io.console import print_note
from refinenet.labels import LabelSet
from refinenet.models.batch_norm import refuse_single_values, refuse_unlearned_statistics
from refinenet.models.class_mapping import check_same_classes, take_classes
from refinenet.models.factory import locate_model, open_model
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Architecture, Network
from refinenet.models.tensor_files import digest
from refinenet.training.config import TrainConfig
from refinenet.training.engine.auto_settings import fill_in
from refinenet.training.engine.state import Beginning
from refinenet.training.loading.loader import batch_size
from refinenet.training.loggers import check_installed
from refinenet.training.optimisation import choose_precision
from refinenet.training.records.fingerprint import Fingerprint, describe_looks, find_changes
from refinenet.training.records.folder import RunFolder, next_folder
from refinenet.training.records.recipes import Recipe, write_recipe
from refinenet.training.run import TrainRun

A_FUNCTION = "a function of the caller's"
"""How a dataset is noted that no file can keep."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
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


def ask_the_doctor(training: TrainingData, *, progress: bool) -> None:
    """Refuse data that training would fail on, or learn something wrong from; say what else is to be known of them."""
    for number, source in enumerate(as_sources(training.dataset)):
        if callable(source) or is_drawn(os.fspath(source)):
            continue
        root = Path(training.root) if training.root is not None and number == 0 else None
        report = doctor.check(os.fspath(source), root=root, quick=True, workers=0, progress=progress)
        if report.stops_training:
            raise ValueError(report.text())
        for finding in report.findings:
            print_note(f"Warning: {finding.text()}", enabled=progress)


def describe_source(training: TrainingData) -> dict[str, Any]:
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
    network: Network, card: ModelCard, training: TrainingData, folder: RunFolder | None, options: RunOptions
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
    engine = launch(device, choose_precision(config.precision, device))
    show = options.progress and engine.processes.is_first
    if options.check and engine.processes.is_first:
        ask_the_doctor(training, progress=show)
    train_set, val_set = open_training_datasets(training.dataset, training.root)
    config = replace(config, value_range=config.value_range or card.value_range)
    train_set, val_set = (with_value_range(part, config.value_range) for part in (train_set, val_set))
    folder = folder or RunFolder(Path(engine.processes.tell(str(next_folder(train_set.name)))))
    folder = replace(folder, can_resume=A_FUNCTION not in describe_source(training)["dataset"])
    folder.refuse_begun()
    config = _locate_teacher(config)
    teacher, teacher_sha256 = _open_teacher(config, train_set, device)
    torch.manual_seed(config.seed)
    print_note(_tell_start(card, options.origin), enabled=show)
    started_from = _describe_start(network, card, options.origin)
    network, card = take_classes(network, card, train_set, fixed=options.classes_fixed, progress=show)
    refuse_unlearned_statistics(network, config)
    config = fill_in(network, config, train_set, engine, progress=show)
    _refuse_single_values(network, config, train_set, engine)
    card = replace(card, recipe={"started_from": started_from}, value_range=config.value_range)
    looks = describe_looks({"train": train_set, "val": val_set})
    noted = {"fingerprints": looks, "arithmetic": engine.arithmetic, "teacher_sha256": teacher_sha256}
    beginning = _describe_beginning(network, card, training, config, folder, noted, options)
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


def _is_trained(card: ModelCard, origin: Mapping[str, Any]) -> bool:
    """Whether a network's weights are a model's, also where these were changed, or come from a published checkpoint."""
    return bool(card.weights_sha256 or card.recipe or "model" in origin)


def _describe_start(network: Network, card: ModelCard, origin: Mapping[str, Any]) -> dict[str, Any] | str:
    """What the run begins with, to be noted in its models."""
    if not _is_trained(card, origin):
        return "a new network"
    return {"weights_sha256": card.weights_sha256 or digest(network.state_dict()), **card.recipe}


def _tell_start(card: ModelCard, origin: Mapping[str, Any]) -> str:
    """What the weights are that a network begins with, in words."""
    if _is_trained(card, origin):
        return f"The network begins with a model's weights, whose terms go on into the new one: {card.licence}."
    if "encoder_weights" in origin:
        return f"The network is new; its encoder begins with the weights {origin['encoder_weights']}."
    return (
        "The network is new and begins with random weights. From a model (--model camvid) or an encoder's weights "
        "(--encoder-weights imagenet) it learns faster and from fewer images."
    )


def _describe_beginning(
    network: Network,
    card: ModelCard,
    training: TrainingData,
    config: TrainConfig,
    folder: RunFolder,
    noted: Mapping[str, Any],
    options: RunOptions,
) -> Beginning:
    source = describe_source(training)
    description = {
        "source": source,
        **noted,
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


def _locate_teacher(config: TrainConfig) -> TrainConfig:
    """The same configuration, whose teacher's file is found from any working directory."""
    return config if config.teacher is None else replace(config, teacher=locate_model(config.teacher))


def _open_teacher(
    config: TrainConfig, train_set: Dataset, device: torch.device
) -> tuple[Network, str] | tuple[None, None]:
    """The network that gives soft targets and the hash of its weights, if one is asked for.

    Raises:
        ValueError: it is of other classes than the dataset.
        OSError: its file cannot be read.
    """
    if config.teacher is None:
        return None, None
    network, card = open_model(config.teacher)
    check_same_classes(card.label_set, train_set)
    return network.to(device).eval().requires_grad_(False), card.weights_sha256 or digest(network.state_dict())


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """What a run's folder notes of how it was begun."""

    dataset: str | list[str]
    root: str | None
    config: TrainConfig
    card: ModelCard
    looks: Mapping[str, Fingerprint]
    teacher_sha256: str | None
    arithmetic: str
    processes: int


def _read_begun(folder: RunFolder) -> _Begun:
    description = folder.read_description()
    try:
        begun = _Begun(
            dataset=description["source"]["dataset"],
            root=description["source"]["root"],
            config=TrainConfig.from_dict(description["config"]),
            card=ModelCard(
                architecture=Architecture(**description["architecture"]),
                label_set=LabelSet.from_dict(description["label_set"]),
                licence=description["licence"],
                recipe=description["recipe"],
                value_range=TrainConfig.from_dict(description["config"]).value_range,
            ),
            looks={split: Fingerprint(**look) for split, look in description["fingerprints"].items()},
            teacher_sha256=description["teacher_sha256"],
            arithmetic=description["arithmetic"],
            processes=description["processes"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder.path / 'run.json'} is damaged: {error!r}") from error
    if A_FUNCTION in begun.dataset:
        raise ValueError(f"The run in {folder.path} was given its dataset as a function, which no file can keep.")
    return begun


def take_up_run(folder: RunFolder, device: torch.device, options: RunOptions) -> TrainRun:
    """Prepare to go on with a stopped run where it was, as it was begun.

    Raises:
        FileNotFoundError: there is no run, or its data are gone.
        ValueError: what it keeps is damaged, or its dataset has changed since.
    """
    begun = _read_begun(folder)
    train_set, val_set = open_training_datasets(begun.dataset, begun.root)
    train_set, val_set = (with_value_range(part, begun.config.value_range) for part in (train_set, val_set))
    changes = find_changes(begun.looks, {"train": train_set, "val": val_set})
    _refuse_changes(folder, changes, begun.card.label_set, train_set.label_set)
    config = begun.config
    engine = launch(device, choose_precision(config.precision, device))
    if (engine.processes.count, engine.arithmetic) != (begun.processes, begun.arithmetic):
        print_note(
            f"The run was begun with processes={begun.processes} in {begun.arithmetic} and goes on with "
            f"processes={engine.processes.count} in {engine.arithmetic}: its last digits will be others.",
            enabled=options.progress and engine.processes.is_first,
        )
    teacher, teacher_sha256 = _open_teacher(config, train_set, device)
    if teacher_sha256 != begun.teacher_sha256:
        raise ValueError(
            f"{config.teacher}, the teacher of the run in {folder.path}, has other weights than when it was begun: put "
            "the old file back, or begin a new run."
        )
    torch.manual_seed(config.seed + engine.processes.rank)
    return TrainRun(
        Network(begun.card.architecture).to(device),
        begun.card,
        train_set,
        val_set,
        config,
        folder,
        engine=engine,
        teacher=teacher,
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
