"""Search for label errors: check images with models that never saw them, and list the regions that they contradict."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from refinenet.datasets import DatasetSource
from refinenet.io.console import print_note
from refinenet.labelling.drafts import DraftSet, check_format, describe_drafts
from refinenet.labelling.errors.fold_models import Fold, deal_folds, train_fold
from refinenet.labelling.errors.fold_settings import check_fold_settings
from refinenet.labelling.errors.judging import Judge, judge_all
from refinenet.labelling.errors.seen_images import find_seen
from refinenet.labelling.errors.suspect_list import write_drafts, write_suspects
from refinenet.labelling.errors.suspect_scores import ScoredSuspect, score_suspects
from refinenet.labelling.image_journal import open_image_journal
from refinenet.labelling.labelled_images import LabelledImages, open_labelled
from refinenet.labelling.todo_folder import refuse_corrected
from refinenet.models import BUNDLED, ModelSpec, locate_model, open_model
from refinenet.training import RunFolder

FIRST = 200
"""Number of suspects that are listed by default."""


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Cross-validation: one model for each fold, trained on all images except those of the fold.

    Raises:
        ValueError: A setting is not valid.
    """

    count: int = 5
    """Number of folds, at least 2."""
    network: Mapping[str, Any] = field(default_factory=lambda: {"size": "small"})
    """What each training starts from: fields of `models.ModelSpec`, such as a `size`, or a `model` that was trained on
    none of the images."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    group: str | None = None
    """Regular expression; images whose names have the same text in its first capture group share a fold. By default,
    images whose names differ only in the last number share a fold."""

    def __post_init__(self) -> None:
        check_fold_settings(self.settings)


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """Outcome of a search."""

    folder: Path
    """Folder of the results."""
    judged: int
    """Number of images that were checked."""
    left_out: int
    """Number of images that were not checked, because all models were trained on them."""
    suspects: tuple[ScoredSuspect, ...]
    """All suspects, the most likely label errors first."""
    listed: int
    """How many of them are in the table and on the page."""
    page: Path
    """The page for reviewing them."""
    drafts: DraftSet | None
    """Proposals for an annotation tool; None without suspects or image files."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "folder": str(self.folder),
            "page": str(self.page),
            "judged": self.judged,
            "left_out": self.left_out,
            "suspects": len(self.suspects),
            "listed": self.listed,
            "drafts": None if self.drafts is None else describe_drafts(self.drafts),
        }

    def describe(self) -> str:
        """Describe the outcome in a sentence or two."""
        left_out = f" {self.left_out} images were not checked: the models saw them." if self.left_out else ""
        advice = ""
        if self.drafts is not None:
            take, into = "refinenet label take", f"--drafts {self.folder} --into DATASET"
            advice = (
                f"\nTo accept proposals: decide on the page, save the decisions, then {take} decisions.csv {into}"
                f"\nTo correct them in a tool: {self.drafts.advice}\nOr in the browser: refinenet label correct "
                f"{self.folder}\nThen: {take} EXPORT {into}"
            )
        return (
            f"{len(self.suspects):,} regions in {self.judged:,} images contradict their label; the first "
            f"{self.listed:,} are in {self.page}.{left_out}{advice}"
        )


def find_label_errors(
    dataset: DatasetSource,
    output: str | os.PathLike[str],
    *,
    models: Sequence[str | os.PathLike[str]] = (),
    folds: Folds | None = None,
    root: str | os.PathLike[str] | None = None,
    splits: Sequence[str] = (),
    unseen: bool = False,
    first: int = FIRST,
    file_format: str = "cvat",
    device: str | torch.device | None = None,
    progress: bool = True,
) -> LabelErrors:
    """Find regions whose label is likely wrong, and write a table, their masks, proposals, and a page for reviews.

    Labels are checked only by models that were not trained on them: those of `folds`, which are trained for this
    purpose, or `models`, whose files or run folders must record what they were trained on. An interrupted search
    continues where it stopped; finished folds are not trained again.

    Args:
        dataset: As for `datasets.open_dataset`.
        output: Folder for the results, created if missing.
        models: Model files or run folders, instead of folds; an image is checked by those not trained on it.
        folds: Cross-validation, instead of models.
        root: Folder of a named dataset.
        splits: Splits to check; by default all that have labels.
        unseen: Whether the caller vouches that the models (or the model that the folds start from) were not trained on
            the images, if their files do not show it.
        first: Number of suspects to list.
        file_format: Annotation tool to write proposals for, as for `write_labels`.
        device: As for `models.choose_device`.
        progress: Whether to show progress and notes on standard error.

    Returns:
        All suspects, with where the results are.

    Raises:
        FileNotFoundError: The data or a model are missing.
        ValueError: Both or neither of `models` and `folds` are given, the models were trained on all images or may have
            been, an image or a label map cannot be used, or the folder holds results of other settings or accepted
            masks.
        OSError: A file cannot be read or written.
    """
    if bool(models) == (folds is not None):
        raise ValueError("Pass either models that have not seen the images, or folds, which train such models.")
    images, folder, tool = open_labelled(dataset, root, splits), Path(output), check_format(file_format)
    refuse_corrected(folder)
    files = [_locate(model) for model in models]
    judges = _choose_judges(images, files, unseen=unseen, progress=progress)
    dealt = [] if folds is None else _deal(images, folds, unseen=unseen, progress=progress)
    settings = _describe(images, {str(file): open_model(file)[1].weights_sha256 for file in files}, folds)
    # Before the folds are trained, so that those of an interrupted search are not mixed with others.
    with open_image_journal(folder, "judged", settings) as journal:
        if folds is not None:
            judges = _train_judges(images, folds, dealt, folder, device=device, progress=progress)
        found = judge_all(images, judges, journal, folder, device=device, progress=progress)
    scored = score_suspects(found, len(found))
    page = write_suspects(images, scored[:first], len(scored), len(found), folder)
    drafts = write_drafts(images, scored[:first], folder, tool)
    return LabelErrors(
        folder=folder,
        judged=len(found),
        left_out=len(images.names) - len(found),
        suspects=tuple(scored),
        listed=min(first, len(scored)),
        page=page,
        drafts=drafts,
    )


