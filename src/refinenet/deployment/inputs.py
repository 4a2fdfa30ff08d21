"""Jobs: the images that a user names, and the kinds and paths of their results.

No image is opened here. `image_search` finds the images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import cast

from refinenet.deployment.image_search import STANDARD_INPUT, BandParts, FoundImage, Search, find_images, names_one_file
from refinenet.deployment.journal import SETTINGS_FILE
from refinenet.inference.output_kinds import (
    OUTPUT_KINDS,
    PICTURE_SUFFIXES,
    POLYGONS,
    Kind,
    Output,
    file_word,
    split_kind,
)
from refinenet.inference.rendering import check_suffix_of
from refinenet.inference.segmentation import check_output
from refinenet.inference.values.subject import kinds_of, usual_kind
from refinenet.io.files import refuse_address
from refinenet.io.images.image_files import DOWNLOAD
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.outputs import CLASSES, OutputSpec

RESULT_SUFFIXES = (
    *PICTURE_SUFFIXES,
    *(suffix for row in OUTPUT_KINDS.values() for suffix in (row.suffix, *row.contents) if not row.is_picture),
    *TIFF_SUFFIXES,
)
DEFAULT_FOLDER = Path("segmented")
_POLYGON_KINDS: Sequence[Kind] = [kind for kind, spec in OUTPUT_KINDS.items() if spec.has_polygons]


@dataclass(frozen=True, kw_only=True)
class Job:
    """An image and its result files."""

    source: Path
    place: str
    """Path below the results folder, without a suffix."""
    targets: Mapping[Kind, Path]
    content: bytes | None = None
    """Bytes of the image file, if it is not on a disk."""
    problem: ValueError | OSError | None = None
    """Reason to skip it; it then has no targets."""
    parts: BandParts | None = None
    """The files of its bands, if there are several; `source` is the first of them."""

    @property
    def files(self) -> list[Path]:
        """All files of the image."""
        return [self.source] if self.parts is None else self.parts.list_files()

    @property
    def name(self) -> str:
        """Name of the image file, with its folders below the results folder."""
        return PurePosixPath(self.place).with_name(self.source.name).as_posix()


@dataclass(frozen=True, kw_only=True)
class JobList:
    """The jobs of a run."""

    items: Sequence[Job]
    kinds: tuple[Kind, ...]
    folder: Path | None
    """The results folder, which gets a journal; None for a single image without one."""
    is_named: bool = True
    """Whether the caller chose the output; existing files at default paths are not replaced."""


def plan_work(
    inputs: Sequence[str | os.PathLike[str]],
    output: Path | None = None,
    kinds: Sequence[str] = (),
    *,
    recursive: bool = False,
    outputs: Sequence[OutputSpec] = (CLASSES,),
    arrays: bool = False,
    suffix: str | None = None,
) -> JobList:
    """Find the images and choose the paths of their results; nothing is opened or created.

    Jobs that cannot be done state their problem: unreadable folders, and all but the first of several images with the
    same place.

    Args:
        inputs: Image files, folders, patterns and lists; see `find_images`.
        output: For one image file, a file, by default `NAME_KIND.png` beside it. Otherwise a folder, by default
            `segmented`; names without a suffix are folders. One kind is written to `PLACE.png` (or the usual suffix of
            the kind, or `suffix`), several to `KIND/PLACE.png`.
        kinds: Kinds of result files (`OUTPUT_KINDS`, or "polygons" for two of them); by default label ids, or the
            kind that the suffix of `output` implies.
        recursive: Whether to search subfolders.
        outputs: Outputs of the network, for the default kind of networks without classes.
        arrays: Whether folders and patterns find NumPy files, as for networks of named bands.
        suffix: Suffix of the results in a folder, such as ".jpg" or ".tif"; by default the usual one of each kind.

    Raises:
        ValueError: an unknown kind, an output or a suffix that cannot hold it, no image, a file as output for several
            images or kinds, or the images' own folder as output.
    """
    names = [os.fspath(name) for name in inputs]
    if STANDARD_INPUT in names:
        raise ValueError(
            "- (standard input) is a single image: pass no other input, and specify its output (--output)."
        )
    chosen = choose_kinds(kinds)
    refuse_address("An output", output, "Write to a local folder, or to a store (s3://) with --engine ray.")
    is_folder = output is not None and (os.path.isdir(output) or not (output.suffix or os.path.exists(output)))
    if names_one_file(names) and not is_folder:
        refuse_address("An image", names[0], DOWNLOAD)
        if suffix is not None:
            raise ValueError(f"The suffix {suffix!r} is for results in a folder: name the file instead (--output).")
        return _plan_single(Path(names[0]), output, chosen, outputs)
    folder = output or DEFAULT_FOLDER
    if _is_result(folder) and not os.path.isdir(folder):
        raise ValueError(
            f"The results of several images, or of a pattern, need a folder, not a file: {folder}. For results of this "
            f"type, name the folder and the suffix (--suffix {folder.suffix})."
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"{folder} is a file: the results of several images, or of a pattern, need a folder.")
    found = find_images(names, Search(recursive, folder, arrays))
    chosen, suffixes = _choose_suffixes(chosen, suffix, outputs)
    items = _without_clashes([_as_item(image, folder, suffixes) for image in found], folder)
    _refuse_mixing(items, folder)
    return JobList(items=items, kinds=chosen, folder=folder)


def _choose_suffixes(
    kinds: tuple[Kind, ...], suffix: str | None, outputs: Sequence[OutputSpec]
) -> tuple[tuple[Kind, ...], Mapping[Kind, str]]:
    """Return the kinds to write into a folder, and the suffix of each.

    Raises:
        ValueError: a kind cannot be written with the suffix.
    """
    if suffix is None:
        kinds = kinds or (usual_kind(outputs) or "labels",)
        return kinds, {kind: usual_suffix(kind) for kind in kinds}
    if not re.fullmatch(r"\.\w+", suffix):
        raise ValueError(f"A suffix must begin with a dot, such as .jpg or .tif, unlike {suffix!r}.")
    kinds = tuple(check_target(Path(f"image{suffix}"), kind, outputs) for kind in kinds or (None,))
    return kinds, dict.fromkeys(kinds, suffix)


def _as_item(image: FoundImage, folder: Path, suffixes: Mapping[Kind, str]) -> Job:
    targets = {} if image.problem is not None else _targets(folder, image.place, suffixes)
    return Job(source=image.file, place=image.place, targets=targets, problem=image.problem, parts=image.parts)


def plan_bytes(
    content: bytes, output: Path, kinds: Sequence[str] = (), outputs: Sequence[OutputSpec] = (CLASSES,)
) -> JobList:
    """Plan the job of an image from standard input; as `plan_work`.

    Raises:
        ValueError: an unknown kind, several kinds, or an output that cannot hold it.
    """
    work = _plan_single(Path(STANDARD_INPUT), output, choose_kinds(kinds), outputs)
    return replace(work, items=[replace(item, content=content) for item in work.items])


def _plan_single(source: Path, output: Path | None, kinds: tuple[Kind, ...], outputs: Sequence[OutputSpec]) -> JobList:
    if output is None:
        chosen = kinds or (usual_kind(outputs) or "labels",)
        targets = {kind: source.with_name(f"{source.stem}_{file_word(kind)}{usual_suffix(kind)}") for kind in chosen}
    elif len(kinds) > 1:
        raise ValueError(f"{', '.join(kinds)} are written to several files: pass a folder, not {output}.")
    else:
        chosen = (check_target(output, kinds[0] if kinds else None, outputs),)
        targets = {chosen[0]: output}
    items = [Job(source=source, place=source.stem, targets=targets)]
    return JobList(items=items, kinds=chosen, folder=None, is_named=output is not None)


def _is_result(path: Path) -> bool:
    return path.suffix.lower() in RESULT_SUFFIXES


def _targets(folder: Path, place: str, suffixes: Mapping[Kind, str]) -> dict[Kind, Path]:
    homes = {kind: folder / file_word(kind) if len(suffixes) > 1 else folder for kind in suffixes}
    return {kind: home / f"{place}{suffixes[kind]}" for kind, home in homes.items()}


def _without_clashes(items: Sequence[Job], folder: Path) -> list[Job]:
    """Skip images whose result would replace that of another image, or the folder's journal."""
    first: dict[str, Job] = {}
    return [
        item if item.problem is not None else skip(item, _find_clash(item, first.setdefault(item.place, item), folder))
        for item in items
    ]


