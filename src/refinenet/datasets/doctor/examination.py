"""Examination of a dataset: read each file, collect findings; `source` lists the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from refinenet.datasets.catalog import PUBLISHED
from refinenet.datasets.doctor.file_rules import judge_files, judge_masks
from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Listing, Pair
from refinenet.datasets.doctor.mask_rules import judge_values
from refinenet.datasets.doctor.mask_values import points_of
from refinenet.datasets.doctor.pair_rules import find_obstacle, find_swapped
from refinenet.datasets.doctor.report import Report, sort_findings
from refinenet.datasets.doctor.scan import Facts, MaskFacts
from refinenet.datasets.doctor.source import Source, open_source
from refinenet.datasets.doctor.split_rules import Repeated, judge_classes, judge_equal_files, judge_repetitions
from refinenet.datasets.doctor.targets.rules import TargetVerdict, judge_targets
from refinenet.datasets.doctor.value_matching import Codes, can_snap, fit
from refinenet.datasets.folder.classes_file import MaskEncoding
from refinenet.datasets.folder.layouts import find_layout
from refinenet.datasets.formats.lookup import is_background, pack_colours, split_palette
from refinenet.io.console import progress_bar
from refinenet.io.processes.parallel import map_safely


def is_worth_fixing(
    listing: Listing,
    facts: Sequence[Facts],
    encoding: MaskEncoding | None,
    left_out: Mapping[Pair, str],
    findings: Sequence[Finding],
) -> bool:
    """Return whether `doctor.fix` would write a copy, and whether the copy would be an improvement.

    Args:
        listing: The files.
        facts: Facts of the samples that were read.
        encoding: Encoding of the mask values, or None if unknown.
        left_out: Duplicate samples.
        findings: All findings.
    """
    if encoding is None or not findings:
        return False
    kept = [fact for fact in facts if fact.pair not in left_out and not find_obstacle(fact)]
    if encoding.label_set.names:
        kept = [fact for fact in kept if fact.mask is not None and _is_clear(fact.mask, encoding)]
    has_all_splits = {fact.pair.split for fact in kept} >= listing.splits.keys()
    is_changed = any(finding.fixable for finding in findings) or len(kept) < len(facts) or bool(listing.left_out)
    return has_all_splits and is_changed


def _is_clear(mask: MaskFacts, encoding: MaskEncoding) -> bool:
    """Return whether `relabel` could read the mask and would find a class in it."""
    if not mask.is_opaque:
        return False
    values, points, is_colour = _find_points(mask, encoding)
    void = encoding.label_set.ignore_index
    codes, ids = points_of(encoding)
    if points is codes and not set(values.tolist()) - set(codes[ids == void].tolist()):
        return False
    found = fit(values, mask.counts, mask.areas, points, is_colour)
    return found.is_exact or (can_snap(points, is_colour) and found.is_clear)


def _find_points(mask: MaskFacts, encoding: MaskEncoding) -> tuple[Codes, Codes, bool]:
    """Return the values of a mask, the values with a meaning in the same form, and whether these are colours."""
    points, _ = points_of(encoding)
    if encoding.kind == "ids":
        if not mask.is_colour or mask.is_grey:
            return mask.values & 255 if mask.is_colour else mask.values, points, False
        known = pack_colours(encoding.label_set.colours) if encoding.has_colours else np.full(1, -1)
        return mask.values, known, True
    if mask.is_colour:
        return mask.values, points, True
    palette = pack_colours(np.array([*split_palette(mask.palette), *[(0, 0, 0)] * 256], np.uint8)[:256])
    return palette[mask.values] if mask.palette else (mask.values & 255) * 0x010101, points, True


QUICK_SAMPLES = 100
"""Number of samples per split that a quick check reads."""

_NEEDS_ALL = ("mask-0-255", "ids-from-1", "nothing-but-void")
"""Kinds that a quick check may report by mistake, because its sample is too small."""

_UNSURE = (
    *("no-classes", "palettes-conflict", "mask-colours-for-ids", "mask-unlisted-colours", "mask-near-colours"),
    *("mask-interpolated", "ids-outside", "mask-lossy-format"),
)
"""Kinds of findings that make classes seem to be absent."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A report, and the facts that a repaired copy is made from."""

    report: Report
    source: Source
    facts: list[Facts]
    encoding: MaskEncoding | None
    """Encoding of the mask values, corrected."""
    left_out: Mapping[Pair, str]
    """Duplicate samples, and those with targets that are not theirs, which a repaired copy omits, with the reason."""
    flips: Mapping[str, tuple[int, ...]]
    """By output, the axes of normals that a repaired copy negates."""
    is_quick: bool
    """Whether only a sample was read, and images were not compared."""


