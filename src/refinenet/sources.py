"""Which images are meant: by files, folders, patterns and lists of them; none is opened."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from refinenet.datasets import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, has_suffix, list_files, walk_names

STANDARD_INPUT = "-"
LIST_MARK = "@"

_PICTURES = (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES)
"""Pictures that are not read are found as well, so that they are reported with the others that fail."""


class FoundImage(NamedTuple):
    """An image and where its results belong."""

    file: Path
    place: str
    """Below a folder of results, folders parted by "/", without a suffix."""


def find_images(sources: Sequence[str], *, recursive: bool = False, results: Path | None = None) -> list[FoundImage]:
    """The images that are meant, each once: in the order of the sources, those of a folder in alphabetical order.

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
    found: dict[Path, str] = {}
    if not sources:
        raise ValueError("No image is named: name files, folders or patterns.")
    for source in sources:
        for file, place in _find(source, recursive, results):
            found.setdefault(file, place)
    return [FoundImage(file, place) for file, place in found.items()]


def names_one_file(sources: Sequence[str]) -> bool:
    """Whether one image file is named, not a folder, pattern or list."""
    return (
        len(set(sources)) == 1
        and bool(sources[0].strip())
        and not _is_list(sources[0])
        and not _is_pattern(sources[0])
        and not Path(sources[0]).is_dir()
    )


def _find(source: str, recursive: bool, results: Path | None) -> Iterator[tuple[Path, str]]:
    if not source.strip():
        raise ValueError("The name of an image is empty; the current folder is called '.'.")
    if _is_list(source):
        yield from _read_list(Path(source[len(LIST_MARK) :]), recursive, results)
    elif Path(source).is_dir():
        yield from _in_folder(Path(source), recursive, results)
    elif _is_pattern(source):
        yield from _of_pattern(source, results)
    else:
        yield Path(source), _without_suffix(Path(source).name)


def _is_list(source: str) -> bool:
    return source.startswith(LIST_MARK) and not Path(source).exists()


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not Path(source).exists()


def _in_folder(folder: Path, recursive: bool, results: Path | None) -> Iterator[tuple[Path, str]]:
    if recursive:
        names = sorted(walk_names(folder, _PICTURES))
    else:
        names = sorted(path.name for path in list_files(folder, _PICTURES))
    own = _below(folder, results)
    images = [name for name in names if own is None or not name.startswith(own)]
    if not any(has_suffix(PurePath(name).name, IMAGE_SUFFIXES) for name in images):
        deeper = not recursive and any(walk_names(folder, IMAGE_SUFFIXES))
        hint = " Folders in it do: they are looked through with --recursive (recursive=True)." if deeper else ""
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).{hint}{_say_foreign(images)}"
        )
    yield from ((folder / name, _find_place(name)) for name in images)


def _of_pattern(pattern: str, results: Path | None) -> Iterator[tuple[Path, str]]:
    parts = Path(pattern).parts
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:plain])
    own = _below(base, results)
    signs = "/".join(parts[plain:])
    found = base.glob(signs + "/*" if parts[-1] == "**" else signs)
    names = sorted(path.relative_to(base).as_posix() for path in found if path.is_file())
    images = [
        name
        for name in names
        if has_suffix(name, _PICTURES)
        and (own is None or not name.startswith(own))
        and not any(part.startswith(".") for part in PurePath(name).parts)
    ]
    if not any(has_suffix(name, IMAGE_SUFFIXES) for name in images):
        looked_for = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"No image fits the pattern {pattern!r} (looked for {looked_for}).{_say_foreign(images)}")
    yield from ((base / name, _find_place(name)) for name in images)


def _read_list(path: Path, recursive: bool, results: Path | None) -> Iterator[tuple[Path, str]]:
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
        is_file = not Path(name).is_dir() and not _is_pattern(name)
        for file, place in _find(name, recursive, results):
            leads_down = is_file and not file.is_absolute() and ".." not in file.parts
            yield file, _without_suffix(file.as_posix()) if leads_down else place


def _below(folder: Path, results: Path | None) -> str | None:
    """How names of results begin that lie below a folder, but are not the folder itself."""
    if results is None or not folder.is_dir():
        return None
    root, own = folder.resolve(), results.resolve()
    return f"{own.relative_to(root).as_posix()}/" if root in own.parents else None


def _say_foreign(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" Pictures of kinds that are not read: {', '.join(names[:5])}{more}."


def _find_place(name: str) -> str:
    """Where the result of an image belongs; a picture that is not read, which fails alone, is in nobody's way."""
    return _without_suffix(name) if has_suffix(PurePath(name).name, IMAGE_SUFFIXES) else name


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePath(name).suffix)
