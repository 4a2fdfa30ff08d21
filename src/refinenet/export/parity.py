"""Whether what an export says is what the network says: the figures, and the bounds that it is kept by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """By what an export is kept or refused; None where something does not count."""

    least_agreement: float | None = 0.999
    """Share of all pixels that have the same label."""
    least_agreement_of_a_case: float | None = 0.99
    """Of the pixels of any images compared at a time, however few."""
    largest_relative_difference: float | None = 1e-3
    """Of a logit, as a share of the range of all logits."""
    largest_miou_loss: float | None = None
    """On a dataset, in [0, 1]: what counts for networks whose arithmetic was made coarser."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """How far two answers to the same images are apart."""

    source: str
    """What the images are."""
    shape: tuple[int, int, int]
    """Batch, height and width."""
    agreement: float
    """Share of the pixels with the same label, in [0, 1]."""
    largest_difference: float
    """Of the logits, absolute."""
    lowest_logit: float
    highest_logit: float
    """Of the network in PyTorch."""

    @property
    def pixels(self) -> int:
        """Number of pixels compared."""
        batch, height, width = self.shape
        return batch * height * width


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How good the network and its export are on a dataset."""

    dataset: str
    split: str
    images: int
    miou_before: float | None
    """Of the network in PyTorch, in [0, 1]; None where no pixel has a class."""
    miou_after: float | None
    """Of the exported graph."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that was compared."""

    cases: Sequence[Case]
    """At least one."""
    scored: Scored | None
    """Where a dataset was given."""

    @property
    def agreement(self) -> float:
        """Share of all pixels compared that have the same label, in [0, 1]."""
        return sum(case.agreement * case.pixels for case in self.cases) / sum(case.pixels for case in self.cases)

    @property
    def largest_difference(self) -> float:
        """Of all logits compared, absolute."""
        return max(case.largest_difference for case in self.cases)

    @property
    def logit_range(self) -> float:
        """Between the lowest and the highest logit of the network in PyTorch."""
        return max(case.highest_logit for case in self.cases) - min(case.lowest_logit for case in self.cases)

    @property
    def largest_relative_difference(self) -> float:
        """`largest_difference` as a share of `logit_range`."""
        if self.largest_difference == 0:
            return 0.0
        return self.largest_difference / self.logit_range if self.logit_range else float("inf")

    @property
    def miou_loss(self) -> float | None:
        """By how much mIoU is lower after the export, in [-1, 1]; None where it was not measured."""
        if self.scored is None or self.scored.miou_before is None or self.scored.miou_after is None:
            return None
        return self.scored.miou_before - self.scored.miou_after

    def problems(self, bounds: Bounds) -> list[str]:
        """In what the export is beyond bounds, in words."""
        return [*self._label_problems(bounds), *self._value_problems(bounds)]

    def _label_problems(self, bounds: Bounds) -> Iterator[str]:
        least, least_of_a_case = bounds.least_agreement, bounds.least_agreement_of_a_case
        if least is not None and self.agreement < least:
            yield f"labels agree on {100 * self.agreement:.3f} % of the pixels, {100 * least:g} % are needed"
        worst = min(self.cases, key=lambda case: case.agreement)
        if least_of_a_case is not None and worst.agreement < least_of_a_case:
            yield (
                f"labels agree on {100 * worst.agreement:.2f} % of the pixels of {worst.source}, "
                f"{100 * least_of_a_case:g} % are needed"
            )

    def _value_problems(self, bounds: Bounds) -> Iterator[str]:
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
