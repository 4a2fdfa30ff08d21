"""Predictions and truths of dense targets, and their measurement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from refinenet.evaluation.metrics import (
    TargetAccumulator,
)

Floats = npt.NDArray[np.float32]
Image = tuple[Floats, Floats]
NAN = np.nan
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, kind: str, images: int = 4, size: tuple[int, int] = (7, 9)) -> list[Image]:
    """Predictions and targets with more and more missing values from image to image; of the last one, all miss."""
    random = np.random.default_rng(seed)
    channels = {"depth": 1, "normals": 3, "regression": 2}[kind]
    truth = random.normal(0, 1, (images, channels, *size))
    predicted = truth + random.normal(0, 0.5, truth.shape)
    if kind == "depth":
        truth, predicted = np.exp(2 * truth), np.exp(2 * predicted)
    truth[
        np.broadcast_to(random.random((images, 1, *size)) < np.linspace(0, 1, images).reshape(-1, 1, 1, 1), truth.shape)
    ] = NAN
    if kind == "regression":
        truth[:, 1] = 300 + 10 * truth[:, 1]
        predicted[:, 1] = 300 + 10 * predicted[:, 1]
        truth[random.random(truth.shape) < 0.1] = NAN
    return list(zip(predicted.astype(np.float32), truth.astype(np.float32), strict=True))


def measure(accumulator: TargetAccumulator, images: list[Image]) -> TargetAccumulator:
    for predicted, truth in images:
        accumulator.add(predicted, truth)
    return accumulator


def row(*values: float) -> Floats:
    """Values of one channel in a row of pixels, `(1, 1, W)`."""
    return np.array(values, np.float32).reshape(1, 1, -1)


def vectors(*values: tuple[float, float, float]) -> Floats:
    """Vectors in a row of pixels, `(3, 1, W)`."""
    return np.array(values, np.float32).T.reshape(3, 1, -1)
