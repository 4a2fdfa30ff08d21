"""The table of the kinds of results: it agrees with the annotations, and with the pictures that it describes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from refinenet.inference.output_kinds import OUTPUT_KINDS, OUTPUTS, Output
from refinenet.inference.segmentation import Logits, Segmentation
from refinenet.labels import LabelSet, voc_colours


def test_the_annotations_name_the_rows() -> None:
    assert tuple(kind for kind, row in OUTPUT_KINDS.items() if row.is_picture) == OUTPUTS


def test_files_for_other_programs_differ_in_their_suffix() -> None:
    suffixes = [row.suffix for row in OUTPUT_KINDS.values() if not row.is_picture and not row.shows_values]
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("classes", [3, 300])
@pytest.mark.parametrize("output", OUTPUTS)
def test_pictures_are_as_described(output: Output, classes: int) -> None:
    label_set = LabelSet(names=tuple(map(str, range(classes))), colours=voc_colours(classes))
    labels: Any = np.zeros((4, 6), label_set.dtype)
    segmentation = Segmentation(
        image=np.zeros((4, 6, 3), np.uint8),
        labels=labels,
        label_set=label_set,
        scores=Logits(values=torch.zeros(classes, 4, 6), size=(4, 6), temperature=1.0),
    )
    row = OUTPUT_KINDS[output]
    if row.has_palette and classes > 255:
        with pytest.raises(ValueError, match="at most 255 classes"):
            segmentation.render(output)
        return
    picture = segmentation.render(output)
    assert picture.shape == row.shape(4, 6)
    assert picture.dtype == row.dtype(label_set)
    assert row.no_data(label_set) == (label_set.ignore_index if row.holds_ids else None)
