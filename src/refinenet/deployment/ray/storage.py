"""Local files and objects in stores, addressed by strings: `/a/folder/x.jpg`, `file:///a/folder/x.jpg`, `s3://bucket/x.jpg`.

Local files go through `deployment.image_search` and `io.files`, objects in stores through PyArrow, which
comes with Ray Data. S3 takes its keys, region and, for stores other than Amazon's, its address from the environment:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from posixpath import splitext
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from refinenet.deployment.image_search import (
    STANDARD_INPUT,
    FoundImage,
    Problem,
    Search,
    find_images,
    names_one_file,
)
from refinenet.io.files import write_atomically
from refinenet.io.images.image_files import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, has_suffix, walk_names

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_REMOTE = ("s3",)


def as_place(place: str | os.PathLike[str]) -> str:
    """Return the place that a user names: `file://` URIs become paths; paths and `s3://` URIs stay as they are.

    Raises:
        ValueError: another kind of URI, or a file of another machine.
    """
    text = os.fspath(place)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    if scheme[1].lower() == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{text} is a file on the machine {parts.netloc!r}: write file:///FOLDER.")
        return url2pathname(parts.path)
    if scheme[1] not in _REMOTE or not text[scheme.end() :].strip("/"):
        raise ValueError(
            f"{text} is not a valid location for images: pass a file or folder, file:///FOLDER or s3://BUCKET."
        )
    return text


def is_remote(place: str) -> bool:
    """Return whether a place is in a store."""
    return _SCHEME.match(place) is not None


def is_here(place: str) -> bool:
    """Return whether a place is a path in this machine's file systems."""
    return not is_remote(place)


def join(folder: str, name: str) -> str:
    """Return the place of a name, which may include folders, in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder, name))


def read_content(place: str) -> bytes:
    """Read a file.

    Raises:
        OSError: it does not exist or cannot be read; the message names its place.
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
    """Write a file, whole or not at all: locally by `io.files.write_atomically`, in a store by the store itself.

    Raises:
        ValueError, OSError: it cannot be written; the message names its place.
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
    """Return a stamp of size and modification time, which changes when a file is replaced, for each existing file.

    Raises:
        OSError: a store does not answer.
    """
    stamps: dict[str, str] = {}
    wanted = set(places)
    for place in filter(is_here, wanted):
        try:
            facts = Path(place).stat()
        except OSError:
            continue
        stamps[place] = f"{facts.st_size}:{facts.st_mtime_ns}"
    # One request lists up to a thousand files of a folder; stamps of single files would take one request each.
    for folder in {place.rpartition("/")[0] for place in filter(is_remote, wanted)}:
        for name, facts in _list(folder, recursive=False):
            stamps[join(folder, name)] = f"{facts.size}:{facts.mtime_ns // 1_000_000_000}"
    return {place: stamp for place, stamp in stamps.items() if place in wanted}


def list_names(folder: str, suffixes: Sequence[str]) -> list[str]:
    """Return the sorted names of the files with one of `suffixes` in and below a folder, without hidden ones.

    Names include subfolders, with "/" in between. A missing folder counts as empty.

    Raises:
        OSError: it cannot be read.
    """
    if is_here(folder):
        return sorted(walk_names(Path(folder), suffixes)) if Path(folder).exists() else []
    names = [name for name, _ in _list(folder, recursive=True)]
    return sorted(name for name in names if has_suffix(name.rpartition("/")[2], suffixes) and "/." not in f"/{name}")


def require_pyarrow() -> Any:
    """Import `pyarrow.fs`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pyarrow.fs
    except ImportError as error:
        raise ValueError("PyArrow is not installed: pip install 'refinenet-torch[ray]'") from error
    return pyarrow.fs


def _list(folder: str, *, recursive: bool) -> list[tuple[str, Any]]:
    """Return names and properties of the files in a store's folder; a missing folder counts as empty."""
    store, path = _find(folder)
    selector = require_pyarrow().FileSelector(path, recursive=recursive, allow_not_found=True)
    try:
        found = store.get_file_info(selector)
    except OSError as error:
        raise type(error)(f"Cannot read {folder}: {_first_line(error)}") from error
    return [(facts.path[len(path) :].lstrip("/"), facts) for facts in found if facts.is_file]


def _find(place: str) -> tuple[Any, str]:
    """Return the file system of a place, and its path there."""
    scheme, _, rest = place.partition("://")
    bucket, _, path = rest.partition("/")
    store, base = _open_store(f"{scheme}://{bucket}")
    return store, f"{base}/{path}".rstrip("/")


@lru_cache
def _open_store(address: str) -> tuple[Any, str]:
    """Open a store; cached, because each opening asks the network for the bucket's region."""
    store: tuple[Any, str] = require_pyarrow().FileSystem.from_uri(address)
    return store


