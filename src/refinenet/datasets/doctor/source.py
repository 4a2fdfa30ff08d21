"""Opening of a dataset for its examination: its files, the meaning of their values, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from refinenet.datasets.catalog import PUBLISHED, Dataset, Splits, find_root, open_dataset, split_names
from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Listing, Pair, list_pairs, say_resplit, shorten
from refinenet.datasets.doctor.mask_values import points_of
from refinenet.datasets.doctor.scan import Reading
from refinenet.datasets.doctor.targets.listing import list_targets
from refinenet.datasets.folder.band_files import list_band_folders
from refinenet.datasets.folder.classes_file import MaskEncoding, of_ids
from refinenet.datasets.folder.encodings import find_encoding
from refinenet.datasets.folder.folder import AnnotationReport, FolderSplits, open_images
from refinenet.datasets.folder.layouts import Layout, find_layout, find_splits
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.datasets.formats.coco_crowds import CrowdReport
from refinenet.datasets.formats.invalid_labels import InvalidLabels
from refinenet.datasets.formats.lookup import CLASSES_FILE, is_background
from refinenet.outputs import OutputSpec


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset, opened for examination."""

    name: str
    """Its name in messages."""
    root: Path | None
    """The folder that holds it, if a single one does."""
    layout: str
    """Its layout in words."""
    listing: Listing
    reading: Reading
    encoding: MaskEncoding | None
    """Encoding of the mask values, if a file or the dataset itself defines it."""
    others: tuple[str, ...] = ()
    """What else is read of a folder, or only in training, in words."""
    remark: str = ""
    """What pixels outside all shapes are, in words; empty if labels are no shapes."""
    remark_advice: str = ""
    """How to change that; empty if a file says what they are."""
    added_background: bool = False
    """Whether the class background is there only for these pixels: no file names the classes."""
    resplit: str
    """Advice on how to move samples to other splits."""
    is_encoding_damaged: bool = False
    """Whether a file defines the meaning but is invalid."""
    invalid: InvalidLabels = field(default_factory=InvalidLabels)
    """Invalid annotations, which a repaired copy omits."""
    target_folders: Mapping[str, TargetEncoding] = field(default_factory=dict)
    """The meaning of the files of targets, by folder."""
    target_specs: Mapping[str, OutputSpec] = field(default_factory=dict)
    """The targets that are examined, by output."""

    @property
    def is_unlabelled(self) -> bool:
        """Whether the dataset has no classes."""
        return self.encoding is not None and not self.encoding.label_set.names


def open_source(source: str | Path, root: Path | None, targets: Collection[str] | None = ()) -> Source:
    """Open a folder or YAML file, or a dataset known by name.

    Args:
        source: The dataset.
        root: The folder of a named dataset.
        targets: The outputs and quantities whose ground truth is examined; None for all.

    Raises:
        ValueError: the name is unknown, or a root was given that is not used.
        FileNotFoundError: the folder is missing or its layout is unknown, or the data of a named dataset are missing.
        OSError: a file cannot be read.
    """
    name = str(source)
    if name in PUBLISHED or name.partition(":")[0] == "streets":
        place = find_root(name, root) if name in PUBLISHED else None
        known = "the layout of its owner"
        opened = _open_datasets(name, place, split_names(name), known, open_dataset(name, root), say_resplit(None))
        return _with_dataset_targets(opened, targets)
    path = Path(source)
    if not path.exists():
        open_dataset(name, root)  # its error lists the known names
    if root is not None:
        raise ValueError(f"root={str(root)!r} has no effect: {name!r} is a folder.")
    layout = find_layout(path)
    layout = replace(layout, splits={split: layout.splits[split] for split in find_splits(layout)})
    if layout.is_unlabelled:
        opened = _open_unlabelled(name, layout)
    else:
        opened = _open_annotated(name, layout) if layout.annotations else _open_masks(name, layout)
    return _with_targets(opened, layout, targets)


