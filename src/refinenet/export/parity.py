"""Parity of an exported graph with its network in PyTorch: comparison and tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.export.metadata import GraphOutput, Images, Runner
from refinenet.inference.segmenter import check_finite
from refinenet.io.console import progress_bar
from refinenet.labels import LabelSet
from refinenet.models.inference_graph import DeployedNetwork


@dataclass(frozen=True, kw_only=True)
class ParityTolerance:
    """Tolerance within which an export is written; None switches a criterion off.

    Float32 engines add in another order, so that logits differ by rounding. Labels may then differ where two classes
    are as good as equal, along the borders of objects: few pixels of all, but many of a tiny image.
    """

    least_agreement: float | None = 0.999
    """Least share of all pixels with the same label."""
    least_agreement_of_a_case: float | None = 0.99
    """The same within each comparison, however small its images are."""
    largest_relative_difference: float | None = 1e-3
    """Greatest difference of a logit, as a share of the range of all logits."""
    largest_miou_loss: float | None = None
    """Greatest loss of mIoU on a dataset, in [0, 1]: the criterion of int8, whose logits differ by design."""


@dataclass(frozen=True, kw_only=True)
class ParityCase:
    """Difference of two outputs for the same images."""

    source: str
    """Name of the images."""
    shape: tuple[int, int, int]
    """Batch, height and width."""
    agreement: float
    """Share of pixels with the same label, in [0, 1]."""
    largest_difference: float
    """Greatest absolute difference of a logit."""
    lowest_logit: float
    """Least logit of the network in PyTorch."""
    highest_logit: float
    """Greatest logit of the network in PyTorch."""

    @property
    def pixels(self) -> int:
        """Number of pixels compared."""
        batch, height, width = self.shape
        return batch * height * width


@dataclass(frozen=True, kw_only=True)
class Scored:
    """mIoU of the network and of its export on a dataset."""

    dataset: str
    split: str
    images: int
    miou_before: float | None
    """Of the network in PyTorch, in [0, 1]; None where no pixel has a class."""
    miou_after: float | None
    """Of the exported graph."""


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Results of all comparisons."""

    cases: Sequence[ParityCase]
    """At least one."""
    scored: Scored | None
    """mIoU before and after; None without a dataset."""

    @property
    def agreement(self) -> float:
        """Share of all compared pixels with the same label, in [0, 1]."""
        return sum(case.agreement * case.pixels for case in self.cases) / sum(case.pixels for case in self.cases)

    @property
    def largest_difference(self) -> float:
        """Greatest absolute difference of a logit."""
        return max(case.largest_difference for case in self.cases)

    @property
    def logit_range(self) -> float:
        """Difference of the greatest and the least logit of the network in PyTorch."""
        return max(case.highest_logit for case in self.cases) - min(case.lowest_logit for case in self.cases)

    @property
    def largest_relative_difference(self) -> float:
        """`largest_difference` as a share of `logit_range`."""
        if self.largest_difference == 0:  # also where all logits are equal, and their range is 0
            return 0.0
        return self.largest_difference / self.logit_range if self.logit_range else float("inf")

    @property
    def miou_loss(self) -> float | None:
        """Loss of mIoU by the export, in [-1, 1]; None if it was not measured."""
        if self.scored is None or self.scored.miou_before is None or self.scored.miou_after is None:
            return None
        return self.scored.miou_before - self.scored.miou_after

    def problems(self, bounds: ParityTolerance) -> list[str]:
        """Describe in which respects the export is out of tolerance."""
        return [*self._label_problems(bounds), *self._value_problems(bounds)]

    def _label_problems(self, bounds: ParityTolerance) -> Iterator[str]:
        least, least_of_a_case = bounds.least_agreement, bounds.least_agreement_of_a_case
        if least is not None and self.agreement < least:
            yield f"labels agree on {100 * self.agreement:.3f} % of the pixels, {100 * least:g} % are needed"
        worst = min(self.cases, key=lambda case: case.agreement)
        if least_of_a_case is not None and worst.agreement < least_of_a_case:
            yield (
                f"labels agree on {100 * worst.agreement:.2f} % of the pixels of {worst.source}, "
                f"{100 * least_of_a_case:g} % are needed"
            )

    def _value_problems(self, bounds: ParityTolerance) -> Iterator[str]:
        largest, loss = bounds.largest_relative_difference, bounds.largest_miou_loss
        if largest is not None and not self.largest_relative_difference <= largest:
            yield (
                f"a logit differs by {self.largest_difference:.3g}, which is {self.largest_relative_difference:.2g} of "
                f"their range; {largest:g} is allowed"
            )
        if loss is not None and self.miou_loss is not None and self.miou_loss > loss:
            yield f"mIoU falls by {100 * self.miou_loss:.2f} points, {100 * loss:g} are allowed"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values, shares in [0, 1]."""
        return {
            "agreement": self.agreement,
            "pixels": sum(case.pixels for case in self.cases),
            "largest_difference": self.largest_difference,
            "logit_range": self.logit_range,
            "largest_relative_difference": self.largest_relative_difference,
            "cases": [asdict(case) for case in self.cases],
            "dataset": None if self.scored is None else {**asdict(self.scored), "miou_loss": self.miou_loss},
        }


CASES = ((1, 1, 1), (1, 1, 37), (3, 5, 2), (3, 33, 47), (2, 127, 129), (1, 360, 480))
"""Batch, height and width of the drawn streets: odd and even, a single pixel, single rows, several images."""

_SMALLEST_STREET = 32


def run_in_pytorch(deployed: DeployedNetwork, images: Images) -> GraphOutput:
    """Run a network in PyTorch on images `(N, 3, H, W)`.

    Raises:
        ValueError: Its logits are not finite.
    """
    with torch.inference_mode():
        labels, logits = deployed(torch.from_numpy(images))
    return labels.numpy(), check_finite(logits).numpy()


def compare(source: str, expected: GraphOutput, found: GraphOutput) -> ParityCase:
    """Compare the output of a graph with that of the network in PyTorch.

    Raises:
        ValueError: It has another shape or type.
    """
    for what, first, second in zip(("labels", "logits"), expected, found, strict=True):
        if first.shape != second.shape or first.dtype != second.dtype:
            raise ValueError(
                f"The exported network is wrong on {source}: its {what} are {second.dtype} {second.shape}, "
                f"in PyTorch {first.dtype} {first.shape}."
            )
    (labels, logits), (found_labels, found_logits) = expected, found
    # In float64, as differences of large logits would overflow or be rounded in float32.
    difference = np.abs(found_logits.astype(np.float64) - logits).max()
    return ParityCase(
        source=source,
        shape=(labels.shape[0], labels.shape[1], labels.shape[2]),
        agreement=float((found_labels == labels).mean()),
        # NaN is not larger than any bound; an export that computes it must fail.
        largest_difference=float(np.nan_to_num(difference, nan=np.inf)),
        lowest_logit=float(logits.min()),
        highest_logit=float(logits.max()),
    )


def to_images(pictures: Sequence[npt.NDArray[np.uint8]]) -> Images:
    """Convert `(H, W, 3)` uint8 RGB images of one size to `(N, 3, H, W)` float32 in [0, 1], contiguous."""
    stacked = np.stack(pictures).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, dtype=np.float32) / np.float32(255)


def draw(shape: tuple[int, int, int], seed: int) -> Images:
    """Draw a batch of streets of a height and width; small ones are cut from the middle of larger ones."""
    batch, height, width = shape
    large = max(height, _SMALLEST_STREET), max(width, _SMALLEST_STREET)
    top, left = (large[0] - height) // 2, (large[1] - width) // 2
    streets = (draw_street(seed + index, *large)[0] for index in range(batch))
    return to_images([street[top : top + height, left : left + width] for street in streets])


def compare_on_streets(
    deployed: DeployedNetwork, run: Runner, sizes: Sequence[tuple[int, int]] = ()
) -> Iterator[ParityCase]:
    """Compare on drawn streets of all shapes in `CASES`, and of additional heights and widths.

    Raises:
        ValueError: The graph does not run on a size, or its output has the wrong shape or type.
    """
    for number, shape in enumerate((*CASES, *((1, *size) for size in sizes if (1, *size) not in CASES))):
        source = "drawn streets {}x{}x{}".format(*shape)
        images = draw(shape, seed=100 * number)  # more apart than a batch is large: no street occurs twice
        yield compare(source, run_in_pytorch(deployed, images), _run_export(run, images, source))


def _run_export(run: Runner, images: Images, source: str) -> GraphOutput:
    try:
        return run(images)
    except RuntimeError as error:
        raise ValueError(f"The exported network does not run on {source}: {error}") from error


def compare_on_dataset(
    deployed: DeployedNetwork, run: Runner, dataset: Dataset, label_set: LabelSet, *, progress: bool
) -> tuple[list[ParityCase], Scored]:
    """Compare on each image of a dataset, and measure mIoU of both.

    Raises:
        ValueError: An image or a mask cannot be used, or the graph does not run on it; names the file.
    """
    cases = []
    before, after = (ConfusionMatrix(len(label_set), label_set.ignore_index) for _ in range(2))
    with progress_bar(progress) as bar:
        task = bar.add_task(f"Comparing on {dataset.name} {dataset.split}", total=len(dataset), status="")
        for sample in dataset:
            images = to_images([sample.image])
            expected, found = run_in_pytorch(deployed, images), _run_export(run, images, sample.name)
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
