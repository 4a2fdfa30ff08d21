"""How long an image takes before and after the export, part by part.

Shape letters: H height, W width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet.datasets.street_scenes import draw_street
from refinenet.export.formats import Runner
from refinenet.export.questions import to_images
from refinenet.inference.segmenter import prepare
from refinenet.inference.upsampling import largest_class
from refinenet.labels import LabelSet
from refinenet.models.inference_graph import DeployedNetwork

SIZES = ((360, 480), (512, 512))
"""Heights and widths that are timed by default."""
ROUNDS = 5
WARM_UP = 1


@dataclass(frozen=True, kw_only=True)
class Milliseconds:
    """Medians over the rounds."""

    pre: float
    """From `(H, W, 3)` uint8 to what the network takes."""
    network: float
    """The network; of an exported graph with resizing and argmax, which are part of it."""
    post: float
    """From there to a label map in the label set's type; in PyTorch with resizing and argmax."""
    total: float
    """All three; a median of its own."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one image at a time, both taken in turns."""

    height: int
    width: int
    rounds: int
    before: Milliseconds
    """Of the network in PyTorch as `segment` runs it, channels last."""
    after: Milliseconds
    """Of the exported graph in its own program."""


Steps = tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]


def time_both(
    deployed: DeployedNetwork, run: Runner, label_set: LabelSet, sizes: Sequence[tuple[int, int]]
) -> list[Latency]:
    """Time a network in PyTorch and its exported graph on drawn streets of some heights and widths."""
    deployed.to(memory_format=torch.channels_last)
    before, after = _steps_before(deployed, label_set), _steps_after(run, label_set)
    found = []
    with torch.inference_mode():
        for height, width in sizes:
            street = draw_street(7, height, width)[0]
            rounds = [(_time(before, street), _time(after, street)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
            first, second = ([pair[which] for pair in rounds] for which in (0, 1))
            found.append(
                Latency(height=height, width=width, rounds=ROUNDS, before=_median(first), after=_median(second))
            )
    return found


def _steps_before(deployed: DeployedNetwork, label_set: LabelSet) -> Steps:
    def finish(pair: tuple[torch.Tensor, torch.Tensor]) -> npt.NDArray[Any]:
        images, logits = pair
        size = images.shape[2], images.shape[3]
        return label_set.cast(largest_class(logits[0], size)[None].numpy())

    return (
        lambda street: prepare(street, torch.device("cpu")),
        lambda images: (images, deployed.network.logits(images)),
        finish,
    )


def _steps_after(run: Runner, label_set: LabelSet) -> Steps:
    return lambda street: to_images([street]), run, lambda answer: label_set.cast(answer[0])


def _time(steps: Steps, street: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    value: Any = street
    taken = []
    for step in steps:
        start = time.perf_counter()
        value = step(value)
        taken.append(1000 * (time.perf_counter() - start))
    return taken[0], taken[1], taken[2]


def _median(rounds: list[tuple[float, float, float]]) -> Milliseconds:
    pre, network, post = (statistics.median(part) for part in zip(*rounds, strict=True))
    return Milliseconds(pre=pre, network=network, post=post, total=statistics.median(map(sum, rounds)))
