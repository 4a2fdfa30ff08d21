"""Repaired copies of datasets: unambiguous problems are fixed, other samples omitted, and all changes listed.

OUT/images/SPLIT/NAME.jpg     copied byte by byte, or PNG where something was changed
OUT/masks/SPLIT/NAME.png      ids, with the classes' colours as palette; not without classes
OUT/classes.yaml              the same
OUT/depth, normals, values    see `targets.repair`
OUT/changes.json
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import PUBLISHED, Dataset, find_root
from refinenet.datasets.doctor.examination import Examination, examine
from refinenet.datasets.doctor.file_rules import image_notes, is_grey_odd
from refinenet.datasets.doctor.listing import Pair
from refinenet.datasets.doctor.mask_values import points_of, write_classes
from refinenet.datasets.doctor.pair_rules import find_obstacle, is_turned, size_notes
from refinenet.datasets.doctor.report import Change, Changes
from refinenet.datasets.doctor.scan import ARRAY_MODE, Facts, MaskPixels, count_values, decode_quietly, read_pixels
from refinenet.datasets.doctor.targets.repair import TargetWriter, make_writer
from refinenet.datasets.doctor.value_matching import Codes, can_snap, find_areas, fit, snap
from refinenet.datasets.folder.classes_file import MaskEncoding, of_ids
from refinenet.datasets.formats.lookup import pack_colours
from refinenet.io.console import progress_bar
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import encode, write
from refinenet.io.processes.parallel import map_safely
from refinenet.labels import LabelMap, LabelSet

ROTATED = "rotated like its image"
"""The change of a mask that was drawn on the image as stored."""


class Relabelled(NamedTuple):
    """The ids of a mask, and how they were obtained."""

    labels: LabelMap
    """Label ids `(H, W)`."""
    changes: tuple[str, ...]


def relabel(path: str, encoding: MaskEncoding, orientation: int) -> Relabelled:
    """Read a mask file as label ids.

    Args:
        path: The file.
        encoding: Corrected meaning of its values.
        orientation: EXIF orientation by which to rotate the mask; 1 for none.

    Raises:
        ValueError: the meaning of some pixels is ambiguous, or the file cannot be read.
        OSError: the file cannot be opened.
    """
    pixels = read_pixels(path, as_colours=encoding.kind == "colours")
    changes = _describe(pixels, encoding)
    codes, points, ids = _find_points(pixels, encoding)
    places, snapped, lost = _place(codes, points, pixels.is_colour and not (pixels.is_grey and encoding.kind == "ids"))
    table = np.append(ids, encoding.label_set.ignore_index)  # index -1 (ambiguous) is the last: void
    labels = encoding.label_set.cast(turn(table[places], orientation))
    if orientation > 1:
        changes.append(ROTATED)
    if snapped:
        changes.append(f"{snapped} pixels set to the nearest class, {lost} to void")
    return Relabelled(labels, tuple(changes))


def _describe(pixels: MaskPixels, encoding: MaskEncoding) -> list[str]:
    if not pixels.is_opaque:
        raise ValueError("partly transparent, so the labels there are ambiguous")
    changes = ["first frame only"] if pixels.has_frames else []
    if pixels.is_colour and encoding.kind == "ids":
        changes.append("one channel instead of three equal ones" if pixels.is_grey else "ids instead of class colours")
    elif encoding.kind == "colours":
        changes.append("ids instead of colours")
    elif encoding.values != tuple(range(len(encoding.label_set))):
        changes.append(f"ids {list(encoding.values)} became 0 to {len(encoding.label_set) - 1}")
    return changes


def _find_points(pixels: MaskPixels, encoding: MaskEncoding) -> tuple[Codes, Codes, Codes]:
    """Return the codes of a mask, the codes that have a meaning, and the ids of these."""
    points, ids = points_of(encoding)
    if not pixels.is_colour or encoding.kind == "colours":
        return pixels.codes, points, ids
    if pixels.is_grey:
        return pixels.codes & 255, points, ids
    colours = pack_colours(encoding.label_set.colours)
    if not encoding.has_colours or len(np.unique(colours)) < len(colours):
        raise ValueError("in colour, but nothing defines the class of each colour")
    return pixels.codes, colours, np.arange(len(colours))


def _place(codes: Codes, points: Codes, is_colour: bool) -> tuple[Codes, int, int]:
    """Return the index of each pixel's point (-1 if ambiguous), and the numbers of moved and of lost pixels."""
    values, counts = count_values(codes)
    found = fit(values, counts, find_areas(codes), points, is_colour)
    if not found.is_exact and not (can_snap(points, is_colour) and found.is_clear):
        raise ValueError("contains values that are close to no class, or to several")
    places = snap(codes, points, is_colour)
    lost = int((places < 0).sum())
    return places, found.total - found.exact - lost if not found.is_exact else 0, lost


