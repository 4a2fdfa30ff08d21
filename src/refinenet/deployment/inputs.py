"""Inputs and jobs: resolves files, folders, patterns and lists to images and the paths of their results.

No image is opened here.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from refinenet.deployment.journal import SETTINGS_FILE
from refinenet.deployment.outputs import check_target, choose_kinds, usual_suffix
from refinenet.inference.output_kinds import OUTPUT_KINDS, PICTURE_SUFFIXES, Kind, file_word
from refinenet.inference.values.subject import usual_kind
from refinenet.io.files import refuse_address
from refinenet.io.image_files import DOWNLOAD, FOREIGN_SUFFIXES, IMAGE_SUFFIXES, has_suffix, list_files
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.outputs import CLASSES, OutputSpec

STANDARD_INPUT = "-"
LIST_MARK = "@"

_PICTURES = (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES)
"""Includes formats that cannot be read, so that such files are reported as failures instead of silently ignored."""

Problem = ValueError | OSError


class FoundImage(NamedTuple):
    """An image and the place of its results."""

    file: Path
    place: str
    """Path below the results folder, with "/" between folders and without a suffix."""
    problem: Problem | None = None
    """Reason to skip it: a folder that cannot be read or is not searched."""


def find_images(inputs: Sequence[str], *, recursive: bool = False, results: Path | None = None) -> list[FoundImage]:
    """Find the images that inputs stand for, each once: in input order, those of a folder in alphabetical order.

    Unreadable folders, and with `recursive` links to folders outside, are listed with their problem.

    Args:
        inputs: Image files; folders of images; patterns with `*`, `?` or `[...]`, and `**` for subfolders; or `@FILE`,
            a text file with an input in each line. An existing file is never taken for a pattern.
        recursive: Whether to search subfolders.
        results: The results folder; images that folders and patterns find below it are ignored.

    Returns:
        The images with the places of their results. Images of a folder or pattern keep the subfolders below that
        folder, or below the part of the pattern before its first wildcard; images of a list keep the folders that the
        list gives, unless they lead outside the current folder; images named directly keep none.

    Raises:
        ValueError: a folder or pattern has no images, or a list cannot be read or is empty.
    """
    found: dict[Path, FoundImage] = {}
    if not inputs:
        raise ValueError("No input given: pass files, folders or patterns.")
    for name in inputs:
        for image in _find(name, recursive, results):
            found.setdefault(image.file, image)
    return list(found.values())


def names_one_file(inputs: Sequence[str]) -> bool:
    """Return whether the only input is an image file, not a folder, pattern or list."""
    return (
        len(set(inputs)) == 1
        and bool(inputs[0].strip())
        and not _is_list(inputs[0])
        and not _is_pattern(inputs[0])
        and not os.path.isdir(inputs[0])
    )


def _find(source: str, recursive: bool, results: Path | None) -> Iterator[FoundImage]:
    if not source.strip():
        raise ValueError("The path of an image is empty; for the current folder, pass '.'.")
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
        hint = " Its subfolders do: add --recursive (recursive=True)." if deeper else ""
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).{hint}{_list_foreign(images)}"
        )
    yield from (FoundImage(folder / name, _find_place(name)) for name in images)
    yield from (FoundImage(folder / name, name, skipped[name]) for name in sorted(skipped))


def _is_image(name: str) -> bool:
    return has_suffix(PurePath(name).name, IMAGE_SUFFIXES)


def walk_images(folder: Path, *, recursive: bool) -> tuple[list[str], dict[str, Problem]]:
    """Find the pictures in a folder, including formats that cannot be read.

    Args:
        folder: Where to search.
        recursive: Whether to search subfolders.

    Returns:
        Names of the pictures relative to `folder`, with "/" between folders; and, by such names, the folders left out
        with the reason: unreadable ones, and with `recursive` links to folders outside.
    """
    return _walk(folder) if recursive else _list(folder)


def _list(folder: Path) -> tuple[list[str], dict[str, Problem]]:
    try:
        return [path.name for path in list_files(folder, _PICTURES)], {}
    except OSError as error:
        return [], {".": _unreadable(folder, error)}


def _walk(folder: Path) -> tuple[list[str], dict[str, Problem]]:
    """As `walk_images` with `recursive`."""
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
                    f"{link} is a link to the folder {leads_to}, which is not followed. Pass that folder, too."
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
    wildcards = "/".join(parts[plain:])
    found = base.glob(wildcards + "/*" if parts[-1] == "**" else wildcards)
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
        raise ValueError(f"No image matches the pattern {pattern!r} (looked for {looked_for}).{_list_foreign(images)}")
    yield from (FoundImage(base / name, _find_place(name)) for name in images)
    for folder in closed:
        yield FoundImage(folder, folder.name, _unreadable(folder, PermissionError(errno.EACCES, "Permission denied")))


def _find_closed(base: Path, parts: Sequence[str]) -> list[Path]:
    """Return the unreadable folders on the way of a pattern, which `Path.glob` skips silently."""
    depth = len(parts) if parts[-1] == "**" else len(parts) - 1
    through = {base, *(path for count in range(1, depth + 1) for path in base.glob("/".join(parts[:count])))}
    return sorted(path for path in through if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK))


def _read_list(path: Path, recursive: bool, results: Path | None) -> Iterator[FoundImage]:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: pass it without {LIST_MARK}, which marks a list of images.")
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read the list {path}: {error.strerror}") from error
    named = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    if not named:
        raise ValueError(f"The list {path} contains no images: write one path per line.")
    for name in named:
        if name == STANDARD_INPUT or "\0" in name or _is_list(name):
            raise ValueError(
                f"The list {path} has the line {name[:80]!r}: only files, folders and patterns are allowed."
            )
        is_file = not os.path.isdir(name) and not _is_pattern(name)
        for image in _find(name, recursive, results):
            leads_down = is_file and not image.file.is_absolute() and ".." not in image.file.parts
            yield image._replace(place=_without_suffix(image.file.as_posix())) if leads_down else image


def _below(folder: Path, results: Path | None) -> str | None:
    """Return the prefix that names of results have below a folder; None if they lie elsewhere or in it directly."""
    if results is None or not os.path.isdir(folder):
        return None
    root, own = Path(os.path.realpath(folder)), Path(os.path.realpath(results))
    return f"{own.relative_to(root).as_posix()}/" if root in own.parents else None


def _list_foreign(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" Pictures in unsupported formats: {', '.join(names[:5])}{more}."


def _find_place(name: str) -> str:
    """Return the place of an image's result; unsupported formats keep their suffix, so as not to clash with images."""
    return _without_suffix(name) if _is_image(name) else name


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePath(name).suffix)


