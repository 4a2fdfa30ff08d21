"""The certificate of an export: what was compared, by which bounds it was kept, how good and how fast it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from refinenet.exporting.comparison import Case, Scored
from refinenet.exporting.latency import Latency
from refinenet.files import write_atomically
from refinenet.terminal import print_table

CERTIFICATE_VERSION = 1
ENDING = ".certificate.json"
"""What follows the name of the exported file."""


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
class Certificate:
    """What is known of an exported network."""

    path: Path
    format: str
    precision: str
    """Of the arithmetic: "float32"."""
    model: Mapping[str, Any]
    """Which network it is: architecture, number of classes, hash of the weights."""
    graph: Mapping[str, Any]
    """Names, types and shapes of what goes in and out."""
    files: Mapping[str, Mapping[str, Any]]
    """SHA-256 and bytes of each file, by its path relative to the certificate's folder."""
    bounds: Bounds
    cases: Sequence[Case]
    scored: Scored | None
    """Where a dataset was given."""
    latency: Sequence[Latency]
    made: Mapping[str, Any]
    """When, by which versions, on what machine."""

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

    def problems(self) -> list[str]:
        """In what the export is beyond its bounds, in words."""
        return [*self._label_problems(), *self._value_problems()]

    def _label_problems(self) -> Iterator[str]:
        least, least_of_a_case = self.bounds.least_agreement, self.bounds.least_agreement_of_a_case
        if least is not None and self.agreement < least:
            yield f"labels agree on {100 * self.agreement:.3f} % of the pixels, {100 * least:g} % are needed"
        worst = min(self.cases, key=lambda case: case.agreement)
        if least_of_a_case is not None and worst.agreement < least_of_a_case:
            yield (
                f"labels agree on {100 * worst.agreement:.2f} % of the pixels of {worst.source}, "
                f"{100 * least_of_a_case:g} % are needed"
            )

    def _value_problems(self) -> Iterator[str]:
        largest, loss = self.bounds.largest_relative_difference, self.bounds.largest_miou_loss
        if largest is not None and not self.largest_relative_difference <= largest:
            yield (
                f"a logit differs by {self.largest_difference:.3g}, which is {self.largest_relative_difference:.2g} of "
                f"their range; {largest:g} is allowed"
            )
        if loss is not None and self.miou_loss is not None and self.miou_loss > loss:
            yield f"mIoU falls by {100 * self.miou_loss:.2f} points, {100 * loss:g} are allowed"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values; shares in [0, 1], times in milliseconds."""
        return {
            "version": CERTIFICATE_VERSION,
            "format": self.format,
            "precision": self.precision,
            "files": {name: dict(facts) for name, facts in self.files.items()},
            "model": dict(self.model),
            "graph": dict(self.graph),
            "bounds": asdict(self.bounds),
            "agreement": self.agreement,
            "pixels": sum(case.pixels for case in self.cases),
            "largest_difference": self.largest_difference,
            "logit_range": self.logit_range,
            "largest_relative_difference": self.largest_relative_difference,
            "cases": [asdict(case) for case in self.cases],
            "dataset": None if self.scored is None else {**asdict(self.scored), "miou_loss": self.miou_loss},
            "latency_ms": [asdict(found) for found in self.latency],
            "made": dict(self.made),
        }

    def save(self) -> Path:
        """Write `to_dict` as a JSON file beside the export."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        return write_atomically(certificate_path(self.path), f"{text}\n".encode())

    def print(self) -> None:
        """Print the main figures as tables."""
        print_table(f"{self.path}: {self.format}, {self.precision}", ["", "PyTorch", "exported"], list(self._rows()))
        rows = [
            [f"{found.height}x{found.width} {name}", *(f"{value:.1f}" for value in astuple(times))]
            for found in self.latency
            for name, times in (("PyTorch", found.before), ("exported", found.after))
        ]
        print_table("Milliseconds of an image (medians)", ["", "prepare", "network", "labels", "all"], rows)

    def _rows(self) -> Iterator[list[str]]:
        yield ["same label, % of pixels", "", f"{100 * self.agreement:.4f}"]
        yield ["largest difference of a logit", "", f"{self.largest_difference:.2g}"]
        yield ["as a share of their range", "", f"{self.largest_relative_difference:.1g}"]
        if self.scored is not None:
            title = f"mIoU % on {self.scored.dataset} {self.scored.split}, {self.scored.images} images"
            yield [title, _percent(self.scored.miou_before), _percent(self.scored.miou_after)]
        yield ["megabytes", "", f"{sum(facts['bytes'] for facts in self.files.values()) / 1e6:.1f}"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def certificate_path(path: str | os.PathLike[str]) -> Path:
    """Where the certificate of an exported file lies."""
    return Path(f"{os.fspath(path)}{ENDING}")


def describe_files(contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """SHA-256 and bytes of files, by name."""
    return {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
