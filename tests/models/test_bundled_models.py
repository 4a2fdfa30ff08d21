"""Models that ship inside the package: what each may be used for, and that it sees what it was trained for."""

from __future__ import annotations

from typing import Any

import pytest

from refinenet import RefineNet
from refinenet.datasets import draw_street
from refinenet.models import BUNDLED
from refinenet.models.files.licences import find_restrictions
from refinenet.models.files.model_card import read_card

SEEDS = range(8_000_000, 8_000_004)
"""Of streets that no training has drawn."""


@pytest.mark.parametrize("name", BUNDLED)
def test_only_what_was_trained_on_drawn_scenes_may_be_used_commercially(name: str) -> None:
    card = read_card(name)
    assert card is not None
    is_free = name == "streets"
    assert find_restrictions(card.licence) == (frozenset() if is_free else {"non-commercial use only"})
    assert ("camvid" in str(card.recipe["dataset"])) != is_free


def test_drawn_streets_are_recognised() -> None:
    model = RefineNet(model="streets", device="cpu")
    right = whole = 0
    for seed in SEEDS:
        image, labels = draw_street(seed, 240, 320)
        known = labels != model.label_set.ignore_index
        right += int((model.segment(image).labels == labels)[known].sum())
        whole += int(known.sum())
    assert right / whole > 0.85


def test_its_licence_is_shown(call_refinenet: Any) -> None:
    shown = call_refinenet("info", "streets")
    assert shown.returncode == 0
    assert "BSD-3-Clause" in shown.stdout
