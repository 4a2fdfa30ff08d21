"""Whether a model's classes are a dataset's, and how to make them so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from refinenet.io.console import print_note
from refinenet.labels import LabelSet
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network


class Labelled(Protocol):
    """A dataset, as far as its classes are concerned."""

    @property
    def name(self) -> str:
        """The name that messages give it."""

    @property
    def label_set(self) -> LabelSet:
        """Its classes."""


def check_same_classes(ours: LabelSet, dataset: Labelled) -> None:
    """Refuse to measure a model on other classes than its own; placeholder names fit any.

    Raises:
        ValueError: number or names of the classes differ.
    """
    theirs = dataset.label_set
    if len(ours) != len(theirs):
        raise ValueError(
            f"The model tells {len(ours)} classes apart, the dataset {dataset.name} has {len(theirs)}: "
            "take another model or dataset, or train this model on it first."
        )
    different = [(a, b) for a, b in zip(ours.names, theirs.names, strict=True) if a != b]
    if different and not ours.is_numbered() and not theirs.is_numbered():
        raise ValueError(
            f"The model's classes are not those of {dataset.name}: {different[0][0]!r} stands where the dataset "
            f"has {different[0][1]!r}. Scores would mean nothing."
        )


def take_classes(
    network: Network, card: ModelCard, dataset: Labelled, *, fixed: bool, progress: bool
) -> tuple[Network, ModelCard]:
    """The network and card to train on a dataset's classes.

    A classifier's rows are kept for the classes that the dataset has too, by name, in capitals or not where that leaves
    no doubt, and are new for the others. A model
    whose classes have placeholder names only, as many as the dataset has, takes the names and keeps all rows.

    Args:
        network: What is there; it is not changed.
        card: What is said of it.
        dataset: Whose classes to take.
        fixed: Whether the user asked for the number of classes that the network has.
        progress: Whether to say which classes are kept and which are new.

    Raises:
        ValueError: the number of classes is fixed, and another one than the dataset's.
    """
    ours, theirs = card.label_set, dataset.label_set
    if fixed and len(ours) != len(theirs):
        raise ValueError(
            f"The model was made for num_classes={len(ours)}, the dataset {dataset.name} has {len(theirs)}. "
            "Leave num_classes out, and the dataset says it."
        )
    if ours.names != theirs.names and not (ours.is_numbered() and len(ours) == len(theirs)):
        rows = _match_names(ours.names, theirs.names)
        kept = [name for name, row in zip(theirs.names, rows, strict=True) if row is not None]
        network = network.with_classes(rows)
        told = f"keeps {', '.join(kept)}" if kept else "is new, as no class has the same name"
        message = f"The classifier for the {len(theirs)} classes of {dataset.name} {told}."
        print_note(message, enabled=progress and card.weights_sha256 != "")
    return network, ModelCard(
        architecture=network.architecture, label_set=theirs, licence=card.licence, value_range=card.value_range
    )


def _match_names(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """For each of their names the place of the same one among ours, if any."""
    folded_ours, folded_theirs = ([name.casefold() for name in names] for names in (ours, theirs))

    def find(name: str) -> int | None:
        if name in ours:
            return ours.index(name)
        folded = name.casefold()
        is_certain = folded_ours.count(folded) == folded_theirs.count(folded) == 1
        return folded_ours.index(folded) if is_certain else None

    return [find(name) for name in theirs]
