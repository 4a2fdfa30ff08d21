"""Model-assisted labelling: a model proposes labels, a person corrects them, and they are added to the dataset.

Begin with `ranking.run.rank_images`, which chooses the images to label next; `drafts.write_labels`, which writes what a
model predicts in the formats of annotation tools (`formats/`); `corrector.run.correct_labels`, in which a person
corrects drafts in the browser; `taking.take_labels`, which reads a tool's export and adds what a person changed to a
dataset; and `errors.run.find_label_errors`, which finds labels that are likely wrong.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.labelling.corrector.run import correct_labels
    from refinenet.labelling.drafts import describe_drafts, write_labels
    from refinenet.labelling.errors.fold_settings import check_fold_settings
    from refinenet.labelling.errors.run import Folds, find_label_errors
    from refinenet.labelling.ranking.run import rank_images
    from refinenet.labelling.taking import Taken, take_labels
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "Folds",
    "Taken",
    "check_fold_settings",
    "correct_labels",
    "describe_drafts",
    "find_label_errors",
    "rank_images",
    "take_labels",
    "write_labels",
]
