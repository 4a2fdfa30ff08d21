"""Int8 quantisation of OpenVINO models by NNCF, within bounds on the loss of accuracy of each output.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset
from refinenet.export.defaults import MAX_DROP, MAX_RISE
from refinenet.export.parity import ParityTolerance
from refinenet.export.quantisation.bounds import (
    DropBounds,
    Measure,
    Scores,
    as_input,
    measure_finite,
    measure_on,
)
from refinenet.export.quantisation.graph import QuantisedGraph
from refinenet.inference.backends.graph import require_openvino, without_telemetry
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically
from refinenet.outputs import CLASS_KIND, OutputSpec, has_only_classes

Image = npt.NDArray[np.float32]
RANKING_IMAGES = 2
"""Number of images on which quantisers are ranked if some have to be removed."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """An int8 model with its mIoU and the layers that stayed in floating point."""

    model: Any
    """An `openvino.Model` with the inputs and outputs of the original."""
    before: Scores
    """Scores in floating point."""
    after: Scores
    """Scores in int8."""
    kept: tuple[str, ...]
    """Layers that stayed in floating point, the most sensitive first; empty if all are quantised."""


def quantise(
    model: Any,
    calibration: Iterable[Image],
    measure: Measure,
    *,
    max_drop: float = MAX_DROP,
    max_rise: float = MAX_RISE,
) -> Quantised:
    """Quantise a model to int8 with a drop in mIoU of at most `max_drop`, and errors that rise by at most `max_rise`.

    NNCF first quantises the whole model to the value ranges of the calibration images. If that costs too much, each
    quantiser is applied alone on a few of these images and ranked by the error of the output. The worst ones are
    removed, so that the convolutions behind them run in floating point again; a search keeps their number small.

    Args:
        model: An `openvino.Model` with one input, images, and outputs of labels, logits `(N, K, H, W)` or values. It
            is not modified.
        calibration: Float32 RGB images `(1, 3, H, W)` in [0, 1], of sizes that the model takes: a few dozen
            representative ones, different from those of `measure`.
        measure: Function from an `openvino.Model` to its scores, called for the original and for each attempt.
        max_drop: Largest drop of the mIoU, in [0, 1]: 0.005 is half a percentage point.
        max_rise: Largest relative rise of each root mean squared error: 0.05 is a twentieth.

    Raises:
        ValueError: NNCF or OpenVINO is not installed; the model is already quantised or has other inputs; there are no
            calibration images, or one is invalid; a bound is out of range; `measure` returned no finite
            number; or no int8 model meets the bounds.
    """
    bounds = DropBounds(max_drop=max_drop, max_rise=max_rise)
    _check_model(model)
    images = [_check_image(image, index, model) for index, image in enumerate(calibration)]
    if not images:
        raise ValueError("There are no calibration images: int8 needs a few dozen to estimate value ranges.")
    before = measure_finite(measure, model)
    quantised = _quantise_all(model, images)
    after = measure_finite(measure, quantised)
    if bounds.allow(before, after):
        return Quantised(model=quantised, before=before, after=after, kept=())
    graph = QuantisedGraph(quantised, model)
    damage = graph.measure_damage(images[:: math.ceil(len(images) / RANKING_IMAGES)])
    ranking = sorted(damage, key=lambda name: damage[name], reverse=True)
    attempts = _Attempts(graph, ranking, measure, partial(bounds.allow, before))
    # One quantiser stays at least: a model without any is not in int8.
    count = _fewest(attempts.succeeds, len(ranking) - 1)
    if count is None:
        raise ValueError(
            f"{bounds.describe(before, after)}, and too many layers had to stay in float. Allow a larger drop, give "
            f"more calibration images ({len(images)} were given), or use bfloat16."
        )
    best, after = attempts.made[count]
    return Quantised(model=best, before=before, after=after, kept=graph.describe(ranking[:count]))


def save(model: Any, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write an `openvino.Model` as an `.xml` file, and its weights (int8 where quantised) as a `.bin` beside it.

    Returns:
        The paths of both.

    Raises:
        ValueError: the path does not end in `.xml`.
        OSError: a file cannot be written. Files are written atomically, the `.xml` last.
    """
    target = Path(path)
    if target.suffix != ".xml":
        raise ValueError(f"An OpenVINO model is written as .xml (with a .bin next to it), not as {os.fspath(path)!r}.")
    with tempfile.TemporaryDirectory() as folder:
        require_openvino().save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        weights, graph = ((Path(folder) / f"model.{ending}").read_bytes() for ending in ("bin", "xml"))
    # The graph last: where it is, its weights are, too.
    weights_path = write_atomically(target.with_suffix(".bin"), weights)
    return write_atomically(target, graph), weights_path


