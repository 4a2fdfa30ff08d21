"""The examination: list, look at each file, judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets.own.meaning import Meaning
from refinenet.doctor.file_rules import judge_files
from refinenet.doctor.finding import find
from refinenet.doctor.listing import Pair
from refinenet.doctor.report import Report, sort_findings
from refinenet.doctor.safely import map_safely
from refinenet.doctor.scan import Facts
from refinenet.doctor.set_rules import judge_classes, judge_repetitions
from refinenet.doctor.sources import Source, open_source
from refinenet.doctor.value_rules import judge_values
from refinenet.terminal import progress_bar

QUICK_SAMPLES = 100
"""Samples of each split that a quick check reads."""

_NEEDS_ALL = ("mask-0-255", "ids-from-1", "nothing-but-void")
"""What a quick check may take for true because it saw too little."""

_UNSURE = (
    *("no-classes", "palettes-conflict", "mask-colours-for-ids", "mask-unlisted-colours", "mask-near-colours"),
    *("mask-interpolated", "ids-outside"),
)
"""Where this is found, classes may only seem to be absent."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A report, and what a repaired copy is made from."""

    report: Report
    source: Source
    facts: list[Facts]
    meaning: Meaning | None
    """What masks mean, as it should be said."""
    left_out: Mapping[Pair, str]
    """Samples that stand elsewhere, too, with the reason why they should go."""


def examine(
    source: str | Path, *, root: Path | None, quick: bool = False, workers: int | None = None, progress: bool = True
) -> Examination:
    """Examine a dataset; as `doctor.check`, with what a repaired copy needs."""
    opened = open_source(source, root)
    pairs = _spread(opened.listing.pairs, QUICK_SAMPLES) if quick else opened.listing.pairs
    facts = _look(opened, pairs, workers, progress)
    examination = _judge(opened, facts, quick)
    if quick and any(finding.kind in _NEEDS_ALL for finding in examination.report.findings):
        return _judge(opened, _look(opened, opened.listing.pairs, workers, progress), quick)
    return examination


def _look(source: Source, pairs: Sequence[Pair], workers: int | None, progress: bool) -> list[Facts]:
    found: list[Facts] = []
    with progress_bar(progress) as bar:
        task = bar.add_task("Checking", total=len(pairs), status="")
        for pair, facts in zip(pairs, map_safely(source.reading.look, pairs, workers=workers), strict=True):
            found.append(facts or Facts(pair, None, None))
            bar.advance(task)
    return found


def _judge(source: Source, facts: list[Facts], quick: bool) -> Examination:
    findings = [*source.listing.findings, *judge_files(facts, source.root)]
    missing = [split for split in ("train", "val") if split not in source.listing.splits]
    if missing:
        findings.append(find("split-missing", missing))
    meaning, left_out = source.meaning, {}
    if not source.is_meaning_damaged:
        verdict = judge_values(facts, meaning, source.root)
        findings += verdict.findings
        meaning = verdict.meaning
    if meaning is not None:
        is_sure = not quick and not any(
            finding.kind in _UNSURE and 20 * finding.count > len(facts) for finding in findings
        )
        classes = judge_classes(facts, meaning, source.root)
        findings += [finding for finding in classes if is_sure or not finding.kind.startswith("class-")]
    if not quick:
        repeated = judge_repetitions(facts, source.root)
        findings += repeated.findings
        left_out = dict(repeated.left_out)
    report = Report(
        source=source.name,
        layout=source.layout,
        images=source.listing.splits,
        checked=len(facts),
        findings=sort_findings(findings),
    )
    return Examination(report=report, source=source, facts=facts, meaning=meaning, left_out=left_out)


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` pairs of each split, at equal distances."""
    splits: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        splits[pair.split].append(pair)
    return [
        some[index * len(some) // min(count, len(some))]
        for some in splits.values()
        for index in range(min(count, len(some)))
    ]
