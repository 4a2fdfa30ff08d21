"""New names for the labels of an export: they are read under their old names and then become the dataset's classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats import Renames, find_id, is_background, is_void
from refinenet.labelling.formats.base import find_class
from refinenet.labels import LabelMap, LabelSet, voc_colours
from refinenet.settings import hint_at


@dataclass(frozen=True)
class Renaming:
    """New names of an export's labels in a dataset.

    Raises:
        ValueError: A new name is neither a class of the dataset, nor means background or void.
    """

    label_set: LabelSet
    """The classes of the dataset."""
    renames: Renames

    def __post_init__(self) -> None:
        names = self.label_set.names
        for old, new in self.renames.names.items():
            if find_id(new, self.label_set) is None and not is_background(new):
                raise ValueError(
                    f"{self.renames.origin}: {old!r} cannot become {new!r}, which is not one of {', '.join(names)}."
                    f"{hint_at([new], names)} Pass a class of the dataset, or void for pixels without a class."
                )

    @cached_property
    def wide(self) -> LabelSet:
        """The classes, and the old names of labels as further ones: to read an export in."""
        old = [name for name in self.renames.names if name not in self.label_set.names]
        if not old:
            return self.label_set
        names = (*self.label_set.names, *old)
        return LabelSet(names=names, colours=voc_colours(len(names)))

    @cached_property
    def _table(self) -> npt.NDArray[np.uint16]:
        table = np.arange(self.wide.ignore_index + 1, dtype=np.uint16)
        table[self.wide.ignore_index] = self.label_set.ignore_index
        for old, new in self.renames.names.items():
            table[self.wide.names.index(old)] = find_class(new, self.label_set, self.renames.origin)
        return table

    def apply(self, labels: LabelMap) -> LabelMap:
        """Return a label map `(H, W)` in the classes of the dataset.

        Args:
            labels: `(H, W)` ids in `wide`.
        """
        return self.label_set.cast(self._table[labels]) if self.renames else labels


def rename_classes(label_set: LabelSet, renames: Renames) -> LabelSet:
    """Return a label set with new names, each once, in the colours of the first class of that name."""
    colours: dict[str, tuple[int, int, int]] = {}
    for name, colour in zip(label_set.names, label_set.colours, strict=True):
        colours.setdefault(renames.apply(name), colour)
    # A new name "void" drops a class; a class that had this name before stays one.
    kept = {name: colour for name, colour in colours.items() if not is_void(name) or name in label_set.names}
    return LabelSet(names=tuple(kept), colours=tuple(kept.values()))
