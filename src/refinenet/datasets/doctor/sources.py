"""What users name a dataset by, opened for the doctor: samples to look at, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from refinenet.datasets.catalog import PUBLISHED, Dataset, Splits, find_root, open_dataset
from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Listing, Pair, list_pairs, say_resplit, shorten
from refinenet.datasets.doctor.mask_values import points_of
from refinenet.datasets.doctor.scan import Reading
from refinenet.datasets.folder.classes_file import Meaning, of_ids
from refinenet.datasets.folder.folder import AnnotationReport, FolderSplits
from refinenet.datasets.folder.layouts import Layout, find_layout, find_meaning, find_splits
from refinenet.datasets.formats.coco_crowds import CrowdReport
from refinenet.datasets.formats.invalid_labels import InvalidLabels
from refinenet.datasets.split_names import split_names


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset, opened."""

    name: str
    """What messages call it."""
    root: Path | None
    """The folder that holds it, where one does."""
    layout: str
    """In words."""
    listing: Listing
    reading: Reading
    meaning: Meaning | None
    """What masks mean, where a file or the dataset itself says so."""
    resplit: str
    """How samples come into other splits."""
    is_meaning_damaged: bool = False
    """Whether there is a file that says so, which cannot be used."""
    invalid: InvalidLabels = field(default_factory=InvalidLabels)
    """Annotations that cannot be used: a repaired copy is made without them."""


def open_source(source: str | Path, root: Path | None) -> Source:
    """Open a folder or YAML file, or a dataset known by name.

    Raises:
        ValueError: a name that is not known, or a root where none is used.
        FileNotFoundError: the folder is missing or laid out in no way that is understood; or the data are not there.
        OSError: a file cannot be read.
    """
    name = str(source)
    if name in PUBLISHED or name.partition(":")[0] == "streets":
        place = find_root(name, root) if name in PUBLISHED else None
        known = "the layout of its owner"
        return _open_datasets(name, place, split_names(name), known, open_dataset(name, root), say_resplit(None))
    path = Path(source)
    if not path.exists():
        open_dataset(name, root)  # It says which names there are.
    if root is not None:
        raise ValueError(f"root={str(root)!r} has no use here: {name!r} is a folder.")
    layout = find_layout(path)
    layout = replace(layout, splits={split: layout.splits[split] for split in find_splits(layout)})
    if layout.annotations:
        return _open_annotated(name, layout)
    return _open_masks(name, layout)


def _open_masks(name: str, layout: Layout) -> Source:
    listing = list_pairs(layout)
    meaning, damage = _find_meaning(layout)
    points = points_of(meaning)[0] if meaning and meaning.kind == "colours" else None
    return Source(
        name=name,
        root=layout.root,
        layout=layout.description,
        listing=replace(listing, findings=[*listing.findings, *damage]),
        reading=Reading(points=points, datasets={}),
        meaning=meaning,
        resplit=say_resplit(layout),
        is_meaning_damaged=bool(damage),
    )


def _find_meaning(layout: Layout) -> tuple[Meaning | None, list[Finding]]:
    if layout.classes_file is None:  # Palettes are read with everything else, and each mask once.
        return None, []
    try:
        return find_meaning(layout), []
    except (ValueError, OSError) as error:
        example = layout.classes_file.name
        return None, [find("classes-file", [example], message=str(error))]


def _open_annotated(name: str, layout: Layout) -> Source:
    """Open a folder whose labels are shapes, without those that cannot be used, which become a finding."""
    folder = FolderSplits(Path(name), leave_out_invalid=True)
    reports: dict[Path, list[AnnotationReport]] = {}

    def open_split(split: str) -> Dataset:
        dataset, report = folder.open_reported(split)
        reports.setdefault(report.path, []).append(report)
        return dataset

    source = _open_datasets(
        name, layout.root, tuple(layout.splits), layout.description, open_split, say_resplit(layout)
    )
    invalid, findings = InvalidLabels(), []
    for path, found in reports.items():
        some = found[:1] if path.is_file() else found  # a json file of both splits is reported for each of them
        for report in some:
            invalid.extend(report.invalid or InvalidLabels(), f"{shorten(str(path), layout.root)}: ")
        if found[0].crowds is not None:
            findings.append(_find_crowds(found[0].crowds, shorten(str(path), layout.root)))
    if invalid.count:
        findings.append(_find_invalid(invalid))
    listing = replace(source.listing, findings=[*source.listing.findings, *findings])
    return replace(source, listing=listing, invalid=invalid)


def _find_crowds(crowds: CrowdReport, file: str) -> Finding:
    return find("crowds-void" if crowds.are_void else "crowds-labelled", [file], message=crowds.text)


def _find_invalid(invalid: InvalidLabels) -> Finding:
    places = [description.rpartition(": its ")[0] or description for description in invalid.described]
    return replace(find("labels-invalid", places, message=invalid.list_lines()), count=invalid.count)


def _open_datasets(
    name: str, place: Path | None, splits: tuple[str, ...], layout: str, open_split: Splits, resplit: str
) -> Source:
    datasets: dict[str, Dataset] = {}
    refused: dict[str, list[str]] = {}
    absent: FileNotFoundError | None = None
    for split in splits:
        try:
            datasets[split] = open_split(split)
        except (ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError) and name in PUBLISHED:
                absent = absent or error
            else:
                refused.setdefault(str(error), []).append(split)
    if absent and not datasets and not refused:
        raise absent
    label_sets = [dataset.label_set for dataset in datasets.values()]
    meaning = of_ids(label_sets[0], list(range(len(label_sets[0]))), [], layout) if label_sets else None
    return Source(
        name=name,
        root=place,
        layout=layout,
        listing=_list_datasets(datasets, refused, resplit),
        reading=Reading(points=None, datasets={split: replace(data, items=()) for split, data in datasets.items()}),
        meaning=meaning,
        resplit=resplit,
        is_meaning_damaged=meaning is None,
    )


def _list_datasets(datasets: Mapping[str, Dataset], refused: Mapping[str, list[str]], resplit: str) -> Listing:
    pairs = [
        Pair(split, item, str(dataset.image_file(item) or ""), "")
        for split, dataset in datasets.items()
        for item in dataset.items
    ]
    splits = [*datasets, *(split for some in refused.values() for split in some)]
    findings = [find("split-refused", some, message=message) for message, some in refused.items()]
    empty = [split for split, dataset in datasets.items() if not dataset.items]
    return Listing(
        pairs=pairs,
        splits={split: len(datasets[split].items) if split in datasets else 0 for split in splits},
        findings=[*findings, *([find("empty-split", empty, resplit=resplit)] if empty else [])],
        left_out={},
    )
