"""Latency budget: the best backend, precision and scale for a given time, chosen by measuring them on this machine.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet import models
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.inference.backends import list_backends, open_backend
from refinenet.inference.backends.base import BackendError, BackendName, InferencePrecision
from refinenet.inference.backends.graph import ExportedModel
from refinenet.inference.protocol import Protocol
from refinenet.inference.segmenter import Backend, Segmenter
from refinenet.io.console import print_note
from refinenet.io.images.bands import Band
from refinenet.io.processes.threads import ThreadLock
from refinenet.labels import LabelSet
from refinenet.models.files.model_card import ModelCard
from refinenet.outputs import CLASSES, OutputSpec, class_output
from refinenet.settings import is_number

SCALES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Scales at which the network may see an image."""
ROUNDS = 7
"""Timed runs of each choice, after a warm-up."""
_POOR = 0.5
"""Mean IoU with the full-size result below which the user is warned."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Backend, precision and scale, with their measurements."""

    backend: str
    precision: str
    scale: float
    milliseconds: float
    """Median time from the image in memory to its label map."""
    miou: float
    """Mean IoU with the labels of the first backend at full size on the same image, in [0, 1]."""
    segmenter: Segmenter

    def describe(self) -> str:
        """Return the choice in words."""
        return (
            f"{self.backend} in {self.precision}, the image at {self.scale:g} of its size: {self.milliseconds:.1f} ms, "
            f"{100 * (1 - self.miou):.1f} points of mIoU lost against the full-size result for this image"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements as JSON-ready values."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "scale": self.scale,
            "milliseconds": self.milliseconds,
            "miou_with_full_answer": self.miou,
        }


class LatencyTuner:
    """Chooses how a model meets a latency budget; remembers the choice for each image size and budget.

    Args:
        model: The network or exported graph.
        backend: Usual backend of the model, whose full-size results are the reference.
        card: Card of the model.
    """

    def __init__(self, model: models.Network | ExportedModel, backend: BackendName, card: ModelCard) -> None:
        self._model, self._backend, self._card = model, backend, card
        self._opened: dict[tuple[BackendName, InferencePrecision], Backend] = {}
        self._choices: dict[tuple[float, ...], Choice] = {}
        self._lock = ThreadLock()

    def within(self, image: npt.NDArray[np.uint8], max_milliseconds: float) -> Choice:
        """Return the choice for images of this size; the first image of a size is measured, with a note.

        Raises:
            ValueError: as `choose`.
        """
        if class_output(self._card.architecture.outputs) is None:
            raise ValueError(
                "A time limit is met by comparing labels, but the network predicts no classes: leave max_latency_ms "
                "(--max-latency) out, or choose a backend."
            )
        height, width = image.shape[:2]
        key = (height, width, max_milliseconds)
        if key in self._choices:
            return self._choices[key]
        with self._lock:  # one thread measures, the others wait: a busy machine would spoil all timings
            if key not in self._choices:
                self._choices[key] = self._measure(image, max_milliseconds)
            return self._choices[key]

    def _measure(self, image: npt.NDArray[np.uint8], max_milliseconds: float) -> Choice:
        height, width = image.shape[:2]
        _check_limit(max_milliseconds)
        print_note(f"Measuring backends, precisions and scales on an image of {width}x{height} pixels.")
        openers = [
            (name, precision, partial(self._open, name, precision))
            for name, precision in list_backends(self._model, self._backend, has_int8=self._has_int8)
        ]
        card = self._card
        outputs, bands = card.architecture.outputs, card.architecture.bands
        facts = card.label_set, card.temperature, image, max_milliseconds, outputs, bands, card.longest_side
        choice, _ = choose(openers, *facts)
        print_note(f"At most {max_milliseconds:g} ms: {choice.describe()}.")
        if choice.miou < _POOR:
            print_note("Results differ strongly from those at full size: allow more time, or use a smaller network.")
        return choice

    @property
    def _has_int8(self) -> bool:
        """Whether the network is the one that was quantised."""
        record = self._card.int8
        if record is None or isinstance(self._model, ExportedModel):
            return False
        return record.network_sha256 == models.digest(self._model.state_dict())

    def _open(self, name: BackendName, precision: InferencePrecision) -> Backend:
        """Open a backend of the model once."""
        if (name, precision) not in self._opened:
            self._opened[name, precision] = open_backend(self._model, name, precision, record=self._card.int8)
        return self._opened[name, precision]