def skip(item: Job, problem: ValueError | OSError | None) -> Job:
    """Return the job without targets, or unchanged if there is no problem."""
    return item if problem is None else replace(item, targets={}, problem=problem)


def _find_clash(item: Job, first: Job, folder: Path) -> ValueError | None:
    if folder / SETTINGS_FILE in item.targets.values():
        return ValueError(
            f"{item.source}: its result would be {folder / SETTINGS_FILE}, where the settings of the folder are "
            "stored. Rename the image, or write a second kind, so that each kind gets a folder."
        )
    if item is first:
        return None
    apart = os.path.realpath(item.source.parent) != os.path.realpath(first.source.parent)
    advice = ", or name the folder that holds both, with --recursive (in Python recursive=True)" if apart else ""
    return ValueError(
        f"{item.source}: its result {item.place!r} would replace that of {first.source}. "
        f"Rename all but one, or leave them out{advice}."
    )


def _refuse_mixing(items: Sequence[Job], folder: Path) -> None:
    parents = {path.parent for item in items for path in item.targets.values()}
    homes = {os.path.realpath(parent) for parent in parents}
    mixed = next((item.source for item in items if os.path.realpath(item.source.parent) in homes), None)
    if mixed is not None and os.path.exists(folder):
        raise ValueError(
            f"{folder} contains input images, such as {mixed}: results would mix with them. Choose another folder."
        )


