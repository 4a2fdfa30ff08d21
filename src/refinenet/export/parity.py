"""Parity of an exported graph with its network in PyTorch: comparison and tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet.datasets import street_scenes
from refinenet.datasets.catalog import Dataset
from refinenet.export.metadata import GraphOutput, Images, Runner
from refinenet.export.output_scores import OutputScores, relative_rise
from refinenet.export.value_parity import SAME, ValueParity, compare_values, merge
from refinenet.inference.segmenter import check_finite
from refinenet.io.console import progress_bar
from refinenet.io.images.sample_values import Pixels
from refinenet.labels import LabelSet
from refinenet.models.inference_graph import LABELS, DeployedNetwork, GraphResult, list_results
from refinenet.outputs import OutputSpec


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
    largest_rmse_rise: float | None = None
    """Greatest relative rise of the root mean squared error of any other output: 0.05 for a twentieth. The same."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, without the bound of errors where there is none."""
        return {key: value for key, value in asdict(self).items() if key != "largest_rmse_rise" or value is not None}


@dataclass(frozen=True, kw_only=True)
class ParityCase:
    """Difference of two outputs for the same images."""

    source: str
    """Name of the images."""
    shape: tuple[int, int, int]
    """Batch, height and width."""
    agreement: float | None = None
    """Share of pixels with the same label, in [0, 1]; this and the next fields are None without classes."""
    largest_difference: float | None = None
    """Greatest absolute difference of a logit."""
    lowest_logit: float | None = None
    """Least logit of the network in PyTorch."""
    highest_logit: float | None = None
    """Greatest logit of the network in PyTorch."""
    values: tuple[ValueParity, ...] = ()
    """Differences of other outputs."""

    @property
    def pixels(self) -> int:
        """Number of pixels compared."""
        batch, height, width = self.shape
        return batch * height * width

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, without those of outputs that the network does not have."""
        values = [asdict(value) for value in self.values]
        fields: dict[str, Any] = {"source": self.source, "shape": self.shape}
        if self.agreement is not None:
            fields |= {"agreement": self.agreement, "largest_difference": self.largest_difference}
            fields |= {"lowest_logit": self.lowest_logit, "highest_logit": self.highest_logit}
        return {**fields, "values": values} if values else fields


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
    rmse: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """For each quantity of other outputs with ground truth the root mean squared error in its unit, of normals the
    length of the difference of unit vectors, of the network and of the graph; None where no pixel has ground truth."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, without errors of outputs that were not measured."""
        fields = {key: value for key, value in asdict(self).items() if key != "rmse"}
        rmse = {name: {"before": before, "after": after} for name, (before, after) in self.rmse.items()}
        return {**fields, "rmse": rmse} if rmse else fields

    @property
    def rmse_rises(self) -> Mapping[str, float]:
        """Relative rise of each error by the export: 0.1 for a tenth more."""
        return {name: relative_rise(*pair) for name, pair in self.rmse.items()}


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Results of all comparisons."""

    cases: Sequence[ParityCase]
    """At least one."""
    scored: Scored | None
    """mIoU before and after; None without a dataset."""

    @property
    def has_classes(self) -> bool:
        """Whether the network predicts classes."""
        return self.cases[0].agreement is not None

    @property
    def agreement(self) -> float | None:
        """Share of all compared pixels with the same label, in [0, 1]; None without classes."""
        if not self.has_classes:
            return None
        shares = sum((case.agreement or 0.0) * case.pixels for case in self.cases)
        return shares / sum(case.pixels for case in self.cases)

    @property
    def largest_difference(self) -> float:
        """Greatest absolute difference of a logit; 0 without classes."""
        return max(case.largest_difference or 0.0 for case in self.cases)

    @property
    def logit_range(self) -> float:
        """Difference of the greatest and the least logit of the network in PyTorch; 0 without classes."""
        if not self.has_classes:
            return 0.0
        ends = [(case.lowest_logit, case.highest_logit) for case in self.cases]
        return max(high for _, high in ends if high is not None) - min(low for low, _ in ends if low is not None)

    @property
    def largest_relative_difference(self) -> float:
        """`largest_difference` as a share of `logit_range`."""
        if self.largest_difference == 0:  # also where all logits are equal, and their range is 0
            return 0.0
        return self.largest_difference / self.logit_range if self.logit_range else float("inf")

    @property
    def values(self) -> tuple[ValueParity, ...]:
        """Differences of each quantity of other outputs over all comparisons."""
        return merge([case.values for case in self.cases])

    @property
    def miou_loss(self) -> float | None:
        """Loss of mIoU by the export, in [-1, 1]; None if it was not measured."""
        if self.scored is None or self.scored.miou_before is None or self.scored.miou_after is None:
            return None
        return self.scored.miou_before - self.scored.miou_after

    def problems(self, bounds: ParityTolerance) -> list[str]:
        """Describe in which respects the export is out of tolerance."""
        of_classes = [*self._label_problems(bounds), *self._logit_problems(bounds)] if self.has_classes else []
        return [*of_classes, *self._value_problems(bounds), *self._rise_problems(bounds)]

    def _label_problems(self, bounds: ParityTolerance) -> Iterator[str]:
        least, least_of_a_case = bounds.least_agreement, bounds.least_agreement_of_a_case
        if least is not None and self.agreement is not None and self.agreement < least:
            yield f"labels agree on {100 * self.agreement:.3f} % of the pixels, {100 * least:g} % are needed"
        lowest, source = min((case.agreement or 0.0, case.source) for case in self.cases)
        if least_of_a_case is not None and lowest < least_of_a_case:
            yield (
                f"labels agree on {100 * lowest:.2f} % of the pixels of {source}, "
                f"{100 * least_of_a_case:g} % are needed"
            )

    def _value_problems(self, bounds: ParityTolerance) -> Iterator[str]:
        least, largest = bounds.least_agreement, bounds.largest_relative_difference
        for value in self.values:
            if least is not None and value.agreement < least:
                yield (
                    f"{value.name} agrees on {100 * value.agreement:.3f} % of the pixels to {SAME:g} of its range, "
                    f"{100 * least:g} % are needed"
                )
            if largest is not None and not value.relative_difference <= largest:
                yield (
                    f"{value.name} differs by {value.map_difference:.3g} {value.unit}, which is "
                    f"{value.relative_difference:.2g} of its range; {largest:g} is allowed"
                )

    def _rise_problems(self, bounds: ParityTolerance) -> Iterator[str]:
        allowed = bounds.largest_rmse_rise
        for name, rise in ({} if self.scored is None else self.scored.rmse_rises).items():
            if allowed is not None and not rise <= allowed:
                yield f"the RMSE of {name} rises by {100 * rise:.2f} %, {100 * allowed:g} % are allowed"

    def _logit_problems(self, bounds: ParityTolerance) -> Iterator[str]:
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
        found: dict[str, Any] = {}
        if self.has_classes:
            found["agreement"] = self.agreement
        found["pixels"] = sum(case.pixels for case in self.cases)
        if self.has_classes:
            found["largest_difference"] = self.largest_difference
            found["logit_range"] = self.logit_range
            found["largest_relative_difference"] = self.largest_relative_difference
        if self.values:
            found["values"] = [{**asdict(value), "relative": value.relative_difference} for value in self.values]
        found["cases"] = [case.to_dict() for case in self.cases]
        found["dataset"] = None if self.scored is None else {**self.scored.to_dict(), "miou_loss": self.miou_loss}
        return found


CASES = ((1, 1, 1), (1, 1, 37), (3, 5, 2), (3, 33, 47), (2, 127, 129), (1, 360, 480))
"""Batch, height and width of the drawn streets: odd and even, a single pixel, single rows, several images."""

_SMALLEST_STREET = 32


def run_in_pytorch(deployed: DeployedNetwork, images: Images) -> GraphOutput:
    """Run a network in PyTorch on images `(N, 3, H, W)`.

    Raises:
        ValueError: Its logits or maps are not finite.
    """
    with torch.inference_mode():
        *results, last = deployed(torch.from_numpy(images))
    return (*(result.numpy() for result in results), check_finite(last).numpy())


def compare(source: str, outputs: Sequence[OutputSpec], expected: GraphOutput, found: GraphOutput) -> ParityCase:
    """Compare the outputs of a graph with those of a network with such outputs in PyTorch.

    Raises:
        ValueError: One has another shape or type.
    """
    classes = expected[-1].shape[1] - sum(spec.count_maps(0) for spec in outputs)
    results = list_results(outputs, classes)
    for result, first, second in zip(results, expected, found, strict=True):
        if first.shape != second.shape or first.dtype != second.dtype:
            raise ValueError(
                f"The exported network is wrong on {source}: its {result.name} are {second.dtype} {second.shape}, "
                f"but in PyTorch {first.dtype} {first.shape}."
            )
    batch, _, height, width = _image_shape(results, expected)
    counts = [spec.count_maps(classes) for spec in outputs]
    places = {spec.name: sum(counts[:number]) for number, spec in enumerate(outputs)}
    values = tuple(compare_values(results, places, expected, found))
    case = ParityCase(source=source, shape=(batch, height, width), values=values)
    if LABELS not in (result.name for result in results):
        return case
    place = next(index for index, result in enumerate(results) if result.name == LABELS)
    (labels, logits), (found_labels, found_logits) = (part[place : place + 2] for part in (expected, found))
    # In float64, as differences of large logits would overflow or be rounded in float32.
    difference = np.abs(found_logits.astype(np.float64) - logits).max()
    return replace(
        case,
        agreement=float((found_labels == labels).mean()),
        # NaN is not larger than any bound; an export that computes it must fail.
        largest_difference=float(np.nan_to_num(difference, nan=np.inf)),
        lowest_logit=float(logits.min()),
        highest_logit=float(logits.max()),
    )


def _image_shape(results: Sequence[GraphResult], values: GraphOutput) -> tuple[int, ...]:
    """Return N, the channels of an output at the size of the image, and H and W."""
    shape = next(value.shape for result, value in zip(results, values, strict=True) if result.shape[-1] == "W")
    return shape if len(shape) == 4 else (shape[0], 1, *shape[1:])


def to_images(pictures: Sequence[Pixels]) -> Images:
    """Convert images of one size to `(N, 3, H, W)` float32 in [0, 1], contiguous.

    Args:
        pictures: `(H, W, 3)` uint8 RGB, or bands `(H, W, B)` float32 in [0, 1].
    """
    stacked = np.stack(pictures).transpose(0, 3, 1, 2)
    values = np.ascontiguousarray(stacked, dtype=np.float32)
    return values / np.float32(255) if stacked.dtype == np.uint8 else values


def add_bands(street: npt.NDArray[np.uint8], bands: int) -> Pixels:
    """Return a street `(H, W, 3)` uint8 as it is for 3 bands, or as `(H, W, B)` float32 in [0, 1] with shifted colours.

    Args:
        street: Drawn street.
        bands: B.
    """
    if bands == 3:
        return street
    shifted = [np.roll(street[..., band % 3], band // 3, axis=1) for band in range(bands)]
    return np.stack(shifted, axis=2).astype(np.float32) / np.float32(255)


def draw(shape: tuple[int, int, int], seed: int, bands: int = 3) -> Images:
    """Draw a batch of streets of a height and width; small ones are cut from the middle of larger ones."""
    batch, height, width = shape
    large = max(height, _SMALLEST_STREET), max(width, _SMALLEST_STREET)
    top, left = (large[0] - height) // 2, (large[1] - width) // 2
    streets = (street_scenes.draw_street(seed + index, *large)[0] for index in range(batch))
    cut = (street[top : top + height, left : left + width] for street in streets)
    return to_images([add_bands(street, bands) for street in cut])


def compare_on_streets(
    deployed: DeployedNetwork,
    run: Runner,
    sizes: Sequence[tuple[int, int]] = (),
    cases: Sequence[tuple[int, int, int]] = CASES,
) -> Iterator[ParityCase]:
    """Compare on drawn streets of all shapes in `cases`, and of additional heights and widths.

    Raises:
        ValueError: The graph does not run on a size, or its output has the wrong shape or type.
    """
    bands = len(deployed.network.architecture.band_names)
    for number, shape in enumerate((*cases, *((1, *size) for size in sizes if (1, *size) not in cases))):
        source = "drawn streets {}x{}x{}".format(*shape)
        images = draw(shape, 100 * number, bands)  # more apart than a batch is large: no street occurs twice
        expected = run_in_pytorch(deployed, images)
        yield compare(source, deployed.network.architecture.outputs, expected, _run_export(run, images, source))


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
    outputs = deployed.network.architecture.outputs
    cases, scores = [], [OutputScores(outputs, dataset, label_set) for _ in range(2)]
    with progress_bar(progress) as bar:
        task = bar.add_task(
            f"Comparing on {dataset.name} {dataset.split}", total=len(dataset), status="", unit="images"
        )
        for sample in dataset:
            images = to_images([sample.image])
            answers = run_in_pytorch(deployed, images), _run_export(run, images, sample.name)
            cases.append(compare(sample.name, outputs, *answers))
            for score, answer in zip(scores, answers, strict=True):
                score.add(sample, answer)
            bar.advance(task)
    before, after = scores
    rmse_after = after.rmse()
    scored = Scored(
        dataset=dataset.name,
        split=dataset.split,
        images=len(dataset),
        miou_before=before.miou(),
        miou_after=after.miou(),
        rmse={name: (value, rmse_after[name]) for name, value in before.rmse().items()},
    )
    return cases, scored
