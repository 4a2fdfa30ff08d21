"""Mean and deviation of the bands of a network's images, measured on the training data."""

from __future__ import annotations

import numpy as np
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.dataset import spread
from refinenet.io.console import print_note
from refinenet.models.network import Network

SAMPLES = 64
"""Number of images, evenly spread over the dataset, on which bands are measured."""
_LEAST = 1e-3
"""Least deviation: of a band that hardly varies, noise would become as large as the contents of others."""


def fit_bands(network: Network, train_set: Dataset, *, show: bool) -> None:
    """Set mean and deviation of bands that a network normalises by 0 and 1 so far, from the training data.

    Afterwards these bands have the mean 0 and the spread of natural colours where they enter the encoder. Bands of
    colour keep the normalisation of the encoder's weights, and others that of an earlier training.

    Raises:
        ValueError: A file cannot be used; the message names it.
        OSError: A file cannot be read.
    """
    bands = network.architecture.bands
    is_new = (network.mean.flatten() == 0) & (network.std.flatten() == 1)
    new = [k for k, band in enumerate(bands) if is_new[k] and not band.is_colour]
    if not new:
        return
    items = [train_set.items[index] for index in spread(len(train_set), SAMPLES)]
    sums, squares, pixels = np.zeros(len(new)), np.zeros(len(new)), 0
    for item in items:
        values = train_set.read_image(item)[..., new].reshape(-1, len(new)).astype(np.float64)
        sums, squares, pixels = sums + values.sum(0), squares + (values * values).sum(0), pixels + len(values)
    means = sums / pixels
    deviations = np.maximum(np.sqrt(np.maximum(squares / pixels - means * means, 0)), _LEAST)
    network.mean[new] = torch.tensor(means, dtype=torch.float32, device=network.mean.device)[:, None, None]
    scaled = torch.tensor(deviations / network.encoder.spread, dtype=torch.float32, device=network.std.device)
    network.std[new] = scaled[:, None, None]
    named = ", ".join(
        f"{bands[k].name} {mean:.3g} with deviation {deviation:.3g}"
        for k, mean, deviation in zip(new, means, deviations, strict=True)
    )
    print_note(f"Means of the bands in {len(items)} training images, on the scale from 0 to 1: {named}.", enabled=show)
