"""Int8 within an export: OpenVINO's graph, quantised on images of a dataset before it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refinenet.datasets.catalog import Dataset
from refinenet.export.parity import Bounds
from refinenet.export.quantisation import MAX_DROP, Image, as_input, measure_on, quantise
from refinenet.io.console import print_note

CALIBRATION_IMAGES = 60


@dataclass(kw_only=True)
class Int8:
    """How a graph is to be quantised, and, once it is, what had to stay in float."""

    calibration: Dataset
    """Whose images show which values occur, evenly chosen; other ones than those that mIoU is measured on."""
    measured_on: Dataset
    max_drop: float = MAX_DROP
    """Of mIoU, in [0, 1]."""
    images: int = CALIBRATION_IMAGES
    progress: bool = True
    kept: Sequence[str] = field(default=(), init=False)
    """What stays in float, the most sensitive first."""

    @property
    def bounds(self) -> Bounds:
        """By what the export is kept: not by each logit, but by how good it is."""
        return Bounds(
            least_agreement=None,
            least_agreement_of_a_case=None,
            largest_relative_difference=None,
            largest_miou_loss=self.max_drop,
        )

    def apply(self, model: Any) -> Any:
        """An `openvino.Model` in int8, of one in float.

        Raises:
            ValueError: as `quantisation.quantise`.
        """
        print_note(f"Quantising on {self._count} images, measuring on {len(self.measured_on)}.", enabled=self.progress)
        measure = measure_on(self.measured_on, self.measured_on.label_set)
        found = quantise(model, self._read(), measure, max_drop=self.max_drop)
        self.kept = found.kept
        return found.model

    @property
    def _count(self) -> int:
        return min(self.images, len(self.calibration))

    def _read(self) -> Iterator[Image]:
        for index in np.linspace(0, len(self.calibration) - 1, self._count).astype(int).tolist():
            yield as_input(self.calibration[index].image)
