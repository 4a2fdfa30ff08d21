"""Which images are meant: by files, folders, patterns and lists of them; none is opened."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from refinenet.datasets.catalog import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, has_suffix, list_files
from refinenet.deployment.journal import SETTINGS_FILE
from refinenet.deployment.outputs import Kind, check_target, choose_kinds, usual_suffix
from refinenet.io.files import refuse_address
from refinenet.io.image_files import DOWNLOAD
from refinenet.io.raster_writer import TIFF_SUFFIXES

STANDARD_INPUT = "-"
LIST_MARK = "@"

_PICTURES = (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES)
"""Pictures that are not read are found as well, so that they are reported with the others that fail."""


Problem = ValueError | OSError


class FoundImage(NamedTuple):
    """An image and where its results belong."""

    file: Path
    place: str
    """Below a folder of results, folders parted by "/", without a suffix."""
    problem: Problem | None = None
    """Why it is skipped: it is a folder that cannot be read, or that is not looked through."""


def find_images(sources: Sequence[str], *, recursive: bool = False, results: Path | None = None) -> list[FoundImage]:
    """The images that are meant, each once: in the order of the sources, those of a folder in alphabetical order.

    A folder that cannot be read, and with `recursive` a link to a folder outside, stands in the list with its problem.

    Args:
        sources: Each an image file; a folder, whose images are meant; a pattern with `*`, `?` or `[...]`, `**` for
            folders in folders; or `@FILE`, a text file with a source in each line, as if it stood here. A file that is
            there is meant even if its name looks like a pattern.
        recursive: Whether folders in folders are meant, too.
        results: A folder for results. What folders and patterns find below it is left out.

    Returns:
        The images with the places of their results. An image from a folder or a pattern keeps the folders below that
        folder, or below the part of the pattern before its first sign; one from a list those that it is written with,
        if they lead from the current folder downwards; one that is named itself none.

    Raises:
        ValueError: there is no image in a folder, none of a pattern, or a list that cannot be read or is empty.
    """
    found: dict[Path, FoundImage] = {}
    if not sources:
        raise ValueError("No image is named: name files, folders or patterns.")
    for source in sources:
        for image in _find(source, recursive, results):
            found.setdefault(image.file, image)
    return list(found.values())


def names_one_file(sources: Sequence[str]) -> bool:
    """Whether one image file is named, not a folder, pattern or list."""
    return (
        len(set(sources)) == 1
        and bool(sources[0].strip())
        and not _is_list(sources[0])
        and not _is_pattern(sources[0])
        and not os.path.isdir(sources[0])
    )


def _find(source: str, recursive: bool, results: Path | None) -> Iterator[FoundImage]:
    if not source.strip():
        raise ValueError("The name of an image is empty; the current folder is called '.'.")
    try:
        refuse_address("An image", source, DOWNLOAD)
    except ValueError as error:
        yield FoundImage(Path(source), _without_suffix(Path(source).name), error)
        return
    if _is_list(source):
        yield from _read_list(Path(source[len(LIST_MARK) :]), recursive, results)
    elif os.path.isdir(source):
        yield from _in_folder(Path(source), recursive, results)
    elif _is_pattern(source):
        yield from _of_pattern(source, results)
    else:
        yield FoundImage(Path(source), _without_suffix(Path(source).name))


def _is_list(source: str) -> bool:
    return source.startswith(LIST_MARK) and not os.path.lexists(source)


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not os.path.lexists(source)


def _in_folder(folder: Path, recursive: bool, results: Path | None) -> Iterator[FoundImage]:
    names, problems = walk_images(folder, recursive=recursive)
    own = _below(folder, results)
    images = [name for name in sorted(names) if own is None or not name.startswith(own)]
    skipped = {name: problem for name, problem in problems.items() if own is None or not f"{name}/".startswith(own)}
    if not any(map(_is_image, images)) and not skipped:
        deeper = not recursive and any(map(_is_image, _walk(folder)[0]))
        hint = " Folders in it do: they are looked through with --recursive (recursive=True)." if deeper else ""
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).{hint}{_say_foreign(images)}"
        )
    yield from (FoundImage(folder / name, _find_place(name)) for name in images)
    yield from (FoundImage(folder / name, name, skipped[name]) for name in sorted(skipped))


def _is_image(name: str) -> bool:
    return has_suffix(PurePath(name).name, IMAGE_SUFFIXES)


def walk_images(folder: Path, *, recursive: bool) -> tuple[list[str], dict[str, Problem]]:
    """The pictures in a folder, of kinds that are read and others, and the folders in it that are left out.

    Args:
        folder: Where to look.
        recursive: Whether folders in folders are meant, too.

    Returns:
        The names of the images, with the folders below `folder` in front, parted by "/"; and so named the folders that
        cannot be read, and with `recursive` the links to folders outside, with the reason.
    """
    return _walk(folder) if recursive else _list(folder)


def _list(folder: Path) -> tuple[list[str], dict[str, Problem]]:
    try:
        return [path.name for path in list_files(folder, _PICTURES)], {}
    except OSError as error:
        return [], {".": _unreadable(folder, error)}


def _walk(folder: Path) -> tuple[list[str], dict[str, Problem]]:
    """Names of the images in and below a folder, and the folders whose images are not among them, with the reason."""
    names: list[str] = []
    problems: dict[str, Problem] = {}
    root = os.path.realpath(folder)

    def note(error: OSError) -> None:
        problems[_name_below(folder, error.filename)] = _unreadable(error.filename, error)

    for parent, folders, files in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [_name_below(folder, parent, name) for name in files if has_suffix(name, _PICTURES)]
        for link in (Path(parent, name) for name in folders if os.path.islink(Path(parent, name))):
            leads_to = os.path.realpath(link)
            if os.path.commonpath([root, leads_to]) != root:
                problems[_name_below(folder, link)] = ValueError(
                    f"{link} is a link to the folder {leads_to}, which is not followed. Name it itself, too."
                )
    return names, problems


def _name_below(folder: Path, *parts: str | Path) -> str:
    return Path(*parts).relative_to(folder).as_posix()


def _unreadable(folder: str | Path, error: OSError) -> OSError:
    return type(error)(error.errno, f"Cannot read the folder {folder}: {error.strerror}")


def _of_pattern(pattern: str, results: Path | None) -> Iterator[FoundImage]:
    parts = Path(pattern).parts
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:plain])
    own = _below(base, results)
    signs = "/".join(parts[plain:])
    found = base.glob(signs + "/*" if parts[-1] == "**" else signs)
    names = sorted(path.relative_to(base).as_posix() for path in found if not os.path.isdir(path))
    images = [
        name
        for name in names
        if has_suffix(name, _PICTURES)
        and (own is None or not name.startswith(own))
        and not any(part.startswith(".") for part in PurePath(name).parts)
    ]
    closed = _find_closed(base, parts[plain:])
    if not any(map(_is_image, images)) and not closed:
        looked_for = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"No image fits the pattern {pattern!r} (looked for {looked_for}).{_say_foreign(images)}")
    yield from (FoundImage(base / name, _find_place(name)) for name in images)
    for folder in closed:
        yield FoundImage(folder, folder.name, _unreadable(folder, PermissionError(errno.EACCES, "Permission denied")))


def _find_closed(base: Path, parts: Sequence[str]) -> list[Path]:
    """The folders that a pattern leads through and that may not be read, which `Path.glob` does not mention."""
    depth = len(parts) if parts[-1] == "**" else len(parts) - 1
    through = {base, *(path for count in range(1, depth + 1) for path in base.glob("/".join(parts[:count])))}
    return sorted(path for path in through if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK))


def _read_list(path: Path, recursive: bool, results: Path | None) -> Iterator[FoundImage]:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name it without {LIST_MARK}, which stands before a list of images.")
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read the list {path}: {error.strerror}") from error
    named = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    if not named:
        raise ValueError(f"The list {path} names no image: it needs a path in each line.")
    for name in named:
        if name == STANDARD_INPUT or "\0" in name or _is_list(name):
            raise ValueError(f"The list {path} has the line {name[:80]!r}: files, folders and patterns are allowed.")
        is_file = not os.path.isdir(name) and not _is_pattern(name)
        for image in _find(name, recursive, results):
            leads_down = is_file and not image.file.is_absolute() and ".." not in image.file.parts
            yield image._replace(place=_without_suffix(image.file.as_posix())) if leads_down else image


def _below(folder: Path, results: Path | None) -> str | None:
    """How names of results begin that lie below a folder, but are not the folder itself."""
    if results is None or not os.path.isdir(folder):
        return None
    root, own = Path(os.path.realpath(folder)), Path(os.path.realpath(results))
    return f"{own.relative_to(root).as_posix()}/" if root in own.parents else None


def _say_foreign(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" Pictures of kinds that are not read: {', '.join(names[:5])}{more}."


def _find_place(name: str) -> str:
    """Where the result of an image belongs; a picture that is not read, which fails alone, is in nobody's way."""
    return _without_suffix(name) if _is_image(name) else name


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePath(name).suffix)


RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", ".npz", ".json", ".geojson", *TIFF_SUFFIXES)
DEFAULT_FOLDER = Path("segmented")


@dataclass(frozen=True, kw_only=True)
class Job:
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
class JobList:
    """All that is to be done."""

    items: Sequence[Job]
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
) -> JobList:
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
    return JobList(items=items, kinds=chosen, folder=folder)


def _as_item(image: FoundImage, folder: Path, kinds: tuple[Kind, ...]) -> Job:
    targets = {} if image.problem is not None else _targets(folder, image.place, kinds)
    return Job(source=image.file, place=image.place, targets=targets, problem=image.problem)


def plan_bytes(content: bytes, output: Path, kinds: Sequence[str] = ()) -> JobList:
    """As `plan_work`, for an image that came through standard input.

    Raises:
        ValueError: an unknown kind, several, or an output that cannot hold it.
    """
    work = _plan_single(Path(STANDARD_INPUT), output, choose_kinds(kinds))
    return replace(work, items=[replace(item, content=content) for item in work.items])


def _plan_single(source: Path, output: Path | None, kinds: tuple[Kind, ...]) -> JobList:
    if output is None:
        chosen = kinds or ("labels",)
        targets = {kind: source.with_name(f"{source.stem}_{kind}{usual_suffix(kind)}") for kind in chosen}
    elif len(kinds) > 1:
        raise ValueError(f"{', '.join(kinds)} are several files: name a folder for them, not {output}.")
    else:
        chosen = (check_target(output, kinds[0] if kinds else None),)
        targets = {chosen[0]: output}
    items = [Job(source=source, place=source.stem, targets=targets)]
    return JobList(items=items, kinds=chosen, folder=None, is_named=output is not None)