class _Attempts:
    """Models with an increasing number of layers in floating point; those that meet the bound are stored."""

    def __init__(
        self, graph: QuantisedGraph, ranking: Sequence[str], measure: Measure, is_allowed: Callable[[Scores], bool]
    ) -> None:
        self._graph, self._ranking, self._measure, self._is_allowed = graph, ranking, measure, is_allowed
        self.made: dict[int, tuple[Any, Scores]] = {}

    def succeeds(self, count: int) -> bool:
        """Whether the model without the first `count` quantisers meets the bound."""
        attempt = self._graph.put_back(self._ranking[:count])
        scores = measure_finite(self._measure, attempt)
        is_allowed = self._is_allowed(scores)
        if is_allowed:
            self.made[count] = attempt, scores
        return is_allowed


def _fewest(succeeds: Callable[[int], bool], limit: int) -> int | None:
    """Find a small number from 1 to `limit` that succeeds, by doubling and then bisection; None if none does."""
    # From the small end, as few layers usually suffice, and each attempt measures a model on all images.
    low, high = 0, 1
    while not succeeds(min(high, limit)):
        if high >= limit:
            return None
        low, high = high, 2 * high
    high = min(high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        if succeeds(middle):
            high = middle
        else:
            low = middle
    return high


def _check_model(model: Any) -> None:
    if len(model.inputs) != 1:
        raise ValueError(f"The model must have one input, not {len(model.inputs)}.")
    if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise ValueError("This model is already quantised: pass the original in floating point.")


def _check_image(image: Image, index: int, model: Any) -> Image:
    what = f"Calibration image {index} (from 0)"
    if not isinstance(image, np.ndarray) or image.dtype != np.float32 or image.ndim != 4 or len(image) != 1:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"{what} is {given}, not a float32 array (1, 3, H, W).")
    if not image.size or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"{what} has no pixels, or values outside [0, 1]: divide 8-bit values by 255.")
    if not model.input(0).get_partial_shape().compatible(require_openvino().PartialShape(list(image.shape))):
        shape = model.input(0).get_partial_shape()
        raise ValueError(f"{what} has the shape {image.shape}, but the model takes {shape}.")
    return np.ascontiguousarray(image)


def _quantise_all(model: Any, images: Sequence[Image]) -> Any:
    nncf = require_nncf()
    with _quiet():
        return nncf.quantize(
            model.clone(), nncf.Dataset(images), preset=nncf.QuantizationPreset.MIXED, subset_size=len(images)
        )


def require_nncf() -> Any:
    """Import `nncf` with its telemetry switched off.

    Raises:
        ValueError: NNCF is not installed.
    """
    require_openvino()  # which NNCF imports, with its telemetry
    try:
        with _quiet(), without_telemetry("NNCF_CI", "1"):
            import nncf
    except ImportError as error:
        raise ValueError("NNCF is not installed: pip install 'refinenet-torch[int8]'") from error
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress NNCF's progress bars and remarks, which it prints to standard output."""
    logger = logging.getLogger("nncf")
    with contextlib.redirect_stdout(io.StringIO()):
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _check_targets(dataset: Dataset, outputs: Sequence[OutputSpec]) -> None:
    """Refuse a dataset without ground truth for an output, whose loss would go unmeasured."""
    values = [spec.name for spec in outputs if spec.kind != CLASS_KIND]
    missing = [name for name in values if name not in dataset.chosen_targets]
    if missing:
        raise ValueError(
            f"Int8 bounds the error of each output, but {dataset.name} {dataset.split} has no ground truth for "
            f"{', '.join(missing)}: choose a dataset that has it."
        )


