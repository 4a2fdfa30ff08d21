"""One evaluation from beginning to end: measure, keep the figures, show them."""

from __future__ import annotations

import os
from functools import partial

from refinenet.datasets import doctor
from refinenet.datasets.catalog import (
    PUBLISHED,
    Dataset,
    DatasetSource,
    choose_classes,
    is_own,
    is_unlabelled,
    no_labels,
    open_dataset,
)
from refinenet.distributed import ALONE, CPU, Processes, is_launched, launch
from refinenet.evaluation.evaluator import Predictor, examine_predictions, measure
from refinenet.evaluation.report import check_folder, write_report
from refinenet.evaluation.results import Evaluation
from refinenet.evaluation.submission import Submission, copy_answers
from refinenet.io.console import print_note
from refinenet.io.files import refuse_unwritable


def open_split(
    dataset: DatasetSource, root: str | os.PathLike[str] | None, classes: str | None, split: str
) -> tuple[Dataset, str]:
    """A split to measure on, and how those who published it measure, in words ("" where nobody says).

    Args:
        dataset: As `datasets.open_dataset` takes it.
        root: Where a named dataset lies.
        classes: Which set of classes, where a dataset has two.
        split: Which part of it.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: there is no such dataset, split or set of classes, or the split has no labels.
    """
    source = dataset if classes is None else choose_classes(dataset, classes)
    name = "" if callable(source) else os.fspath(source)
    official = PUBLISHED[name].facts.protocol if name in PUBLISHED else ""
    if is_unlabelled(name, split):
        raise no_labels(name, split)
    return open_dataset(source, root)(split), official


def check_masks(dataset: DatasetSource, split: str, processes: Processes, *, progress: bool) -> None:
    """Ask of the masks of a folder of one's own what training asks, and print what else is to be known of them.

    Raises:
        ValueError: the doctor finds what would stop training on these masks, so that metrics would be wrong.
    """
    if callable(dataset) or not processes.is_first:
        return
    name = os.fspath(dataset)
    if name in PUBLISHED or not is_own(name):
        return
    report = doctor.check_masks(name, split, progress=progress)
    if report.stops_training:
        raise ValueError(
            f"{report.text('measured on')}\n\nTo measure all the same: `--no-check`, in Python check=False."
        )
    for finding in report.findings:
        print_note(f"Warning: {finding.text()}", enabled=progress)


def examine(
    examinee: Predictor,
    dataset: Dataset,
    official: str = "",
    *,
    output_file: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    submission: Submission | None = None,
    progress: bool = True,
    processes: Processes,
) -> Evaluation:
    """Measure, write what was asked for, and print a table; of several processes the first one writes and prints.

    Args:
        examinee: What to measure.
        dataset: What to measure it on.
        official: As `open_split` gives it.
        output_file: A JSON file for the figures.
        report: A folder for a page on them, `report.html`, and its pictures.
        submission: A file for the server of the dataset's owners, of the same label maps; of one process alone.
        progress: Whether to show progress and the table.
        processes: Those that share the images.

    Raises:
        ValueError: an image, a mask or a prediction cannot be used; the file is named. `report` is a file,
            which is said before anything is measured.
        OSError: a file cannot be written; where that can be known, it is said before, too.
    """
    folder = None if report is None else check_folder(report)
    if output_file is not None:
        refuse_unwritable(output_file)
    shows = progress and processes.is_first
    measured = partial(measure, dataset=dataset, progress=shows, processes=processes, official=official)
    if submission is None:
        evaluation = measured(examinee)
    else:
        with submission.writing() as add:
            evaluation = measured(copy_answers(examinee, add))
    if shows:
        evaluation.print()
    if output_file is not None and processes.is_first:
        evaluation.save(output_file)
    if folder is not None and processes.is_first:
        page = write_report(evaluation, dataset, examinee.answer, folder)
        print_note(f"Report: {page}", enabled=shows)
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
    """Measure label maps of any origin, as `RefineNet.eval` measures a model.

    Args:
        dataset: As `datasets.open_dataset` takes it.
        predictions: A folder with a PNG of class ids for each image (`predictions.examine_predictions`).
        root: Where a named dataset lies.
        split: Which part of it.
        output_file: A JSON file for the figures.
        report: A folder for a page on them, `report.html`, and its pictures.
        classes: Which set of classes, where a dataset has two.
        progress: Whether to show progress and the table.
        check: As for `RefineNet.eval`.

    Returns:
        All figures but those of confidence.

    Raises:
        FileNotFoundError: data or predictions are not there; they are named.
        ValueError: a file cannot be used, or a value is not allowed.
    """
    data, official = open_split(dataset, root, classes, split)
    processes = launch(CPU).processes if is_launched() else ALONE
    if check:
        check_masks(dataset, split, processes, progress=progress)
    return examine(
        examine_predictions(predictions, data),
        data,
        official,
        output_file=output_file,
        report=report,
        progress=progress,
        processes=processes,
    )
