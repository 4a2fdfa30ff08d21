"""What labels of annotation tools stand for: a class, the background, or nothing (void)."""

from __future__ import annotations

from refinenet.labels import LabelSet

_BACKGROUND = ("background", "_background_")
_VOID = ("ignore", "ignored", "__ignore__", "void")


def is_background(label: str) -> bool:
    """Whether a label, in any capitals, means what no object covers."""
    return label.lower() in _BACKGROUND


def is_void(label: str) -> bool:
    """Whether a label, in any capitals, means pixels that have no class."""
    return label.lower() in _VOID


def find_background(label_set: LabelSet) -> int:
    """The id of pixels that no object covers: the background's, or void where it is none of the classes."""
    found = (k for k, name in enumerate(label_set.names) if is_background(name))
    return next(found, label_set.ignore_index)


def find_id(label: str, label_set: LabelSet) -> int | None:
    """The id of the class that a label names, void for labels that mean it, or None where a label is none of these."""
    if label in label_set.names:
        return label_set.names.index(label)
    background = find_background(label_set)
    if is_background(label) and background != label_set.ignore_index:
        return background
    return label_set.ignore_index if is_void(label) else None
