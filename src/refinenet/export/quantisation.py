"""Int8: a network for OpenVINO computed in whole numbers of 8 bits, but for what would cost more than is allowed.

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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet.datasets.catalog import Dataset, Sample
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.export.parity import ParityTolerance
from refinenet.export.quantised_graph import QuantisedGraph
from refinenet.inference.backends.openvino import require_openvino
from refinenet.inference.segmenter import prepare
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically
from refinenet.labels import LabelSet

Image = npt.NDArray[np.float32]
Measure = Callable[[Any], float]
"""From an `openvino.Model` to its mIoU in [0, 1], or any other figure that is better the larger it is."""

MAX_DROP = 0.005
"""Half a point of mIoU."""
RANKING_IMAGES = 2
"""Images on which the damage of each quantiser is measured, where some have to go."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """An int8 model, and what it cost."""

    model: Any
    """An `openvino.Model` with the inputs and outputs of the one that it was made from."""
    miou_before: float
    """In float, in [0, 1]."""
    miou_after: float
    """In int8, in [0, 1]."""
    kept: tuple[str, ...]
    """What stays in float, the most sensitive first; empty where all could be quantised."""


def quantise(model: Any, calibration: Iterable[Image], measure: Measure, *, max_drop: float = MAX_DROP) -> Quantised:
    """Compute a network in int8, as far as its mIoU drops by no more than `max_drop`.

    All is quantised first, by NNCF, to the ranges that values take on the calibration images. If that costs too much,
    each quantiser is applied alone, on a few of these images, and ranked by what it does to the output; the worst ones
    are taken out, and the convolutions that they feed computed in float again: as few as are found to do.

    Args:
        model: An `openvino.Model` with one input, images, whose first output is labels or logits `(N, K, H, W)`. It is
            left as it is.
        calibration: Float32 RGB images `(1, 3, H, W)` in [0, 1], of sizes that the model takes: some dozens, such as
            the network will see, and none that `measure` measures on.
        measure: From an `openvino.Model` to its mIoU. It is called once for the model, and once for each attempt.
        max_drop: How much smaller the mIoU may become, in [0, 1]: 0.005 is half a point.

    Raises:
        ValueError: NNCF or OpenVINO is not installed; the model is quantised already or has other inputs; there are no
            calibration images, or one is not as it has to be; `max_drop` is not in [0, 1]; `measure` gave no finite
            number; or the bound cannot be met with any part of the network in int8.
    """
    if not 0 <= max_drop <= 1:
        raise ValueError(f"max_drop is a share of 1, from 0 to 1 (0.005 is half a point of mIoU), not {max_drop!r}.")
    _check_model(model)
    images = [_checked(image, index, model) for index, image in enumerate(calibration)]
    if not images:
        raise ValueError("There are no calibration images: int8 needs some dozens, to know which values occur.")
    before = _measured(measure, model)
    quantised = _quantise_all(model, images)
    after = _measured(measure, quantised)
    if before - after <= max_drop:
        return Quantised(model=quantised, miou_before=before, miou_after=after, kept=())
    graph = QuantisedGraph(quantised, model)
    damage = graph.measure_damage(images[:: math.ceil(len(images) / RANKING_IMAGES)])
    ranking = sorted(damage, key=lambda name: damage[name], reverse=True)
    attempts = _Attempts(graph, ranking, measure, before - max_drop)
    count = _fewest(attempts.succeeds, len(ranking) - 1)
    if count is None:
        raise ValueError(
            f"No int8 model comes within {max_drop:g} of the mIoU in float, {before:.4f}: all in int8 gives "
            f"{after:.4f}, and too much of it had to stay in float. Allow a larger drop, give more calibration "
            f"images ({len(images)} were given), or use bfloat16."
        )
    found, after = attempts.made[count]
    return Quantised(model=found, miou_before=before, miou_after=after, kept=graph.describe(ranking[:count]))


def save(model: Any, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write an `openvino.Model` as an `.xml` file and its weights, in int8 what is quantised, as a `.bin` beside it.

    Returns:
        The paths of both.

    Raises:
        ValueError: the path does not end in `.xml`.
        OSError: one of them cannot be written. Neither is ever there in part; the `.xml` is written last.
    """
    target = Path(path)
    if target.suffix != ".xml":
        raise ValueError(f"An OpenVINO model is written as .xml (with a .bin beside it), not as {os.fspath(path)!r}.")
    with tempfile.TemporaryDirectory() as folder:
        require_openvino().save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        weights, graph = ((Path(folder) / f"model.{ending}").read_bytes() for ending in ("bin", "xml"))
    weights_path = write_atomically(target.with_suffix(".bin"), weights)
    return write_atomically(target, graph), weights_path