def _with_targets(opened: Source, layout: Layout, wanted: Collection[str] | None) -> Source:
    """Add the files of targets in a folder."""
    found = list_targets(layout, opened.listing.pairs, wanted)
    encodings = {encoding.spec.name: encoding for encoding in found.encodings.values()}
    listing = replace(opened.listing, pairs=found.pairs, findings=[*opened.listing.findings, *found.findings])
    return replace(
        opened,
        listing=listing,
        reading=replace(opened.reading, encodings=encodings),
        others=_describe_others(layout, tuple(found.encodings)),
        target_folders=found.encodings,
        target_specs={name: encoding.spec for name, encoding in encodings.items()},
    )


def _describe_others(layout: Layout, targets: Sequence[str]) -> tuple[str, ...]:
    """Name the folders of targets, and those of bands, which are examined with the network that reads them."""
    bands = [name for name in list_band_folders(layout) if name != "images"]
    lines = [f"Ground truth besides classes: {', '.join(f'{name}/' for name in targets)}"] if targets else []
    if bands:
        names = ", ".join(f"{name}/" for name in bands)
        lines.append(f"Bands beside the images, which are checked when a network for them is trained: {names}")
    return tuple(lines)


def _with_dataset_targets(opened: Source, wanted: Collection[str] | None) -> Source:
    """Add the targets that datasets known by name read themselves."""
    known = {spec.name: spec for dataset in opened.reading.datasets.values() for spec in dataset.target_specs}
    specs = {name: spec for name, spec in known.items() if wanted is None or name in wanted}
    return replace(opened, reading=replace(opened.reading, targets=tuple(specs)), target_specs=specs)


def _open_unlabelled(name: str, layout: Layout) -> Source:
    """Open a folder without masks; targets are added later, so that problems of theirs do not keep splits closed."""
    plain = partial(open_images, layout)
    source = _open_datasets(name, layout.root, tuple(layout.splits), layout.description, plain, say_resplit(layout))
    return _with_unread(source, layout)


def _with_unread(source: Source, layout: Layout) -> Source:
    """Add the NumPy files that are no images, which are listed with the files of masks if there are any."""
    unread = [str(files.images / name) for files in layout.splits.values() for name in files.unread]
    if not unread:
        return source
    names = [shorten(name, layout.root) for name in sorted(set(unread))]
    finding = find("file-kind-unread", names)
    return replace(source, listing=replace(source.listing, findings=[*source.listing.findings, finding]))


def _open_masks(name: str, layout: Layout) -> Source:
    listing = list_pairs(layout)
    encoding, damage = _find_encoding(layout)
    points = points_of(encoding)[0] if encoding and encoding.kind == "colours" else None
    return Source(
        name=name,
        root=layout.root,
        layout=layout.description,
        listing=replace(listing, findings=[*listing.findings, *damage]),
        reading=Reading(points=points, datasets={}),
        encoding=encoding,
        resplit=say_resplit(layout),
        is_encoding_damaged=bool(damage),
    )


def _find_encoding(layout: Layout) -> tuple[MaskEncoding | None, list[Finding]]:
    if layout.classes_file is None:  # palettes are read later, with the masks, so that each file is read once
        return None, []
    try:
        return find_encoding(layout), []
    except (ValueError, OSError) as error:
        example = layout.classes_file.name
        return None, [find("classes-file", [example], message=str(error))]


