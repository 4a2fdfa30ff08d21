"""Search for label errors: judge each image by models that never saw it, and list the regions that they contradict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refinenet.datasets import Dataset, DatasetSource
from refinenet.deployment import SharedModel
from refinenet.evaluation import as_read_by
from refinenet.export import open_described
from refinenet.inference import choose_backend
from refinenet.io.console import print_note, progress_bar
from refinenet.io.files import write_atomically
from refinenet.io.images import write
from refinenet.io.mask_files import read_mask
from refinenet.io.tables import write_table
from refinenet.labelling.fold_models import deal_folds, train_fold
from refinenet.labelling.image_journal import ImageJournal, open_image_journal
from refinenet.labelling.labelled_images import LabelledImages, open_labelled
from refinenet.labelling.suspect_scores import ScoredSuspect, score_suspects
from refinenet.labelling.suspects import Suspect, find_suspects
from refinenet.models import ModelSpec, check_same_classes, choose_device

FIRST = 200
"""Number of suspects that are listed by default."""
REGIONS, PROPOSALS = "regions", "proposals"
COLUMNS = ("rank", "score", "image", "split", "label", "prediction", "confidence", "pixels", "left", "top", "right",
           "bottom", "region", "number")  # fmt: skip
"""Columns of the table of suspects."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Models that judge the same images."""

    models: tuple[Path, ...]
    """Their files; probabilities of several are averaged."""
    images: tuple[int, ...]
    """Indices of the images, none of which was used to train any of the models."""


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """The outcome of a search."""

    folder: Path
    """Folder of the results."""
    images: int
    """Number of images that were judged."""
    suspects: tuple[ScoredSuspect, ...]
    """All suspects, the most likely label errors first."""
    listed: int
    """How many of them are in the table and on the page."""

    def describe(self) -> str:
        """Describe the outcome in a sentence."""
        return (
            f"{len(self.suspects)} regions of {self.images} images contradict their label; the first {self.listed} "
            f"are in {self.folder}."
        )


def find_label_errors(
    dataset: DatasetSource,
    output: str | os.PathLike[str],
    *,
    folds: int = 0,
    root: str | os.PathLike[str] | None = None,
    splits: Sequence[str] = (),
    network: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    group: str | None = None,
    first: int = FIRST,
    progress: bool = True,
) -> LabelErrors:
    """Find regions whose label is likely wrong."""
    images = open_labelled(dataset, root, splits)
    folder = Path(output)
    dealt = deal_folds(images, folds, group, show=progress)
    judges = []
    for fold in dealt:
        model = train_fold(
            images,
            fold,
            folder / f"fold-{fold.number}",
            network=network or {},
            device=device,
            settings=settings or {},
            progress=progress,
        )
        judges.append(Judge(models=(model,), images=fold.images))
    recorded = {"format": 1, "folds": folds, "images": len(images.names)}
    with open_image_journal(folder, "judged", recorded) as journal:
        found = _judge_all(images, judges, folder, journal, device, progress=progress)
    scored = score_suspects(found, sum(len(judge.images) for judge in judges))
    return _write(images, scored, folder, first, sum(len(judge.images) for judge in judges))


def _judge_all(
    images: LabelledImages,
    judges: Sequence[Judge],
    folder: Path,
    journal: ImageJournal,
    device: str | None,
    *,
    progress: bool,
) -> dict[int, list[Suspect]]:
    found: dict[int, list[Suspect]] = {}
    with progress_bar(progress) as bar:
        task = bar.add_task("Judging labels", total=sum(len(judge.images) for judge in judges), status="")
        for judge in judges:
            opened: list[SharedModel] = []
            for index in judge.images:
                name = images.names[index]
                state = _state(images.all, images.all.items[index])
                entry = journal.find(name, state)
                if entry is None:
                    opened = opened or [_open(model, device) for model in judge.models]
                    suspects = _judge(images.all, index, opened, folder / REGIONS / f"{name}.png")
                    entry = {**state, "suspects": [asdict(suspect) for suspect in suspects]}
                    journal.add(name, entry)
                found[index] = [Suspect(**{**each, "box": tuple(each["box"])}) for each in entry["suspects"]]
                bar.advance(task)
    return found


def _open(path: Path, device: str | None) -> SharedModel:
    chosen = choose_device(device)
    opened, card = open_described(ModelSpec(model=path), "auto", chosen)
    backend = choose_backend("auto", chosen.type, "float32")
    return SharedModel(opened, card, backend=backend, precision="float32", or_pytorch=True, channel_order="rgb")


def _judge(dataset: Dataset, index: int, models: Sequence[SharedModel], target: Path) -> list[Suspect]:
    total = None
    for model in models:
        read = as_read_by(model.card, dataset)
        check_same_classes(model.label_set, read)
        sample = read[index]
        shares = model.segment(sample.image).probabilities.astype(np.float32)
        total = shares if total is None else total + shares
    assert total is not None
    suspects, regions = find_suspects(sample.labels, total / len(models), dataset.label_set)
    if suspects:
        write(target, regions.astype(np.uint8))
    return suspects


def _state(dataset: Dataset, item: str) -> dict[str, int]:
    """Return what changes when the files of an image do: the sums of their sizes and times."""
    files = [file for file in (dataset.image_file(item), dataset.label_file(item)) if file is not None]
    facts = [file.stat() for file in files if file.is_file()]
    return {"bytes": sum(each.st_size for each in facts), "mtime_ns": sum(each.st_mtime_ns for each in facts)}


def _write(
    images: LabelledImages, scored: Sequence[ScoredSuspect], folder: Path, first: int, judged: int
) -> LabelErrors:
    listed = scored[:first]
    rows = [_row(images, each, rank) for rank, each in enumerate(listed, start=1)]
    write_table(folder / "suspects.csv", rows, COLUMNS)
    values = {"format": 1, "dataset": images.all.name, "images": judged, "suspects": rows}
    write_atomically(folder / "suspects.json", (json.dumps(values, indent=1) + "\n").encode())
    return LabelErrors(folder=folder, images=judged, suspects=tuple(scored), listed=len(listed))


def _row(images: LabelledImages, scored: ScoredSuspect, rank: int) -> dict[str, Any]:
    name, suspect, label_set = images.names[scored.image], scored.suspect, images.all.label_set
    split, _, item = name.partition("/")
    left, top, right, bottom = suspect.box
    return {
        "rank": rank,
        "score": round(scored.score, 4),
        "image": item,
        "split": split,
        "label": "void" if suspect.label == label_set.ignore_index else label_set.names[suspect.label],
        "prediction": label_set.names[suspect.prediction],
        "confidence": round(suspect.confidence, 4),
        "pixels": suspect.pixels,
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "region": f"{REGIONS}/{name}.png",
        "number": suspect.number,
    }
