"""The dataset doctor: finds problems in a dataset before training does, and writes repaired copies.

Begin with `examination.examine`, which shows the order of events: `source` and `listing` pair files, `scan` reads each
file once, the rules turn the results into `findings`, and `report` prints them. `repair.fix` writes the copy.

The rules: `file_rules` for each image or mask file, `pair_rules` for an image with its mask (sizes, swapped folders),
`mask_rules` for the values of all masks, `split_rules` for classes and duplicates across splits, `targets` for depth,
normals and other quantities, `band_rules` for images of named bands.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.datasets.doctor.band_rules import check_bands
    from refinenet.datasets.doctor.examination import Examination, check, check_masks, examine, refuse_unmatched
    from refinenet.datasets.doctor.findings import KINDS, Finding
    from refinenet.datasets.doctor.mask_values import write_classes
    from refinenet.datasets.doctor.repair import check_target, fix
    from refinenet.datasets.doctor.report import Change, Changes, Report
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "KINDS",
    "Change",
    "Changes",
    "Examination",
    "Finding",
    "Report",
    "check",
    "check_bands",
    "check_masks",
    "check_target",
    "examine",
    "fix",
    "refuse_unmatched",
    "write_classes",
]
