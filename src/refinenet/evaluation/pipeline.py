"""A complete evaluation: evaluate, print, write the results, the report and the submission."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from shlex import quote
from typing import Literal

from refinenet.datasets import doctor
from refinenet.datasets.catalog import (
    PUBLISHED,
    Dataset,
    DatasetSource,
    Splits,
    choose_classes,
    is_folder_dataset,
    is_unlabelled,
    no_labels,
    open_dataset,
    read_for_model,
)
from refinenet.datasets.quantity_choice import with_quantities
from refinenet.distributed import ALONE, CPU, Processes, is_launched, launch
from refinenet.evaluation import report as reports
from refinenet.evaluation.evaluator import Predictor, evaluate, folder_predictor
from refinenet.evaluation.results import Evaluation
from refinenet.evaluation.submission import Submission, record_predictions
from refinenet.inference.protocol import Protocol, choose_protocol
from refinenet.io.console import print_note
from refinenet.io.files import refuse_unwritable
from refinenet.models.class_mapping import check_same_classes
from refinenet.models.files.model_card import ModelCard
from refinenet.outputs import CLASS_KIND, OutputSpec


def open_split(
    dataset: DatasetSource, root: str | os.PathLike[str] | None, classes: str | None, split: str
) -> tuple[Dataset, str]:
    """Open a split to evaluate on.

    Args:
        dataset: Dataset as accepted by `datasets.open_dataset`.
        root: Folder of a named dataset.
        classes: Class set, for datasets with two.
        split: Name of the split.

    Returns:
        The split, and the official protocol of its publishers in words, "" if there is none.

    Raises:
        FileNotFoundError: the data are missing; the message says where to get them.
        ValueError: there is no such dataset, split or class set, or the split has no labels.
    """
    source = dataset if classes is None else choose_classes(dataset, classes)
    name = "" if callable(source) else os.fspath(source)
    official = PUBLISHED[name].info.protocol if name in PUBLISHED else ""
    if is_unlabelled(name, split):
        raise no_labels(name, split)
    return open_dataset(source, root)(split), official


def as_read_by(card: ModelCard, dataset: Dataset) -> Dataset:
    """Return a dataset with its images as a model reads them; raises as `datasets.read_for_model`."""
    return read_for_model(dataset, card.value_range, card.architecture.bands)


def fit_to_model(dataset: Dataset, card: ModelCard, *, show: bool) -> Dataset:
    """Return a dataset with the ground truth of what a model predicts, with its images as the model reads them.

    Args:
        dataset: Dataset to evaluate on.
        card: Card of the model.
        show: Whether to report the outputs that the dataset has no ground truth for.

    Raises:
        ValueError: Model and dataset have different classes, an output and the target of its name differ, or there is
            no ground truth for any output.
    """
    outputs = card.architecture.outputs
    dataset = as_read_by(card, dataset)
    if dataset.target_specs:
        dataset = with_quantities(dataset, outputs)
    dataset = dataset.with_targets(find_targets(outputs, dataset, show=show))
    if not card.label_set.names:
        dataset = dataset.without_classes()
    elif dataset.label_set.names or not dataset.chosen_targets:
        check_same_classes(card.label_set, dataset)
    else:
        print_note(f"{dataset.name} {dataset.split} has no masks: classes are not evaluated.", enabled=show)
    if not dataset.label_set.names and not dataset.chosen_targets:
        raise ValueError(f"{dataset.name} {dataset.split} has no ground truth for any output of the model.")
    return dataset


def open_splits_of(
    card: ModelCard,
    dataset: DatasetSource | None,
    root: str | os.PathLike[str] | None,
    classes: str | None,
    *,
    show: bool,
) -> Splits:
    """Return a function that opens a split of a dataset by its name as a model reads it: `open_split`, `fit_to_model`.

    Args:
        card: Card of the model.
        dataset: Dataset as accepted by `datasets.open_dataset`; None if the function is not called.
        root: Folder of a named dataset.
        classes: Class set, for datasets with two.
        show: Whether to report the outputs that the dataset has no ground truth for.
    """

    def open_one(split: str) -> Dataset:
        assert dataset is not None
        return fit_to_model(open_split(dataset, root, classes, split)[0], card, show=show)

    return open_one


def choose_protocol_for(card: ModelCard, dataset: Dataset, protocol: Protocol | Literal["plain", "paper"]) -> Protocol:
    """Return an inference protocol; "paper" means that of the network's paper on this dataset.

    Raises:
        ValueError: There is no such protocol.
    """
    side = PUBLISHED[dataset.name].info.paper_shorter_side if dataset.name in PUBLISHED else None
    return choose_protocol(protocol, card.architecture.model_type, side)


def find_targets(outputs: Sequence[OutputSpec], dataset: Dataset, *, show: bool) -> tuple[str, ...]:
    """Return the names of the outputs besides classes that a dataset has ground truth for; report the others.

    Raises:
        ValueError: An output and the target of its name are of different kinds or quantities.
    """
    known = {spec.name: spec for spec in dataset.target_specs}
    wanted = [spec for spec in outputs if spec.kind != CLASS_KIND]
    for spec in wanted:
        target = known.get(spec.name, spec)
        if (target.kind, target.channels, target.units) != (spec.kind, spec.channels, spec.units):
            raise ValueError(
                f"The output {spec.name} is {_describe(spec)}, and {dataset.name} has {_describe(target)} under this "
                f"name: declare the output as the dataset does, --outputs {quote(target.to_text())}, or rename it."
            )
    missing = [spec.name for spec in wanted if spec.name not in known]
    if missing:
        message = f"{dataset.name} {dataset.split} has no ground truth for {', '.join(missing)}"
        print_note(f"{message}: these outputs are not evaluated.", enabled=show)
    return tuple(spec.name for spec in wanted if spec.name in known)


def _describe(spec: OutputSpec) -> str:
    quantities = ", ".join(f"{name} [{unit}]" for name, unit in zip(spec.channels, spec.units, strict=True))
    return f"{spec.kind} of {quantities}" if quantities else spec.kind


def check_masks(dataset: DatasetSource, split: str, processes: Processes, *, progress: bool) -> None:
    """Check the masks of a custom folder as training does, and print warnings about them.

    Raises:
        ValueError: the doctor finds faults that would stop training on these masks and make metrics wrong.
    """
    if callable(dataset) or not processes.is_first:
        return
    name = os.fspath(dataset)
    if name in PUBLISHED or not is_folder_dataset(name):
        return
    report = doctor.check_masks(name, split, progress=progress)
    if report.stops_training:
        raise ValueError(f"{report.text('measured on')}\n\nTo evaluate anyway: `--no-check`, in Python check=False.")
    report.print_warnings(enabled=progress)


def run_evaluation(
    predictor: Predictor,
    dataset: Dataset,
    official: str = "",
    *,
    output_file: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    submission: Submission | None = None,
    progress: bool = True,
    processes: Processes,
) -> Evaluation:
    """Evaluate, print a table and write the requested files; of several processes only the first prints and writes.

    Args:
        predictor: The model or label maps to evaluate.
        dataset: Images with ground truth.
        official: Official protocol, from `open_split`.
        output_file: JSON file for the results.
        report: Folder for the page `report.html` and its pictures.
        submission: File of the same label maps for the dataset's evaluation server; needs a single process.
        progress: Whether to show progress and the table.
        processes: Processes that share the images.

    Raises:
        ValueError: an image, a mask or a prediction cannot be used, and the message names the file; or `report` is a
            file, which is checked before the evaluation.
        OSError: a file cannot be written; as far as possible, this is checked before the evaluation.
    """
    # First of all: an evaluation may take hours, and its results are to have a place then.
    folder = None if report is None else reports.check_folder(report)
    if output_file is not None:
        refuse_unwritable(output_file)
    shows = progress and processes.is_first
    evaluate_on = partial(evaluate, dataset=dataset, progress=shows, processes=processes, official=official)
    if submission is None:
        evaluation = evaluate_on(predictor)
    else:
        with submission.writing() as add:
            evaluation = evaluate_on(record_predictions(predictor, add))
    if shows:
        evaluation.print()
    if output_file is not None and processes.is_first:
        evaluation.save(output_file)
        print_note(f"Wrote {os.fspath(output_file)}.", enabled=shows)
    if folder is not None and processes.is_first:
        page = reports.write_report(evaluation, dataset, predictor.predict, folder)
        print_note(f"Wrote {page}.", enabled=shows)
    if submission is not None:
        print_note(submission.describe(), enabled=shows)
    return evaluation


def evaluate_predictions(
    dataset: DatasetSource,
    predictions: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    split: str = "val",
    output_file: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    classes: str | None = None,
    progress: bool = True,
    check: bool = True,
) -> Evaluation:
    """Evaluate label maps from any source, as `RefineNet.eval` evaluates a model.

    Args:
        dataset: Dataset as accepted by `datasets.open_dataset`.
        predictions: A folder with a PNG of class ids for each image (see `evaluator.folder_predictor`).
        root: Folder of a named dataset.
        split: Name of the split.
        output_file: JSON file for the results.
        report: Folder for the page `report.html` and its pictures.
        classes: Class set, for datasets with two.
        progress: Whether to show progress and the table.
        check: As for `RefineNet.eval`.

    Returns:
        All metrics except those of confidence.

    Raises:
        FileNotFoundError: data or predictions are missing; the message names them.
        ValueError: a file cannot be used, or a value is not allowed.
    """
    data, official = open_split(dataset, root, classes, split)
    processes = launch(CPU).processes if is_launched() else ALONE
    if check:
        check_masks(dataset, split, processes, progress=progress)
    return run_evaluation(
        folder_predictor(predictions, data),
        data,
        official,
        output_file=output_file,
        report=report,
        progress=progress,
        processes=processes,
    )
