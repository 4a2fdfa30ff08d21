"""Comparison of model and dataset classes, and adaptation of the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Protocol

from refinenet.io.console import print_note
from refinenet.labels import LabelSet
from refinenet.models.files.file_checks import enumerate_names
from refinenet.models.files.model_card import ModelCard
from refinenet.models.network import Network
from refinenet.outputs import OutputSpec


class Labelled(Protocol):
    """The part of a dataset that describes its classes."""

    @property
    def name(self) -> str:
        """Name of the dataset in messages."""

    @property
    def label_set(self) -> LabelSet:
        """Classes of the dataset."""

    @property
    def target_specs(self) -> tuple[OutputSpec, ...]:
        """Other quantities of each pixel."""


def check_same_classes(ours: LabelSet, dataset: Labelled) -> None:
    """Check that a model and a dataset have the same classes; placeholder names match any name.

    Raises:
        ValueError: The number or the names of the classes differ.
    """
    theirs = dataset.label_set
    _refuse_without_classes(ours, dataset)
    if len(ours) != len(theirs):
        raise ValueError(
            f"The model has {len(ours)} classes, but the dataset {dataset.name} has {len(theirs)}: "
            "use another model or dataset, or train this model on it first."
        )
    different = [(a, b) for a, b in zip(ours.names, theirs.names, strict=True) if a != b]
    if different and not ours.is_numbered() and not theirs.is_numbered():
        raise ValueError(
            f"The model's classes are not those of {dataset.name}: it has {different[0][0]!r} where the dataset "
            f"has {different[0][1]!r}. Scores would be meaningless. If both are the same class, give it the model's "
            "name in the dataset's classes.yaml: in 'names', or for labels of an annotation tool with "
            f"rename: {{{different[0][1]}: {different[0][0]}}}"
        )


def _refuse_without_classes(ours: LabelSet, dataset: Labelled) -> None:
    if not len(ours):
        raise ValueError("The network predicts no classes: add classes to its outputs.")
    if not len(dataset.label_set):
        raise ValueError(
            f"The dataset {dataset.name} has no masks, and so no classes to train or evaluate on."
            + _advise_outputs(dataset)
        )


def _advise_outputs(dataset: Labelled) -> str:
    if not dataset.target_specs:
        return ""
    text = ",".join(spec.to_text() for spec in dataset.target_specs)
    return f" For its other ground truth, pass --outputs {quote(text)} (outputs={text!r}) for a new network."


def take_classes(
    network: Network, card: ModelCard, dataset: Labelled, *, fixed: bool, progress: bool
) -> tuple[Network, ModelCard]:
    """Return the network and card to train on the classes of a dataset.

    The classifier keeps its weights for classes that the dataset has, too, by name, ignoring case if that is
    unambiguous; other classes get new weights. A model with placeholder names only, as many as the dataset has classes,
    takes the names and keeps all weights. A network without classes stays as it is; so does one with other outputs
    besides, if the dataset has no classes.

    Args:
        network: The network, which is not changed.
        card: Card of the network.
        dataset: Dataset with the new classes.
        fixed: Whether the user chose the number of classes of the network.
        progress: Whether to print which classes are kept.

    Raises:
        ValueError: The number of classes is fixed, and differs from that of the dataset; or the network predicts
            only classes, and the dataset has none.
    """
    ours, theirs = card.label_set, dataset.label_set
    if not ours.names or (not theirs.names and len(network.architecture.outputs) > 1):
        is_new = not (fixed or card.weights_sha256 or card.recipe)
        if ours.names and ours.is_numbered() and is_new:
            raise ValueError(
                f"{dataset.name} has no masks, so the new network cannot learn classes." + _advise_outputs(dataset)
            )
        message = f"{dataset.name} has no masks: it does not train the classes of the network."
        print_note(message, enabled=progress and len(ours) > 0)
        return network, _start_card(network, card, ours)
    _refuse_without_classes(ours, dataset)
    if fixed and len(ours) != len(theirs):
        raise ValueError(
            f"The model was made for num_classes={len(ours)}, but the dataset {dataset.name} has {len(theirs)}. "
            "Leave num_classes out: the dataset determines it."
        )
    if ours.names != theirs.names and not (ours.is_numbered() and len(ours) == len(theirs)):
        rows = _match_names(ours.names, theirs.names)
        network = network.with_classes(rows)
        print_note(_describe_rows(theirs.names, rows), enabled=progress and card.weights_sha256 != "")
    return network, _start_card(network, card, theirs)


def _describe_rows(names: Sequence[str], rows: Sequence[int | None]) -> str:
    """Say which classes a classifier keeps, and which start from nothing."""
    kept = [name for name, row in zip(names, rows, strict=True) if row is not None]
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    if not kept:
        return f"The model and the dataset share no class names: all {len(new)} classes start from random weights."
    text = f"Classes kept from the model: {enumerate_names(kept)}"
    start = "starts" if len(new) == 1 else "start"
    return (
        f"{text}; {enumerate_names(new)} {start} from random weights."
        if new
        else f"{text} (all classes of the dataset)."
    )


def _start_card(network: Network, card: ModelCard, label_set: LabelSet) -> ModelCard:
    """Return the card of a network that is to be trained, without the scores of the weights so far."""
    return ModelCard(
        architecture=network.architecture,
        label_set=label_set,
        licence=card.licence,
        value_range=card.value_range,
        longest_side=card.longest_side,
    )


def _match_names(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """Return for each of their names the index of the same name among ours, if any."""
    folded_ours, folded_theirs = ([name.casefold() for name in names] for names in (ours, theirs))

    def find(name: str) -> int | None:
        if name in ours:
            return ours.index(name)
        folded = name.casefold()
        is_certain = folded_ours.count(folded) == folded_theirs.count(folded) == 1
        return folded_ours.index(folded) if is_certain else None

    return [find(name) for name in theirs]
