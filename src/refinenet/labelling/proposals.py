"""Proposals of `label errors` in an image: the regions that a person has touched, and the labels with some of them.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from refinenet.io.images.mask_files import read_mask
from refinenet.labelling.drafts import DraftImage, DraftSet
from refinenet.labelling.formats.base import translate
from refinenet.labelling.renaming import Renaming
from refinenet.labels import LabelMap


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposals:
    """The proposals in an image; all arrays are `(H, W)`."""

    labels: LabelMap
    """Ids of the dataset when the errors were searched."""
    proposed: LabelMap
    """The same, with the models' classes in the suspect regions."""
    numbers: npt.NDArray[np.integer]
    """Number of the proposal that a pixel belongs to; 0 for none."""

    @cached_property
    def all(self) -> frozenset[int]:
        """Numbers of all proposals."""
        return frozenset(np.unique(self.numbers).tolist()) - {0}

    def find_touched(self, returned: LabelMap) -> frozenset[int]:
        """Return the numbers of the proposals that a person changed or extended.

        Args:
            returned: `(H, W)` ids that a tool exported.
        """
        is_changed = returned != self.proposed
        touched = set(np.unique(self.numbers[is_changed]).tolist())
        # A proposal is extended where a neighbouring pixel was changed to its class.
        for here, there in (*_shifted(axis=0), *_shifted(axis=1)):
            extends = is_changed[here] & (returned[here] == self.proposed[there]) & (self.numbers[there] > 0)
            touched |= set(np.unique(self.numbers[there][extends]).tolist())
        return frozenset(touched) - {0}

    def withdraw(self, returned: LabelMap, withdrawn: Collection[int]) -> LabelMap:
        """Return what a tool exported with the labels of the dataset in some proposals."""
        where = np.isin(self.numbers, list(withdrawn))
        return np.where(where, self.labels, returned)

    def accept(self, accepted: Collection[int]) -> LabelMap:
        """Return the labels of the dataset with some proposals."""
        return self.withdraw(self.proposed, self.all - set(accepted))


def _shifted(*, axis: int) -> tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]:
    """Return pairs of slices: of pixels, and of their neighbours before and after them along an axis."""
    first, second = [slice(None), slice(None)], [slice(None), slice(None)]
    first[axis], second[axis] = slice(None, -1), slice(1, None)
    return (tuple(first), tuple(second)), (tuple(second), tuple(first))


def read_proposals(drafts: DraftSet, image: DraftImage, renaming: Renaming) -> Proposals | None:
    """Read the proposals in an image; None for drafts of `write_labels`.

    Args:
        drafts: The drafts of `find_label_errors`.
        image: One of them.
        renaming: Classes of the result, and new names of those of the drafts.

    Raises:
        ValueError: A file is damaged, a class is not in the dataset, or the drafts do not say what they propose.
        OSError: A file cannot be read.
    """
    if image.proposal is None or image.regions is None:
        if drafts.origin_is_suspects:
            raise ValueError(
                f"{drafts.folder} was written by an earlier version, without a record of its proposals. Run `refinenet "
                "label errors` with the same options again, which takes only moments, and correct the new files."
            )
        return None
    origin = drafts.options.label_set
    labels, proposed = (
        renaming.apply(translate(origin.cast(read_mask(path)), origin, renaming.wide, image.name))
        for path in (image.ids, image.proposal)
    )
    numbers = np.where(labels == proposed, 0, read_mask(image.regions))
    return Proposals(labels=labels, proposed=proposed, numbers=numbers)