def examine(
    source: str | Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    targets: Collection[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Examination:
    """Find the problems of a dataset, and keep the facts that a repaired copy needs. The dataset is not changed.

    Args:
        source: A custom folder or YAML file, or the name of a dataset.
        root: The folder of a named dataset.
        quick: Whether to read only `QUICK_SAMPLES` samples of each split, and to compare image files byte by byte
            instead of by their pixels: seconds instead of minutes. All files are listed in either case.
        targets: The outputs and quantities whose ground truth in depth/, normals/ and values/ is examined; by default
            all.
        workers: Number of processes that read files; by default one per core, 0 to read in this process.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        ValueError: the name is unknown, or a root was given that is not used.
        FileNotFoundError: the folder does not exist, or its layout is unknown.
        OSError: a folder cannot be read.
    """
    examination = _examine(open_source(source, root, targets), quick, workers, progress)
    return replace(examination, report=replace(examination.report, root=root))


def check(
    source: str | Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    targets: Collection[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Report:
    """Return the report of `examine`, with the same arguments and errors."""
    return examine(source, root=root, quick=quick, targets=targets, workers=workers, progress=progress).report


UNMATCHED = ("image-without-mask", "mask-without-image", "listed-missing", "listed-image-missing")
"""Findings about files that lack a partner, or are listed and do not exist."""
_LARGE = 20_000_000
"""Size in bytes of a COCO file that takes seconds to read."""


def refuse_unmatched(source: str | Path) -> None:
    """Refuse a folder whose files do not match, by their names alone: at once, before a model is loaded.

    Folders of LabelMe's files, and large COCO files, are not examined, since reading them takes long.

    Args:
        source: A custom folder or YAML file.

    Raises:
        ValueError: Files lack a partner, or are listed and do not exist; the message is that of `check`.
        FileNotFoundError: the folder does not exist, or its layout is unknown.
        OSError: a folder cannot be read.
    """
    annotations = set(find_layout(Path(source)).annotations.values())
    if any(path.is_dir() or path.stat().st_size > _LARGE for path in annotations):
        return
    if {finding.kind for finding in open_source(source, None).listing.findings}.isdisjoint(UNMATCHED):
        return
    report = check(source, quick=True, targets=(), workers=0, progress=False)
    if report.stops_training:
        raise ValueError(report.text())


def check_masks(source: str | Path, split: str, *, workers: int | None = 0, progress: bool = True) -> Report:
    """Check the masks of one split before an evaluation, as `examine` does before training.

    At most `QUICK_SAMPLES` masks are read, and no images; the report covers mask files and values only.

    Args:
        source: A custom folder or YAML file.
        split: The split to evaluate on.
        workers: As for `examine`.
        progress: As for `examine`.

    Raises:
        FileNotFoundError: the folder does not exist, or its layout is unknown.
        OSError: a folder cannot be read.
    """
    opened = open_source(source, None)
    pairs = [pair for pair in opened.listing.pairs if pair.split == split and pair.mask]
    opened = replace(opened, reading=replace(opened.reading, masks_only=True))
    facts = _read(opened, _spread(pairs, QUICK_SAMPLES) if pairs else [], workers, progress)
    findings = judge_masks(facts, opened.root)
    if not (opened.is_encoding_damaged or opened.is_unlabelled):
        findings += judge_values(facts, opened.encoding, opened.root).findings
    return Report(
        source=opened.name,
        root=None,
        layout=opened.layout,
        images={split: len(pairs)},
        checked=len(facts),
        is_fixable=False,
        findings=sort_findings([finding.without_fix() for finding in findings]),
    )


def _examine(opened: Source, quick: bool, workers: int | None, progress: bool) -> Examination:
    pairs = _spread(opened.listing.pairs, QUICK_SAMPLES) if quick else opened.listing.pairs
    facts = _read(opened, pairs, workers, progress)
    examination = _judge(opened, facts, quick)
    if quick and any(finding.kind in _NEEDS_ALL for finding in examination.report.findings):
        return _judge(opened, _read(opened, opened.listing.pairs, workers, progress), quick)
    return examination


def _read(source: Source, pairs: Sequence[Pair], workers: int | None, progress: bool) -> list[Facts]:
    found: list[Facts] = []
    palettes: dict[bytes, bytes] = {}
    with progress_bar(progress) as bar:
        task = bar.add_task("Checking", total=len(pairs), status="", unit="images")
        for pair, facts in zip(pairs, map_safely(source.reading.read, pairs, workers=workers), strict=True):
            found.append(_share(facts, pair, palettes) if facts else Facts(pair, None, None))
            bar.advance(task)
    return found


def _share(facts: Facts, pair: Pair, palettes: dict[bytes, bytes]) -> Facts:
    """Share equal palettes among facts, which arrive as copies from other processes, to save memory."""
    mask = facts.mask
    if mask is not None and mask.palette:
        mask = replace(mask, palette=palettes.setdefault(mask.palette, mask.palette))
    return Facts(pair, facts.image, mask, facts.targets)


def _judge(source: Source, facts: list[Facts], quick: bool) -> Examination:
    swapped = find_swapped(facts, source.root)
    findings = [*source.listing.findings, *(swapped or judge_files(facts, source.root))]
    missing = [split for split in ("train", "val") if split not in source.listing.splits]
    if missing:
        findings.append(find("split-missing", missing, resplit=source.resplit))
    encoding = None if swapped else source.encoding
    if not (swapped or source.is_encoding_damaged or source.is_unlabelled):
        verdict = judge_values(facts, encoding, source.root)
        findings += verdict.findings
        encoding = verdict.encoding
    if encoding is not None and facts and not source.is_unlabelled:
        findings += _judge_classes(source, facts, encoding, findings)
    repeated = _judge_repetitions(source, facts, quick)
    targets = TargetVerdict()
    if source.target_specs:
        targets = judge_targets(facts, source.target_specs, source.reading.encodings, source.root)
    findings += [*repeated.findings, *targets.findings]
    left_out = {**targets.left_out, **repeated.left_out}
    known = None if source.is_encoding_damaged else encoding
    is_fixable = is_worth_fixing(source.listing, facts, known, left_out, findings)
    report = Report(
        source=source.name,
        root=None,
        layout=source.layout,
        others=source.others,
        images=source.listing.splits,
        classes=() if encoding is None else encoding.label_set.names,
        remark=source.remark,
        remark_advice=source.remark_advice,
        checked=len(facts),
        is_quick=quick,
        is_fixable=is_fixable,
        findings=sort_findings(findings if is_fixable else [finding.without_fix() for finding in findings]),
    )
    return Examination(
        report=report, source=source, facts=facts, encoding=encoding, left_out=left_out, flips=targets.flips,
        is_quick=quick,
    )  # fmt: skip


def _judge_classes(
    source: Source, facts: Sequence[Facts], encoding: MaskEncoding, findings: Sequence[Finding]
) -> list[Finding]:
    is_sure = not any(finding.kind in _UNSURE and 20 * finding.count > len(facts) for finding in findings)
    is_whole = len(facts) == len(source.listing.pairs)
    classes = judge_classes(facts, encoding, source.root, source.resplit, is_whole=is_whole)
    if source.added_background:
        classes = [_explain_background(finding) for finding in classes]
    return [finding for finding in classes if is_sure or not finding.kind.startswith("class-")]


def _explain_background(finding: Finding) -> Finding:
    """Say of a class that nobody has named, and that does not occur, why it is there."""
    if finding.kind != "class-absent" or not all(map(is_background, finding.examples)):
        return finding
    return replace(finding, advice="It was added for pixels outside all shapes, but there are no such pixels.")


def _judge_repetitions(source: Source, facts: Sequence[Facts], quick: bool) -> Repeated:
    if not quick:
        return judge_repetitions(facts, source.root)
    # The splits of published datasets are not ours to change.
    is_ours = source.name not in PUBLISHED
    return Repeated(findings=judge_equal_files(source.listing.pairs, source.root) if is_ours else [], left_out={})


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Choose `count` pairs of each split, at equal distances."""
    splits: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        splits[pair.split].append(pair)
    return [
        some[index * len(some) // min(count, len(some))]
        for some in splits.values()
        for index in range(min(count, len(some)))
    ]
