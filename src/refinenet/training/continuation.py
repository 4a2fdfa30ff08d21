"""Continuing a finished run: a new, shorter run from its last model, on a dataset that has grown since.

This differs from resuming, which continues the same run with the same data and settings. Old and new images are mixed,
so that nothing is forgotten, and at the end the models before and after are compared on the validation split.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from refinenet.datasets.catalog import Dataset, as_sources, open_training_datasets
from refinenet.datasets.common_images import find_common_images
from refinenet.io.console import print_note
from refinenet.models.files.model_card import ModelCard
from refinenet.models.files.model_file import load
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.records.fingerprint import take_fingerprint
from refinenet.training.records.folder import RunFolder
from refinenet.training.records.run_record import FUNCTION, RunRecord
from refinenet.training.start import TrainArguments

LENGTH = 0.25
"""Epochs of the new run, as a share of those of the old one."""
RATE = 0.3
"""Learning rates of the new run, as a share of those of the old one: a restart at the full rate would first undo what
was learnt, and the small rate at the end of the old run would learn little (compare SGDR, Loshchilov and Hutter,
2017)."""
_NOT_GROWN = (
    "Note: the dataset has not grown: its images are those of the old run. Unless their labels have been corrected, "
    "this only trains for longer."
)
_SCHEDULE = (
    *("epochs", "learning_rate", "encoder_learning_rate", "schedule", "warm_up", "patience"),
    *("polynomial_power", "lowest_rate", "step_epochs", "step_factor"),
)


def continue_run(arguments: TrainArguments) -> tuple[Network, ModelCard, TrainArguments]:
    """Return the last model of a run, and the arguments of a new run that continues it.

    Args:
        arguments: With `continue_from`; its dataset (by default that of the old run) and settings override those of the
            old run.

    Raises:
        FileNotFoundError: There is no run, or it has no model.
        ValueError: The run's files are damaged, or it was trained on a function and no dataset is given.
    """
    assert arguments.continue_from is not None
    folder = RunFolder(Path(arguments.continue_from))
    if (folder.path / "stages.json").exists():
        raise ValueError(f"{folder.path} is a training run in stages: continue the folder of its last stage.")
    values = folder.read_description()
    start = folder.last_model if folder.last_model.exists() else folder.best_model
    if not start.exists():
        raise FileNotFoundError(f"The run in {folder.path} has no model yet: resume it with --resume {folder.path}.")
    config = TrainConfig.from_dict({"longest_side": "none", **values["config"]})
    source = values["source"]
    if arguments.dataset is None and FUNCTION in source["dataset"]:
        raise ValueError(
            f"The run in {folder.path} was trained on a function, which is not stored: pass a dataset to continue with."
        )
    network, card = load(start)
    settings = {**_kept(config), **shorten_schedule(config), **arguments.settings}
    dataset = source["dataset"] if arguments.dataset is None else arguments.dataset
    root = source["root"] if arguments.dataset is None else arguments.root
    changed = replace(
        arguments,
        dataset=dataset,
        root=root,
        settings=settings,
        continue_from=None,
        origin={"model": str(start.resolve())},
    )
    if arguments.dataset is not None:
        changed = replace(changed, dataset=_with_old(folder, changed, card))
    else:
        _note_growth_in_place(folder, changed, card)
    return network, card, changed


def _kept(config: TrainConfig) -> dict[str, Any]:
    return {key: value for key, value in asdict(config).items() if key not in _SCHEDULE}


def shorten_schedule(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a schedule for a run that continues another one.

    It has `LENGTH` of the epochs, warms up to `RATE` of the learning rates over a tenth of the steps, and falls by a
    cosine.
    """
    assert config.learning_rate != "auto"  # a run stores what was found
    rates: dict[str, Any] = {"learning_rate": RATE * config.learning_rate}
    if config.encoder_learning_rate is not None:
        rates["encoder_learning_rate"] = RATE * config.encoder_learning_rate
    return {"epochs": max(1, math.ceil(LENGTH * config.epochs)), "schedule": "cosine", "warm_up": 0.1, **rates}


def _note_growth_in_place(folder: RunFolder, arguments: TrainArguments, card: ModelCard) -> None:
    """Say how the dataset of the old run has changed since, or that it has not."""
    try:
        record = RunRecord.read(folder)
        change = _find_change(record, _open(record.dataset, record.root, card)[0])
    except (ValueError, OSError):  # the start of the new run says what is wrong with its dataset
        return
    print_note(_describe_growth(change, 0), enabled=arguments.progress)


def _find_change(record: RunRecord, old: Dataset) -> str | None:
    """Return how the training split of the old run has changed since, in words to follow its name; None if not."""
    known = {spec.name for spec in old.target_specs}
    outputs = [spec.name for spec in record.card.architecture.outputs if spec.name in known]
    return record.fingerprints["train"].find_change(take_fingerprint(old.with_targets(outputs)))


def _describe_growth(change: str | None, added: int) -> str:
    """Return what is new: in the dataset of the old run, and in addition to it."""
    if change is None and not added:
        return _NOT_GROWN
    changed = [] if change is None else [f"The training split of the old run {change}."]
    return " ".join([*changed, *([f"{added} images are new."] if added else [])])


def _with_old(folder: RunFolder, arguments: TrainArguments, card: ModelCard) -> Any:
    """Return the dataset, with the one of the old run beside it unless it has all of its training images itself."""
    given = list(as_sources(arguments.source))
    forgets = "what they taught may be forgotten"
    try:
        record = RunRecord.read(folder)
        old, _ = _open(record.dataset, record.root, card)
    except (ValueError, OSError) as error:
        print_note(
            f"Warning: the images of the run in {folder.path} cannot be mixed in, so {forgets}: {error}",
            enabled=arguments.progress,
        )
        return arguments.dataset
    new, val_set = _open(given, arguments.root, card)
    change = _find_change(record, old)
    learnt = sum(1 for _ in find_common_images(val_set, old))
    was = "was" if change is None else "may have been"  # which of the images are new is not recorded
    print_note(
        f"Warning: the old run {was} trained on {learnt} of the {len(val_set)} validation images, which makes its "
        "model look better on them than it is.",
        enabled=arguments.progress and learnt > 0,
    )
    missing = len(old) - sum(1 for _ in find_common_images(old, new))
    if not missing:
        added = len(new) - sum(1 for _ in find_common_images(new, old))
        grown = f"{len(old)} images as before and {added} new ones."
        note = grown if added and change is None else _describe_growth(change, added)
        print_note(note, enabled=arguments.progress)
        return arguments.dataset
    if old.label_set.names != new.label_set.names or record.root is not None:
        reason = "it has other classes" if record.root is None else "it is a published dataset in a folder of its own"
        print_note(
            f"Warning: {missing} images of the old run are not mixed in, because {reason}; {forgets}.",
            enabled=arguments.progress,
        )
        return arguments.dataset
    print_note(
        f"{arguments.dataset} lacks {missing} of the {len(old)} images of the old run: training on both, so that "
        "nothing is forgotten.",
        enabled=arguments.progress,
    )
    return [*given, *as_sources(record.dataset)]


def _open(dataset: Any, root: Any, card: ModelCard) -> tuple[Dataset, Dataset]:
    return open_training_datasets(dataset, root, value_range=card.value_range, bands=card.architecture.bands)