def choose(
    backends: Iterable[tuple[str, str, Callable[[], Backend]]],
    label_set: LabelSet,
    temperature: float,
    image: npt.NDArray[np.uint8],
    max_milliseconds: float,
    outputs: tuple[OutputSpec, ...] = (CLASSES,),
    bands: tuple[Band, ...] = (),
    longest_side: int | None = None,
) -> tuple[Choice, list[Choice]]:
    """Choose the most accurate backend, precision and scale among those that are fast enough.

    Args:
        backends: Names, precisions and functions that open them; the first one at full size is the reference.
        label_set: The classes.
        temperature: Divisor of logits.
        image: `(H, W, 3)` uint8 RGB, or `(H, W, B)` float32 in [0, 1], of the size to measure.
        max_milliseconds: Budget of an image, for the median of `ROUNDS`.
        outputs: Outputs of the network; only its classes are compared.
        bands: Bands of the image; none for RGB.
        longest_side: As for `Segmenter`; scales are relative to the reduced image.

    Returns:
        The choice, and everything measured.

    Raises:
        ValueError: the budget is not above 0, or nothing is fast enough; the message names the fastest choice.
    """
    _check_limit(max_milliseconds)

    def segmenter(backend: Backend, scale: float) -> Segmenter:
        return Segmenter(backend, label_set, Protocol(scales=(scale,)), temperature, outputs, bands, longest_side)

    measured = list(_measure_all(backends, segmenter, image, max_milliseconds))
    if not measured:
        raise BackendError("No backend can run the network here.")
    allowed = [choice for choice in measured if choice.milliseconds <= max_milliseconds]
    if not allowed:
        fastest = min(measured, key=lambda choice: choice.milliseconds)
        raise ValueError(
            f"Cannot segment an image of {image.shape[1]}x{image.shape[0]} pixels in {max_milliseconds:g} ms here; "
            f"the fastest is {fastest.describe()}. Allow more time, pass smaller images, or use a smaller network."
        )
    return max(allowed, key=lambda choice: (choice.miou, -choice.milliseconds)), measured


def _check_limit(milliseconds: float) -> None:
    if not is_number(milliseconds) or not milliseconds > 0:
        raise ValueError(f"max_latency_ms must be a number above 0, not {milliseconds!r}.")


def _measure_all(
    backends: Iterable[tuple[str, str, Callable[[], Backend]]],
    make: Callable[[Backend, float], Segmenter],
    image: npt.NDArray[np.uint8],
    limit: float,
) -> Iterator[Choice]:
    full: npt.NDArray[Any] | None = None
    for name, precision, open_it in backends:
        backend = open_it()
        for scale in SCALES:
            segmenter = make(backend, scale)
            try:
                labels = segmenter.predict(image)
            except BackendError as error:
                print_note(f"{error} This backend is skipped.")
                break
            full = labels if full is None else full
            yield Choice(
                backend=name,
                precision=precision,
                scale=scale,
                milliseconds=1000 * statistics.median(_time(segmenter, image, limit)),
                miou=_mean_iou(full, labels, segmenter.label_set),
                segmenter=segmenter,
            )


def _time(segmenter: Segmenter, image: npt.NDArray[np.uint8], limit: float) -> Sequence[float]:
    """Return the seconds of each round; a choice that takes more than twice the limit is not repeated."""
    seconds: list[float] = []
    while len(seconds) < ROUNDS and not (seconds and 1000 * min(seconds) > 2 * limit):
        started = time.perf_counter()
        segmenter.predict(image)
        seconds.append(time.perf_counter() - started)
    return seconds


def _mean_iou(full: npt.NDArray[Any], labels: npt.NDArray[Any], label_set: LabelSet) -> float:
    """Return the mean IoU of two label maps over the classes that occur in either."""
    matrix = ConfusionMatrix(len(label_set), label_set.ignore_index)
    matrix.add(full, labels)
    miou = matrix.scores().miou
    assert miou is not None
    return miou
