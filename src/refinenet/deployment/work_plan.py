"""Which images are to be segmented, what is to be written of each, and where; nothing is opened or made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from refinenet.deployment.inputs import STANDARD_INPUT, FoundImage, find_images, names_one_file
from refinenet.deployment.journal import SETTINGS_FILE
from refinenet.deployment.outputs import Kind, check_target, choose_kinds, usual_suffix
from refinenet.io.files import refuse_address
from refinenet.io.image_files import DOWNLOAD
from refinenet.io.raster import TIFF_SUFFIXES

RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", ".npz", ".json", ".geojson", *TIFF_SUFFIXES)
DEFAULT_FOLDER = Path("segmented")


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """An image and the files that its results go to."""

    source: Path
    place: str
    """What the folder of results calls it: its folders there and its name, without a suffix."""
    targets: Mapping[Kind, Path]
    content: bytes | None = None
    """The image's file itself, where it is none on a disk."""
    problem: ValueError | OSError | None = None
    """Why it is skipped; it has no targets then."""

    @property
    def name(self) -> str:
        """The image file's name, with its folders as the folder of results has them."""
        return PurePosixPath(self.place).with_name(self.source.name).as_posix()


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that is to be done."""

    items: Sequence[WorkItem]
    kinds: tuple[Kind, ...]
    folder: Path | None
    """The folder of results, which keeps a record; None for one image without one."""
    is_named: bool = True
    """Whether whoever asked said where results go; files that happen to be elsewhere are not replaced unasked."""


def plan_work(
    sources: Sequence[str | os.PathLike[str]],
    output: Path | None = None,
    kinds: Sequence[str] = (),
    *,
    recursive: bool = False,
) -> Work:
    """Find the images and say where each result goes; nothing is opened or made.

    What cannot be segmented is an item with its problem: a folder that cannot be read, and of several images with one
    place for their results all but the first.

    Args:
        sources: Image files, folders, patterns and lists; see `sources.find_images`.
        output: For one image file a file, by default `NAME_KIND.png` beside it. Else a folder, which a name without a
            suffix is, too, by default `segmented`: of one kind it holds `PLACE.png` (or what is usual for the kind), of
            several `KIND/PLACE.png`.
        kinds: Which files to write (`sinks.KINDS`, or "polygons" for two of them); by default label ids, or what the
            suffix of `output` says.
        recursive: Whether folders in folders are meant, too.

    Raises:
        ValueError: an unknown kind, an output that cannot hold it, no image, a file as output for several images or
            kinds, or the images' own folder.
    """
    names = [os.fspath(source) for source in sources]
    if STANDARD_INPUT in names:
        raise ValueError("- (standard input) is one image alone: name no other beside it, and where its result goes.")
    chosen = choose_kinds(kinds)
    refuse_address("An output", output, "Write to a folder here, or to a store (s3://) with --engine ray.")
    is_folder = output is not None and (os.path.isdir(output) or not (output.suffix or os.path.exists(output)))
    if names_one_file(names) and not is_folder:
        refuse_address("An image", names[0], DOWNLOAD)
        return _plan_single(Path(names[0]), output, chosen)
    folder = output or DEFAULT_FOLDER
    if _is_result(folder) and not os.path.isdir(folder):
        raise ValueError(f"Several images, or a pattern, need a folder for their results, not one file: {folder}.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"{folder} is a file: several images, or a pattern, need a folder for their results.")
    found = find_images(names, recursive=recursive, results=folder)
    chosen = chosen or ("labels",)
    items = _without_clashes([_as_item(image, folder, chosen) for image in found], folder)
    _refuse_mixing(items, folder)
    return Work(items=items, kinds=chosen, folder=folder)


def _as_item(image: FoundImage, folder: Path, kinds: tuple[Kind, ...]) -> WorkItem:
    targets = {} if image.problem is not None else _targets(folder, image.place, kinds)
    return WorkItem(source=image.file, place=image.place, targets=targets, problem=image.problem)


def plan_bytes(content: bytes, output: Path, kinds: Sequence[str] = ()) -> Work:
    """As `plan_work`, for an image that came through standard input.

    Raises:
        ValueError: an unknown kind, several, or an output that cannot hold it.
    """
    work = _plan_single(Path(STANDARD_INPUT), output, choose_kinds(kinds))
    return replace(work, items=[replace(item, content=content) for item in work.items])


def _plan_single(source: Path, output: Path | None, kinds: tuple[Kind, ...]) -> Work:
    if output is None:
        chosen = kinds or ("labels",)
        targets = {kind: source.with_name(f"{source.stem}_{kind}{usual_suffix(kind)}") for kind in chosen}
    elif len(kinds) > 1:
        raise ValueError(f"{', '.join(kinds)} are several files: name a folder for them, not {output}.")
    else:
        chosen = (check_target(output, kinds[0] if kinds else None),)
        targets = {chosen[0]: output}
    items = [WorkItem(source=source, place=source.stem, targets=targets)]
    return Work(items=items, kinds=chosen, folder=None, is_named=output is not None)


def _is_result(path: Path) -> bool:
    return path.suffix.lower() in RESULT_SUFFIXES


def _targets(folder: Path, place: str, kinds: tuple[Kind, ...]) -> dict[Kind, Path]:
    homes = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
    return {kind: home / f"{place}{usual_suffix(kind)}" for kind, home in homes.items()}


def _without_clashes(items: Sequence[WorkItem], folder: Path) -> list[WorkItem]:
    """The items, of which those are skipped whose result would replace another one's, or the folder's record."""
    first: dict[str, WorkItem] = {}
    return [
        item if item.problem is not None else skip(item, _find_clash(item, first.setdefault(item.place, item), folder))
        for item in items
    ]


def skip(item: WorkItem, problem: ValueError | OSError | None) -> WorkItem:
    """The item without targets, or the item itself where there is no problem."""
    return item if problem is None else replace(item, targets={}, problem=problem)


def _find_clash(item: WorkItem, first: WorkItem, folder: Path) -> ValueError | None:
    if folder / SETTINGS_FILE in item.targets.values():
        return ValueError(
            f"{item.source}: its result would be {folder / SETTINGS_FILE}, where the folder's record is. "
            "Rename the image, or ask for a second kind, which gives each kind a folder."
        )
    if item is first:
        return None
    apart = os.path.realpath(item.source.parent) != os.path.realpath(first.source.parent)
    way = ", or name the folder that both lie in, with --recursive (recursive=True)" if apart else ""
    return ValueError(
        f"{item.source}: its result {item.place!r} would replace that of {first.source}. "
        f"Rename all but one, or leave them out{way}."
    )


def _refuse_mixing(items: Sequence[WorkItem], folder: Path) -> None:
    parents = {path.parent for item in items for path in item.targets.values()}
    homes = {os.path.realpath(parent) for parent in parents}
    mixed = next((item.source for item in items if os.path.realpath(item.source.parent) in homes), None)
    if mixed is not None and os.path.exists(folder):
        raise ValueError(
            f"{folder} holds the images themselves, such as {mixed}: results would mix with them. Name another folder."
        )