def turn(labels: npt.NDArray[np.integer], orientation: int) -> npt.NDArray[np.integer]:
    """Rotate and flip `(H, W)` labels by an EXIF orientation of 1 or 5 to 8 (those with a quarter turn)."""
    # EXIF stores mirrored quarter turns as transpositions: 5 is the transpose itself, 7 the one turned by a half.
    flipped = labels.T if orientation in (5, 7) else labels
    quarters = {1: 0, 5: 0, 6: 3, 7: 2, 8: 1}[orientation]
    return np.rot90(flipped, quarters)


@dataclass(frozen=True, slots=True)
class Order:
    """A sample to write."""

    pair: Pair
    name: str
    """Its stem in the copy."""
    is_image_sound: bool
    """Whether to copy the image file unchanged."""
    orientation: int
    """EXIF orientation by which to rotate the mask."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A writer of samples, which can be sent to other processes."""

    out: Path
    encoding: MaskEncoding
    datasets: Mapping[str, Dataset]
    targets: TargetWriter

    def write(self, order: Order) -> Change:
        """Write a sample, or nothing if its mask is ambiguous."""
        pair = order.pair
        if not self.out.is_dir():  # the run was aborted and its folder removed; writing would recreate it
            return Change.leave_out(pair, "the run was aborted")
        label_set, found = self.encoding.label_set, None
        try:
            if label_set.names:
                found = self._read(order)
                if (found.labels == label_set.ignore_index).all():
                    return Change.leave_out(pair, "its mask contains only void")
            image = self._write_image(order)
            targets = self._write_targets(order)
        except (ValueError, OSError) as error:
            return Change.leave_out(pair, str(error))
        if found is not None:
            palette = label_set.colours if len(label_set) <= 255 else None
            write(self.out / "masks" / pair.split / f"{order.name}.png", found.labels, palette=palette)
        changes = () if found is None else found.changes
        return Change(pair=pair, name=order.name, image=image, mask=changes, targets=targets, left_out="")

    def _write_targets(self, order: Order) -> tuple[str, ...]:
        pair = order.pair
        if self.targets.from_datasets:
            self.targets.write_values(self.datasets[pair.split], pair.item, pair.split, order.name)
        return self.targets.write(pair.targets, pair.split, order.name)

    def _read(self, order: Order) -> Relabelled:
        if order.pair.split not in self.datasets:
            return relabel(order.pair.mask, self.encoding, order.orientation)
        dataset = replace(self.datasets[order.pair.split], items=[order.pair.item])
        labels = self.encoding.label_set.cast(turn(dataset.labels(0), order.orientation))
        return Relabelled(labels, (ROTATED,) if order.orientation > 1 else ())

    def _write_image(self, order: Order) -> tuple[str, ...]:
        pair = order.pair
        stem = self.out / "images" / pair.split / order.name
        if order.is_image_sound and pair.image:
            source = Path(pair.image)
            write_atomically(stem.with_name(order.name + source.suffix), source.read_bytes())
            return ()
        pixels = decode_quietly(pair.image) if pair.image else self.datasets[pair.split].read_image(pair.item)
        write_atomically(stem.with_name(f"{order.name}.png"), encode(pixels, ".png"))
        return ("written as upright RGB in PNG",)


