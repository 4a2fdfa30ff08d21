"""Findings of the doctor: one kind of problem, and the files that it affects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from refinenet.datasets.doctor.kinds import BAND_KINDS, IMAGE_KINDS, Kind
from refinenet.datasets.doctor.targets.kinds import TARGET_KINDS
from refinenet.datasets.doctor.titles import TITLES

MAX_EXAMPLES = 5

_NUMBER = re.compile(r"<([^<>|]*)\|([^<>|]*)>")

_FIX_CLAUSE = re.compile(r"(; |\s*Or: | )?`--fix OUT` writes a copy (\([^)]*\)|[^.(])*\.")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of problem in a dataset, with the files it affects."""

    kind: str
    """A stable identifier, one of `KINDS`."""
    stops: bool
    """Whether training would fail or learn something wrong, and therefore does not begin."""
    count: int
    """Number of affected files (or pairs of files, or classes)."""
    examples: tuple[str, ...]
    """Up to `MAX_EXAMPLES` of them; files relative to the dataset's folder."""
    meaning: str
    """The consequence for training."""
    advice: str
    """The remedy."""
    fixable: bool
    """Whether `--fix` repairs the samples; otherwise it omits them."""

    @property
    def title(self) -> str:
        """The kind in words."""
        return TITLES[self.kind]

    def text(self) -> str:
        """Return title, kind, count and examples on a line; then meaning and advice, with lines for a classes.yaml."""
        more = self.count - len(self.examples)
        examples = ", ".join(self.examples) + (f" and {more} more" if more > 0 else "")
        return f"{self.title} [{self.kind}]: {self.count} ({examples})\n{self.meaning} {self.advice}".rstrip()

    def without_fix(self) -> Finding:
        """Return the finding without the advice to write a repaired copy, for when none can be written."""
        advice = _FIX_CLAUSE.sub(lambda found: "." if found[0].startswith(";") else "", self.advice).strip()
        return replace(self, advice=advice or self.advice)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready values."""
        return {"title": self.title, **asdict(self), "examples": list(self.examples)}


KINDS: Mapping[str, Kind] = {**IMAGE_KINDS, **TARGET_KINDS, **BAND_KINDS}
"""Every kind of finding, in the order of the report."""


def _choose_words(text: str, count: int) -> str:
    """Choose between <words for several|words for one>."""
    return _NUMBER.sub(lambda found: found[2 if count == 1 else 1], text)


def find(kind: str, names: Sequence[str], *, fixable: bool | None = None, **words: object) -> Finding:
    """Make a finding of a kind about `names`; `words` fill the placeholders of its texts."""
    known = KINDS[kind]
    return Finding(
        kind=kind,
        stops=known.stops,
        count=len(names),
        examples=tuple(names[:MAX_EXAMPLES]),
        meaning=_choose_words(known.meaning, len(names)).format(**words).strip(),
        advice=_choose_words(known.advice, len(names)).format(**words).strip(),
        fixable=known.fixable if fixable is None else fixable,
    )
