"""The files of depth, normals and other quantities of a folder, matched with its samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Pair, shorten
from refinenet.datasets.file_pairs import find_stem
from refinenet.datasets.folder.band_files import list_band_folders
from refinenet.datasets.folder.layouts import MASK_FOLDERS, Layout
from refinenet.datasets.folder.split_files import SplitFiles
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.datasets.folder.target_files import (
    TargetFolder,
    find_target_folders,
    find_unread_folders,
    list_target_folders,
)
from refinenet.datasets.folder.targets_file import FILE
from refinenet.io.images.image_files import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, walk_names
from refinenet.io.images.stored_values import STORED_SUFFIXES

_UNREAD = tuple(
    suffix
    for suffix in (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES, ".npz", ".mat", ".pfm", ".h5", ".hdf5", ".bin", ".raw", ".flo")
    if suffix not in STORED_SUFFIXES
)
_TABLES = (".csv", ".tsv", ".xlsx")


@dataclass(frozen=True, kw_only=True)
class TargetListing:
    """The targets of a folder."""

    pairs: list[Pair]
    """The samples with the files of their targets."""
    encodings: Mapping[str, TargetEncoding] = field(default_factory=dict)
    """The meaning of the numbers, by the folder's name."""
    findings: list[Finding] = field(default_factory=list)


def list_targets(layout: Layout, pairs: Sequence[Pair], wanted: Collection[str] | None) -> TargetListing:
    """Find the files of the targets of samples.

    Args:
        layout: The folder.
        pairs: Its samples.
        wanted: Names of the outputs and quantities whose ground truth is examined; None for all.
    """
    try:
        folders = {split: find_target_folders(layout, files) for split, files in layout.splits.items()}
    except (ValueError, OSError) as error:
        findings = [find("targets-file", [FILE], message=str(error))] if wanted is None or wanted else []
        return TargetListing(pairs=list(pairs), findings=findings)
    if wanted is not None:
        folders = {split: _choose(found, wanted) for split, found in folders.items()}
    encodings = {name: folder.encoding for found in folders.values() for name, folder in found.items()}
    found = _Found()
    matched = [_match(pair, layout.splits[pair.split], folders[pair.split], found) for pair in pairs]
    found.add_lone(layout, folders)
    found.add_uneven(encodings, folders)
    known = {name for encoding in encodings.values() for name in (encoding.spec.name, *encoding.spec.channels)}
    if wanted is None or not known.issuperset(wanted):
        for folder in find_unread_folders(layout, (*MASK_FOLDERS, *list_band_folders(layout))):
            found.add("target-folder-unread", str(folder))
    if wanted is None:
        found.add_undeclared(layout, encodings)
        found.add_tables(layout)
    return TargetListing(pairs=matched, encodings=encodings, findings=found.make(layout.root))


def _choose(folders: Mapping[str, TargetFolder], wanted: Collection[str]) -> dict[str, TargetFolder]:
    specs = {name: folder.encoding.spec for name, folder in folders.items()}
    return {name: folders[name] for name, spec in specs.items() if not {spec.name, *spec.channels}.isdisjoint(wanted)}


def _match(pair: Pair, files: SplitFiles, folders: Mapping[str, TargetFolder], found: _Found) -> Pair:
    """Return a sample with its files; the path is empty for one that is missing or ambiguous."""
    if not pair.image or not folders:
        return pair
    targets = []
    for folder in folders.values():
        name = folder.encoding.spec.name
        try:
            path = folder.find(pair.item, Path(pair.image).relative_to(files.images))
        except ValueError as error:
            found.add("target-twice", str(folder.path / pair.item), str(error))
            targets.append((name, ""))
            continue
        if path is not None:
            found.used.add(path)
            targets.append((name, str(path)))
        elif not folder.encoding.is_optional:
            found.add("target-missing", pair.image, name)
            targets.append((name, ""))
    return replace(pair, targets=tuple(targets))


class _Found:
    """Names of files, and the words of messages about them, by kind of finding."""

    def __init__(self) -> None:
        self.used: set[Path] = set()
        """Files that belong to a sample."""
        self._names: dict[str, dict[str, str]] = defaultdict(dict)

    def add(self, kind: str, name: str, message: str = "") -> None:
        """Record a problem."""
        self._names[kind].setdefault(name, message)

    def add_lone(self, layout: Layout, folders: Mapping[str, Mapping[str, TargetFolder]]) -> None:
        """Record files without an image, and those of formats that are not read."""
        images = {find_stem(name) for files in layout.splits.values() for name in files.image_names}
        for folder in {folder.path: folder for found in folders.values() for folder in found.values()}.values():
            several = {stem for stem, names in folder.names.items() if len(names) > 1}
            for stem, names in folder.names.items():
                for name in names:
                    if stem not in several and folder.path / name not in self.used:
                        self.add("target-without-image", str(folder.path / name))
            for name in walk_names(folder.path, _UNREAD):
                if find_stem(name) in images and find_stem(name) not in folder.names:
                    self.add("target-kind-unread", str(folder.path / name))

    def add_uneven(
        self, encodings: Mapping[str, TargetEncoding], folders: Mapping[str, Mapping[str, TargetFolder]]
    ) -> None:
        """Record targets that train or val lacks."""
        for name, encoding in encodings.items():
            for split in ("train", "val"):
                if split in folders and name not in folders[split]:
                    self.add("target-not-in-split", f"{encoding.spec.name} in {split}")

    def add_undeclared(self, layout: Layout, encodings: Mapping[str, TargetEncoding]) -> None:
        """Record folders of values that are not declared."""
        for files in layout.splits.values():
            folder = list_target_folders(layout, files).get("values")
            if folder is not None and "values" not in encodings:
                is_alone = layout.is_unlabelled and not encodings
                self.add("values-alone-undeclared" if is_alone else "values-undeclared", str(folder))

    def add_tables(self, layout: Layout) -> None:
        """Record tables in the folders of targets, whatever their names."""
        folders = {path for files in layout.splits.values() for path in list_target_folders(layout, files).values()}
        for folder in folders:
            for name in walk_names(folder, _TABLES):
                self.add("target-kind-unread", str(folder / name))

    def make(self, root: Path) -> list[Finding]:
        """Return the findings."""
        findings = []
        for kind, messages in self._names.items():
            names = [shorten(name, root) for name in sorted(messages)]
            words = ", ".join(sorted({message for message in messages.values() if message})[:3])
            findings.append(find(kind, names, message=words, folder=Path(names[0]).name))
        return findings
