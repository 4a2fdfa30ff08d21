"""The doctor finds what is wrong with a dataset before training does, and writes a repaired copy.

`check` and `fix` are the doors. From the top: `repair` and `examine` (the order of events), `set_rules`, `value_rules`
and `file_rules` (from facts to findings), `sources`, `scan` (facts of each file), `listing` (what lies where), and at
the bottom `finding`, `snapping`, `safely`, `report`.
"""

from __future__ import annotations

from pathlib import Path

from refinenet.doctor.changes import Change, Changes
from refinenet.doctor.examine import examine
from refinenet.doctor.finding import KINDS, Finding
from refinenet.doctor.repair import fix
from refinenet.doctor.report import Report

__all__ = ["KINDS", "Change", "Changes", "Finding", "Report", "check", "fix"]


def check(
    source: str | Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Report:
    """Find what is wrong with a dataset. Nothing is changed.

    Args:
        source: A folder or YAML file of one's own, or a dataset known by name.
        root: Where a dataset known by name lies.
        quick: List everything, but read only `examine.QUICK_SAMPLES` samples of each split, and compare no pictures:
            seconds instead of minutes.
        workers: Processes that read files; by default one for each core, and 0 reads in this process.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        ValueError: an unknown name, or a root where none is used.
        FileNotFoundError: there is no such folder, or it is laid out in no way that is understood.
        OSError: a folder cannot be read.
    """
    return examine(source, root=root, quick=quick, workers=workers, progress=progress).report