def _open_annotated(name: str, layout: Layout) -> Source:
    """Open a folder whose labels are shapes; invalid shapes are omitted and become a finding."""
    folder = FolderSplits(Path(name), leave_out_invalid=True)
    reports: dict[Path, list[AnnotationReport]] = {}

    def open_split(split: str) -> Dataset:
        dataset, report = folder.open_reported(split)
        reports.setdefault(report.path, []).append(report)
        return dataset

    source = _open_datasets(
        name, layout.root, tuple(layout.splits), layout.description, open_split, say_resplit(layout)
    )
    source = _with_unlisted(_with_unread(source, layout), layout)
    if source.encoding is None:  # no split opened, but the classes may be known
        source = _with_classes(source, folder)
    source = _with_remark(source, layout)
    invalid, findings = InvalidLabels(), []
    missing: dict[str, str] = {}
    for path, found in reports.items():
        file = shorten(str(path), layout.root)
        some = found[:1] if path.is_file() else found  # a JSON file that both splits share is reported by each of them
        for report in some:
            invalid.extend(report.invalid or InvalidLabels(), f"{file}: ")
        if found[0].crowds is not None:
            findings.append(_find_crowds(found[0].crowds, file))
        if (absent := found[0].missing) is not None:
            findings.append(find("listed-image-missing", absent.names, message=absent.text))
            missing |= {f"{file}: {item}": "an image that does not exist" for item in absent.names}
    if invalid.count:
        findings.append(_find_invalid(invalid))
    left_out = {**source.listing.left_out, **missing}
    listing = replace(source.listing, findings=[*source.listing.findings, *findings], left_out=left_out)
    return replace(source, listing=listing, invalid=invalid)


def _with_remark(source: Source, layout: Layout) -> Source:
    """Say what the pixels outside all shapes are, which nobody has labelled, and how to change it."""
    if source.encoding is None:
        return source
    names = source.encoding.label_set.names
    others = [name for name in names if not is_background(name)]
    if len(others) == len(names):
        remark = "Pixels outside all shapes have no class (void): they are ignored in training and evaluation."
        return replace(source, remark=remark)
    remark = "Pixels outside all shapes belong to the class background."
    if layout.classes_file is not None:
        return replace(source, remark=remark)
    listed = json.dumps(others, ensure_ascii=False)  # YAML, in which names such as no and 1 need quotes
    advice = f"To leave them out instead, write into {layout.root / CLASSES_FILE}:\nnames: {listed}"
    return replace(source, remark=remark, remark_advice=advice, added_background=True)


def _with_classes(source: Source, folder: FolderSplits) -> Source:
    try:
        encoding = folder.encoding
    except (ValueError, OSError):  # the splits were refused for the same reason
        return source
    return replace(source, encoding=encoding, is_encoding_damaged=False)


def _with_unlisted(source: Source, layout: Layout) -> Source:
    """Add the images beside COCO files that none of them names; in COCO, an image without objects has an entry, too."""
    opened = source.reading.datasets.keys()
    # Of a JSON file that cannot be read, nobody knows what it names; both splits of a single file share its images.
    unknown = {files.images for split, files in layout.splits.items() if split not in opened}
    unknown = set() if layout.is_dealt and opened else unknown
    used = {pair.image for pair in source.listing.pairs}
    unlisted = {
        shorten(image, layout.root)
        for split, files in layout.splits.items()
        if layout.annotations[split].is_file() and files.images not in unknown
        for name in files.image_names
        if (image := str(files.images / name)) not in used
    }
    if not unlisted:
        return source
    finding = find("image-unlisted", sorted(unlisted))
    return replace(source, listing=replace(source.listing, findings=[*source.listing.findings, finding]))


def _find_crowds(crowds: CrowdReport, file: str) -> Finding:
    return find("crowds-void" if crowds.are_void else "crowds-labelled", [file], message=crowds.text)


def _find_invalid(invalid: InvalidLabels) -> Finding:
    places = [": ".join(description.split(": ")[:2]) for description in invalid.described]  # file and entry
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
    encoding = of_ids(label_sets[0], list(range(len(label_sets[0]))), [], layout) if label_sets else None
    return Source(
        name=name,
        root=place,
        layout=layout,
        listing=_list_datasets(datasets, refused, resplit),
        reading=Reading(points=None, datasets={split: replace(data, items=()) for split, data in datasets.items()}),
        encoding=encoding,
        resplit=resplit,
        is_encoding_damaged=encoding is None,
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
