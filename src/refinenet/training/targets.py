"""Targets of a training run: the ground truth of outputs besides classes, and what a network learns of their units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.dataset import spread
from refinenet.datasets.quantity_choice import with_quantities
from refinenet.evaluation.pipeline import find_targets
from refinenet.io.console import print_note
from refinenet.labels import LabelSet
from refinenet.models.class_mapping import check_same_classes
from refinenet.models.files.model_card import ModelCard
from refinenet.models.heads import ScaledHead
from refinenet.models.network import Network
from refinenet.outputs import CLASS_KIND, OutputSpec, class_output, has_only_classes
from refinenet.training.config import TrainConfig
from refinenet.training.losses import LossConfig, Objective
from refinenet.training.losses.dense_objective import DenseObjective, choose_losses
from refinenet.training.losses.output_config import OutputLossConfig

_OUTPUT_SETTINGS = (*(field.name for field in fields(OutputLossConfig)), "fill_missing")
"""Settings for networks with other outputs than classes."""
_CLASS_SETTINGS = {
    field.name: field.default for field in fields(LossConfig) if field.name not in ("teacher", "fill_missing")
} | {"paste_rare": 0, "paste_classes": 0}
"""Settings for networks with an output of classes, and their defaults."""
SAMPLES = 64
"""Number of images, evenly spread over the dataset, from which mean and deviation of quantities are computed."""


def choose_targets(
    network: Network, label_set: LabelSet, train_set: Dataset, val_set: Dataset
) -> tuple[Dataset, Dataset]:
    """Return the datasets with the targets of a network's outputs; for validation, those that there are.

    Args:
        network: Network to train.
        label_set: Classes that it predicts.
        train_set: Training data.
        val_set: Validation data.

    Raises:
        ValueError: The training data have no ground truth for an output, or one of another kind.
    """
    outputs = network.architecture.outputs
    if has_only_classes(outputs):
        return train_set, val_set
    train_set, val_set = _with_classes(train_set, label_set), _with_classes(val_set, label_set)
    train_set, val_set = with_quantities(train_set, outputs), with_quantities(val_set, outputs)
    names = [spec.name for spec in outputs if spec.kind != CLASS_KIND]
    train_set = train_set.with_targets(names)  # refuses names that the data do not have
    find_targets(outputs, train_set, show=False)  # refuses those of another kind
    return train_set, val_set.with_targets(find_targets(outputs, val_set, show=False))


def _with_classes(dataset: Dataset, label_set: LabelSet) -> Dataset:
    """Return a dataset with the classes of a network that predicts none, or some for a dataset without."""
    if not label_set.names:
        return dataset.without_classes()
    return dataset.with_void_labels(label_set)


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
        indices = spread(len(only), SAMPLES)
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
        named = ", ".join(
            f"{name} {mean:.3g} {unit}".rstrip() + f" (standard deviation {std:.3g})"
            for (name, unit), mean, std in zip(spec.quantities, means, deviations, strict=True)
        )
        print_note(f"The output {spec.name} starts from the mean of the training data: {named}.", enabled=show)


def is_unfitted(head: ScaledHead) -> bool:
    """Return whether a head has the mean and deviation of a new one."""
    return bool((head.scale == 1).all() and (head.offset == 0).all())


def check_teacher(card: ModelCard, outputs: Sequence[OutputSpec], train_set: Dataset, *, fills_missing: bool) -> None:
    """Check that a teacher can teach a network.

    Args:
        card: Card of the teacher.
        outputs: Outputs of the network to train.
        train_set: Training data, with the classes of the network (`choose_targets`).
        fills_missing: Whether the teacher's predictions stand for missing ground truth.

    Raises:
        ValueError: Its classes are not those of the dataset, it lacks an output, or there is nothing to teach.
    """
    if class_output(outputs) is None and not fills_missing:
        raise ValueError("A teacher has no effect on a network that predicts no classes, unless fill_missing is True.")
    if fills_missing:
        _check_outputs(card, outputs)
    if class_output(outputs) is None:
        return
    if not card.label_set.names:
        raise ValueError("The teacher predicts no classes, but the network does: choose another teacher.")
    check_same_classes(card.label_set, train_set)


def _check_outputs(card: ModelCard, outputs: Sequence[OutputSpec]) -> None:
    """Check that a teacher has all outputs of a network.

    Raises:
        ValueError: It lacks one.
    """
    known = {(spec.name, spec.kind, spec.channels, spec.units) for spec in card.architecture.outputs}
    lacking = [spec.name for spec in outputs if (spec.name, spec.kind, spec.channels, spec.units) not in known]
    if lacking:
        named = ", ".join(spec.to_text() for spec in card.architecture.outputs)
        raise ValueError(
            f"fill_missing needs a teacher with the outputs of the network; it lacks {', '.join(lacking)}: its outputs "
            f"are {named}."
        )


def check_settings(config: TrainConfig, outputs: Sequence[OutputSpec]) -> None:
    """Check the settings that depend on the outputs of a network.

    Raises:
        ValueError: A setting has no effect, or names an output or a loss that there is not.
    """
    if has_only_classes(outputs):
        unused = [name for name in _OUTPUT_SETTINGS if getattr(config, name)]
        if unused:
            raise ValueError(f"{unused[0]} has no effect for a network that predicts only classes: leave it out.")
        return
    if class_output(outputs) is None:
        changed = [name for name, default in _CLASS_SETTINGS.items() if getattr(config, name) != default]
        if changed:
            raise ValueError(f"{changed[0]} has no effect for a network that predicts no classes: leave it out.")
    choose_losses(config, outputs)


def make_objective(classes: Objective, network: Network, config: TrainConfig) -> Objective | DenseObjective:
    """Return the objective of a network: that of its classes, or of all of its outputs."""
    architecture = network.architecture
    if has_only_classes(architecture.outputs):
        return classes
    scaled = {name: head for name, head in network.heads.items() if isinstance(head, ScaledHead)}
    deviations = {name: head.scale.detach().flatten() for name, head in scaled.items()}
    return DenseObjective(classes, architecture.outputs, architecture.num_classes, config, deviations)
