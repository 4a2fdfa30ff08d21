"""Search for the images that a user names: files, folders, patterns and lists. No image is opened here."""

from __future__ import annotations

import errno
import glob
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import NamedTuple

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.folder.band_files import is_band_folder, open_band_folder
from refinenet.io.files import refuse_address
from refinenet.io.images.band_images import ARRAY_SUFFIX, BAND_SUFFIXES
from refinenet.io.images.image_files import DOWNLOAD, FOREIGN_SUFFIXES, IMAGE_SUFFIXES, has_suffix, list_files

STANDARD_INPUT = "-"
LIST_MARK = "@"

_LISTED = (*BAND_SUFFIXES, *FOREIGN_SUFFIXES)
"""Includes formats that cannot be read, so that such files are reported as failures instead of silently ignored."""

Problem = ValueError | OSError


class BandParts(NamedTuple):
    """An image whose bands are in several files, in a folder with a bands.yaml."""

    dataset: Dataset
    item: str

    def list_files(self) -> list[Path]:
        """Return the files; those that are missing are reported on reading."""
        found = []
        for files in self.dataset.band_files:
            with suppress(FileNotFoundError):
                found.append(files.find(self.item))
        return [path for path in found if path is not None]


class FoundImage(NamedTuple):
    """An image and the place of its results."""

    file: Path
    place: str
    """Path below the results folder, with "/" between folders and without a suffix."""
    problem: Problem | None = None
    """Reason to skip it: a folder that cannot be read or is not searched."""
    parts: BandParts | None = None
    """The files of its bands, if there are several."""


class Search(NamedTuple):
    """How folders and patterns are searched."""

    recursive: bool = False
    """Whether to search subfolders."""
    results: Path | None = None
    """The results folder; images that folders and patterns find below it are ignored."""
    arrays: bool = False
    """Whether NumPy files are images, as for networks of named bands; otherwise they are skipped with a warning."""

    @property
    def suffixes(self) -> Sequence[str]:
        """Suffixes of images that can be read."""
        return BAND_SUFFIXES if self.arrays else IMAGE_SUFFIXES

    def is_image(self, name: str) -> bool:
        """Whether a file can be read, by its name."""
        return has_suffix(PurePath(name).name, self.suffixes)

    def is_skipped(self, name: str) -> bool:
        """Whether a file is an array for another network."""
        return not self.arrays and PurePath(name).suffix.lower() == ARRAY_SUFFIX

    def find_place(self, name: str) -> str:
        """Return the place of an image's result; unsupported formats keep their suffix, to avoid clashes."""
        return _without_suffix(name) if self.is_image(name) else name


