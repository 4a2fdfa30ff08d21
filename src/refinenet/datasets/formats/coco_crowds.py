"""What the mark `iscrowd` stands for in a COCO json file.

In COCO itself it marks a group whose members nobody outlined one by one: an area to leave out of training. Annotation
tools set it on every object that is stored as run lengths instead of a polygon, because COCO's own files have run
lengths for crowds only: CVAT on all that was painted with the brush. Such objects are labels like the others.
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
"""What becomes of crowds: labels of their category, void, or whichever of the two the file shows to be meant."""

KEY = "crowds"
"""What a classes.yaml calls it."""

_OWN_INFO = re.compile(r"cocodataset\.org|mscoco\.org|coco consortium|\bcoco 20\d\d\b", re.IGNORECASE)
_OWN_URL = re.compile(r"//(images\.)?(cocodataset|mscoco)\.org/", re.IGNORECASE)
_MOST_OWN = 0.1
"""In COCO itself 1.2 % of the objects are crowds."""
_FEWEST_CATEGORIES = 5


@dataclass(kw_only=True)
class CrowdMarks:
    """What a file shows, gathered while it is read."""

    objects: int = 0
    crowds: int = 0
    images: set[int] = field(default_factory=set)
    """Places of the images that have crowds."""
    pixels: int = 0
    """Of crowds that are run lengths."""
    plain_runs: int = 0
    """Objects that are run lengths and no crowds."""
    outlined: int = 0
    """Crowds that are polygons."""
    own_ids: int = 0
    """Crowds whose ids are as COCO makes them."""
    has_own_info: bool = False
    has_own_images: bool = False
    has_occluded: bool = False
    """Whether an object has CVAT's attribute of that name."""

    def note_info(self, info: Any) -> None:
        """Look at the value of `info`."""
        texts = [info.get(key) for key in ("description", "url", "contributor")] if isinstance(info, dict) else []
        self.has_own_info |= any(isinstance(text, str) and _OWN_INFO.search(text) is not None for text in texts)

    def note_image(self, entry: Mapping[str, Any]) -> None:
        """Look at an image."""
        if not self.has_own_images:
            url = entry.get("coco_url")
            self.has_own_images = isinstance(url, str) and _OWN_URL.search(url) is not None

    def note_object(self, entry: Mapping[str, Any], image: int, *, is_crowd: bool, pixels: int | None) -> None:
        """Look at an object of the image at the place `image`; `pixels` are its run lengths', None of a polygon."""
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
        self.own_ids += identifier.startswith("900") and len(identifier) >= 12 and identifier.endswith(image_id)


@dataclass(frozen=True, kw_only=True)
class CrowdReport:
    """What was decided on the crowds of a file that has some."""

    path: Path
    objects: int
    """All objects, crowds among them."""
    crowds: int
    images: int
    """Images with crowds."""
    pixels: int
    """Of the crowds that are run lengths, overlaps counted twice."""
    are_void: bool
    reason: str

    @property
    def text(self) -> str:
        """It in one sentence or two, with how to decide otherwise."""
        marked = f"{self.path.name}: {self.crowds:,} of {self.objects:,} objects, in {self.images:,} images, are marked"
        if self.are_void:
            pixels = f" ({self.pixels:,} pixels)" if self.pixels else ""
            return f"{marked} iscrowd and become void{pixels}: {self.reason}. {_say_how('labels')}"
        return f"{marked} iscrowd and are labels of their category like the others: {self.reason}. {_say_how('void')}"


def _say_how(other: str) -> str:
    wanted = "make them labels" if other == "labels" else "leave them out (void)"
    return f"To {wanted}, write `{KEY}: {other}` into classes.yaml."


def decide_crowds(path: Path, marks: CrowdMarks, categories: Mapping[int, str], wanted: Crowds) -> CrowdReport | None:
    """What a file's crowds stand for, or None where it has none.

    Args:
        path: The file.
        marks: What was seen of it.
        categories: Its categories' names by id.
        wanted: What the user says.
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
    """Whether crowds are void, and why."""
    if marks.has_occluded:
        return False, "the attribute 'occluded' shows an export of CVAT, which marks painted objects so"
    if marks.crowds == marks.objects > 1:
        return False, "all objects are marked, as tools do that store run lengths"
    if marks.has_own_info or marks.has_own_images:
        return True, "the file names COCO as its source, whose crowds are groups that nobody outlined"
    if marks.own_ids == marks.crowds:
        return True, "their ids are those of COCO's crowds, which are groups that nobody outlined"
    is_alike = not marks.plain_runs and not marks.outlined and marks.crowds <= _MOST_OWN * marks.objects
    if is_alike and _are_own(categories.items()):
        return True, "categories, shapes and share are those of COCO's crowds, which are groups that nobody outlined"
    return False, "nothing shows COCO's own groups, and tools mark painted objects so"


def _are_own(categories: Collection[tuple[int, str]]) -> bool:
    return len(categories) >= _FEWEST_CATEGORIES and set(categories) <= _own_categories()


@lru_cache(maxsize=1)
def _own_categories() -> frozenset[tuple[int, str]]:
    facts = read_info("coco_stuff")
    return frozenset((int(value) + 1, facts.label_set.names[k]) for value, k in facts.more["class_of_value"].items())