def fix(
    source: str | Path | Examination,
    out: Path,
    *,
    root: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Changes:
    """Write a repaired copy of a dataset; the source is never changed.

    Args:
        source: As for `doctor.examine`; or its result, which saves reading all files twice, unless it was quick.
        out: Folder of the copy, new or empty, outside the source. It appears complete or not at all.
        root: As for `doctor.examine`.
        workers: As for `doctor.examine`.
        progress: Whether to show progress bars on a terminal.

    Raises:
        ValueError: `out` lies in the source, the meaning of the masks is unknown, or a split would be empty; or as
            `doctor.examine`.
        FileExistsError: `out` is a file, or a folder that is not empty.
        FileNotFoundError: as `doctor.examine`.
        OSError: a folder cannot be read or written.
    """
    _check_empty(out)
    if not isinstance(source, Examination):
        check_target(source, out, root=root)
    examination = _examine_wholly(source, root, workers, progress)
    _check_outside(out, examination)
    if examination.encoding is None or examination.source.is_encoding_damaged:
        raise ValueError(f"The meaning of the masks is unknown, so nothing was written.\n\n{examination.report.text()}")
    target = out.resolve()
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        temporary.mkdir(parents=True)
        changes = _write_all(examination, examination.encoding, temporary, workers, progress)
        write_atomically(temporary / "changes.json", changes.to_json().encode())
        if target.is_dir():
            target.rmdir()
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return replace(changes, out=out)


def check_target(source: str | Path, out: Path, *, root: Path | None = None) -> None:
    """Reject an unsuitable folder for a repaired copy before reading the dataset.

    Args:
        source: As for `doctor.examine`.
        out: As for `fix`.
        root: As for `doctor.examine`.

    Raises:
        ValueError: `out` lies in the source.
        FileExistsError: `out` is a file, or a folder that is not empty.
        NotADirectoryError: one of its parents is a file.
        PermissionError: its parent is not writable.
    """
    _check_empty(out)
    place = find_root(str(source), root) if str(source) in PUBLISHED else Path(source)
    if place.is_dir():
        _refuse_inside(out, {place})
    above = next(folder for folder in out.resolve().parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{above} is a file, so {out} cannot be created: name another folder for the copy.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{above} is not writable, so {out} cannot be created: name another folder.")


def _examine_wholly(
    source: str | Path | Examination, root: Path | None, workers: int | None, progress: bool
) -> Examination:
    if not isinstance(source, Examination):
        return examine(source, root=root, workers=workers, progress=progress)
    if source.is_quick:
        return examine(source.report.source, root=source.report.root, workers=workers, progress=progress)
    return source


def _check_empty(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: name a new folder for the repaired copy.")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: name a new folder for the repaired copy.")


def _check_outside(out: Path, examination: Examination) -> None:
    source = examination.source
    folders = {Path(path).parent for pair in source.listing.pairs for path in (pair.image, pair.mask) if path}
    folders |= {source.root} if source.root is not None else set()
    _refuse_inside(out, folders)


def _refuse_inside(out: Path, folders: Iterable[Path]) -> None:
    target = out.resolve()
    inside = next((folder for folder in sorted(folders) if target.is_relative_to(folder.resolve())), None)
    if inside is not None:
        raise ValueError(f"{out} lies in {inside}, which is part of the source: name a folder elsewhere for the copy.")


def _write_all(
    examination: Examination, encoding: MaskEncoding, folder: Path, workers: int | None, progress: bool
) -> Changes:
    source = examination.source
    orders, changes = _plan(examination)
    targets = make_writer(source, examination.flips, folder)
    writer = Writer(out=folder, encoding=encoding, datasets=source.reading.datasets, targets=targets)
    with progress_bar(progress) as bar:
        task = bar.add_task("Writing", total=len(orders), status="", unit="images")
        for order, change in zip(orders, map_safely(writer.write, orders, workers=workers), strict=True):
            changes.append(change or Change.leave_out(order.pair, "reading it crashes the reading process"))
            bar.advance(task)
    written = Counter(change.pair.split for change in changes if not change.left_out)
    lost = [split for split in source.listing.splits if not written[split]]
    if lost:
        left_out = sorted({change.left_out for change in changes if change.pair.split in lost})[:5]
        reasons = "; ".join(left_out) or "the source has no samples there"
        text = examination.report.text()
        advice = f"\n\n{text}" if text else ""
        raise ValueError(f"No sample would be left in {', '.join(lost)}, so no copy was written: {reasons}.{advice}")
    label_set = encoding.label_set
    if label_set.names:
        write_atomically(folder / "classes.yaml", _describe_classes(label_set).encode())
    targets.write_declaration()
    return Changes(
        out=folder, source=source.name, root=source.root, written=dict(written), samples=tuple(changes),
        files=dict(source.listing.left_out), encoding=encoding.origin, annotations=source.invalid,
        replaced_layout=source.layout.partition(",")[0] if source.reading.datasets and label_set.names else "",
    )  # fmt: skip


def _describe_classes(label_set: LabelSet) -> str:
    plain = of_ids(label_set, list(range(len(label_set))), [], "")
    return write_classes(plain)


def _plan(examination: Examination) -> tuple[list[Order], list[Change]]:
    """Return the samples to write, and those omitted from the start."""
    kept: list[Facts] = []
    changes: list[Change] = []
    for fact in examination.facts:
        reason = examination.left_out.get(fact.pair) or find_obstacle(fact)
        if reason:
            changes.append(Change.leave_out(fact.pair, reason))
        else:
            kept.append(fact)
    grey_is_odd = is_grey_odd(examination.facts)
    names = _find_names([fact.pair for fact in kept])
    return [_order(fact, grey_is_odd, name) for fact, name in zip(kept, names, strict=True)], changes


def _order(fact: Facts, grey_is_odd: bool, name: str) -> Order:
    assert fact.image is not None
    assert fact.mask is not None
    notes = {kind for kind, _, _ in _notes(fact, grey_is_odd)}
    orientation = fact.image.orientation if "size-exif" in notes else 1
    is_sound = fact.image.mode == ARRAY_MODE or not (notes or is_turned(fact.image))
    return Order(fact.pair, name, is_sound, orientation)


def _find_names(pairs: Sequence[Pair]) -> list[str]:
    """Return the items' names without folders, with a number if one is taken.

    Items that are file names lose their suffix, unless another image of the split differs in nothing else.
    """
    stems = [_remove_suffix(pair).replace("/", "__") for pair in pairs]
    uses = Counter((pair.split, stem.casefold()) for pair, stem in zip(pairs, stems, strict=True))
    names: dict[tuple[str, str], str] = {}
    for pair, stem in zip(pairs, stems, strict=True):
        is_alone = uses[pair.split, stem.casefold()] == 1
        plain = name = stem if is_alone else pair.item.replace("/", "__")
        number = 1
        while (pair.split, name.casefold()) in names:
            number += 1
            name = f"{plain}-{number}"
        names[pair.split, name.casefold()] = name
    return list(names.values())


def _remove_suffix(pair: Pair) -> str:
    """Return the item without the suffix of its image, which items of COCO's files have and those of masks do not."""
    suffix = "" if pair.mask else Path(pair.image).suffix
    has_suffix = suffix and pair.item.casefold().endswith(suffix.casefold())
    return pair.item[: -len(suffix)] if has_suffix else pair.item


def _notes(fact: Facts, grey_is_odd: bool) -> Iterator[tuple[str, str, str]]:
    if fact.image is not None and fact.mask is not None and fact.is_readable:
        yield from image_notes(fact.pair, fact.image, grey_is_odd)
        yield from size_notes(fact.pair, fact.image, fact.mask)
