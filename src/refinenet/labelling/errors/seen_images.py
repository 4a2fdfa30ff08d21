"""Images that a model was trained on, as recorded in its files: no model may check labels that it learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refinenet.datasets import Dataset, find_common_images, open_training_datasets
from refinenet.labelling.labelled_images import LabelledImages
from refinenet.models import ModelCard
from refinenet.training import RunFolder, RunRecord, find_changes

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """The images that a model was trained on."""

    indices: frozenset[int]
    """Of the images that it certainly learnt from."""
    doubts: tuple[str, ...] = ()
    """Reasons why it may have learnt from other images."""


def find_seen(model: Path, card: ModelCard, images: LabelledImages) -> SeenImages:
    """Find the images that a model, or the model that it started from, was trained on.

    The run folder of a model names its dataset, whose fingerprint shows whether it is still the same; its images are
    compared by content. A model file alone holds only the name of its dataset: for a published dataset, its training
    split was learnt; for a folder of the same name, the images are unknown.

    Args:
        model: Its file.
        card: Its card.
        images: The images to judge.
    """
    if not card.recipe:
        return SeenImages(indices=frozenset(), doubts=(f"{model} does not record what it was trained on",))
    run = RunFolder(model.parent)
    if not run.is_started or model.name not in (run.best_model.name, run.last_model.name):
        return _by_names(model, card.recipe, images)
    of_run = _in_run(run, images)
    earlier = card.recipe.get("started_from")
    if not isinstance(earlier, Mapping):
        return of_run
    before = _by_names(model, earlier, images)
    return replace(of_run, indices=of_run.indices | before.indices, doubts=(*of_run.doubts, *before.doubts))


def _by_names(model: Path, recipe: Mapping[str, Any], images: LabelledImages) -> SeenImages:
    """Judge by the names of datasets in a recipe, and in those of the models before it."""
    names = set(_dataset_names(recipe))
    indices: set[int] = set()
    doubts: list[str] = []
    start = 0
    for part in images.parts:
        if part.name in names and part.split == TRAIN and images.has_fixed_splits:
            indices.update(range(start, start + len(part)))
        elif part.name in names and not images.has_fixed_splits and not doubts:
            doubts.append(
                f"{model} was trained on a dataset of the name {part.name}, and without its run folder nobody can tell "
                "on which of the images"
            )
        start += len(part)
    return SeenImages(indices=frozenset(indices), doubts=tuple(doubts))


def _dataset_names(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield from str(recipe.get("dataset", "")).split(" + ")
    earlier = recipe.get("started_from")
    if isinstance(earlier, Mapping):
        yield from _dataset_names(earlier)


def _in_run(folder: RunFolder, images: LabelledImages) -> SeenImages:
    """Open the dataset of a run again, and find its training images among others."""
    nothing: frozenset[int] = frozenset()
    try:
        record = RunRecord.read(folder)
        trained, _ = open_training_datasets(
            record.dataset, record.root, value_range=record.config.value_range, bands=record.card.architecture.bands
        )
        changes = find_changes({TRAIN: record.fingerprints[TRAIN]}, {TRAIN: _with_targets(trained, record)})
    except (ValueError, OSError) as error:
        return SeenImages(indices=nothing, doubts=(f"the images of the run in {folder.path} are not known: {error}",))
    if changes:
        reason = f"the dataset of the run in {folder.path} has changed since: {'; '.join(changes)}"
        return SeenImages(indices=nothing, doubts=(reason,))
    return SeenImages(indices=frozenset(find_common_images(images.all, trained)))


def _with_targets(dataset: Dataset, record: RunRecord) -> Dataset:
    known = {spec.name for spec in dataset.target_specs}
    return dataset.with_targets(spec.name for spec in record.card.architecture.outputs if spec.name in known)
