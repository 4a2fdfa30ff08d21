"""Tables of an evaluation: metrics of each class, of each image, and of each class in each image.

The metrics are those of `results.json`, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from refinenet.evaluation.metrics.confusion import divide, ious, or_none
from refinenet.io.tables import Row

if TYPE_CHECKING:
    from refinenet.evaluation.results import Evaluation

By = Literal["class", "image", "image_class"]
"""What has a row of its own."""


def list_rows(evaluation: Evaluation, by: By) -> tuple[list[Row], list[str]]:
    """Return the rows and the columns of a table.

    Raises:
        ValueError: there is no such table, or the evaluation has no classes and the table is of these.
    """
    if by not in _TABLES:
        raise ValueError(f"A table has a row for each of {', '.join(_TABLES)}, not {by!r}.")
    if by != "image" and not evaluation.label_set.names:
        raise ValueError(
            f"A table by {by} has metrics of classes, but none were evaluated: choose --table-by image "
            '(in Python by="image").'
        )
    rows, columns = _TABLES[by](evaluation)
    return list(rows), columns


def _by_class(evaluation: Evaluation) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    for label, (name, item) in enumerate(zip(evaluation.label_set.names, evaluation.metrics.classes, strict=True)):
        low, high = item.iou_interval or (None, None)
        rows.append(
            {
                "id": label,
                "class": name,
                "iou": item.iou,
                "iou_low": low,
                "iou_high": high,
                "precision": item.precision,
                "recall": item.recall,
                "dice": item.dice,
                "boundary_iou": item.boundary_iou,
                "boundary_f": item.boundary_f,
                "pixels": item.pixels,
            }
        )
    return rows, list(rows[0])


def _by_image(evaluation: Evaluation) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    for image in evaluation.list_images():
        classes = {key: image[key] for key in ("miou", "pixel_accuracy", "boundary_miou", "confident_mistakes")}
        outputs = {
            f"{name}.{metric}": value
            for name, metrics in image.get("outputs", {}).items()
            for metric, value in metrics.items()
        }
        rows.append({"image": image["name"], **(classes if evaluation.label_set.names else {}), **outputs})
    return rows, list(dict.fromkeys(column for row in rows for column in row)) or ["image"]


def _by_image_and_class(evaluation: Evaluation) -> tuple[list[Row], list[str]]:
    scores, pixels = ("iou", "precision", "recall"), ("correct_pixels", "true_pixels", "predicted_pixels")
    names, rows = evaluation.label_set.names, list[Row]()
    for image, item in zip(evaluation.names, evaluation.metrics.images, strict=True):
        correct, true, predicted = counts = item.regions
        ratios = ious(counts), divide(correct, predicted), divide(correct, true)
        columns = dict(zip(scores, map(or_none, ratios), strict=True)) | dict(zip(pixels, counts.tolist(), strict=True))
        for label in np.flatnonzero(counts.any(0)).tolist():
            values = {column: numbers[label] for column, numbers in columns.items()}
            rows.append({"image": image, "id": label, "class": names[label], **values})
    return rows, ["image", "id", "class", *scores, *pixels]


_TABLES: Mapping[str, Callable[[Evaluation], tuple[list[Row], list[str]]]] = {
    "class": _by_class,
    "image": _by_image,
    "image_class": _by_image_and_class,
}
