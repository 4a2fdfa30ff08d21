"""The report of the doctor and the changes of a repaired copy, as text and as JSON."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from refinenet.datasets.doctor.findings import KINDS, Finding
from refinenet.datasets.doctor.listing import Pair, shorten
from refinenet.datasets.doctor.mask_values import PROPOSED
from refinenet.datasets.folder.classes_file import KEYS
from refinenet.datasets.formats.invalid_labels import InvalidLabels
from refinenet.io.console import print_note, print_table, say, write_command

_WIDTH = 76
"""Width of wrapped text in characters, without its indentation of four."""
_KEY = re.compile(rf"({'|'.join(KEYS)}): ")


_CHECK = ("refinenet", "data", "check")
_SHOWN_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings about a dataset."""

    source: str
    root: Path | None
    """The folder of a named dataset, if it was given."""
    layout: str
    """The layout of its files, in words."""
    others: tuple[str, ...] = ()
    """What else was read of a folder, or is read only in training, in words."""
    images: Mapping[str, int]
    """Number of images by split."""
    classes: tuple[str, ...] = ()
    """Names of the classes; none if they are unknown, or there are none."""
    remark: str = ""
    """What pixels outside all shapes are, in words; empty if labels are no shapes."""
    remark_advice: str = ""
    """How to change that; empty if a file says what they are."""
    checked: int
    """Number of samples whose files were read."""
    is_fixable: bool
    """Whether a repaired copy can be written and would be an improvement."""
    is_quick: bool = False
    """Whether only a sample was read, and image files were compared byte by byte."""
    findings: tuple[Finding, ...]
    """Findings that stop training first, then in the order of `KINDS`."""

    def print_warnings(self, *, enabled: bool) -> None:
        """Print the findings as warnings, of a dataset that is used nevertheless.

        What pixels outside all shapes are is told in a line, and only if no file says it: every training comes here.
        """
        for finding in self.findings:
            print_note(f"Warning: {finding.text()}", enabled=enabled)
        command = write_command([*_CHECK, self.source])
        change = f"{self.remark} `{command}` shows how to change that."
        print_note(change, enabled=enabled and bool(self.remark_advice))

    def with_errors(self, kinds: Collection[str]) -> Report:
        """Return the report with findings of these kinds as errors, for a use that they do not allow."""
        raised = [replace(finding, stops=finding.stops or finding.kind in kinds) for finding in self.findings]
        return replace(self, findings=sort_findings(raised))

    @property
    def _whole_remark(self) -> str:
        return f"{self.remark} {self.remark_advice}".rstrip()

    @property
    def fix_command(self) -> str:
        """The command that writes a repaired copy; OUT stands for a new folder."""
        root = [] if self.root is None else ["--root", str(self.root)]
        return write_command([*_CHECK, self.source, *root, "--fix", "OUT"])

    @property
    def stops_training(self) -> bool:
        """Whether training should not begin."""
        return any(finding.stops for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "source": self.source,
            "layout": self.layout,
            "others": list(self.others),
            "images": dict(self.images),
            "classes": list(self.classes),
            "remark": self._whole_remark,
            "checked": self.checked,
            "stops_training": self.stops_training,
            "fix_command": self.fix_command if self.is_fixable else None,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def text(self, use: str = "trained on") -> str:
        """Describe what stops training, or another `use`; empty if nothing does."""
        stopping = [finding for finding in self.findings if finding.stops]
        if not stopping:
            return ""
        parts = "\n\n".join(_describe(finding) for finding in stopping)
        how_to_fix = f"\n\n{self._how_to_fix()}" if self.is_fixable else ""
        return f"{self.source} cannot be {use} as it is.\n\n{parts}{how_to_fix}"

    def print(self, *, offer_fix: bool = True) -> None:
        """Print the report on standard output; `offer_fix` is false if a copy is being written already."""
        splits = ", ".join(f"{split} {count}" for split, count in self.images.items())
        others = "".join(f"\n{line}" for line in self.others)
        say(f"{self.source}: {self.layout}{others}\nImages: {splits}; {self.checked} samples read.")
        if self.classes:
            more = len(self.classes) - _SHOWN_CLASSES
            say(f"Classes: {', '.join(self.classes[:_SHOWN_CLASSES])}{f', and {more} more' if more > 0 else ''}.")
        if self.remark:
            say(self._whole_remark)
        stopping = [finding for finding in self.findings if finding.stops]
        warnings = [finding for finding in self.findings if not finding.stops]
        for title, findings in (("Errors that stop training", stopping), ("Warnings", warnings)):
            if findings:
                say(f"\n{title}\n")
                say("\n\n".join(_describe(finding) for finding in findings))
        say(f"\n{self._conclude(len(stopping), len(warnings))}")
        if self.is_fixable and offer_fix:
            say(self._how_to_fix())

    def _how_to_fix(self) -> str:
        return f"`{self.fix_command}` writes a repaired copy. What cannot be repaired is left out and listed."

    def _conclude(self, stopping: int, warnings: int) -> str:
        if not self.findings and self.is_quick:
            return (
                f"No problems found in {self.checked} of {sum(self.images.values())} samples. A quick check compares "
                "files, not pixels, so it misses images that were saved again in another split; `refinenet data check` "
                "without --quick finds them."
            )
        if not self.findings:
            return "Clean: no problems found."
        if not stopping:
            return f"Training can start; {_count(warnings, 'warning')}."
        kinds = f"{_count(stopping, 'kind')} of error that stop{'s' if stopping == 1 else ''} training"
        return f"{kinds}, {_count(warnings, 'warning')}."


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort findings: those that stop training first, then in the order of `KINDS`."""
    order = list(KINDS)
    return tuple(sorted(findings, key=lambda finding: (not finding.stops, order.index(finding.kind))))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _describe(finding: Finding) -> str:
    """Format a finding: sentences are wrapped, but not lines for a classes.yaml, which users copy."""
    title, *lines = finding.text().splitlines()
    wrapped = [part for line in lines for part in ([line] if _KEY.match(line) else _wrap(line))]
    return "\n".join([f"  {title}", *(f"    {line}" for line in wrapped)])


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The result for one sample in a repaired copy."""

    pair: Pair
    name: str
    """Its stem in the copy; empty if it was omitted."""
    image: tuple[str, ...]
    """Changes of the image; empty if the file was copied byte by byte."""
    mask: tuple[str, ...]
    """Changes of the mask's values; empty if they are unchanged."""
    left_out: str
    """Why the sample was omitted; empty if it was written."""
    targets: tuple[str, ...] = ()
    """Changes of depth, normals and other quantities; empty if the files were copied byte by byte."""

    @classmethod
    def leave_out(cls, pair: Pair, reason: str) -> Change:
        """Make the result for a sample that the copy omits."""
        return cls(pair=pair, name="", image=(), mask=(), left_out=reason)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The changes of a repaired copy."""

    out: Path
    source: str
    root: Path | None
    encoding: str
    """Origin of the encoding of the mask values."""
    written: Mapping[str, int]
    """Number of samples by split."""
    samples: tuple[Change, ...]
    files: Mapping[str, str]
    """Files without a sample that were omitted, with the reason."""
    annotations: InvalidLabels = field(default_factory=InvalidLabels)
    """Invalid annotations that were omitted."""
    replaced_layout: str = ""
    """The layout of the source in words, if its label maps are no files, so that the copy has another one."""

    @property
    def has_placeholders(self) -> bool:
        """Whether classes are named by numbers, because nothing defines their names."""
        return self.encoding == PROPOSED

    def to_dict(self) -> dict[str, Any]:
        """Return all changes as JSON-ready values."""
        return {
            "source": self.source,
            "out": str(self.out),
            "written": dict(self.written),
            "meaning_of_values": self.encoding,
            "names_are_placeholders": self.has_placeholders,
            "sums": dict(self._sums()),
            "samples": [self._describe(change) for change in self.samples],
            "left_out_files": dict(self.files),
            "left_out_annotations": list(self.annotations.described),
        }

    def to_json(self) -> str:
        """Return the JSON text of `to_dict` without the folder, which is unknown until the copy is in place."""
        values = {key: value for key, value in self.to_dict().items() if key != "out"}
        return json.dumps(values, indent=1, ensure_ascii=False)

    def print(self) -> None:
        """Print the totals on standard output."""
        splits = ", ".join(f"{split} {count}" for split, count in sorted(self.written.items()))
        rows = [(what, str(count)) for what, count in self._sums().most_common()]
        if rows:
            print_table(f"{self.source} -> {self.out}", ("Change", "count"), rows)
        if self.replaced_layout:
            say(f"Layout of the copy: images/ and masks/ with classes.yaml, instead of {self.replaced_layout}.")
        if self.has_placeholders:
            say("Class names are not defined anywhere: placeholders are used (class 0 and so on).")
        say(f"Written: {splits}. All changes by file: {self.out / 'changes.json'}")

    def _sums(self) -> Counter[str]:
        sums: Counter[str] = Counter()
        for change in self.samples:
            sums.update(f"image {what}" for what in change.image)
            sums.update(f"mask: {_without_numbers(what)}" for what in change.mask)
            sums.update(re.sub(r": \d+ ", ": ", what) for what in change.targets)
            if change.left_out:
                sums["left out: an image with its label"] += 1
        sums.update(f"left out: {reason}" for reason in self.files.values())
        if self.annotations.count:
            sums["left out: a shape that cannot be used"] += self.annotations.count
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
        if change.targets:
            done["target_changes"] = change.targets
        return {"split": pair.split, "item": pair.item, **origin, **done}

    def _shorten(self, path: str) -> str:
        return path if self.root is None else shorten(path, self.root)


def _without_numbers(text: str) -> str:
    return "pixels set to the nearest class, or to void" if "pixels set" in text else text
