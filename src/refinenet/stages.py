"""Training in stages, as the papers do: each begins with the best model of the one before, on data of its own.

A staged run is a folder that holds `stages.json` (what was asked for) and a run's folder for each stage that was begun:
`1-coco`, `2-sbd`, `3-voc`.
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

from refinenet.datasets import open_training_datasets
from refinenet.files import write_atomically
from refinenet.model_file import ModelCard, load
from refinenet.network import Network
from refinenet.run_folder import RunFolder
from refinenet.run_start import (
    RunOptions,
    absolute,
    ask_the_doctor,
    begin_run,
    describe_source,
    folder_name,
    new_folder,
    take_up_run,
)
from refinenet.terminal import print_note
from refinenet.train import TrainRun
from refinenet.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training.

    Raises:
        ValueError: a setting is unknown or out of its range.
    """

    dataset: str | Sequence[str]
    """A dataset's name or folder, or several, as `RefineNet.train` takes them."""
    root: str | os.PathLike[str] | None = None
    """Where a dataset known by name lies."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""

    def __post_init__(self) -> None:
        parts = [self.dataset] if isinstance(self.dataset, str) else self.dataset
        if not parts or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"its dataset is a name, a folder or a list of such, not {self.dataset!r}.")
        TrainConfig.from_dict(self.settings)


def read_stages(source: str | os.PathLike[str] | Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> list[Stage]:
    """The stages in a YAML file or a list.

    Args:
        source: Maps with the key "dataset", perhaps "root", and fields of `TrainConfig`; or a YAML file that holds a
            list of such below the key "stages".
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
        if not isinstance(entry, Mapping) or not entry.get("dataset"):
            raise ValueError(f"Stage {number} needs the key 'dataset' and may have settings; it is {entry!r}.")
        settings = {key: value for key, value in entry.items() if key not in ("dataset", "root")}
        try:
            stages.append(Stage(dataset=entry["dataset"], root=entry.get("root"), settings={**common, **settings}))
        except ValueError as error:
            raise ValueError(f"Stage {number}: {error}") from error
    return stages


def _read_file(path: Path) -> list[Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(values, Mapping) or set(values) != {"stages"} or not isinstance(values["stages"], list):
        raise ValueError(f"{path} holds one key, 'stages', with a list of stages.")
    return list(values["stages"])


def begin_stages(
    network: Network,
    card: ModelCard,
    stages: Sequence[Stage],
    output: str | os.PathLike[str] | None,
    options: RunOptions,
) -> Iterator[TrainRun]:
    """The runs of a staged training in a new folder, each to be run before the next is asked for.

    The data of all stages are looked for before the first one begins.

    Raises:
        FileNotFoundError: data of a stage are not there; says where to get them.
        ValueError: a setting, the folder or the number of classes is not allowed.
    """
    folder = new_folder(output, "stages").path
    if is_staged(folder):
        raise ValueError(f"{folder} already holds a training in stages. Go on with it by --resume {folder}.")
    for stage in stages:
        if options.check:
            ask_the_doctor(stage.dataset, stage.root, progress=options.progress)
        open_training_datasets(stage.dataset, stage.root)
    print_note(f"Stage 1 of {len(stages)}.", enabled=options.progress)
    # All stages have just been looked at.
    _begin(stages[0], folder / _name(1, stages[0]), network, card, replace(options, check=False))
    described = [
        {**stage.settings, "dataset": describe_source(stage.dataset), "root": absolute(stage.root)} for stage in stages
    ]
    write_atomically(folder / "stages.json", (json.dumps({"stages": described}, indent=2) + "\n").encode())
    return _runs(folder, stages, network.mean.device, progress=options.progress)


def is_staged(folder: Path) -> bool:
    """Whether a training in stages was begun in a folder."""
    return (folder / "stages.json").exists()


def resume_runs(folder: Path, device: torch.device, *, progress: bool) -> Iterable[TrainRun]:
    """The runs of a stopped training, in stages or not; those that are over have nothing left to do.

    Raises:
        FileNotFoundError: there is no run, or its data are gone.
        ValueError: what is kept is damaged, or the data have changed.
    """
    if not is_staged(folder):
        return [take_up_run(folder, device, progress=progress)]
    path = folder / "stages.json"
    try:
        stages = read_stages(json.loads(path.read_text("utf-8"))["stages"], {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    return _runs(folder, stages, device, progress=progress)


def _runs(folder: Path, stages: Sequence[Stage], device: torch.device, *, progress: bool) -> Iterator[TrainRun]:
    for number, stage in enumerate(stages, start=1):
        path = folder / _name(number, stage)
        if not RunFolder(path).is_begun:
            print_note(f"Stage {number} of {len(stages)}.", enabled=progress)
            network, card = load(RunFolder(folder / _name(number - 1, stages[number - 2])).best_model)
            options = RunOptions(classes_fixed=False, check=False, progress=progress)
            _begin(stage, path, network.to(device), card, options)
        yield take_up_run(path, device, progress=progress)


def _begin(stage: Stage, path: Path, network: Network, card: ModelCard, options: RunOptions) -> None:
    begin_run(network, card, stage.dataset, stage.root, path, stage.settings, options)


def _name(number: int, stage: Stage) -> str:
    described = describe_source(stage.dataset)
    name = "+".join(Path(part).name for part in ([described] if isinstance(described, str) else described))
    return f"{number}-{folder_name(name)}"