RESULT_SUFFIXES = (
    *PICTURE_SUFFIXES,
    *(suffix for row in OUTPUT_KINDS.values() for suffix in (row.suffix, *row.contents) if not row.is_picture),
    *TIFF_SUFFIXES,
)
DEFAULT_FOLDER = Path("segmented")


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
) -> JobList:
    """Find the images and choose the paths of their results; nothing is opened or created.

    Jobs that cannot be done carry their problem: unreadable folders, and all but the first of several images with the
    same place.

    Args:
        inputs: Image files, folders, patterns and lists; see `find_images`.
        output: For one image file, a file, by default `NAME_KIND.png` beside it. Otherwise a folder, by default
            `segmented`; names without a suffix are folders. One kind is written to `PLACE.png` (or the usual suffix of
            the kind), several to `KIND/PLACE.png`.
        kinds: Kinds of result files (`OUTPUT_KINDS`, or "polygons" for two of them); by default label ids, or the
            kind that the suffix of `output` implies.
        recursive: Whether to search subfolders.
        outputs: Outputs of the network, for the default kind of networks without classes.

    Raises:
        ValueError: an unknown kind, an output that cannot hold it, no image, a file as output for several images or
            kinds, or the images' own folder as output.
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
        return _plan_single(Path(names[0]), output, chosen, outputs)
    folder = output or DEFAULT_FOLDER
    if _is_result(folder) and not os.path.isdir(folder):
        raise ValueError(f"The results of several images, or of a pattern, need a folder, not a file: {folder}.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"{folder} is a file: the results of several images, or of a pattern, need a folder.")
    found = find_images(names, recursive=recursive, results=folder)
    chosen = chosen or (usual_kind(outputs) or "labels",)
    items = _without_clashes([_as_item(image, folder, chosen) for image in found], folder)
    _refuse_mixing(items, folder)
    return JobList(items=items, kinds=chosen, folder=folder)


def _as_item(image: FoundImage, folder: Path, kinds: tuple[Kind, ...]) -> Job:
    targets = {} if image.problem is not None else _targets(folder, image.place, kinds)
    return Job(source=image.file, place=image.place, targets=targets, problem=image.problem)


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


def _targets(folder: Path, place: str, kinds: tuple[Kind, ...]) -> dict[Kind, Path]:
    homes = {kind: folder / file_word(kind) if len(kinds) > 1 else folder for kind in kinds}
    return {kind: home / f"{place}{usual_suffix(kind)}" for kind, home in homes.items()}


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
    advice = ", or name the folder that holds both, with --recursive (recursive=True)" if apart else ""
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
