"""Comparison of a run's model with the one that it continued, at its end and on its validation split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refinenet.datasets.catalog import Dataset, read_for_model
from refinenet.distributed import Processes
from refinenet.evaluation.comparison import EvaluationComparison, compare
from refinenet.evaluation.evaluator import evaluate, model_predictor
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.segmenter import Segmenter
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically
from refinenet.models.files.model_file import load
from refinenet.training.records.folder import RunFolder

START = "start.safetensors"
"""File in the folder of a run: the model that it continues."""
BEFORE, AFTER, COMPARISON = "before.json", "after.json", "comparison.json"
"""Files in that folder: the evaluations of the models before and after, and their comparison."""


def keep_start(folder: RunFolder, start: Mapping[str, Any]) -> None:
    """Copy the model that a run continues into the folder of the new run, for the comparison at its end."""
    write_atomically(folder.path / START, Path(start["model"]).read_bytes())


def compare_with_start(
    folder: RunFolder, val_set: Dataset, processes: Processes, *, progress: bool
) -> EvaluationComparison | None:
    """Compare the last model of a run with the one that it continued, on the validation split; write and print.

    Not the best one: chosen by these images, it would look better on them than it is.

    Returns:
        The comparison; None if the run continued no other, or the classes have changed.

    Raises:
        ValueError, OSError: An image cannot be used, or a file cannot be written.
    """
    before, after = folder.path / START, folder.last_model
    if not before.exists() or not after.exists():
        return None
    names = load(before)[1].label_set.names
    if not val_set.label_set.names or names != val_set.label_set.names:
        print_note("The models before and after have different classes and are not compared.", enabled=progress)
        return None
    for model, target in ((before, BEFORE), (after, AFTER)):
        _evaluate(model, val_set, folder.path / target, processes, progress=progress)
    if not processes.is_first:
        return None
    found = compare(folder.path / BEFORE, folder.path / AFTER)
    folder.write(COMPARISON, (json.dumps(found.to_dict(), indent=2) + "\n").encode())
    if progress:
        found.print()
        change = found.summary[0].difference
        # Not on a difference that other images might reverse: the new model has seen more.
        if change.is_significant and change.value is not None and change.value < 0:
            print_note(f"The old model is better on these images: keep {before}, and train on more images or longer.")
    return found


def _evaluate(model: Path, val_set: Dataset, target: Path, processes: Processes, *, progress: bool) -> None:
    network, card = load(model)
    segmenter = Segmenter(
        PyTorchBackend(network),
        card.label_set,
        temperature=card.temperature,
        outputs=card.architecture.outputs,
        bands=card.architecture.bands,
        longest_side=card.longest_side,
    )
    read = read_for_model(val_set, card.value_range, card.architecture.bands)
    found = evaluate(model_predictor(segmenter, card.weights_sha256), read, progress=progress, processes=processes)
    if processes.is_first:
        found.save(target)
