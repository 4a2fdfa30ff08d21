"""What a repaired copy changed, file by file and in sum."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinenet.datasets.doctor.listing import Pair, shorten
from refinenet.datasets.doctor.mask_values import PROPOSED
from refinenet.datasets.formats.invalid_labels import InvalidLabels
from refinenet.io.console import print_table, say


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What became of a sample."""

    pair: Pair
    name: str
    """Its stem in the copy; empty where it was left out."""
    image: tuple[str, ...]
    """What was done to the image: nothing where it was copied byte by byte."""
    mask: tuple[str, ...]
    """What was done to the mask's values: nothing where they are what they were."""
    left_out: str
    """Why it was left out, or nothing."""

    @classmethod
    def leave_out(cls, pair: Pair, reason: str) -> Change:
        """A sample that is not in the copy."""
        return cls(pair=pair, name="", image=(), mask=(), left_out=reason)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What became of a dataset."""

    out: Path
    source: str
    root: Path | None
    meaning: str
    """Where it comes from what the masks' values mean."""
    written: Mapping[str, int]
    """Samples by split."""
    samples: tuple[Change, ...]
    files: Mapping[str, str]
    """Files that belonged to no sample and were left out, with the reason."""
    annotations: InvalidLabels = field(default_factory=InvalidLabels)
    """Annotations that could not be used and were left out."""

    @property
    def has_placeholders(self) -> bool:
        """Whether the classes are named by numbers, as nothing says what they are."""
        return self.meaning == PROPOSED

    def to_dict(self) -> dict[str, Any]:
        """All changes as JSON-ready values."""
        return {
            "source": self.source,
            "out": str(self.out),
            "written": dict(self.written),
            "meaning_of_values": self.meaning,
            "names_are_placeholders": self.has_placeholders,
            "sums": dict(self._sums()),
            "samples": [self._describe(change) for change in self.samples],
            "left_out_files": dict(self.files),
            "left_out_annotations": list(self.annotations.described),
        }

    def to_json(self) -> str:
        """`to_dict` without what is only known once the copy is in its place."""
        values = {key: value for key, value in self.to_dict().items() if key != "out"}
        return json.dumps(values, indent=1, ensure_ascii=False)

    def print(self) -> None:
        """Print the sums on standard output."""
        splits = ", ".join(f"{split} {count}" for split, count in sorted(self.written.items()))
        rows = [(what, str(count)) for what, count in self._sums().most_common()]
        if rows:
            print_table(f"{self.source} -> {self.out}", ("What was done", "count"), rows)
        if self.has_placeholders:
            say("Nothing says what the classes are called: they have placeholders for names (class 0 and so on).")
        say(f"Written: {splits}. All changes file by file: {self.out / 'changes.json'}")

    def _sums(self) -> Counter[str]:
        sums: Counter[str] = Counter()
        for change in self.samples:
            sums.update(f"image {what}" for what in change.image)
            sums.update(f"mask: {_without_numbers(what)}" for what in change.mask)
            if change.left_out:
                sums["sample left out"] += 1
        if self.files:
            sums["file without partner left out"] += len(self.files)
        if self.annotations.count:
            sums["annotation left out"] += self.annotations.count
        return sums

    def _describe(self, change: Change) -> dict[str, Any]:
        pair = change.pair
        named = {"image": pair.image, "mask": pair.mask}
        origin = {side: self._shorten(path) for side, path in named.items() if path}
        if change.left_out:
            reason = change.left_out
            for side, path in origin.items():
                reason = reason.replace(named[side], path)
            return {"split": pair.split, "item": pair.item, **origin, "left_out": reason}
        done = {"name": change.name, "image_changes": change.image, "mask_changes": change.mask}
        return {"split": pair.split, "item": pair.item, **origin, **done}

    def _shorten(self, path: str) -> str:
        return path if self.root is None else shorten(path, self.root)


def _without_numbers(text: str) -> str:
    return "pixels set to the class they were near, or to void" if "pixels set" in text else text
