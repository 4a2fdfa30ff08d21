"""New names for the labels that an annotation tool wrote: renamed, merged and dropped classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

from refinenet.datasets.formats.lookup import is_background, is_void
from refinenet.settings import hint_at


@dataclass(frozen=True)
class Renames:
    """New names of labels. Labels of one new name become one class; the new name "void" leaves pixels without a class.

    Raises:
        ValueError: A label means background or void: these also stand for pixels that nobody labelled.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    """The new name of each label; others keep theirs."""
    origin: str = "rename"
    """Where they are given, for messages."""

    def __post_init__(self) -> None:
        for old in self.names:
            if is_background(old) or is_void(old):
                raise ValueError(
                    f"{self.origin}: {old!r} cannot be renamed, because it also stands for unlabelled pixels. "
                    "Rename the classes themselves."
                )

    def __bool__(self) -> bool:
        return bool(self.names)

    def apply(self, label: str) -> str:
        """Return the new name of a label, or the label itself."""
        return self.names.get(label, label)

    def check(self, labels: Iterable[str]) -> None:
        """Check that all labels that get a new name exist.

        Args:
            labels: All labels.

        Raises:
            ValueError: One does not exist.
        """
        known = sorted(set(labels))
        unknown = [old for old in self.names if old not in known]
        if unknown:
            raise ValueError(
                f"{self.origin}: there is no label {', '.join(map(repr, unknown))} to rename."
                f"{hint_at(unknown, known)} The labels are {', '.join(known)}."
            )


def parse_renames(names: Any, path: Path) -> Renames:
    """Parse the value of the key `rename` of a YAML file.

    Raises:
        ValueError: It does not map labels to names.
    """
    is_sound = isinstance(names, Mapping) and all(type(old) in (str, int) for old in names)
    if not is_sound or not all(type(new) in (str, int) and str(new).strip() for new in names.values()):
        example = "{person: pedestrian}"
        raise ValueError(f"{path}: 'rename' must map labels to new names, such as {example}, not {shorten(names)}.")
    return Renames({str(old): str(new) for old, new in names.items()}, f"{path}, 'rename'")
