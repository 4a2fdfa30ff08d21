"""Interpretation of the flag `iscrowd` in a COCO JSON file.

In COCO itself it marks a group whose members were not outlined individually: an area to leave out of training.
Annotation tools set it on every object stored as run lengths, since COCO's own files have run lengths for crowds only:
CVAT, for example, on everything painted with the brush. Such objects are labels like all others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from refinenet.datasets.metadata import read_info

Crowds = Literal["auto", "labels", "void"]
"""How to read crowds: as labels of their category, as void, or decided by the contents of the file."""

KEY = "crowds"
"""The key in a classes.yaml."""

_OWN_INFO = re.compile(r"cocodataset\.org|mscoco\.org|coco consortium|\bcoco 20\d\d\b", re.IGNORECASE)
_OWN_URL = re.compile(r"//(images\.)?(cocodataset|mscoco)\.org/", re.IGNORECASE)
_MOST_OWN = 0.1
"""Largest share of crowds that COCO's own files may have; in COCO itself 1.2 % of the objects are crowds."""
_FEWEST_CATEGORIES = 5


@dataclass(kw_only=True)
class CrowdMarks:
    """Evidence gathered while a file is read."""

    objects: int = 0
    crowds: int = 0
    images: set[int] = field(default_factory=set)
    """Positions of the images that have crowds."""
    pixels: int = 0
    """Pixels of crowds stored as run lengths."""
    plain_runs: int = 0
    """Objects stored as run lengths that are not crowds."""
    outlined: int = 0
    """Crowds stored as polygons."""
    own_ids: int = 0
    """Crowds whose ids follow COCO's pattern."""
    has_own_info: bool = False
    has_own_images: bool = False
    has_occluded: bool = False
    """Whether an object has CVAT's attribute `occluded`."""

    def note_info(self, info: Any) -> None:
        """Take the value of `info` into account."""
        texts = [info.get(key) for key in ("description", "url", "contributor")] if isinstance(info, dict) else []
        self.has_own_info |= any(isinstance(text, str) and _OWN_INFO.search(text) is not None for text in texts)

    def note_image(self, entry: Mapping[str, Any]) -> None:
        """Take an image into account."""
        if not self.has_own_images:
            url = entry.get("coco_url")
            self.has_own_images = isinstance(url, str) and _OWN_URL.search(url) is not None

    def note_object(self, entry: Mapping[str, Any], image: int, *, is_crowd: bool, pixels: int | None) -> None:
        """Take an object of the image at position `image` into account; `pixels` is None for polygons."""
        self.objects += 1
        if not self.has_occluded:
            attributes = entry.get("attributes")
            self.has_occluded = isinstance(attributes, dict) and "occluded" in attributes
        if not is_crowd:
            self.plain_runs += pixels is not None
            return
        self.crowds += 1
        self.images.add(image)
        self.pixels += pixels or 0
        self.outlined += pixels is None
        identifier, image_id = str(entry.get("id")), str(entry.get("image_id"))
        # COCO's ids of crowds start with 900 and end with the image id, such as 900100448263.
        self.own_ids += identifier.startswith("900") and len(identifier) >= 12 and identifier.endswith(image_id)


@dataclass(frozen=True, kw_only=True)
class CrowdReport:
    """The decision on the crowds of a file."""

    path: Path
    objects: int
    """All objects, including crowds."""
    crowds: int
    images: int
    """Images with crowds."""
    pixels: int
    """Pixels of crowds stored as run lengths, overlaps counted twice."""
    are_void: bool
    reason: str

    @property
    def text(self) -> str:
        """The decision in one or two sentences, and how to override it."""
        marked = f"{self.path.name}: {self.crowds:,} of {self.objects:,} objects, in {self.images:,} images, are marked"
        if self.are_void:
            pixels = f" ({self.pixels:,} pixels)" if self.pixels else ""
            return f"{marked} iscrowd and become void{pixels}: {self.reason}. {_advise('labels')}"
        return f"{marked} iscrowd and are treated as normal objects: {self.reason}. {_advise('void')}"


def _advise(other: str) -> str:
    wanted = "make them labels" if other == "labels" else "leave them out (void)"
    return f"To {wanted}, write `{KEY}: {other}` into classes.yaml."


def decide_crowds(path: Path, marks: CrowdMarks, categories: Mapping[int, str], wanted: Crowds) -> CrowdReport | None:
    """Decide the meaning of a file's crowds; None if it has none.

    Args:
        path: The file.
        marks: The evidence gathered from the file.
        categories: Category names by id.
        wanted: The user's choice.
    """
    if not marks.crowds:
        return None
    are_void, reason = (wanted == "void", "classes.yaml says so") if wanted != "auto" else _judge(marks, categories)
    return CrowdReport(
        path=path,
        objects=marks.objects,
        crowds=marks.crowds,
        images=len(marks.images),
        pixels=marks.pixels,
        are_void=are_void,
        reason=reason,
    )


def _judge(marks: CrowdMarks, categories: Mapping[int, str]) -> tuple[bool, str]:
    """Return whether crowds are void, and the reason."""
    if marks.has_occluded:
        return False, "the attribute 'occluded' indicates an export from CVAT, which marks painted objects this way"
    if marks.crowds == marks.objects > 1:
        return False, "all objects are marked, as in exports of tools that store run lengths"
    if marks.has_own_info or marks.has_own_images:
        return True, "the file names COCO as its source, whose crowds are groups without individual outlines"
    if marks.own_ids == marks.crowds:
        return True, "their ids are those of COCO's crowds, which are groups without individual outlines"
    is_alike = not marks.plain_runs and not marks.outlined and marks.crowds <= _MOST_OWN * marks.objects
    if is_alike and _are_own(categories.items()):
        return True, (
            "categories, shapes and share are those of COCO's crowds, which are groups without individual outlines"
        )
    return False, "nothing indicates COCO's own crowds, and annotation tools mark painted objects this way"


def _are_own(categories: Collection[tuple[int, str]]) -> bool:
    return len(categories) >= _FEWEST_CATEGORIES and set(categories) <= _own_categories()


@lru_cache(maxsize=1)
def _own_categories() -> frozenset[tuple[int, str]]:
    info = read_info("coco_stuff")
    return frozenset((int(value) + 1, info.label_set.names[k]) for value, k in info.more["class_of_value"].items())
