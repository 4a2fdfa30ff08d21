"""Writing of a report: select images, predict them once more, draw them, render the page."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from refinenet.datasets.catalog import Dataset, Sample
from refinenet.evaluation.evaluator import Prediction
from refinenet.evaluation.report.images import PICTURES, Entry, ImageView, make_entry
from refinenet.evaluation.report.page import MOST_IN_TABLE, render_page
from refinenet.evaluation.report.plots import draw_curves, draw_matrix, row_shares
from refinenet.evaluation.report.selection import Choice, choose
from refinenet.evaluation.report.targets import TargetChoice, TargetEntry, choose_target_images, make_target_entry
from refinenet.evaluation.results import Evaluation
from refinenet.io.files import write_atomically
from refinenet.io.images.band_images import as_picture
from refinenet.io.images.codec import write

PAGE = "report.html"


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Reject, before long work, a folder that a report cannot be written to.

    Returns:
        The folder, which need not exist.

    Raises:
        ValueError: the folder or one of its parents is a file, or something in it is in the way of the report.
        PermissionError: the folder is not writable.
    """
    path = Path(folder)
    nearest = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    if not nearest.is_dir():
        raise ValueError(f"The report cannot be written to {path}: {nearest} is a file. Choose another folder.")
    if (path / PAGE).is_dir() or ((path / PICTURES).exists() and not (path / PICTURES).is_dir()):
        raise ValueError(
            f"The report cannot write its file {PAGE} and folder {PICTURES} in {path}. Choose another folder."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"The report cannot be written to {path}: {nearest} is not writable.")
    return path


def write_report(
    evaluation: Evaluation, dataset: Dataset, predict: Callable[[Sample], Prediction], folder: str | os.PathLike[str]
) -> Path:
    """Write the page `report.html` and its pictures as PNG files in the folder `pictures` beside it.

    Files with the same names are replaced, all others stay, including pictures of an earlier report.

    Args:
        evaluation: The evaluation to report.
        dataset: Dataset of the evaluation.
        predict: The evaluated predictor; it is called again for the few dozen images that are shown.
        folder: Folder of the report; created if missing.

    Returns:
        Path of the page.

    Raises:
        ValueError: an image, a mask or a prediction cannot be used, or the folder is a file.
        OSError: a file cannot be read or written.
    """
    path = check_folder(folder)
    metrics = evaluation.metrics
    curves = draw_curves(metrics) if evaluation.label_set.names else []
    for curve in curves:
        write_atomically(path / PICTURES / f"curve-{curve.name}.png", curve.png)
    matrix = draw_matrix(row_shares(metrics)) if len(evaluation.label_set) > MOST_IN_TABLE else None
    if matrix is not None:
        write(path / PICTURES / "confusion.png", matrix)
    entries = _make_entries(evaluation, dataset, predict, path)
    page = render_page(evaluation, curves, matrix, *entries)
    return write_atomically(path / PAGE, page.encode())


def _make_entries(
    evaluation: Evaluation, dataset: Dataset, predict: Callable[[Sample], Prediction], folder: Path
) -> tuple[list[Entry], list[TargetEntry]]:
    """Read and predict each image once, however often it is shown; entries are in the order of the choices."""
    choices = choose(evaluation.metrics)
    target_choices = choose_target_images(evaluation) if evaluation.image_targets else ()
    specs = {spec.name: spec for spec in dataset.chosen_specs}
    by_image: dict[int, list[Choice | TargetChoice]] = defaultdict(list)
    all_choices: list[Choice | TargetChoice] = [*choices, *target_choices]
    for choice in all_choices:
        by_image[choice.index].append(choice)
    entries: dict[Choice, Entry] = {}
    of_targets: dict[TargetChoice, TargetEntry] = {}
    for index, reasons in by_image.items():
        sample = dataset[index]
        prediction = predict(sample)
        shown = replace(sample, image=as_picture(sample.image, dataset.bands)) if dataset.bands else sample
        for choice in reasons:
            if isinstance(choice, TargetChoice):
                name = choice.output
                of_targets[choice] = make_target_entry(
                    choice,
                    sample.name,
                    specs[name],
                    shown.image,
                    (prediction.values[name], sample.targets[name]),
                    evaluation.image_targets[name][index],
                    evaluation.targets[name].summary_units(),
                    folder,
                )
                continue
            metrics, view = evaluation.metrics.images[index], _view(shown, prediction)
            entries[choice] = make_entry(choice, sample.name, metrics, view, evaluation.label_set, folder)
    return [entries[choice] for choice in choices], [of_targets[choice] for choice in target_choices]


def _view(sample: Sample, prediction: Prediction) -> ImageView:
    assert prediction.labels is not None  # images are chosen by their classes
    return ImageView(
        image=sample.image, truth=sample.labels, prediction=prediction.labels, confidence=prediction.confidence
    )
