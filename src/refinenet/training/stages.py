"""Runs started by a call to `train`: a single run, a run in stages, or the rest of an interrupted one.

Stages are trained as in the papers: each starts from the best model of the previous one, on its own data. A run in
stages is a folder that holds `stages.json` (the stages), `start.safetensors` (the model that the first stage starts
from) and a run folder for each stage that was started: `1-coco`, `2-sbd`, `3-voc`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from refinenet.datasets.catalog import as_sources, choose_classes, open_training_datasets
from refinenet.distributed import launch
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically
from refinenet.models.factory import locate_model, open_model
from refinenet.models.files.model_card import ModelCard
from refinenet.models.files.model_file import load, save
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.continuation import continue_run
from refinenet.training.records.folder import STAGES, RunFolder, folder_name, next_folder
from refinenet.training.records.recipes import merge, place_training, read_recipe
from refinenet.training.run import TrainRun
from refinenet.training.start import TrainArguments, check_data, describe_source, resume_run, start_run
from refinenet.training.start_comparison import keep_start


def prepare_runs(network: Network, card: ModelCard, arguments: TrainArguments) -> Iterable[TrainRun]:
    """Return the runs to carry out, one after the other: run each before taking the next from the iterator.

    Args:
        network: Network to train; a resumed run has its own.
        card: Metadata of the network.
        arguments: What to train on, and how.

    Raises:
        FileNotFoundError: The data, the recipe or the run are missing.
        ValueError: Not exactly one of dataset, stages and resume is given, or its value is not allowed.
    """
    arguments = _choose_classes(_follow_recipe(arguments))
    if arguments.continue_from is not None:
        return [_continue(network.mean.device, arguments)]
    if arguments.resume is not None and callable(arguments.dataset) and arguments.stages is None:
        return [resume_run(RunFolder(Path(arguments.resume)), network.mean.device, arguments)]
    if sum(each is not None for each in (arguments.dataset, arguments.resume, arguments.stages)) != 1:
        raise ValueError("Pass one of dataset (a name or a folder), stages, or resume (the folder of a run).")
    if arguments.dataset is not None:
        folder = None if arguments.output is None else RunFolder(Path(arguments.output))
        return [start_run(network, card, arguments, folder)]
    if arguments.root is not None:
        raise ValueError("root= needs dataset=: each stage has its own root, and a resumed run keeps its root.")
    if arguments.stages is not None:
        return start_stages(network, card, read_stages(arguments.stages, arguments.settings), arguments)
    if arguments.output is not None or arguments.settings:
        raise ValueError(
            "A run resumes with its original settings: pass --resume alone. To continue with other settings, start a "
            "new run from its model, best.safetensors."
        )
    assert arguments.resume is not None
    return resume_runs(Path(arguments.resume), network.mean.device, arguments)


def _continue(device: torch.device, arguments: TrainArguments) -> TrainRun:
    """Prepare a new run that continues a finished one; the model that it starts from is kept in its folder."""
    network, card, changed = continue_run(arguments)
    folder = None if arguments.output is None else RunFolder(Path(arguments.output))
    run = start_run(network.to(device), card, changed, folder)
    if run.engine.processes.is_first:
        keep_start(run.folder, changed.origin)
    return run


def _follow_recipe(arguments: TrainArguments) -> TrainArguments:
    """Replace the recipe by its contents."""
    if arguments.recipe is None:
        return arguments
    recipe = merge(
        read_recipe(arguments.recipe), dataset=arguments.dataset, root=arguments.root, train=arguments.settings
    )
    if recipe.stages:
        return replace(arguments, recipe=None, dataset=None, root=None, stages=recipe.whole_stages, settings={})
    return replace(arguments, recipe=None, dataset=recipe.dataset, root=recipe.root, settings=recipe.train)


def _choose_classes(arguments: TrainArguments) -> TrainArguments:
    if arguments.classes is None:
        return arguments
    if arguments.dataset is None:
        raise ValueError(
            f"classes={arguments.classes!r} needs dataset=: stages select classes in their dataset, as in coco:stuff."
        )
    return replace(arguments, classes=None, dataset=choose_classes(arguments.dataset, arguments.classes))


def read_stages(
    source: str | os.PathLike[str] | Sequence[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[TrainArguments]:
    """Read the stages in a YAML file or a list.

    Args:
        source: Maps with the key "dataset" (a name, a folder, or a list of these), optionally "root", and fields of
            `TrainConfig`; or a YAML file with a list of such maps under the key "stages", whose paths are relative to
            its folder.
        common: Fields of `TrainConfig` for all stages that do not override them.

    Raises:
        ValueError: There is no stage, or one has no dataset or an invalid setting; its number is named.
        OSError: The file cannot be read.
    """
    entries = _read_file(Path(source)) if isinstance(source, str | os.PathLike) else list(source)
    if not entries:
        raise ValueError("Training in stages needs at least one stage.")
    stages = []
    for number, entry in enumerate(entries, start=1):
        try:
            stages.append(_read_stage(entry, common))
        except ValueError as error:
            raise ValueError(f"Stage {number}: {error}") from error
    return stages


def _read_stage(entry: Any, common: Mapping[str, Any]) -> TrainArguments:
    if not isinstance(entry, Mapping) or not entry.get("dataset"):
        raise ValueError(f"it needs the key 'dataset' and may have 'root' and settings; it is {entry!r}.")
    dataset = entry["dataset"]
    if not all(isinstance(part, str | os.PathLike) for part in (dataset if isinstance(dataset, list) else [dataset])):
        raise ValueError(f"its dataset must be a name, a folder or a list of these, not {dataset!r}.")
    settings = {**common, **{key: value for key, value in entry.items() if key not in ("dataset", "root")}}
    stage = TrainArguments(dataset=dataset, root=entry.get("root"), settings=settings)
    TrainConfig.from_dict(settings)
    return stage


def _read_file(path: Path) -> list[Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read the stages in {path}: {error.strerror}") from error
    if values is None:
        raise ValueError(f"{path} is empty. It needs the key 'stages', with a list of stages, each with a 'dataset'.")
    if not isinstance(values, Mapping) or set(values) != {"stages"} or not isinstance(values["stages"], list):
        content = (
            f"the keys {', '.join(map(repr, values))}" if isinstance(values, Mapping) else f"a {type(values).__name__}"
        )
        if isinstance(values, Mapping) and set(values) == {"stages"}:
            content = f"'stages' with {values['stages']!r}"
        raise ValueError(f"{path} must hold one key, 'stages', with a list of stages; it holds {content:.200}.")
    return [place_training(path.parent, entry) if isinstance(entry, Mapping) else entry for entry in values["stages"]]


def start_stages(
    network: Network, card: ModelCard, stages: Sequence[TrainArguments], arguments: TrainArguments
) -> Iterator[TrainRun]:
    """Return the runs of a multi-stage training in a new folder; run each before taking the next from the iterator.

    The data of all stages are opened before the first one starts.

    Raises:
        FileNotFoundError: Data of a stage are missing; says where to get them.
        ValueError: The folder or the number of classes is not allowed, or the check of the data fails.
    """
    processes = launch(network.mean.device).processes
    progress = arguments.progress and processes.is_first
    folder = Path(processes.tell(str(next_folder("stages")))) if arguments.output is None else Path(arguments.output)
    RunFolder(folder).refuse_started()
    # The first stage comes last, because it starts at once: its messages belong with the run.
    for stage in [*stages[1:], stages[0]]:
        if arguments.check and processes.is_first:
            check_data(stage, network, progress=progress)
        open_training_datasets(stage.source, stage.root, bands=network.architecture.bands)
        if stage.settings.get("teacher") is not None:
            open_model(stage.settings["teacher"])
    stages = [replace(stage, settings=_with_located_teacher(stage.settings)) for stage in stages]
    processes.wait()  # no process makes the folder before all have seen that it is free
    if processes.is_first:
        save(folder / "start.safetensors", network, card, "float32")
        described = [{**stage.settings, **describe_source(stage)} for stage in stages]
        write_atomically(folder / "stages.json", (json.dumps({"stages": described}, indent=2) + "\n").encode())
    return _runs(folder, stages, (network, card), replace(arguments, progress=progress))


def _with_located_teacher(settings: Mapping[str, Any]) -> dict[str, Any]:
    located = dict(settings)
    if located.get("teacher") is not None:
        located["teacher"] = locate_model(located["teacher"])
    return located


def is_staged(folder: Path) -> bool:
    """Whether a folder holds a multi-stage training."""
    return (folder / STAGES).exists()


def resume_runs(folder: Path, device: torch.device, arguments: TrainArguments) -> Iterable[TrainRun]:
    """Return the runs that a stopped training, in stages or not, has left to do, or else its last one.

    Raises:
        FileNotFoundError: There is no run, or its data are missing.
        ValueError: The folder's files are damaged, the data have changed, or the run is one of several stages.
    """
    if is_staged(folder.resolve().parent):
        raise ValueError(f"{folder} is one stage of a training run: continue it with --resume {folder.parent}.")
    if not is_staged(folder):
        return [resume_run(RunFolder(folder), device, arguments)]
    path = folder / "stages.json"
    try:
        stages = read_stages(json.loads(path.read_text("utf-8"))["stages"], {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    network, card = load(folder / "start.safetensors")
    return _runs(folder, stages, (network.to(device), card), arguments)


def _runs(
    folder: Path, stages: Sequence[TrainArguments], start: tuple[Network, ModelCard], arguments: TrainArguments
) -> Iterator[TrainRun]:
    """Yield the runs of the stages that are not finished; the data were checked when the training started."""
    device, origin, classes_fixed = start[0].mean.device, arguments.origin, arguments.classes_fixed
    for number, stage in enumerate(stages, start=1):
        run_folder = RunFolder(folder / _name(number, stage), part_of=folder)
        print_note(f"Stage {number} of {len(stages)}.", enabled=arguments.progress)
        stage_arguments = replace(
            stage,
            check=False,
            stop_after=arguments.stop_after,
            progress=arguments.progress,
            classes_fixed=classes_fixed,
            origin=origin,
        )
        if not run_folder.is_started:
            yield start_run(*start, stage_arguments, run_folder)
        elif number == len(stages) or not run_folder.is_finished:
            yield resume_run(run_folder, device, stage_arguments)
        if number == len(stages):
            return
        network, card = load(run_folder.model)
        start = (network.to(device), card)
        origin, classes_fixed = {"model": str(run_folder.model.resolve())}, False


def _name(number: int, stage: TrainArguments) -> str:
    names = [part if callable(part) else Path(part).name for part in as_sources(stage.source)]
    return f"{number}-{folder_name('+'.join(map(str, names)))}"
