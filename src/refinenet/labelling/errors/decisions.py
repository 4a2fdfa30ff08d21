"""Decisions that a person saved on the page of suspects, as labels to take: the accepted proposals and nothing else."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import numpy as np

from refinenet.datasets.formats import Renames
from refinenet.labelling.drafts import DraftImage, DraftSet
from refinenet.labelling.formats.base import ToolExport
from refinenet.labelling.proposals import read_proposals
from refinenet.labelling.renaming import Renaming
from refinenet.labels import LabelMap, LabelSet

SUFFIX = ".csv"
Decision = Literal["proposal", "label", "neither"]
COLUMNS = ("rank", "split", "image", "number", "label", "prediction", "pixels", "decision")
"""Columns of the table that the page saves."""
_ALLOWED = ("proposal", "label", "neither")


def read_decisions(path: Path, drafts: DraftSet | None) -> ToolExport:
    """Open the decisions about suspects as an export: the labels of the dataset, with the accepted proposals.

    Args:
        path: The table that the page has saved.
        drafts: The folder of the search.

    Raises:
        ValueError: It is no such table, or is about other suspects than those of the folder.
        OSError: It cannot be read.
    """
    if drafts is None or not drafts.origin_is_suspects:
        raise ValueError(
            f"{path} holds decisions about suspects: pass the folder that `refinenet label errors` wrote (--drafts)."
        )
    known = drafts
    images = {image.sample: image for image in known.images}
    decided = _read_rows(path, images)

    def read(item: str, label_set: LabelSet) -> LabelMap:
        rows = decided[item]
        return _accept(path, known, rows[0], rows[1], label_set)

    return ToolExport(
        path=path,
        format="decisions",
        items=tuple(decided),
        label_names=known.options.label_set.names,
        read=read,
        reviewed=frozenset(decided),
    )


_Rows = tuple[DraftImage, dict[int, tuple[int, Decision]]]
"""An image, and by the number of a suspect its number of pixels and what was decided."""


def _read_rows(path: Path, images: Mapping[str, DraftImage]) -> dict[str, _Rows]:
    """Return the decisions by the name of the draft."""
    found: dict[str, dict[int, tuple[int, Decision]]] = defaultdict(dict)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if missing := set(COLUMNS) - set(rows.fieldnames or ()):
                raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
            for row in rows:
                if row["decision"] not in _ALLOWED:
                    raise ValueError(f"a decision must be one of {', '.join(_ALLOWED)}, not {row['decision']!r}")
                value = int(row["pixels"]), cast("Decision", row["decision"])
                found[f"{row['split']}/{row['image']}"][int(row["number"])] = value
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table of decisions saved by suspects.html: {error}.") from error
    if unknown := [name for name in found if name not in images]:
        raise ValueError(_describe_others(path, unknown[0]))
    return {images[name].name: (images[name], rows) for name, rows in found.items()}


def _accept(
    path: Path, drafts: DraftSet, image: DraftImage, rows: Mapping[int, tuple[int, Decision]], label_set: LabelSet
) -> LabelMap:
    proposals = read_proposals(drafts, image, Renaming(label_set, Renames({}, "")))
    assert proposals is not None
    for number, (pixels, _) in rows.items():
        if number == 0 or int(np.count_nonzero(proposals.numbers == number)) != pixels:
            raise ValueError(_describe_others(path, image.name))
    return proposals.accept([number for number, (_, decision) in rows.items() if decision == "proposal"])


def _describe_others(path: Path, image: str) -> str:
    return (
        f"{path} has decisions about other suspects than those of the folder now (in {image}): the search has "
        "been run again. Open its new page, decide there, and save the decisions again. Nothing was changed."
    )
