"""Files here and in stores far away, by their places: `/a/folder/x.jpg`, `file:///a/folder/x.jpg`, `s3://bucket/x.jpg`.

A place is a text. What is here is read and written by the package's own ways; what is far away by PyArrow, which comes
with Ray Data. S3 takes its keys, its region and, for stores that are not Amazon's, its address from the environment:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from posixpath import splitext
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from refinenet.datasets.catalog import FOREIGN_SUFFIXES, IMAGE_SUFFIXES
from refinenet.deployment.inputs import Problem, walk_images
from refinenet.io.files import write_atomically
from refinenet.io.image_files import has_suffix, walk_names

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_REMOTE = ("s3",)


def as_place(place: str | os.PathLike[str]) -> str:
    """The place that a user names: a path stays one, a `file://` URI becomes one, `s3://` stays as it is.

    Raises:
        ValueError: a URI of another kind, or of another machine's file.
    """
    text = os.fspath(place)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    if scheme[1].lower() == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{text} names a file of the machine {parts.netloc!r}: write file:///FOLDER.")
        return url2pathname(parts.path)
    if scheme[1] not in _REMOTE or not text[scheme.end() :].strip("/"):
        raise ValueError(f"{text} is no place for images here: name a file or folder, file:///FOLDER or s3://BUCKET.")
    return text


def is_remote(place: str) -> bool:
    """Whether a place is in a store far away."""
    return _SCHEME.match(place) is not None


def is_here(place: str) -> bool:
    """Whether a place is a path of this machine's file systems."""
    return not is_remote(place)


def join(folder: str, name: str) -> str:
    """The place of a name, which may have folders in front, in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder, name))


def read_content(place: str) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it is not there or cannot be read; its place is named.
    """
    if is_here(place):
        return Path(place).read_bytes()
    store, path = _find(place)
    try:
        with store.open_input_stream(path) as stream:
            content: bytes = stream.read()
            return content
    except OSError as error:
        raise type(error)(f"Cannot read {place}: {_first_line(error)}") from error


def write_content(place: str, content: bytes) -> None:
    """Write a file, whole or not at all: here as `files.write_atomically`, in a store by its own way.

    Raises:
        ValueError, OSError: it cannot be written; its place is named.
    """
    if is_here(place):
        write_atomically(place, content)
        return
    store, path = _find(place)
    try:
        with store.open_output_stream(path) as stream:
            stream.write(content)
    except OSError as error:
        raise type(error)(f"Cannot write {place}: {_first_line(error)}") from error


def find_stamps(places: Iterable[str]) -> dict[str, str]:
    """What changes when a file is replaced, for each file that is there: its size and the time it was written at.

    Raises:
        OSError: a store cannot be asked.
    """
    stamps: dict[str, str] = {}
    wanted = set(places)
    for place in filter(is_here, wanted):
        try:
            facts = Path(place).stat()
        except OSError:
            continue
        stamps[place] = f"{facts.st_size}:{facts.st_mtime_ns}"
    # A store is asked for folders, not for files: one question for up to a thousand.
    for folder in {place.rpartition("/")[0] for place in filter(is_remote, wanted)}:
        for name, facts in _list(folder, recursive=False):
            stamps[join(folder, name)] = f"{facts.size}:{facts.mtime_ns // 1_000_000_000}"
    return {place: stamp for place, stamp in stamps.items() if place in wanted}


def list_names(folder: str, suffixes: Sequence[str]) -> list[str]:
    """The names of the files in a folder and below it that end in one of `suffixes`, sorted, hidden ones aside.

    Files in subfolders have these in front, parted by "/". A folder that is not there is empty.

    Raises:
        OSError: it cannot be read.
    """
    if is_here(folder):
        return sorted(walk_names(Path(folder), suffixes)) if Path(folder).exists() else []
    names = [name for name, _ in _list(folder, recursive=True)]
    return sorted(name for name in names if has_suffix(name.rpartition("/")[2], suffixes) and "/." not in f"/{name}")


def require_pyarrow() -> Any:
    """The module `pyarrow.fs`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pyarrow.fs
    except ImportError as error:
        raise ValueError("PyArrow is not installed: pip install 'refinenet[ray]'") from error
    return pyarrow.fs


def _list(folder: str, *, recursive: bool) -> list[tuple[str, Any]]:
    """Names and facts of the files in a store's folder; none where it is not there."""
    store, path = _find(folder)
    selector = require_pyarrow().FileSelector(path, recursive=recursive, allow_not_found=True)
    try:
        found = store.get_file_info(selector)
    except OSError as error:
        raise type(error)(f"Cannot read {folder}: {_first_line(error)}") from error
    return [(facts.path[len(path) :].lstrip("/"), facts) for facts in found if facts.is_file]