def measure_on(samples: Iterable[Sample], label_set: LabelSet) -> Measure:
    """What finds the mIoU of a model on these samples, one image at a time, computed in float32 where it is not int8.

    Args:
        samples: Read again for each model: a `Dataset`, or a list.
        label_set: Its classes.
    """

    def measure(model: Any) -> float:
        run = require_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        matrix = ConfusionMatrix(len(label_set), label_set.ignore_index)
        for sample in samples:
            answer = run([as_input(sample.image)])[0]
            labels = answer if np.issubdtype(answer.dtype, np.integer) else answer.argmax(1)
            matrix.add(sample.labels, labels.reshape(sample.labels.shape))
        miou = matrix.scores().miou
        return math.nan if miou is None else miou

    return measure


def as_input(image: npt.NDArray[np.uint8]) -> Image:
    """`(H, W, 3)` uint8 RGB to what a model takes, `(1, 3, H, W)` float32 in [0, 1]."""
    prepared: Image = prepare(image, torch.device("cpu")).numpy()
    return np.ascontiguousarray(prepared)


class _Attempts:
    """Models with more and more in float, measured when asked for; those that meet the bound are kept."""

    def __init__(self, graph: QuantisedGraph, ranking: Sequence[str], measure: Measure, least: float) -> None:
        self._graph, self._ranking, self._measure, self._least = graph, ranking, measure, least
        self.made: dict[int, tuple[Any, float]] = {}

    def succeeds(self, count: int) -> bool:
        """Whether the mIoU is large enough without the first `count` quantisers."""
        attempt = self._graph.put_back(self._ranking[:count])
        miou = _measured(self._measure, attempt)
        if miou >= self._least:
            self.made[count] = attempt, miou
        return miou >= self._least


def _fewest(succeeds: Callable[[int], bool], limit: int) -> int | None:
    """A small number from 1 to `limit` that succeeds: found by doubling, then by halving the gap; None for none."""
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


def _measured(measure: Measure, model: Any) -> float:
    miou = float(measure(model))
    if not math.isfinite(miou):
        raise ValueError(f"The model's mIoU was measured as {miou}: measure it on images with a truth.")
    return miou


def _check_model(model: Any) -> None:
    if len(model.inputs) != 1:
        raise ValueError(f"A model with one input is quantised, not one with {len(model.inputs)}.")
    if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise ValueError("This model is quantised already: quantise the one in float that it was made from.")


def _checked(image: Image, index: int, model: Any) -> Image:
    what = f"Calibration image {index} (from 0)"
    if not isinstance(image, np.ndarray) or image.dtype != np.float32 or image.ndim != 4 or image.shape[:2] != (1, 3):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"{what} is {found}, not a float32 array (1, 3, H, W).")
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
    """The module `nncf`, with its reports to its maker switched off.

    Raises:
        ValueError: it is not installed.
    """
    # It asks for this variable while it is imported, and would else send usage data.
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with _quiet():
            import nncf
    except ImportError as error:
        raise ValueError("NNCF is not installed: pip install 'refinenet[int8]'") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF prints bars and remarks to standard output, where results of commands go: not in here."""
    logger = logging.getLogger("nncf")
    with contextlib.redirect_stdout(io.StringIO()):
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


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
    def bounds(self) -> ParityTolerance:
        """By what the export is kept: not by each logit, but by how good it is."""
        return ParityTolerance(
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