def _locate(model: str | os.PathLike[str]) -> Path:
    """Return the file of a model, of a run folder its best one; the name of a bundled model stays."""
    path = Path(model)
    if path.is_dir():
        return RunFolder(path).model
    return Path(locate_model(model)) if os.fspath(model) not in BUNDLED else path


def _describe(images: LabelledImages, models: Mapping[str, str], folds: Folds | None) -> dict[str, Any]:
    """Return the settings that the results depend on, JSON-ready."""
    values: dict[str, Any] = {"format": 1, "dataset": images.name, "models": dict(models)}
    values["splits"] = [part.split for part in images.parts]
    if folds is not None:
        # What a size means may change from version to version.
        network = {**{key: str(value) for key, value in folds.network.items()}, **_describe_network(folds.network)}
        values |= {"folds": folds.count, "group": folds.group, "network": network, "settings": dict(folds.settings)}
    return values


def _describe_network(network: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the encoder, the decoder and all else that a network is made of."""
    values: Mapping[str, Any] = json.loads(json.dumps(ModelSpec(**network).origin, default=os.fspath))
    return values


def _find_seen(file: Path, images: LabelledImages, *, unseen: bool, progress: bool) -> frozenset[int]:
    """Return the images that a model was trained on.

    Raises:
        ValueError: It may have been trained on others, and the caller does not warrant that it was not.
    """
    seen = find_seen(file, open_model(file)[1], images)
    if seen.doubts and not unseen:
        raise ValueError(
            f"{'; '.join(seen.doubts)}. A model that was trained on an image agrees with its labels, right or wrong, "
            "so it must not check them. Train models for this purpose (--folds 5) or, if you know that this model has "
            "never seen the images, confirm it (--unseen, unseen=True)."
        )
    for doubt in seen.doubts:
        print_note(
            f"Warning: {doubt}. It checks all images, because you confirmed that it has seen none.", enabled=progress
        )
    return seen.indices


def _choose_judges(images: LabelledImages, files: Sequence[Path], *, unseen: bool, progress: bool) -> list[Judge]:
    """Let each image be checked by the models that were not trained on it."""
    seen = {file: _find_seen(file, images, unseen=unseen, progress=progress) for file in files}
    by_models: dict[tuple[Path, ...], list[int]] = defaultdict(list)
    for index in range(len(images.names)):
        by_models[tuple(file for file in files if index not in seen[file])].append(index)
    left_out = by_models.pop((), [])
    if files and not by_models:
        raise ValueError(
            f"{', '.join(map(str, files))}: trained on all {len(left_out)} images, so it cannot judge their "
            "labels. Train models for the purpose: --folds 5."
        )
    return [Judge(models=models, images=tuple(indices)) for models, indices in by_models.items()]


def _deal(images: LabelledImages, folds: Folds, *, unseen: bool, progress: bool) -> list[Fold]:
    start = folds.network.get("model")
    if start is not None and _find_seen(_locate(start), images, unseen=unseen, progress=progress):
        raise ValueError(
            f"The folds would start from {start}, which was trained on images of {images.name} and has learnt "
            "their labels. Start from another model, or from a new network (--size small)."
        )
    return deal_folds(images, folds.count, folds.group, show=progress)


def _train_judges(
    images: LabelledImages,
    folds: Folds,
    dealt: Sequence[Fold],
    folder: Path,
    *,
    device: str | torch.device | None,
    progress: bool,
) -> list[Judge]:
    judges = []
    for fold in dealt:
        run = folder / f"fold-{fold.number}"
        model = train_fold(
            images,
            fold,
            run,
            network=folds.network,
            device=device,
            settings=folds.settings,
            progress=progress,
        )
        judges.append(Judge(models=(model,), images=fold.images))
    return judges
