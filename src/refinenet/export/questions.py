"""A network and its export are asked the same: drawn streets of many sizes, and the images of a dataset.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.export.formats import Answer, Images, Runner
from refinenet.export.parity import Case, Scored
from refinenet.io.console import progress_bar
from refinenet.labels import LabelSet
from refinenet.models.inference_graph import DeployedNetwork

CASES = ((1, 1, 1), (1, 1, 37), (3, 5, 2), (3, 33, 47), (2, 127, 129), (1, 360, 480))
"""Batch, height and width of the drawn streets: odd and even, a single pixel, single rows, several images."""

_SMALLEST_STREET = 32


def ask(deployed: DeployedNetwork, images: Images) -> Answer:
    """What a network in PyTorch says of images `(N, 3, H, W)`.

    Raises:
        ValueError: its logits are not finite numbers.
    """
    with torch.inference_mode():
        labels, logits = deployed(torch.from_numpy(images))
    if not logits.isfinite().all():
        raise ValueError("The network's answer is not finite: its weights are broken. Load or train another model.")
    return labels.numpy(), logits.numpy()


def compare(source: str, expected: Answer, found: Answer) -> Case:
    """How far the answer of a graph is from that of the network in PyTorch.

    Raises:
        ValueError: it has another shape or type.
    """
    for what, first, second in zip(("labels", "logits"), expected, found, strict=True):
        if first.shape != second.shape or first.dtype != second.dtype:
            raise ValueError(
                f"The exported network is wrong on {source}: its {what} are {second.dtype} {second.shape}, "
                f"in PyTorch {first.dtype} {first.shape}."
            )
    (labels, logits), (found_labels, found_logits) = expected, found
    difference = np.abs(found_logits.astype(np.float64) - logits).max()
    return Case(
        source=source,
        shape=(labels.shape[0], labels.shape[1], labels.shape[2]),
        agreement=float((found_labels == labels).mean()),
        largest_difference=float(np.nan_to_num(difference, nan=np.inf)),
        lowest_logit=float(logits.min()),
        highest_logit=float(logits.max()),
    )


def to_images(pictures: Sequence[npt.NDArray[np.uint8]]) -> Images:
    """`(H, W, 3)` uint8 RGB pictures of one size to `(N, 3, H, W)` float32 in [0, 1], contiguous."""
    stacked = np.stack(pictures).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, dtype=np.float32) / np.float32(255)


def draw(shape: tuple[int, int, int], seed: int) -> Images:
    """Drawn streets of a batch, height and width; small ones are cut out of the middle of larger ones."""
    batch, height, width = shape
    large = max(height, _SMALLEST_STREET), max(width, _SMALLEST_STREET)
    top, left = (large[0] - height) // 2, (large[1] - width) // 2
    streets = (draw_street(seed + index, *large)[0] for index in range(batch))
    return to_images([street[top : top + height, left : left + width] for street in streets])


def compare_on_streets(deployed: DeployedNetwork, run: Runner, sizes: Sequence[tuple[int, int]] = ()) -> Iterator[Case]:
    """Compare on drawn streets of all sizes of `CASES`, and single ones of other heights and widths.

    Raises:
        ValueError: the graph does not run on a size, or says what is no answer.
    """
    for number, shape in enumerate((*CASES, *((1, *size) for size in sizes if (1, *size) not in CASES))):
        source = "drawn streets {}x{}x{}".format(*shape)
        images = draw(shape, seed=100 * number)
        yield compare(source, ask(deployed, images), _ask_export(run, images, source))


def _ask_export(run: Runner, images: Images, source: str) -> Answer:
    try:
        return run(images)
    except RuntimeError as error:
        raise ValueError(f"The exported network does not run on {source}: {error}") from error


def compare_on_dataset(
    deployed: DeployedNetwork, run: Runner, dataset: Dataset, label_set: LabelSet, *, progress: bool
) -> tuple[list[Case], Scored]:
    """Compare on each image of a dataset, and measure both.

    Raises:
        ValueError: an image or a mask cannot be used, or the graph does not run on it; the file is named.
    """
    cases = []
    before, after = (ConfusionMatrix(len(label_set), label_set.ignore_index) for _ in range(2))
    with progress_bar(progress) as bar:
        task = bar.add_task(f"Comparing on {dataset.name} {dataset.split}", total=len(dataset), status="")
        for sample in dataset:
            images = to_images([sample.image])
            expected, found = ask(deployed, images), _ask_export(run, images, sample.name)
            cases.append(compare(sample.name, expected, found))
            before.add(sample.labels, label_set.cast(expected[0][0]))
            after.add(sample.labels, label_set.cast(found[0][0]))
            bar.advance(task)
    scored = Scored(
        dataset=dataset.name,
        split=dataset.split,
        images=len(dataset),
        miou_before=before.scores().miou,
        miou_after=after.scores().miou,
    )
    return cases, scored
