"""What a user asks of `train`, and the runs that answer it: one, or one for each stage, begun or taken up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from refinenet.datasets.catalog import TrainingSource, choose_classes
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network
from refinenet.training.records.folder import RunFolder
from refinenet.training.records.recipes import merge, read_recipe
from refinenet.training.run import TrainRun
from refinenet.training.stages import begin_stages, read_stages, resume_runs
from refinenet.training.start import RunOptions, begin_run
from refinenet.training.training_data import Training


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
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


def prepare_runs(network: Network, card: ModelCard, request: TrainRequest, options: RunOptions) -> Iterable[TrainRun]:
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
        training = Training(dataset=request.dataset, root=request.root, settings=request.settings)
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


def _follow_recipe(request: TrainRequest) -> TrainRequest:
    """The same request without a recipe, having taken over what that says."""
    if request.recipe is None:
        return request
    recipe = merge(read_recipe(request.recipe), dataset=request.dataset, root=request.root, train=request.settings)
    if recipe.stages:
        return replace(request, recipe=None, dataset=None, root=None, stages=recipe.whole_stages, settings={})
    return replace(request, recipe=None, dataset=recipe.dataset, root=recipe.root, settings=recipe.train)


def _choose_classes(request: TrainRequest) -> TrainRequest:
    if request.classes is None:
        return request
    if request.dataset is None:
        raise ValueError(f"classes={request.classes!r} goes with a dataset: stages name their own, as coco:stuff does.")
    return replace(request, classes=None, dataset=choose_classes(request.dataset, request.classes))