def find_images(inputs: Sequence[str], search: Search) -> list[FoundImage]:
    """Find the images that inputs stand for, each once, in input order; within a folder, in alphabetical order.

    Unreadable folders, and with `search.recursive` links to folders outside, are listed with their problem.

    Args:
        inputs: Image files; folders of images; patterns with `*`, `?` or `[...]`, and `**` for subfolders; or `@FILE`,
            a text file with an input in each line. An existing file is never taken for a pattern.
        search: What folders and patterns find.

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
        for image in _find(name, search):
            found.setdefault(image.file, image)
    return list(found.values())


def refuse_missing(inputs: Sequence[str]) -> None:
    """Refuse inputs if none of them exists, before a model is loaded for them; patterns and lists are checked later.

    Raises:
        FileNotFoundError: All are paths, and nothing is there.
    """
    if inputs and not any(os.path.lexists(name) or _is_list(name) or glob.has_magic(name) for name in inputs):
        more = f" (nor the {len(inputs) - 1} others)" if len(inputs) > 1 else ""
        raise FileNotFoundError(f"There is no image file or folder {inputs[0]}{more}.")


def names_one_file(inputs: Sequence[str]) -> bool:
    """Return whether the only input is an image file, not a folder, pattern or list."""
    return (
        len(set(inputs)) == 1
        and bool(inputs[0].strip())
        and not _is_list(inputs[0])
        and not _is_pattern(inputs[0])
        and not os.path.isdir(inputs[0])
    )


def _find(source: str, search: Search) -> Iterator[FoundImage]:
    if not source.strip():
        raise ValueError("The path of an image is empty; for the current folder, pass '.'.")
    try:
        refuse_address("An image", source, DOWNLOAD)
    except ValueError as error:
        yield FoundImage(Path(source), _without_suffix(Path(source).name), error)
        return
    if _is_list(source):
        yield from _read_list(Path(source[len(LIST_MARK) :]), search)
    elif os.path.isdir(source):
        yield from _in_folder(Path(source), search)
    elif _is_pattern(source):
        yield from _of_pattern(source, search)
    else:
        yield FoundImage(Path(source), _without_suffix(Path(source).name))


def _is_list(source: str) -> bool:
    return source.startswith(LIST_MARK) and not os.path.lexists(source)


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not os.path.lexists(source)


def _in_band_folder(folder: Path) -> Iterator[FoundImage]:
    dataset = open_band_folder(folder)
    for item in dataset.items:
        file = dataset.image_file(item)
        assert file is not None
        yield FoundImage(file, item, parts=BandParts(dataset, item))


def _in_folder(folder: Path, search: Search) -> Iterator[FoundImage]:
    if search.arrays and is_band_folder(folder):
        yield from _in_band_folder(folder)
        return
    listed, problems = walk_images(folder, recursive=search.recursive)
    own = _below(folder, search.results)
    names = [name for name in sorted(listed) if own is None or not name.startswith(own)]
    images, arrays = _split(names, search)
    skipped = {name: problem for name, problem in problems.items() if own is None or not f"{name}/".startswith(own)}
    if not any(map(search.is_image, images)) and not skipped:
        deeper = not search.recursive and any(map(search.is_image, _walk(folder)[0]))
        hint = " Its subfolders do: add --recursive (in Python recursive=True)." if deeper else ""
        looked_for = ", ".join(search.suffixes)
        raise ValueError(f"{folder} holds no images (looked for {looked_for}).{hint}{_list_foreign(images, arrays)}")
    _note_arrays(str(folder), arrays)
    yield from (FoundImage(folder / name, search.find_place(name)) for name in images)
    yield from (FoundImage(folder / name, name, skipped[name]) for name in sorted(skipped))


def _split(names: Sequence[str], search: Search) -> tuple[list[str], list[str]]:
    """Return the images, and the arrays that are skipped."""
    arrays = [name for name in names if search.is_skipped(name)]
    return [name for name in names if not search.is_skipped(name)], arrays


def _note_arrays(source: str, arrays: Sequence[str]) -> None:
    if arrays:
        warnings.warn(f"{source}: {_describe_arrays(arrays)}", stacklevel=2)


def _describe_arrays(arrays: Sequence[str]) -> str:
    return f"NumPy files are read only by networks with named bands, and are skipped: {_enumerate(arrays)}."


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
        return [path.name for path in list_files(folder, _LISTED)], {}
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
        names += [_name_below(folder, parent, name) for name in files if has_suffix(name, _LISTED)]
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


def _of_pattern(pattern: str, search: Search) -> Iterator[FoundImage]:
    parts = Path(pattern).parts
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:plain])
    own = _below(base, search.results)
    wildcards = "/".join(parts[plain:])
    found = base.glob(wildcards + "/*" if parts[-1] == "**" else wildcards)
    names = sorted(path.relative_to(base).as_posix() for path in found if not os.path.isdir(path))
    listed = [
        name
        for name in names
        if has_suffix(name, _LISTED)
        and (own is None or not name.startswith(own))
        and not any(part.startswith(".") for part in PurePath(name).parts)
    ]
    images, arrays = _split(listed, search)
    closed = _find_closed(base, parts[plain:])
    if not any(map(search.is_image, images)) and not closed:
        found_else, looked_for = _list_foreign(images, arrays), ", ".join(search.suffixes)
        raise ValueError(f"No image matches the pattern {pattern!r} (looked for {looked_for}).{found_else}")
    _note_arrays(pattern, arrays)
    yield from (FoundImage(base / name, search.find_place(name)) for name in images)
    for folder in closed:
        yield FoundImage(folder, folder.name, _unreadable(folder, PermissionError(errno.EACCES, "Permission denied")))


def _find_closed(base: Path, parts: Sequence[str]) -> list[Path]:
    """Return the unreadable folders on the way of a pattern, which `Path.glob` skips silently."""
    depth = len(parts) if parts[-1] == "**" else len(parts) - 1
    through = {base, *(path for count in range(1, depth + 1) for path in base.glob("/".join(parts[:count])))}
    return sorted(path for path in through if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK))


def _read_list(path: Path, search: Search) -> Iterator[FoundImage]:
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
        for image in _find(name, search):
            leads_down = is_file and not image.file.is_absolute() and ".." not in image.file.parts
            yield image._replace(place=_without_suffix(image.file.as_posix())) if leads_down else image


def _below(folder: Path, results: Path | None) -> str | None:
    """Return the prefix that names of results have below a folder; None if they lie elsewhere or in it directly."""
    if results is None or not os.path.isdir(folder):
        return None
    root, own = Path(os.path.realpath(folder)), Path(os.path.realpath(results))
    return f"{own.relative_to(root).as_posix()}/" if root in own.parents else None


def _list_foreign(names: Sequence[str], arrays: Sequence[str]) -> str:
    foreign = f" Pictures in unsupported formats: {_enumerate(names)}." if names else ""
    return f"{foreign} {_describe_arrays(arrays)}" if arrays else foreign


def _enumerate(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePath(name).suffix)