def _is_result(path: Path) -> bool:
    return path.suffix.lower() in RESULT_SUFFIXES


def _targets(folder: Path, place: str, kinds: tuple[Kind, ...]) -> dict[Kind, Path]:
    homes = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
    return {kind: home / f"{place}{usual_suffix(kind)}" for kind, home in homes.items()}


def _without_clashes(items: Sequence[Job], folder: Path) -> list[Job]:
    """The items, of which those are skipped whose result would replace another one's, or the folder's record."""
    first: dict[str, Job] = {}
    return [
        item if item.problem is not None else skip(item, _find_clash(item, first.setdefault(item.place, item), folder))
        for item in items
    ]


def skip(item: Job, problem: ValueError | OSError | None) -> Job:
    """The item without targets, or the item itself where there is no problem."""
    return item if problem is None else replace(item, targets={}, problem=problem)


def _find_clash(item: Job, first: Job, folder: Path) -> ValueError | None:
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


def _refuse_mixing(items: Sequence[Job], folder: Path) -> None:
    parents = {path.parent for item in items for path in item.targets.values()}
    homes = {os.path.realpath(parent) for parent in parents}
    mixed = next((item.source for item in items if os.path.realpath(item.source.parent) in homes), None)
    if mixed is not None and os.path.exists(folder):
        raise ValueError(
            f"{folder} holds the images themselves, such as {mixed}: results would mix with them. Name another folder."
        )
