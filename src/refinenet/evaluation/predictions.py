"""Other people's models through the same ruler: label maps from files, of any origin, as what is measured."""

from __future__ import annotations

import os
from pathlib import Path

from refinenet.datasets.catalog import Dataset, Sample
from refinenet.evaluation.evaluator import Answer, Examinee
from refinenet.io.image_files import read_mask
from refinenet.labels import LabelMap

FIRST_FEW = 3
"""Files that a message names of many."""


def examine_predictions(folder: str | os.PathLike[str], dataset: Dataset) -> Examinee:
    """Label maps in a folder, to be measured on a dataset.

    Args:
        folder: It holds a PNG for each image, called as the image: `city/one.png` or, where no two images have that
            name, `one.png`. Its pixels are class ids in the dataset's order, grey or with a palette, of 8 or 16 bits;
            the dataset's ignore index stands for no class, which counts as a miss.
        dataset: What they are predictions for.

    Raises:
        ValueError: names of images do not tell them apart.
        FileNotFoundError: the folder, or a file in it, is not there; all missing ones are counted, the first named.
    """
    base = Path(folder)
    if not base.is_dir():
        raise FileNotFoundError(f"There is no folder of predictions {base}.")
    files = _find_files(base, dataset)

    def answer(sample: Sample) -> Answer:
        path = files[sample.name]
        labels = read_mask(path)
        _check_labels(path, labels, sample, dataset)
        return Answer(dataset.label_set.cast(labels), None)

    return Examinee(
        answer=answer, has_confidence=False, protocol=f"predictions read from the files in {base}", model_sha256=None
    )


def _find_files(base: Path, dataset: Dataset) -> dict[str, Path]:
    """The file of each image: below its folders, or all of them side by side."""
    nested = {item: base / f"{item}.png" for item in dataset.items}
    flat = {item: base / f"{Path(item).name}.png" for item in dataset.items}
    found = nested if any(path.is_file() for path in nested.values()) else flat
    missing = [path for path in found.values() if not path.is_file()]
    if missing:
        named = ", ".join(str(path.relative_to(base)) for path in missing[:FIRST_FEW])
        more = ", ..." if len(missing) > FIRST_FEW else ""
        raise FileNotFoundError(
            f"{base} lacks predictions for {len(missing)} of the {len(found)} images of {dataset.name} "
            f"{dataset.split}: {named}{more}. There has to be a PNG of class ids for each image, called as the image."
        )
    if len(set(found.values())) < len(found):
        raise ValueError(
            f"Images of {dataset.name} in different folders have the same name, so that {base} does not say which "
            "prediction is whose: lay the predictions in folders like those of the images."
        )
    return found


def _check_labels(path: Path, labels: LabelMap, sample: Sample, dataset: Dataset) -> None:
    if labels.shape != sample.labels.shape:
        height, width = sample.labels.shape
        raise ValueError(
            f"{path} has {labels.shape[1]}x{labels.shape[0]} pixels (width x height), the image {width}x{height}. "
            "They must be equal: resize what the network said before choosing classes."
        )
    classes, void = len(dataset.label_set), dataset.label_set.ignore_index
    strange = (labels >= classes) & (labels != void)
    if strange.any():
        row, column = (int(place[0]) for place in strange.nonzero())
        raise ValueError(
            f"{path} has the id {labels[row, column]} at row {row}, column {column} ({strange.sum()} pixels in all "
            f"have such ids). Allowed are 0 to {classes - 1}, in the order {', '.join(dataset.label_set.names[:3])}, "
            f"..., and {void} for pixels without a predicted class."
        )
