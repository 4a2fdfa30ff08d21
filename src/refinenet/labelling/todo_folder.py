"""Folders of drafts that a person corrects: where their record and the accepted masks are.

Accepted masks belong to the drafts beside which they lie. New drafts in their place could be compared with corrections
of older ones, so commands that write drafts refuse folders with accepted masks.
"""

from __future__ import annotations

from pathlib import Path

from refinenet.labelling.formats.id_masks import MASKS

RECORD_FILE = "drafts.json"
"""Record of what was written."""
CORRECTED = "corrected"
"""Folder of the accepted masks, beside the record."""


def find_drafts(todo: Path) -> Path | None:
    """Return the folder with the record of drafts: the one given, or `drafts/` in it; None if there is none."""
    return next((folder for folder in (todo, todo / "drafts") if (folder / RECORD_FILE).is_file()), None)


def find_corrected(todo: Path) -> Path | None:
    """Return the folder of masks that were accepted in the output folder of a command; None if there is none."""
    drafts = find_drafts(todo)
    found = None if drafts is None else drafts / CORRECTED
    return found if found is not None and any((found / MASKS).rglob("*.png")) else None


def refuse_corrected(todo: Path) -> None:
    """Reject an output folder that holds accepted masks of earlier drafts.

    Raises:
        ValueError: It does.
    """
    found = find_corrected(todo)
    if found is not None:
        count = sum(1 for _ in (found / MASKS).rglob("*.png"))
        raise ValueError(
            f"{found} holds {count} {'mask' if count == 1 else 'masks'} accepted for the drafts that are there. Choose "
            f"another output folder, or bring them into the dataset first (refinenet label take {todo} --into DATASET) "
            "and then remove that folder."
        )