CALIBRATION_IMAGES = 60


@dataclass(kw_only=True)
class Int8:
    """Settings of a quantisation, and afterwards the layers that stayed in floating point."""

    calibration: Dataset
    """Dataset of the calibration images, chosen evenly; different images than those of `measured_on`."""
    measured_on: Dataset
    """Dataset on which the scores are measured, with the targets of other outputs than classes."""
    outputs: tuple[OutputSpec, ...]
    """Outputs of the network."""
    bounds_on_scores: DropBounds = field(default_factory=DropBounds)
    """Largest losses."""
    images: int = CALIBRATION_IMAGES
    """Number of calibration images."""
    progress: bool = True
    kept: Sequence[str] = field(default=(), init=False)
    """Layers that stayed in floating point, the most sensitive first."""

    @property
    def bounds(self) -> ParityTolerance:
        """Bounds for accepting the export: on the drop of mIoU instead of each logit."""
        return ParityTolerance(
            least_agreement=None,
            least_agreement_of_a_case=None,
            largest_relative_difference=None,
            largest_miou_loss=self.bounds_on_scores.max_drop,
            largest_rmse_rise=None if self._has_only_classes else self.bounds_on_scores.max_rise,
        )

    def apply(self, model: Any) -> Any:
        """Quantise an `openvino.Model`.

        Raises:
            ValueError: as `quantise`.
        """
        quantised = self.quantise(model)
        self.kept = quantised.kept
        return quantised.model

    def quantise(self, model: Any) -> Quantised:
        """Quantise an `openvino.Model` with the outputs of the network.

        Raises:
            ValueError: as `quantise`.
        """
        print_note(f"Quantising on {self.count} images, measuring on {len(self.measured_on)}.", enabled=self.progress)
        bounds = self.bounds_on_scores
        return quantise(model, self._read(), self.measure, max_drop=bounds.max_drop, max_rise=bounds.max_rise)

    def measure(self, model: Any) -> Scores:
        """Measure an `openvino.Model` with the outputs of the network."""
        data = self.measured_on
        return measure_on(data, data.label_set, self.outputs)(model)

    @classmethod
    def open(
        cls,
        measured_on: Dataset | None,
        open_split: Callable[[str], Dataset],
        splits: tuple[str, str],
        outputs: tuple[OutputSpec, ...],
        bounds: DropBounds,
        *,
        progress: bool = True,
    ) -> Int8:
        """Open the calibration images of a quantisation.

        Args:
            measured_on: Dataset on which the scores are measured.
            open_split: Opens a split of the same dataset.
            splits: The split that is measured, and the one to calibrate on.
            outputs: Outputs of the network.
            bounds: Largest losses.
            progress: Whether to show progress.

        Raises:
            ValueError: there is no dataset, the splits are the same, the one to calibrate on cannot be opened, or NNCF
                is not installed.
        """
        require_nncf()
        measured, calibrated = splits
        if measured_on is None:
            raise ValueError(
                "Int8 needs images for calibration and evaluation: pass dataset (--dataset), or a model file that "
                "`refinenet quantise` has prepared."
            )
        if calibrated == measured:
            raise ValueError(f"Int8 needs different splits for calibration and evaluation, not {measured!r} for both.")
        _check_targets(measured_on, outputs)
        return cls(
            calibration=open_split(calibrated),
            measured_on=measured_on,
            outputs=outputs,
            bounds_on_scores=bounds,
            progress=progress,
        )

    @property
    def _has_only_classes(self) -> bool:
        return has_only_classes(self.outputs)

    @property
    def count(self) -> int:
        """Number of available calibration images."""
        return min(self.images, len(self.calibration))

    def _read(self) -> Iterator[Image]:
        for index in np.linspace(0, len(self.calibration) - 1, self.count).astype(int).tolist():
            yield as_input(self.calibration[index].image)