def _first_line(error: OSError) -> str:
    return str(error).splitlines()[0]


DEFAULT_FOLDER = "segmented"


def pair_places(
    images: Sequence[str], output: str | None = None, *, recursive: bool = False, suffix: str = ".png"
) -> tuple[list[tuple[str, str]], str | None]:
    """Pair each image with the place of its result.

    Args:
        images: Local inputs as for `image_search.find_images`, `file://` URIs, and files and folders as `s3://` URIs.
            Images of a folder come in alphabetical order.
        output: For one image file, a file; otherwise a folder, by default `segmented`, in which each image gets a
            file with its name, below its subfolders.
        recursive: Whether to search subfolders.
        suffix: Suffix of the files in a folder.

    Returns:
        The pairs, and the results folder, which is None if the output is one file.

    Raises:
        ValueError: an invalid place, a folder without images, a file as output for several images, or the images' own
            folder as output.
        OSError: a folder cannot be read.
    """
    from refinenet.deployment.inputs import RESULT_SUFFIXES  # imports PyTorch, which processes that read do not need

    places = [as_place(image) for image in dict.fromkeys(images)]
    target = as_place(output or DEFAULT_FOLDER)
    if target.lower().endswith((*IMAGE_SUFFIXES, *RESULT_SUFFIXES)) and not _is_folder(target):
        if len(places) > 1 or not _is_one_image(places[0]):
            raise ValueError(f"The results of several images need a folder, not a file: {target}.")
        return [(places[0], target)], None
    found = {image: item.place for image, item in _find_all(places, recursive, target) if item.problem is None}
    pairs = [(image, join(target, f"{place}{suffix}")) for image, place in found.items()]
    homes = {_folder_of(result) for _, result in pairs}
    mixed = next((image for image, _ in pairs if _folder_of(image) in homes), None)
    if mixed is not None:
        raise ValueError(
            f"{target} contains input images, such as {mixed}: results would mix with them. Choose another folder."
        )
    return pairs, target


def find_skipped(images: Sequence[str], output: str | None = None, *, recursive: bool = False) -> dict[str, Problem]:
    """Return the folders that `pair_places` does not search, with the reason; see `image_search.find_images`.

    Args:
        images: As for `pair_places`.
        output: As for `pair_places`; folders below it are ignored.
        recursive: As for `pair_places`.
    """
    target = as_place(output or DEFAULT_FOLDER)
    found = _find_all([as_place(image) for image in images], recursive, target)
    return {image: item.problem for image, item in found if item.problem is not None}


def _find_all(places: Sequence[str], recursive: bool, target: str) -> Iterator[tuple[str, FoundImage]]:
    """Yield the images with their places below the results folder; local ones exactly as a run on one machine."""
    results = Path(target) if is_here(target) else None
    for place in places:
        if place == STANDARD_INPUT:
            raise ValueError("- (standard input) cannot be read with Ray: pass files or folders.")
        if is_here(place):
            found = find_images([place], Search(recursive, results))
            yield from ((str(image.file), image) for image in found)
        else:
            yield from _find_stored(place, recursive, target)


def _find_stored(place: str, recursive: bool, target: str) -> Iterator[tuple[str, FoundImage]]:
    """As `_find_all`, for a file or folder in a store."""
    if _is_image(place):
        name = place.rpartition("/")[2]
        yield place, FoundImage(Path(name), splitext(name)[0])
        return
    base, results = f"{_whole(place)}/", f"{_whole(target)}/"
    below = results.removeprefix(base) if results.startswith(base) else ""  # results of earlier runs are not inputs
    names = list_names(place, (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES))
    names = [name for name in names if not below or not name.startswith(below)]
    chosen = [name for name in names if recursive or "/" not in name]
    if not any(map(_is_image, chosen)):
        hint = " Its subfolders do: add --recursive (in Python recursive=True)." if any(map(_is_image, names)) else ""
        raise ValueError(f"{place} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).{hint}")
    for name in chosen:
        # Unsupported formats, which fail alone, keep their suffix, so as not to clash with images.
        yield join(place, name), FoundImage(Path(name), splitext(name)[0] if _is_image(name) else name)


def _folder_of(place: str) -> str:
    return _whole(str(Path(place).parent) if is_here(place) else place.rpartition("/")[0])


def _whole(folder: str) -> str:
    """Return the canonical name of a folder."""
    return Path(os.path.realpath(folder)).as_posix() if is_here(folder) else folder.rstrip("/")


def _is_folder(place: str) -> bool:
    return is_here(place) and os.path.isdir(place)


def _is_image(place: str) -> bool:
    return place.lower().endswith(IMAGE_SUFFIXES)


def _is_one_image(place: str) -> bool:
    return _is_image(place) and (not is_here(place) or names_one_file([place]))
