"""Training in stages, as the papers do: each begins with the best model of the one before, on data of its own.

A training in stages is a folder that holds `stages.json` (what was asked for), `start.safetensors` (the model that the
first stage begins with) and a run's folder for each stage that was begun: `1-coco`, `2-sbd`, `3-voc`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from refinenet.datasets.catalog import TrainingSource, as_sources, choose_classes, open_training_datasets
from refinenet.distributed import launch
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically
from refinenet.models.factory import locate_model, open_model
from refinenet.models.model_file import ModelCard, load, save
from refinenet.models.network import Network
from refinenet.training.records.folder import RunFolder, folder_name, next_folder
from refinenet.training.records.recipes import merge, place_training, read_recipe
from refinenet.training.run import TrainRun
from refinenet.training.start import RunOptions, TrainingData, ask_the_doctor, begin_run, describe_source, take_up_run


def read_stages(
    source: str | os.PathLike[str] | Sequence[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[TrainingData]:
    """The stages in a YAML file or a list.

    Args:
        source: Maps with the key "dataset" (a name, a folder, or a list of such), perhaps "root", and fields of
            `TrainConfig`; or a YAML file that holds a list of such below the key "stages", whose paths start at it.
        common: Fields of `TrainConfig` for all stages that do not say otherwise.

    Raises:
        ValueError: there is no stage, or one has no dataset or a setting that is not allowed; its number is named.
        OSError: the file cannot be read.
    """
    entries = _read_file(Path(source)) if isinstance(source, str | os.PathLike) else list(source)
    if not entries:
        raise ValueError("A training in stages needs at least one stage.")
    stages = []
    for number, entry in enumerate(entries, start=1):
        try:
            stages.append(_read_stage(entry, common))
        except ValueError as error:
            raise ValueError(f"Stage {number}: {error}") from error
    return stages


def _read_stage(entry: Any, common: Mapping[str, Any]) -> TrainingData:
    if not isinstance(entry, Mapping) or not entry.get("dataset"):
        raise ValueError(f"it needs the key 'dataset' and may have 'root' and settings; it is {entry!r}.")
    dataset = entry["dataset"]
    if not all(isinstance(part, str | os.PathLike) for part in (dataset if isinstance(dataset, list) else [dataset])):
        raise ValueError(f"its dataset is a name, a folder or a list of such, not {dataset!r}.")
    settings = {key: value for key, value in entry.items() if key not in ("dataset", "root")}
    return TrainingData(dataset=dataset, root=entry.get("root"), settings={**common, **settings})


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
        found = (
            f"the keys {', '.join(map(repr, values))}" if isinstance(values, Mapping) else f"a {type(values).__name__}"
        )
        if isinstance(values, Mapping) and set(values) == {"stages"}:
            found = f"'stages' with {values['stages']!r}"
        raise ValueError(f"{path} has to hold one key, 'stages', with a list of stages; it holds {found:.200}.")
    return [place_training(path.parent, entry) if isinstance(entry, Mapping) else entry for entry in values["stages"]]


def begin_stages(
    network: Network,
    card: ModelCard,
    stages: Sequence[TrainingData],
    output: str | os.PathLike[str] | None,
    options: RunOptions,
) -> Iterator[TrainRun]:
    """The runs of a training in stages in a new folder, each to be run before the next is asked for.

    The data of all stages are looked for before the first one begins.

    Raises:
        FileNotFoundError: data of a stage are not there; says where to get them.
        ValueError: the folder or the number of classes is not allowed, or the doctor finds what stops training.
    """
    processes = launch(network.mean.device).processes
    options = replace(options, progress=options.progress and processes.is_first)
    folder = Path(processes.tell(str(next_folder("stages")))) if output is None else Path(output)
    if is_staged(folder) or RunFolder(folder).is_begun:
        raise ValueError(f"{folder} already holds a training. Go on with it by --resume {folder}.")
    for stage in [*stages[1:], stages[0]]:
        if options.check and processes.is_first:
            ask_the_doctor(stage, progress=options.progress)
        open_training_datasets(stage.dataset, stage.root)
        if stage.settings.get("teacher") is not None:
            open_model(stage.settings["teacher"])
    stages = [replace(stage, settings=_with_found_teacher(stage.settings)) for stage in stages]
    processes.wait()  # nobody makes the folder before all have seen that it is free
    if processes.is_first:
        save(folder / "start.safetensors", network, card, "float32")
        described = [{**stage.settings, **describe_source(stage)} for stage in stages]
        write_atomically(folder / "stages.json", (json.dumps({"stages": described}, indent=2) + "\n").encode())
    return _runs(folder, stages, (network, card), replace(options, check=False))


def _with_found_teacher(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    if found.get("teacher") is not None:
        found["teacher"] = locate_model(found["teacher"])
    return found


def is_staged(folder: Path) -> bool:
    """Whether a training in stages was begun in a folder."""
    return (folder / "stages.json").exists()


def resume_runs(folder: Path, device: torch.device, options: RunOptions) -> Iterable[TrainRun]:
    """The runs that a stopped training, in stages or not, has still before it, or else its last one.

    Raises:
        FileNotFoundError: there is no run, or its data are gone.
        ValueError: what is kept is damaged, the data have changed, or the run is one of several stages.
    """
    if is_staged(folder.resolve().parent):
        raise ValueError(f"{folder} is a stage of a training: go on with --resume {folder.parent}.")
    if not is_staged(folder):
        return [take_up_run(RunFolder(folder), device, options)]
    path = folder / "stages.json"
    try:
        stages = read_stages(json.loads(path.read_text("utf-8"))["stages"], {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    network, card = load(folder / "start.safetensors")
    return _runs(folder, stages, (network.to(device), card), replace(options, check=False))


def _runs(
    folder: Path, stages: Sequence[TrainingData], start: tuple[Network, ModelCard], options: RunOptions
) -> Iterator[TrainRun]:
    device = start[0].mean.device
    for number, stage in enumerate(stages, start=1):
        run_folder = RunFolder(folder / _name(number, stage), part_of=folder)
        print_note(f"Stage {number} of {len(stages)}.", enabled=options.progress)
        if not run_folder.is_begun:
            yield begin_run(*start, stage, run_folder, options)
        elif number == len(stages) or not run_folder.is_over:
            yield take_up_run(run_folder, device, options)
        if number == len(stages):
            return
        network, card = load(run_folder.model)
        origin = {"model": str(run_folder.model.resolve())}
        start, options = (network.to(device), card), replace(options, classes_fixed=False, origin=origin)


def _name(number: int, stage: TrainingData) -> str:
    names = [part if callable(part) else Path(part).name for part in as_sources(stage.dataset)]
    return f"{number}-{folder_name('+'.join(map(str, names)))}"


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """The arguments of `RefineNet.train` that say what is to be trained on, and how; see there.

    Raises:
        ValueError: a recipe is given beside what it would have to say.
    """

    dataset: TrainingSource | None = None
    root: str | os.PathLike[str] | None = None
    output: str | os.PathLike[str] | None = None
    resume: str | os.PathLike[str] | None = None
    stages: str | os.PathLike[str] | Sequence[Mapping[str, Any]] | None = None
    recipe: str | os.PathLike[str] | None = None
    classes: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""

    def __post_init__(self) -> None:
        if self.recipe is not None and (self.resume is not None or self.stages is not None):
            raise ValueError("A recipe says what is trained on: pass no resume and no stages beside it.")


def prepare_runs(network: Network, card: ModelCard, request: TrainArguments, options: RunOptions) -> Iterable[TrainRun]:
    """The runs to carry out, one after the other: each is to be run before the next is asked for.

    Args:
        network: What to train; a resumed run has its own.
        card: What is said of it.
        request: What to train on, and how.
        options: How to go about it.

    Raises:
        FileNotFoundError: the data, the recipe or the run are not there.
        ValueError: not exactly one way to say what to train on is given, or what it says is not allowed.
    """
    request = _choose_classes(_follow_recipe(request))
    if sum(way is not None for way in (request.dataset, request.resume, request.stages)) != 1:
        raise ValueError("Pass one of dataset (a name or a folder), stages, or resume (the folder of a run).")
    if request.dataset is not None:
        folder = None if request.output is None else RunFolder(Path(request.output))
        training = TrainingData(dataset=request.dataset, root=request.root, settings=request.settings)
        return [begin_run(network, card, training, folder, options)]
    if request.root is not None:
        raise ValueError("root= goes with dataset=: a stage has a root of its own, and a resumed run keeps its.")
    if request.stages is not None:
        return begin_stages(network, card, read_stages(request.stages, request.settings), request.output, options)
    if request.output is not None or request.settings:
        raise ValueError(
            "A run is resumed as it was begun: pass resume alone. To train on with other settings, begin a new "
            "run from its model, best.safetensors."
        )
    assert request.resume is not None
    return resume_runs(Path(request.resume), network.mean.device, options)


def _follow_recipe(request: TrainArguments) -> TrainArguments:
    """The same request without a recipe, having taken over what that says."""
    if request.recipe is None:
        return request
    recipe = merge(read_recipe(request.recipe), dataset=request.dataset, root=request.root, train=request.settings)
    if recipe.stages:
        return replace(request, recipe=None, dataset=None, root=None, stages=recipe.whole_stages, settings={})
    return replace(request, recipe=None, dataset=recipe.dataset, root=recipe.root, settings=recipe.train)


def _choose_classes(request: TrainArguments) -> TrainArguments:
    if request.classes is None:
        return request
    if request.dataset is None:
        raise ValueError(f"classes={request.classes!r} goes with a dataset: stages name their own, as coco:stuff does.")
    return replace(request, classes=None, dataset=choose_classes(request.dataset, request.classes))
