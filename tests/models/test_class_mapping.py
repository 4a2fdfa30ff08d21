"""Adaptation of a trained classifier to other classes: the weights that it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset
from refinenet.labels import LabelSet
from refinenet.models.class_mapping import check_same_classes, take_classes


def dataset_of(names: list[str]) -> Dataset:
    colours = tuple((number, number, number) for number in range(len(names)))
    return Dataset(
        name="theirs",
        split="train",
        label_set=LabelSet(names=tuple(names), colours=colours),
        items=["0"],
        read_image=lambda _: np.zeros((4, 4, 3), np.uint8),
        read_labels=lambda _: np.zeros((4, 4), np.uint8),
    )


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["Road", "Sky", "martian"], {0: "Road", 1: "Sky"}),
        (["road", "SKY", "martian"], {0: "Road", 1: "Sky"}),
        (["road", "Road"], {1: "Road"}),  # of "road" there is doubt
        (["roads", "martian"], {}),
    ],
)
def test_rows_go_by_name_in_capitals_or_not(
    names: list[str], kept: dict[int, str], camvid_model: RefineNet, capsys: pytest.CaptureFixture[str]
) -> None:
    network, card = take_classes(camvid_model.network, camvid_model.card, dataset_of(names), fixed=False, progress=True)
    assert card.label_set.names == tuple(names)
    ours = camvid_model.label_set.names
    for row in range(len(names)):
        equals = [
            name
            for name, weights in zip(ours, camvid_model.network.classifier.weight, strict=True)
            if torch.equal(weights, network.classifier.weight[row])
        ]
        assert equals == ([kept[row]] if row in kept else [])
    told = capsys.readouterr().err
    assert ("Classes kept from the model: " in told) == bool(kept)
    if kept:
        new = [name for row, name in enumerate(names) if row not in kept]
        start = f"; {', '.join(new)} start{'s' if len(new) == 1 else ''} from random weights."
        assert f"Classes kept from the model: {', '.join(names[row] for row in kept)}{start}" in told


def test_a_dataset_of_other_names_is_told_how_to_take_those_of_the_model() -> None:
    ours = dataset_of(["background", "Pedestrian"]).label_set
    with pytest.raises(ValueError, match=r"it has 'Pedestrian' where the dataset has 'person'.* meaningless") as caught:
        check_same_classes(ours, dataset_of(["background", "person"]))
    assert str(caught.value).endswith(
        "in 'names', or for labels of an annotation tool with rename: {person: Pedestrian}"
    )
    check_same_classes(ours, dataset_of(["background", "Pedestrian"]))
