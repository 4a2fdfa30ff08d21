"""The doctor finds what is wrong with a dataset before training does, and writes a repaired copy.

`examine` (or `check`, which keeps the report alone) and `fix` are the doors. From the top: `repair` and `examine` (the
order of events), `set_rules`, `value_rules` and `file_rules` (from facts to findings), `sources`, `scan` (facts of each
file), `listing` (what lies where), and at the bottom `finding`, `snapping`, `safely`, `report`.
"""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.doctor.examination import Examination, check_masks, examine
from refinenet.datasets.doctor.findings import KINDS, Finding
from refinenet.datasets.doctor.repair import check_target, fix
from refinenet.datasets.doctor.report import Change, Changes, Report

__all__ = ["KINDS", "Change", "Changes", "Examination", "Finding", "Report"]
__all__ += ["check", "check_masks", "check_target", "examine", "fix"]


def check(
    source: str | Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Report:
    """What `examine` reports; arguments and errors are the same."""
    return examine(source, root=root, quick=quick, workers=workers, progress=progress).report
