"""Labels with a model's help: it proposes, a person corrects in a tool, and the corrected labels join the dataset.

Begin with `drafts.write_labels`, which writes what a model predicts in the formats of annotation tools (`formats/`),
and `taking.take_labels`, which reads a tool's export and puts what a person changed into a dataset.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.labelling.drafts import describe_drafts, write_labels
    from refinenet.labelling.taking import Taken, take_labels
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = ["Taken", "describe_drafts", "take_labels", "write_labels"]
