"""Which images are to be segmented, what is to be written of each, and where; nothing is opened or made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from refinenet.deploy_record import SETTINGS_FILE
from refinenet.large_target import TIFF_SUFFIXES
from refinenet.sinks import Kind, check_target, choose_kinds, usual_suffix
from refinenet.sources import STANDARD_INPUT, FoundImage, find_images, names_one_file

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
            kinds, the images' own folder, or two images with one place.
    """
    names = [os.fspath(source) for source in sources]
    if STANDARD_INPUT in names:
        raise ValueError("- (standard input) is one image alone: name no other beside it, and where its result goes.")
    chosen = choose_kinds(kinds)
    is_folder = output is not None and (output.is_dir() or not (output.suffix or output.exists()))
    if names_one_file(names) and not is_folder:
        return _plan_single(Path(names[0]), output, chosen)
    folder = output or DEFAULT_FOLDER
    if _is_result(folder) and not folder.is_dir():
        raise ValueError(f"Several images, or a pattern, need a folder for their results, not one file: {folder}.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: several images, or a pattern, need a folder for their results.")
    found = find_images(names, recursive=recursive, results=folder)
    _refuse_doubles(found)
    chosen = chosen or ("labels",)
    items = [
        WorkItem(source=image.file, place=image.place, targets=_targets(folder, image.place, chosen)) for image in found
    ]
    _refuse_mixing(items, folder)
    _refuse_own_name(items, folder)
    return Work(items=items, kinds=chosen, folder=folder)


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


def _refuse_doubles(found: Sequence[FoundImage]) -> None:
    place, times = Counter(image.place for image in found).most_common(1)[0]
    if times > 1:
        alike = [image.file for image in found if image.place == place]
        homes = {file.resolve().parent for file in alike}
        way = ", or name the folder that they lie in, with --recursive (recursive=True)" if len(homes) > 1 else ""
        raise ValueError(
            f"{times} images would have the result {place!r}, and one would replace the other: "
            f"{', '.join(map(str, alike[:5]))}. Rename all but one, or leave them out{way}."
        )


def _refuse_mixing(items: Sequence[WorkItem], folder: Path) -> None:
    homes = {path.parent.resolve() for item in items for path in item.targets.values()}
    mixed = next((item.source for item in items if item.source.parent.resolve() in homes), None)
    if mixed is not None and folder.exists():
        raise ValueError(
            f"{folder} holds the images themselves, such as {mixed}: results would mix with them. Name another folder."
        )


def _refuse_own_name(items: Sequence[WorkItem], folder: Path) -> None:
    for item in items:
        if folder / SETTINGS_FILE in item.targets.values():
            raise ValueError(
                f"The result of {item.source} would be {folder / SETTINGS_FILE}, where the folder's record is. "
                "Rename the image, or ask for a second kind, which gives each kind a folder."
            )
