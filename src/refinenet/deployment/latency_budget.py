"""The best answer within a time: backend, precision and scale chosen by measuring them on this machine.

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

from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.inference.backends import list_backends, open_backend
from refinenet.inference.backends.base import BackendError, BackendName, InferencePrecision
from refinenet.inference.backends.graph import ExportedModel
from refinenet.inference.protocol import Protocol
from refinenet.inference.segmenter import Backend, Segmenter
from refinenet.io.console import print_note
from refinenet.io.threads import ThreadLock
from refinenet.labels import LabelSet
from refinenet.models.network import Network
from refinenet.settings import is_number

SCALES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Sizes that the network may see an image in, relative to its own."""
ROUNDS = 7
"""Times that each choice is measured, after one that does not count."""
_POOR = 0.5
"""Mean IoU with the full answer below which it is said that little is left of it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to segment, and what was measured of it."""

    backend: str
    precision: str
    scale: float
    milliseconds: float
    """Median from the image in memory to its label map."""
    miou: float
    """Mean IoU of its labels with those of the first backend at full size on the same image, in [0, 1]."""
    segmenter: Segmenter

    def describe(self) -> str:
        """The choice in words."""
        return (
            f"{self.backend} in {self.precision}, the image at {self.scale:g} of its size: {self.milliseconds:.1f} ms, "
            f"{100 * (1 - self.miou):.1f} points of mIoU lost against the full answer to this image"
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "scale": self.scale,
            "milliseconds": self.milliseconds,
            "miou_with_full_answer": self.miou,
        }


class LatencyTuner:
    """What was chosen for a model, kept for images of the same size and the same time.

    Args:
        model: The network or exported graph.
        backend: What it runs with elsewhere, and all answers are held against.
        label_set: What its classes are.
        temperature: What its logits are divided by.
    """

    def __init__(
        self, model: Network | ExportedModel, backend: BackendName, label_set: LabelSet, temperature: float
    ) -> None:
        self._model, self._backend, self._label_set, self._temperature = model, backend, label_set, temperature
        self._opened: dict[tuple[BackendName, InferencePrecision], Backend] = {}
        self._made: dict[tuple[float, ...], Choice] = {}
        self._lock = ThreadLock()

    def within(self, image: npt.NDArray[np.uint8], max_milliseconds: float) -> Choice:
        """The choice for images of this size, measured on the first one, which is said.

        Raises:
            ValueError: as `choose`.
        """
        height, width = image.shape[:2]
        wanted = (height, width, max_milliseconds)
        if wanted in self._made:
            return self._made[wanted]
        with self._lock:  # one measures, the others wait for what it finds
            if wanted not in self._made:
                self._made[wanted] = self._measure(image, max_milliseconds)
            return self._made[wanted]

    def _measure(self, image: npt.NDArray[np.uint8], max_milliseconds: float) -> Choice:
        height, width = image.shape[:2]
        _check_limit(max_milliseconds)
        print_note(f"Measuring what an image of {width}x{height} pixels takes, in some ways.")
        openers = [
            (name, precision, partial(self._open, name, precision))
            for name, precision in list_backends(self._model, self._backend)
        ]
        made, _ = choose(openers, self._label_set, self._temperature, image, max_milliseconds)
        print_note(f"At most {max_milliseconds:g} ms: {made.describe()}.")
        if made.miou < _POOR:
            print_note("Hardly anything of the full answer is left: allow more time, or take a smaller network.")
        return made

    def _open(self, name: BackendName, precision: InferencePrecision) -> Backend:
        """A backend of the model, opened once."""
        if (name, precision) not in self._opened:
            self._opened[name, precision] = open_backend(self._model, name, precision)
        return self._opened[name, precision]


def choose(
    backends: Iterable[tuple[str, str, Callable[[], Backend]]],
    label_set: LabelSet,
    temperature: float,
    image: npt.NDArray[np.uint8],
    max_milliseconds: float,
) -> tuple[Choice, list[Choice]]:
    """The choice that loses least among those that are fast enough here.

    Args:
        backends: Names, precisions, and what opens them; the first one at full size gives the answer that all are held
            against.
        label_set: What the classes are.
        temperature: What logits are divided by.
        image: `(H, W, 3)` uint8 RGB, of the size that is to be fast.
        max_milliseconds: That an image may take, as the median of `ROUNDS`.

    Returns:
        The choice, and all that were measured.

    Raises:
        ValueError: the time is not above 0, or nothing is as fast; says what the fastest takes.
    """
    _check_limit(max_milliseconds)
    measured = list(_measure(backends, label_set, temperature, image, max_milliseconds))
    if not measured:
        raise BackendError("The network cannot be run by any backend here.")
    allowed = [choice for choice in measured if choice.milliseconds <= max_milliseconds]
    if not allowed:
        fastest = min(measured, key=lambda choice: choice.milliseconds)
        raise ValueError(
            f"No way to segment an image of {image.shape[1]}x{image.shape[0]} pixels in {max_milliseconds:g} ms here; "
            f"the fastest is {fastest.describe()}. Allow more time, pass smaller images, or take a smaller network."
        )
    return max(allowed, key=lambda choice: (choice.miou, -choice.milliseconds)), measured


def _check_limit(milliseconds: float) -> None:
    if not is_number(milliseconds) or not milliseconds > 0:
        raise ValueError(f"max_latency_ms is a number above 0, not {milliseconds!r}.")


def _measure(
    backends: Iterable[tuple[str, str, Callable[[], Backend]]],
    label_set: LabelSet,
    temperature: float,
    image: npt.NDArray[np.uint8],
    limit: float,
) -> Iterator[Choice]:
    full: npt.NDArray[Any] | None = None
    for name, precision, open_it in backends:
        backend = open_it()
        for scale in SCALES:
            segmenter = Segmenter(backend, label_set, Protocol(scales=(scale,)), temperature)
            try:
                labels = segmenter.predict(image)
            except BackendError as error:
                print_note(f"{error} It is left out.")
                break
            full = labels if full is None else full
            yield Choice(
                backend=name,
                precision=precision,
                scale=scale,
                milliseconds=1000 * statistics.median(_time(segmenter, image, limit)),
                miou=_compare(full, labels, label_set),
                segmenter=segmenter,
            )


def _time(segmenter: Segmenter, image: npt.NDArray[np.uint8], limit: float) -> Sequence[float]:
    """Seconds of each round; what takes twice as many milliseconds as are allowed is not tried again."""
    seconds: list[float] = []
    while len(seconds) < ROUNDS and not (seconds and 1000 * min(seconds) > 2 * limit):
        started = time.perf_counter()
        segmenter.predict(image)
        seconds.append(time.perf_counter() - started)
    return seconds


def _compare(full: npt.NDArray[Any], labels: npt.NDArray[Any], label_set: LabelSet) -> float:
    """Mean IoU of two label maps over the classes that occur in either."""
    matrix = ConfusionMatrix(len(label_set), label_set.ignore_index)
    matrix.add(full, labels)
    miou = matrix.scores().miou
    assert miou is not None
    return miou
