"""Labels with a model's help: it proposes, a person corrects in a tool, and the corrected labels join the dataset.

Begin with `drafts.write_drafts`, which writes what a model predicts in the formats of annotation tools, and
`taking.take_labels`, which reads a tool's export and puts what changed into a copy of a dataset.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.labelling.label_errors import find_label_errors
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = ["find_label_errors"]