def choose_kinds(asked: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds asked for, each once, with `polygons` expanded.

    Raises:
        ValueError: an unknown kind, or a kind whose library is not installed.
    """
    names = [part for name in asked for part in (_POLYGON_KINDS if name == POLYGONS else (name,))]
    unknown = [name for name in names if not _is_kind(name)]
    if unknown:
        raise ValueError(f"kind must be one of {', '.join(OUTPUT_KINDS)} and {POLYGONS}, not {min(unknown)!r}.")
    order = list(OUTPUT_KINDS)
    chosen = tuple(sorted(dict.fromkeys(names), key=lambda name: order.index(split_kind(name)[0])))
    for kind in chosen:
        OUTPUT_KINDS[split_kind(kind)[0]].require()
    return chosen


def _is_kind(name: str) -> bool:
    key, part = split_kind(name)
    return key in OUTPUT_KINDS and (key == name or (bool(part) and OUTPUT_KINDS[key].shows_values))


def usual_suffix(kind: Kind) -> str:
    """Return the default suffix of a kind."""
    return OUTPUT_KINDS[split_kind(kind)[0]].suffix


def check_target(target: Path, kind: Kind | None, outputs: Sequence[OutputSpec] = (CLASSES,)) -> Kind:
    """Return the kind of a result file: the one asked for, or the one that its suffix implies.

    Args:
        target: The file.
        kind: What to write; None for the default.
        outputs: Outputs of the network.

    Raises:
        ValueError: the suffix does not fit the kind, or no kind has such a suffix.
    """
    suffix = target.suffix.lower()
    kind = kind or _usual_for(suffix, outputs)
    row = None if kind is None else OUTPUT_KINDS[split_kind(kind)[0]]
    if kind is None or row is None or row.is_picture:
        output = cast("Output | None", kind)
        # TIFF is written in windows, for every kind of picture.
        return kind or "labels" if suffix in TIFF_SUFFIXES else check_output(target, output)
    if row.shows_values:
        check_suffix_of(kind, suffix)
    elif suffix != row.suffix:
        raise ValueError(f"{kind} is written as {row.suffix}, not as {str(target)!r}.")
    return kind


def _usual_for(suffix: str, outputs: Sequence[OutputSpec]) -> Kind | None:
    """Return the kind that the suffix of a file implies; None for pictures of classes."""
    usual = usual_kind(outputs)
    if usual is not None:
        plain = ".tif" if suffix in TIFF_SUFFIXES else suffix
        possible = [usual] if suffix in PICTURE_SUFFIXES else kinds_of(outputs)
        rows = {kind: OUTPUT_KINDS[split_kind(kind)[0]] for kind in possible}
        return next((kind for kind, row in rows.items() if plain in (*row.forms, *row.contents)), usual)
    found = (kind for kind, row in OUTPUT_KINDS.items() if not row.is_picture and row.suffix == suffix)
    kind = None if suffix in PICTURE_SUFFIXES else next(found, None)
    return None if kind is None else choose_kinds([kind])[0]