def _find(place: str) -> tuple[Any, str]:
    """The file system that a place is in, and its path there."""
    scheme, _, rest = place.partition("://")
    bucket, _, path = rest.partition("/")
    store, base = _open_store(f"{scheme}://{bucket}")
    return store, f"{base}/{path}".rstrip("/")


@lru_cache
def _open_store(address: str) -> tuple[Any, str]:
    """Kept, because each opening asks the network where a bucket lies."""
    store: tuple[Any, str] = require_pyarrow().FileSystem.from_uri(address)
    return store


def _first_line(error: OSError) -> str:
    return str(error).splitlines()[0]


DEFAULT_FOLDER = "segmented"


def pair_places(
    images: Sequence[str], output: str | None = None, *, recursive: bool = False
) -> tuple[list[tuple[str, str]], str | None]:
    """Pair each image with the place that its result goes to.

    Args:
        images: Files and folders: paths, `file://` or `s3://` URIs. Those of a folder are taken in alphabetical order.
        output: For one image file a file; else a folder, by default `segmented`, in which each image gets a `.png` file
            of its name, below the folders that it lies in below the folder named.
        recursive: Whether folders in folders are meant, too.

    Returns:
        The pairs, and the folder of the results, None where it is one file.

    Raises:
        ValueError: a place that is none, a folder without images, a file as output for several images, or the images'
            own folder.
        OSError: a folder cannot be read.
    """
    places = [as_place(image) for image in dict.fromkeys(images)]
    target = as_place(output or DEFAULT_FOLDER)
    if _is_image(target) and not _is_folder(target):
        if len(places) > 1 or not _is_image(places[0]) or _is_folder(places[0]):
            raise ValueError(f"Several images need a folder for their results, not one file: {target}.")
        return [(places[0], target)], None
    found = {image: name for place in places for image, name in _find_images(place, recursive, target)}
    # A picture of a kind that is not read fails alone: its place is in nobody's way.
    pairs = [
        (image, join(target, f"{splitext(name)[0] if _is_image(name) else name}.png")) for image, name in found.items()
    ]
    homes = {_folder_of(result) for _, result in pairs}
    mixed = next((image for image, _ in pairs if _folder_of(image) in homes), None)
    if mixed is not None:
        raise ValueError(f"{target} holds images themselves, such as {mixed}: results would mix. Name another folder.")
    return pairs, target


def find_skipped(images: Sequence[str], output: str | None = None, *, recursive: bool = False) -> dict[str, Problem]:
    """The folders that `pair_places` does not look through, with the reason: see `sources.find_images`.

    Args:
        images: As for `pair_places`.
        output: As for `pair_places`; what lies below it is left out.
        recursive: As for `pair_places`.
    """
    target = f"{_whole(as_place(output or DEFAULT_FOLDER))}/"
    skipped: dict[str, Problem] = {}
    for place in (as_place(image) for image in images):
        if is_here(place) and _is_folder(place):
            _, problems = walk_images(Path(place), recursive=recursive)
            skipped |= {join(place, name): problem for name, problem in problems.items()}
    return {place: problem for place, problem in skipped.items() if not f"{_whole(place)}/".startswith(target)}


def _find_images(place: str, recursive: bool, target: str) -> list[tuple[str, str]]:
    """Images with their names in the folder that they were found in."""
    if _is_image(place) and not _is_folder(place):
        return [(place, place.replace("\\", "/").rpartition("/")[2])]
    base, results = f"{_whole(place)}/", f"{_whole(target)}/"
    below = results.removeprefix(base) if results.startswith(base) else ""  # what an earlier run made is not meant
    names, problems = _list_directory(place)
    names = [name for name in names if not below or not name.startswith(below)]
    chosen = [name for name in names if recursive or "/" not in name]
    if not any(map(_is_image, chosen)) and not problems:
        hint = " Folders in it do: --recursive looks into them." if any(map(_is_image, names)) else ""
        raise ValueError(f"{place} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).{hint}")
    return [(join(place, name), name) for name in chosen]


def _list_directory(place: str) -> tuple[list[str], dict[str, Problem]]:
    if not is_here(place) or not _is_folder(place):
        return list_names(place, (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES)), {}
    names, problems = walk_images(Path(place), recursive=True)
    return sorted(names), problems


def _folder_of(place: str) -> str:
    return _whole(str(Path(place).parent) if is_here(place) else place.rpartition("/")[0])


def _whole(folder: str) -> str:
    """A folder by its only name."""
    return Path(os.path.realpath(folder)).as_posix() if is_here(folder) else folder.rstrip("/")


def _is_folder(place: str) -> bool:
    return is_here(place) and os.path.isdir(place)


def _is_image(place: str) -> bool:
    return place.lower().endswith(IMAGE_SUFFIXES)
