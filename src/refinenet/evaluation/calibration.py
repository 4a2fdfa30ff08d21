"""Temperature scaling: calibration of a network's confidence by one number (Guo et al., ICML 2017).

Logits are divided by the temperature before the softmax, which does not change the predicted class.

Shape letters: n pixels, K classes, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refinenet.datasets.catalog import Dataset
from refinenet.evaluation.metrics import ConfidenceCounts
from refinenet.inference.segmenter import Segmenter
from refinenet.io.arrays import as_numpy
from refinenet.io.console import progress_bar

PIXELS = 100_000
"""Number of pixels that the temperature is fitted to, shared evenly among the images."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature."""
SEED = 42
_HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class FittedTemperature:
    """A fitted temperature with the calibration before and after."""

    value: float
    """Between `COLDEST` and `HOTTEST`."""
    pixels: int
    """Number of pixels that it was fitted to."""
    images: int
    loss_before: float
    """Mean negative log-likelihood of the true class on these pixels, at temperature 1."""
    loss_after: float
    error_before: float
    """Expected calibration error on these pixels, in [0, 1], at temperature 1."""
    error_after: float


def fit_temperature(segmenter: Segmenter, dataset: Dataset, *, progress: bool) -> FittedTemperature:
    """Fit the temperature that maximises the likelihood of the true classes.

    Args:
        segmenter: Runs the network.
        dataset: Images that the network was not trained on, such as a validation split.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: no pixel has a class, or a file cannot be used.
    """
    parts = list(_sample(segmenter, dataset, progress))
    if not parts or not sum(len(truth) for _, truth in parts):
        raise ValueError(f"{dataset.name} {dataset.split} has no pixel with a class to fit a temperature to.")
    logits, truth = torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])
    value = _minimise(logits, truth)
    return FittedTemperature(
        value=value,
        pixels=len(truth),
        images=len(dataset),
        loss_before=_loss(logits, truth, 1.0),
        loss_after=_loss(logits, truth, value),
        error_before=_error(logits, truth, 1.0),
        error_after=_error(logits, truth, value),
    )


def _sample(segmenter: Segmenter, dataset: Dataset, progress: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits `(n, K)` and true classes `(n,)` of random pixels of each image, the same in every call."""
    share = max(1, PIXELS // max(1, len(dataset)))
    with progress_bar(progress) as bar:
        task = bar.add_task(
            f"Fitting a temperature to {dataset.name} {dataset.split}", total=len(dataset), status="", unit="images"
        )
        for index in range(len(dataset)):
            sample = dataset[index]
            labelled = np.flatnonzero(sample.labels != dataset.label_set.ignore_index)
            # Seeded by the image's index: the pixels of an image do not depend on the images before it.
            random = np.random.default_rng([SEED, index])
            chosen = random.choice(labelled, min(share, len(labelled)), replace=False)
            logits = segmenter.logits(sample.image)
            truth = torch.from_numpy(sample.labels.ravel()[chosen].astype(np.int64))
            yield torch.from_numpy(as_numpy(logits.reshape(len(logits), -1)[:, chosen])).T.double(), truth
            bar.advance(task)


def _minimise(logits: Tensor, truth: Tensor) -> float:
    """Find the minimum of the loss by bisection of its slope, in the logarithm of 1 / temperature.

    The loss is convex in b = 1 / temperature, so its slope, E[logit under softmax(b * logits)] - E[true logit], has one
    zero.
    """
    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    right = logits.gather(1, truth[:, None]).mean()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = ((logits * math.exp(middle)).softmax(1) * logits).sum(1).mean() - right
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _loss(logits: Tensor, truth: Tensor, temperature: float) -> float:
    return float(functional.cross_entropy(logits / temperature, truth))


def _error(logits: Tensor, truth: Tensor, temperature: float) -> float:
    confidence, chosen = (logits / temperature).softmax(1).max(1)
    counts = ConfidenceCounts()
    counts.add(confidence.float().numpy(), (chosen == truth).numpy())
    error = counts.error()
    assert error is not None
    return error
