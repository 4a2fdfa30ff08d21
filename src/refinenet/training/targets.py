"""Targets of a training: the ground truth of outputs besides classes, and what a network learns of their units."""

from __future__ import annotations

import numpy as np
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.evaluation.pipeline import find_targets
from refinenet.io.console import print_note
from refinenet.models.heads import ScaledHead
from refinenet.models.network import Network
from refinenet.outputs import CLASS_KIND, CLASSES
from refinenet.training.config import TrainConfig
from refinenet.training.losses import Objective
from refinenet.training.losses.dense_objective import DenseObjective

SAMPLES = 64
"""Number of images, evenly spread over the dataset, from which mean and deviation of quantities are computed."""


def choose_targets(network: Network, train_set: Dataset, val_set: Dataset) -> tuple[Dataset, Dataset]:
    """Return the datasets with the targets of a network's outputs; for validation, those that there are.

    Raises:
        ValueError: The training data have no ground truth for an output, or one of another kind.
    """
    outputs = network.architecture.outputs
    if outputs == (CLASSES,):
        return train_set, val_set
    names = [spec.name for spec in outputs if spec.kind != CLASS_KIND]
    train_set = train_set.with_targets(names)  # refuses names that the data do not have
    find_targets(outputs, train_set, show=False)  # refuses those of another kind
    return train_set, val_set.with_targets(find_targets(outputs, val_set, show=False))


def fit_scales(network: Network, train_set: Dataset, *, show: bool) -> None:
    """Set mean and deviation of new heads whose values have units, from the training data.

    Raises:
        ValueError: There is no value with ground truth, or a file is damaged; the message names it.
        OSError: A file cannot be read.
    """
    for spec in train_set.chosen_specs:
        head = network.heads[spec.name]
        if not isinstance(head, ScaledHead) or not is_unfitted(head):
            continue
        only = train_set.with_targets([spec.name])
        indices = np.unique(np.linspace(0, len(only) - 1, min(len(only), SAMPLES)).round().astype(int)).tolist()
        values = np.concatenate([only[index].targets[spec.name].reshape(len(head.offset), -1) for index in indices], 1)
        known = [channel[np.isfinite(channel)].astype(np.float64) for channel in values]
        if not all(len(channel) for channel in known):
            raise ValueError(
                f"{train_set.name} {train_set.split} has no ground truth for {spec.name} in {len(indices)} of its "
                "images: leave this output out, or add data."
            )
        means, deviations = [channel.mean() for channel in known], [max(channel.std(), 1e-6) for channel in known]
        head.offset.copy_(torch.tensor(means, dtype=torch.float32)[:, None, None])
        head.scale.copy_(torch.tensor(deviations, dtype=torch.float32)[:, None, None])
        named = ", ".join(f"{mean:.3g} with deviation {std:.3g}" for mean, std in zip(means, deviations, strict=True))
        print_note(f"The output {spec.name} starts from the mean of the training data: {named}.", enabled=show)


def is_unfitted(head: ScaledHead) -> bool:
    """Return whether a head has the mean and deviation of a new one."""
    return bool((head.scale == 1).all() and (head.offset == 0).all())


def make_objective(classes: Objective, network: Network, config: TrainConfig) -> Objective | DenseObjective:
    """Return the objective of a network: that of its classes, or of all of its outputs.

    Raises:
        ValueError: A setting names an output or a loss that there is not.
    """
    architecture = network.architecture
    if architecture.outputs == (CLASSES,):
        unused = [name for name in ("output_losses", "output_weights") if getattr(config, name)]
        if unused:
            raise ValueError(f"{unused[0]} has no effect for a network that predicts classes alone: leave it out.")
        return classes
    scaled = {name: head for name, head in network.heads.items() if isinstance(head, ScaledHead)}
    deviations = {name: head.scale.detach().flatten() for name, head in scaled.items()}
    return DenseObjective(classes, architecture.outputs, architecture.num_classes, config, deviations)
